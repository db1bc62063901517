//! The private wire between manager and agent: messages and their frames.

mod frame;

#[expect(missing_docs, unreachable_pub, clippy::large_enum_variant, reason = "generated code")]
pub(crate) mod generated {
    include!(concat!(env!("OUT_DIR"), "/mayfly.agent.rs"));
}

pub use frame::{FrameError, Frames, encode};
pub use generated::{
    Abort, Armed, Attach, Cancel, Credit, Done, Finished, FromAgent, Go, Log, Lost, Ping, Progress,
    Ready, Refused, ToAgent, from_agent, to_agent,
};

/// Oldest version of the protocol that this build speaks.
pub const OLDEST_PROTOCOL: u32 = 1;
/// Newest version of the protocol that this build speaks.
pub const NEWEST_PROTOCOL: u32 = 1;

/// The version to use with an agent that speaks `oldest..=newest`; `None` if there is no
/// common one.
pub fn negotiate(oldest: u32, newest: u32) -> Option<u32> {
    let version = newest.min(NEWEST_PROTOCOL);
    (version >= oldest.max(OLDEST_PROTOCOL)).then_some(version)
}

impl From<to_agent::Message> for ToAgent {
    fn from(message: to_agent::Message) -> Self {
        Self { message: Some(message) }
    }
}

impl From<from_agent::Message> for FromAgent {
    fn from(message: from_agent::Message) -> Self {
        Self { message: Some(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_used() {
        assert_eq!(negotiate(1, 1), Some(1));
        assert_eq!(negotiate(1, 9), Some(1));
        assert_eq!(negotiate(2, 9), None);
    }
}
