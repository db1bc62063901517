//! Servers that do what no honest one does: cut, stall, and send elsewhere.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What a proxy does with a connection after so many bytes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Then {
    Cut,
    Stall,
}

/// Stands before a registry. The first `times` connections that carry more than `limit`
/// bytes end badly.
pub(crate) fn proxy(to: &str, limit: u64, then: Then, times: usize) -> String {
    let (listener, address) = listener();
    let to = to.to_owned();
    let left = Arc::new(AtomicUsize::new(times));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (to, left) = (to.clone(), Arc::clone(&left));
            std::thread::spawn(move || relay(client, &to, limit, then, &left));
        }
    });
    address
}

fn relay(client: TcpStream, to: &str, limit: u64, then: Then, left: &AtomicUsize) {
    let Ok(server) = TcpStream::connect(to) else { return };
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let mut client = client;
    let copied = io::copy(&mut (&server).take(limit), &mut client);
    if copied.is_ok_and(|copied| copied == limit) {
        let take = |left: usize| left.checked_sub(1);
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) if then == Then::Stall => loop {
                std::thread::park();
            },
            Ok(_) => {}
            Err(_) => drop(io::copy(&mut &server, &mut client)),
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// A server that answers by a rule, one request per connection, and remembers what it was
/// asked.
pub(crate) struct Server {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

/// Status line's end, headers, body.
pub(crate) type Answer = (&'static str, Vec<(&'static str, String)>, Vec<u8>);

impl Server {
    pub(crate) fn start(answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let (listener, address) = listener();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let Ok(head) = request(&mut client) else { continue };
                let (status, headers, body) = answer(&head);
                seen.lock().expect("whole").push(head);
                let mut text = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n",
                    body.len()
                );
                for (name, value) in headers {
                    text.push_str(&format!("{name}: {value}\r\n"));
                }
                text.push_str("\r\n");
                let _ = client.write_all(text.as_bytes()).and_then(|()| client.write_all(&body));
            }
        });
        Self { address, requests }
    }

    /// All requests, with their bodies.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("whole").clone()
    }
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

/// Reads head and body. What is no text, such as a greeting of TLS, is an error.
fn request(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
        if !head[0].is_ascii_uppercase() {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let text = String::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData)?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body)?;
    Ok(text + &String::from_utf8_lossy(&body))
}
