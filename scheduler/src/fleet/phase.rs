//! Where an instance comes from, where it stands, and what the provider says of it.

/// Where an instance comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We asked for it.
    Asked,
    /// It was there before this process, and its record tells what it did.
    Recorded,
    /// It was there before this process, and nothing is known of it.
    Unrecorded,
    /// It appeared although nobody asked.
    Unexpected,
}

/// What the provider says of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// On its way to running: creating, resuming, or in a state that we do not know.
    Coming,
    /// Usable.
    Running,
    /// On its way out, or suspended: no place for a job.
    Leaving,
    /// Gone.
    Deleted,
    /// The provider gave up on it.
    Timeout,
}

impl Seen {
    /// Whether it will not be of use any more, whatever becomes of it.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Deleted | Self::Timeout)
    }
}

/// The life of an instance. Each phase but `Ready` has a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It does not run yet.
    Creating,
    /// It runs and waits for its preparation to begin.
    Running,
    /// It is being prepared.
    Preparing,
    /// It takes jobs.
    Ready,
    /// It takes no more jobs.
    Draining,
    /// The provider was asked to delete it.
    Deleting,
}

impl Phase {
    /// The word in JSON and explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Deleting => "deleting",
        }
    }
}
