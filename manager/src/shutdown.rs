//! What signals mean: SIGTERM detaches, SIGQUIT drains, SIGINT aborts, a second one of
//! the same or a stronger kind ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How the manager ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// Running jobs end first.
    Drain,
    /// Running jobs are left to their agents; the next process goes on with them.
    Detach,
    /// Running jobs are stopped.
    Abort,
    /// Nothing is waited for.
    Now,
}

impl Ending {
    /// What one more signal makes of it. It never becomes milder.
    pub(crate) fn then(before: Option<Self>, signaled: Self) -> Self {
        match before {
            None => signaled,
            Some(before) if signaled > before => signaled,
            Some(Self::Drain) if signaled == Self::Drain => Self::Drain,
            Some(_) => Self::Now,
        }
    }
}

/// The signals that end the manager.
pub(crate) struct Signals {
    term: Signal,
    quit: Signal,
    int: Signal,
}

impl Signals {
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// The next wish. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.term.recv() => Ending::Detach,
            _ = self.quit.recv() => Ending::Drain,
            _ = self.int.recv() => Ending::Abort,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_only_get_stronger() {
        use Ending::{Abort, Detach, Drain, Now};
        let cases: [(&[Ending], Ending); 7] = [
            (&[Drain], Drain),
            (&[Drain, Drain], Drain),
            (&[Drain, Detach], Detach),
            (&[Drain, Abort], Abort),
            (&[Abort, Abort], Now),
            (&[Detach, Detach], Now),
            (&[Abort, Drain], Now),
        ];
        for (signals, expected) in cases {
            let end =
                signals.iter().fold(None, |before, signal| Some(Ending::then(before, *signal)));
            assert_eq!(end, Some(expected), "{signals:?}");
        }
    }
}
