//! `fleeting-plugin-planted`: a provider of made-up instances, correct on the wire, or with
//! the one fault that its file name asks for. It shares no code with the plugin library.

mod cloud;
mod fault;
mod provider;
mod services;

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use fault::Fault;
use rustix::process::getppid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;

const COOKIE: (&str, &str) =
    ("FLEETING_INSTANCE_GROUP_PLUGIN", "4c6410b1-cb78-4962-8c76-ab936d0ea908");

fn main() -> ExitCode {
    let fault = Fault::of_this_name();
    if std::env::args().nth(1).as_deref() == Some("version") && fault != Fault::NoVersion {
        println!("Name:         planted\nVersion:      1.0");
        return ExitCode::SUCCESS;
    }
    let has_cookie = std::env::var(COOKIE.0).as_deref() == Ok(COOKIE.1);
    if !has_cookie && fault != Fault::ServesByHand {
        if fault != Fault::SilentByHand {
            eprintln!("This binary is a plugin. It is started by its host.");
        }
        return ExitCode::FAILURE;
    }
    let versions = std::env::var("PLUGIN_PROTOCOL_VERSIONS");
    if fault == Fault::PickyVersions && versions.as_deref() != Ok("0") {
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let status = runtime.block_on(serve(fault));
    runtime.shutdown_background();
    status
}

async fn serve(fault: Fault) -> ExitCode {
    let directory = match fault {
        Fault::SocketElsewhere => std::env::temp_dir().join("elsewhere"),
        _ => PathBuf::from(std::env::var_os("PLUGIN_UNIX_SOCKET_DIR").unwrap_or("/tmp".into())),
    };
    std::fs::create_dir_all(&directory).expect("a directory");
    let socket = directory.join(format!("planted{}", std::process::id()));
    let listener = UnixListener::bind(&socket).expect("a socket");
    listener.set_nonblocking(true).expect("it can wait");
    let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
    obey_signals(fault);

    let (end, ending) = watch::channel(false);
    watch_parent(fault, end.clone());
    let mut stdout = std::io::stdout();
    if fault == Fault::Banner {
        println!("planted 1.0 starting");
    }
    println!("1|0|unix|{}|grpc|", socket.display());
    if fault == Fault::ChattersAtStart {
        println!("listening");
    }
    let _ = stdout.flush();

    let mut told = ending.clone();
    let serving =
        services::router(fault, end, ending).serve_with_incoming(UnixListenerStream::new(listener));
    tokio::select! {
        result = serving => result.expect("it serves"),
        _ = told.wait_for(|ended| *ended) => {}
    }
    // The answer to the call that ended it is still on its way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    leave(fault, &socket)
}

/// The end of the process, and what stays.
fn leave(fault: Fault, socket: &std::path::Path) -> ExitCode {
    if fault != Fault::LeavesSocket {
        let _ = std::fs::remove_file(socket);
    }
    if fault == Fault::LeavesFile {
        let _ = std::fs::write(std::env::temp_dir().join("credentials"), "");
    }
    if fault == Fault::LeavesProcess {
        // In a session of its own, where no host finds it.
        let _ = Command::new("setsid").args(["--fork", "sleep", "1000"]).status();
    }
    if fault == Fault::BadStatus { ExitCode::from(3) } else { ExitCode::SUCCESS }
}

fn obey_signals(fault: Fault) {
    if fault != Fault::DiesAtInterrupt {
        let mut signals = signal(SignalKind::interrupt()).expect("a signal");
        tokio::spawn(async move { while signals.recv().await.is_some() {} });
    }
    let mut signals = signal(SignalKind::terminate()).expect("a signal");
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            if fault == Fault::FreezesAtTerminate {
                std::thread::sleep(Duration::from_secs(10_000));
            }
        }
    });
}

fn watch_parent(fault: Fault, end: watch::Sender<bool>) {
    if fault == Fault::OutlivesParent {
        return;
    }
    let parent = getppid();
    tokio::spawn(async move {
        while getppid() == parent {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let _ = end.send(true);
    });
}
