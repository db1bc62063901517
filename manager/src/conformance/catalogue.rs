//! The closed list of checks: what each looks for, why it matters, what to change.
//!
//! `docs/plugins/checks.md` says the same for readers; a test holds both together.

use super::texts::{Text, texts};

/// One thing that a good plugin does. In the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    // Process.
    ByHand,
    VersionWord,
    Handshake,
    SocketPlace,
    VersionSets,
    ParentGone,
    Health,
    Interrupt,
    Terminate,
    Stdout,
    Ends,
    SocketRemoved,
    FilesLeft,
    ProcessesLeft,
    // Init.
    BeforeInit,
    BrokenConfig,
    Init,
    GroupId,
    MaxSize,
    Version,
    InitAgain,
    LargeMessage,
    // Lists.
    Update,
    Ids,
    States,
    ListRepeats,
    // Creation.
    IncreaseZero,
    IncreaseAnswers,
    IncreaseCount,
    Boots,
    // Connecting.
    ConnectInfo,
    ConnectAddress,
    ConnectProtocol,
    ConnectTimes,
    ConnectLogin,
    ConnectKey,
    ConnectExpires,
    ConnectUnknown,
    Heartbeat,
    HeartbeatUnknown,
    // Life.
    Concurrent,
    Suspend,
    Shutdown,
    Restart,
    Crash,
    // Deletion.
    DecreaseTells,
    Decrease,
    DecreaseOthers,
    DecreaseAgain,
    DecreaseUnknown,
    // Words.
    LogLines,
    Secrets,
    ErrorTexts,
}

impl Check {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        texts().map(|text| text.check)
    }

    /// Stable name, for programs and for the documentation.
    pub(crate) fn id(self) -> &'static str {
        self.text().id
    }

    /// What it belongs to.
    pub(crate) fn group(self) -> &'static str {
        self.text().group
    }

    /// What a good plugin does.
    pub(crate) fn title(self) -> &'static str {
        self.text().title
    }

    /// Why that matters.
    pub(crate) fn why(self) -> &'static str {
        self.text().why
    }

    /// What to change where it fails.
    pub(crate) fn change(self) -> &'static str {
        self.text().change
    }

    fn text(self) -> &'static Text {
        texts().find(|text| text.check == self).expect("a test holds that each has one")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_has_its_own_text() {
        for (place, text) in texts().enumerate() {
            assert_eq!(text.check as usize, place, "{}", text.id);
        }
        assert_eq!(Check::ErrorTexts as usize + 1, texts().count());
        let ids: BTreeSet<_> = texts().map(|text| text.id).collect();
        assert_eq!(ids.len(), texts().count());
    }

    #[test]
    fn the_documentation_has_every_check_and_no_other() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/plugins/checks.md");
        let document = std::fs::read_to_string(file).expect("docs/plugins/checks.md");
        let begin = document.find("\n## ").expect("a first group") + 1;
        let end = document.find("\n---\n").expect("the end of the list") + 1;
        let expected = markdown();
        assert!(
            document[begin..end].trim() == expected.trim(),
            "docs/plugins/checks.md differs from manager/src/conformance/texts; between its \
             first `## ` and `---` it must say:\n\n{expected}"
        );
    }

    fn markdown() -> String {
        let mut text = String::new();
        let mut group = "";
        for check in Check::all() {
            if check.group() != group {
                group = check.group();
                text += &format!("## {group}\n\n");
            }
            text += &format!("### `{}`: {}\n\n", check.id(), check.title());
            text += &format!("*Why:* {}\n*To change:* {}\n\n", check.why(), check.change());
        }
        text
    }
}
