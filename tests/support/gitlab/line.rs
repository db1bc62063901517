//! Connections that can be cut, and bodies that come slowly or not to their end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::connect_info::Connected;
use axum::http::header;
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;

/// One client's connection.
#[derive(Clone)]
pub(super) struct Line(Option<Arc<OwnedFd>>);

impl Line {
    /// Ends the connection as a crash does: without another byte.
    pub(super) async fn cut(&self) -> Response {
        if let Some(socket) = &self.0 {
            // The client may have gone by itself.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
        std::future::pending().await
    }
}

impl Connected<IncomingStream<'_, Door>> for Line {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(rustix::io::dup(stream.io()).ok().map(Arc::new))
    }
}

/// The port, without Nagle's delay.
pub(super) struct Door(pub(super) TcpListener);

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // A connection that has ended already needs none.
        let _ = stream.set_nodelay(true);
        (stream, address)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The same answer, one byte at a time.
pub(super) async fn slow_body(response: Response, pause: Duration) -> Response {
    let (mut parts, bytes) = whole(response).await;
    parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    let pieces = (0..bytes.len()).map(move |at| Ok::<_, Infallible>(bytes.slice(at..=at)));
    Response::from_parts(parts, Body::from_stream(tokio_stream::iter(pieces).throttle(pause)))
}

/// The same answer, with an end in the middle of its body.
pub(super) async fn cut_body(response: Response) -> Response {
    let (mut parts, bytes) = whole(response).await;
    parts.headers.insert(header::CONTENT_LENGTH, (bytes.len().max(1)).into());
    let half = bytes.slice(..bytes.len() / 2);
    let pieces = [Ok(half), Err(std::io::Error::other("cut"))];
    Response::from_parts(parts, Body::from_stream(tokio_stream::iter(pieces)))
}

async fn whole(response: Response) -> (axum::http::response::Parts, Bytes) {
    let (parts, body) = response.into_parts();
    // Our own answers are in memory already.
    (parts, to_bytes(body, usize::MAX).await.unwrap_or_default())
}
