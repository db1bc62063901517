//! Plugins that get as far as their handshake, then misbehave in a way that a shell
//! script cannot. Which way is told by the name that the program is started under.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

fn main() {
    let started_as = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let fault = started_as.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let given = std::env::var_os("PLUGIN_UNIX_SOCKET_DIR").map(PathBuf::from).unwrap_or_default();
    let socket = match fault.as_str() {
        "foreign-socket" => started_as.with_file_name("elsewhere"),
        _ => given.join("plugin"),
    };
    let listener = UnixListener::bind(&socket).expect("a socket");
    println!("1|0|unix|{}|grpc|", socket.display());
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut bytes = [0; 1024];
    let _ = stream.read(&mut bytes);
    match fault.as_str() {
        "crash" => panic!("nil map"),
        "exit" => std::process::exit(0),
        "web-server" => {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
        _ => {}
    }
    std::thread::sleep(Duration::from_secs(100_000));
}
