//! Frames to and from one agent over one SSH channel.
//!
//! A task reads the channel and never waits: one unread channel would freeze the whole
//! connection, keepalive included. What it holds is bounded by the credit given for log
//! bytes; an agent that does not keep to it loses the line.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use job::wire::{Frames, FromAgent, Ping, ToAgent, encode, from_agent, to_agent};
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelWriteHalf};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// What may wait to be read: the credit, in the smallest pieces that an agent sends.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// What a message takes beside its log bytes.
const MESSAGE_BYTES: usize = 128;

/// A conversation with one agent.
pub(crate) struct AgentLine {
    to_agent: Arc<ChannelWriteHalf<Msg>>,
    queued: Arc<AtomicUsize>,
    messages: mpsc::UnboundedReceiver<from_agent::Message>,
    reader: tokio::task::JoinHandle<String>,
    pings: Option<AbortOnDropHandle<()>>,
}

/// The agent cannot be spoken to.
#[derive(Debug, thiserror::Error)]
#[error("the line to the agent is lost ({0})")]
pub(crate) struct LineLost(String);

impl AgentLine {
    pub(crate) fn new(channel: Channel<Msg>) -> Self {
        let (mut read, write) = channel.split();
        let (sender, messages) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&queued);
        let reader = tokio::spawn(async move {
            let mut frames = Frames::default();
            let mut stderr = String::new();
            while let Some(message) = read.wait().await {
                match message {
                    ChannelMsg::Data { data } => frames.push(&data),
                    ChannelMsg::ExtendedData { data, .. } if stderr.len() < 2000 => {
                        stderr.push_str(&String::from_utf8_lossy(&data));
                    }
                    ChannelMsg::Close => break,
                    _ => {}
                }
                loop {
                    match frames.take::<FromAgent>() {
                        Ok(Some(FromAgent { message: Some(message) })) => {
                            let size = size(&message);
                            if waiting.fetch_add(size, Ordering::Relaxed) + size > QUEUE_BYTES {
                                return "the agent says more than it may".into();
                            }
                            if sender.send(message).is_err() {
                                return stderr;
                            }
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(error) => return format!("{error} {stderr}"),
                    }
                }
            }
            stderr
        });
        Self { to_agent: Arc::new(write), queued, messages, reader, pings: None }
    }

    /// Says one thing.
    pub(crate) async fn say(&self, message: to_agent::Message) -> Result<(), LineLost> {
        let frame = encode(&ToAgent::from(message));
        self.to_agent.data_bytes(frame).await.map_err(|error| LineLost(error.to_string()))
    }

    /// Says now and once per interval that someone is here, as long as the line is held.
    pub(crate) fn keep_alive(&mut self, interval: Duration) {
        let to_agent = Arc::clone(&self.to_agent);
        let frame = encode(&ToAgent::from(to_agent::Message::Ping(Ping {})));
        let pings = tokio::spawn(async move {
            while to_agent.data_bytes(frame.clone()).await.is_ok() {
                tokio::time::sleep(interval).await;
            }
        });
        self.pings = Some(AbortOnDropHandle::new(pings));
    }

    /// The next thing that the agent says; `None` once the line is lost. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<from_agent::Message> {
        let message = self.messages.recv().await?;
        self.queued.fetch_sub(size(&message), Ordering::Relaxed);
        Some(message)
    }

    /// The next thing, or what the remote side complained about before it ended.
    pub(crate) async fn expect(&mut self) -> Result<from_agent::Message, LineLost> {
        match self.next().await {
            Some(message) => Ok(message),
            None => {
                let complaint = (&mut self.reader).await.unwrap_or_default();
                let complaint = complaint.trim();
                Err(LineLost(
                    if complaint.is_empty() { "it ended without a word" } else { complaint }.into(),
                ))
            }
        }
    }

    /// Tells the agent that nobody is here any more, and waits until it has ended.
    pub(crate) async fn end(mut self, limit: Duration) {
        let ended = async {
            let _ = self.to_agent.eof().await;
            while self.next().await.is_some() {}
        };
        let _ = tokio::time::timeout(limit, ended).await;
    }

    /// Whether the remote side has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.messages.is_closed() && self.messages.is_empty()
    }
}

fn size(message: &from_agent::Message) -> usize {
    match message {
        from_agent::Message::Log(log) => MESSAGE_BYTES + log.data.len(),
        _ => MESSAGE_BYTES,
    }
}

/// Dropping russh's channel leaves it open on the server, where it would count against
/// the session limit for ever.
impl Drop for AgentLine {
    fn drop(&mut self) {
        let to_agent = Arc::clone(&self.to_agent);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { to_agent.close().await });
        }
    }
}
