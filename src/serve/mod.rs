//! A plugin's whole life: check the cookie, listen, shake hands, serve, clean up.
//!
//! Order matters: the socket is bound and every service stands before the handshake
//! line is printed, since the host connects the moment it has read it. Nothing else is
//! ever printed on stdout.

mod go_plugin;
mod logging;
mod parent;
mod service;
mod socket;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use crate::contract::{Error, InstanceGroup};
use crate::handshake::{self, COOKIE_NAME, COOKIE_VALUE};

/// How long calls in flight may take to end once the host has said `Shutdown`. go-plugin
/// kills after 2 s.
const DRAIN: Duration = Duration::from_secs(1);

/// What stock plugins say to someone who starts them by hand.
const NOT_BY_HAND: &str = "This binary is a plugin. These are not meant to be executed directly.
Please execute the program that consumes these plugins, which will
load any plugins automatically
";

/// Runs `group` as a provider plugin until its host ends it: the whole `main` of a
/// plugin binary.
///
/// `version` prints name and version. Started by hand, the plugin says what it is and
/// ends with 1.
pub fn serve<G: InstanceGroup>(group: G) -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("version" | "-version" | "--version") => {
            println!("{}", G::BUILD);
            return ExitCode::SUCCESS;
        }
        _ if std::env::var(COOKIE_NAME).as_deref() != Ok(COOKIE_VALUE) => {
            eprint!("{NOT_BY_HAND}");
            return ExitCode::FAILURE;
        }
        _ => {}
    }
    logging::init(G::BUILD.name);
    match run(group) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "plugin cannot serve");
            ExitCode::FAILURE
        }
    }
}

fn run<G: InstanceGroup>(group: G) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(format!("cannot start the async runtime: {error}")))?;
    let result = runtime.block_on(listen_and_serve(group));
    // A call that hangs must not keep the process.
    runtime.shutdown_background();
    result
}

async fn listen_and_serve<G: InstanceGroup>(group: G) -> Result<(), Error> {
    let ending = CancellationToken::new();
    let socket = socket::bind()?;
    let service = Arc::new(service::Service::new(group));
    let router = tonic::transport::Server::builder()
        .add_service(service::server(Arc::clone(&service)))
        .add_service(go_plugin::broker(ending.clone()))
        .add_service(go_plugin::controller(ending.clone()))
        .add_service(go_plugin::stdio(ending.clone()))
        .add_service(go_plugin::health(ending.clone()));
    ignore_signals()?;
    parent::watch(ending.clone());

    let line = handshake::render(&handshake::Address::Unix(socket.path().to_owned()));
    let mut stdout = std::io::stdout();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush())?;

    let (listener, _remove_on_drop) = socket.into_parts();
    let incoming = UnixListenerStream::new(listener);
    let serving = router.serve_with_incoming_shutdown(incoming, ending.clone().cancelled_owned());
    tokio::pin!(serving);
    let bounded = async {
        ending.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = &mut serving => result.map_err(|error| Error::new(error.to_string()))?,
        () = bounded => tracing::debug!("calls were still running at the end"),
    }
    service.end(DRAIN).await;
    Ok(())
}

/// The host decides when a plugin ends: a signal to the whole process group, from a
/// terminal or a service manager, must not end it before the host's `Shutdown`.
fn ignore_signals() -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = signal(kind)?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                tracing::trace!("plugin received a signal, ignoring");
            }
        });
    }
    Ok(())
}
