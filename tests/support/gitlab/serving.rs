//! The thread that serves, and its end.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::api;
use super::line::{Door, Line};
use super::shared::Shared;

/// A port that is being served. Dropping it closes the port and all connections.
pub(super) struct Serving {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    pub(super) fn start(listener: TcpListener, shared: Arc<Shared>) -> Self {
        let (end, ended) = oneshot::channel();
        listener.set_nonblocking(true).expect("a socket that does not block");
        // One thread serves thousands of requests a second, and leaves the other cores to
        // what is being tested.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for the server");
        let serve = move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let routes = api::routes(shared).into_make_service_with_connect_info::<Line>();
                tokio::select! {
                    _ = axum::serve(Door(listener), routes) => {}
                    _ = ended => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("gitlab".into()).spawn(serve);
        Self { end: Some(end), thread: Some(thread.expect("a thread for the server")) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed by the thread itself.
            let _ = thread.join();
        }
    }
}
