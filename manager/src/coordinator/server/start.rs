//! Puts a server together and starts its two tasks: serving, and looking after lost jobs.

use std::{
    fs, io,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, broadcast, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Handle, Options,
    ledger::Ledger,
    listener::Bounded,
    routes,
    state::{JobFiles, Server},
    trace::Trace,
};
use crate::coordinator::{pipeline::Pipeline, snapshot::Snapshot};

/// Events kept for a listener that is behind; one further behind misses the oldest.
const EVENT_CAPACITY: usize = 16 << 10;
/// How often jobs are looked at for having gone silent.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// Starts to serve `pipeline` on `listener`, which belongs on a loopback address. Jobs clone
/// `snapshot`, whose files must outlive the server.
///
/// # Errors
/// When the listener has no address or the directories of `options` cannot be made.
pub(crate) fn start(
    listener: TcpListener,
    pipeline: Pipeline,
    snapshot: &Snapshot,
    options: Options,
) -> io::Result<Handle> {
    let address = listener.local_addr()?;
    fs::create_dir_all(&options.trace_directory)?;
    fs::create_dir_all(&options.artifact_directory)?;
    let url = options.url.clone().unwrap_or_else(|| format!("http://{address}"));
    let (events, first) = broadcast::channel(EVENT_CAPACITY);
    let (outcome_sender, outcome) = watch::channel(None);
    let ledger = Ledger::new(&pipeline.jobs, events.clone(), outcome_sender);
    let files = pipeline.jobs.iter().enumerate().map(|(index, job)| JobFiles {
        token: format!("glcbt-{}", new_token()),
        trace: tokio::sync::Mutex::new(Trace::new(Trace::path(&options, index, &job.name))),
    });
    let server = Arc::new(Server {
        files: files.collect(),
        url: url.trim_end_matches('/').into(),
        git_dir: snapshot.git_dir.clone(),
        is_shallow: snapshot.is_shallow,
        clones: Arc::new(Semaphore::new(options.limits.clones)),
        stop: CancellationToken::new(),
        pipeline,
        options,
        ledger,
    });
    let cut = CancellationToken::new();
    let listener = Bounded::new(listener, &server.options.limits, cut.clone());
    let serving = axum::serve(listener, routes::router(Arc::clone(&server)))
        .with_graceful_shutdown(server.stop.clone().cancelled_owned());
    let serving = Some(tokio::spawn(async move { serving.await }));
    tokio::spawn(reap(Arc::clone(&server)));
    Ok(Handle { server, events, first: Mutex::new(Some(first)), outcome, serving, cut })
}

/// A new secret: 256 bits, in characters that are sound in addresses and headers.
pub(crate) fn new_token() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

async fn reap(server: Arc<Server>) {
    let mut ticks = interval(REAP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => server.reap(Instant::now()),
            () = server.stop.cancelled() => return,
        }
    }
}
