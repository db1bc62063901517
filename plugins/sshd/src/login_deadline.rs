//! A TCP stream that fails unless its client logs in soon.
//!
//! russh has no limit of its own on this: without one, clients that only connect would
//! hold their places for ever. Where all places are taken the oldest client has to go,
//! so that nobody can keep others out by waiting.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

/// Says that the client of a stream has logged in.
#[derive(Clone, Default)]
pub(crate) struct LoggedIn(Arc<AtomicBool>);

impl LoggedIn {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The clients that have not logged in, oldest first.
pub(crate) struct Logins {
    places: usize,
    limit: Duration,
    waiting: VecDeque<oneshot::Sender<()>>,
}

impl Logins {
    /// Room for `places` clients, each for at most `limit`.
    pub(crate) fn new(places: usize, limit: Duration) -> Self {
        Self { places, limit, waiting: VecDeque::new() }
    }

    /// Lets a client in, in place of the oldest one if need be.
    pub(crate) fn admit(&mut self, stream: TcpStream, logged_in: LoggedIn) -> LoginDeadline {
        self.waiting.retain(|place| !place.is_closed());
        if self.waiting.len() >= self.places {
            // Dropping its place tells it.
            self.waiting.pop_front();
        }
        let (place, replaced) = oneshot::channel();
        self.waiting.push_back(place);
        let deadline = Box::pin(sleep(self.limit));
        LoginDeadline { stream, waiting: Some(Waiting { deadline, replaced }), logged_in }
    }
}

pub(crate) struct LoginDeadline {
    stream: TcpStream,
    waiting: Option<Waiting>,
    logged_in: LoggedIn,
}

struct Waiting {
    deadline: Pin<Box<Sleep>>,
    replaced: oneshot::Receiver<()>,
}

impl LoginDeadline {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(waiting) = &mut self.waiting else {
            return Ok(());
        };
        if self.logged_in.is_set() {
            self.waiting = None;
            return Ok(());
        }
        if waiting.deadline.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no login within the limit"));
        }
        if Pin::new(&mut waiting.replaced).poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "too many others want to log in"));
        }
        Ok(())
    }
}

impl AsyncRead for LoginDeadline {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for LoginDeadline {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
