//! The process that serves SSH inside an instance.

use std::future::Future;
use std::net::TcpListener;

use crate::failed::{During as _, Failed};

/// Closes what the plugin's host left open for its children: it is none of the jobs'
/// business. Must come before this process opens anything.
pub fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // The descriptor of the listing itself is closed already.
        let _ = nix::unistd::close(fd);
    }
}

/// Serves until `is_over`; warnings go to stderr. The process has no other runtime or log.
pub fn serve_ssh(
    server: sshd::Server,
    listener: TcpListener,
    is_over: impl Future<Output = ()>,
) -> Result<(), Failed> {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    listener.set_nonblocking(true).during("use the listener")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .during("start the async runtime")?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).during("use the listener")?;
        server.serve(listener, is_over).await.map_err(std::io::Error::other).during("serve SSH")
    })
}
