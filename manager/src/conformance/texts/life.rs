//! Texts of the checks of an instance's life and end, and of words.

use super::Text;
use crate::conformance::Check;

const LIFE: &str = "Life";
const DELETION: &str = "Deletion";
const WORDS: &str = "Words";

pub(super) const TEXTS: &[Text] = &[
    Text {
        check: Check::Concurrent,
        group: LIFE,
        id: "concurrent",
        title: "calls at the same time are all answered",
        why: "The host lists, connects and looks after health while it creates. A lock over a \
            slow call delays every job.",
        change: "Let calls run side by side; hold no lock while you wait for the provider.",
    },
    Text {
        check: Check::Suspend,
        group: LIFE,
        id: "suspend",
        title: "what it says of suspending is true",
        why: "The host relies on `suspend_resume`: it counts suspended instances as a reserve.",
        change: "List the capability only if Suspend leads to suspended and Resume to running; else \
            leave both Unimplemented.",
    },
    Text {
        check: Check::Shutdown,
        group: LIFE,
        id: "shutdown",
        title: "Shutdown succeeds",
        why: "It is the last call of every host; its error is in the log of every stop.",
        change: "Release clients and temporary files, and return without error. Leave instances \
            alone. Unimplemented is fine.",
    },
    Text {
        check: Check::Restart,
        group: LIFE,
        id: "restart",
        title: "after a restart it lists the same instances",
        why: "Hosts are restarted and upgraded. What a plugin forgets runs on, costs, and is \
            created a second time.",
        change: "Ask the provider which instances there are (by a tag or a name prefix); keep \
            nothing in memory only. Do not delete at Shutdown.",
    },
    Text {
        check: Check::Crash,
        group: LIFE,
        id: "crash",
        title: "after a kill it lists the same instances",
        why: "There is no time to save anything at a kill.",
        change: "As for `restart`: the provider is the truth. A file of your own must be written at \
            each change, by rename.",
    },
    Text {
        check: Check::DecreaseTells,
        group: DELETION,
        id: "decrease-tells",
        title: "Decrease returns the ids that it took",
        why: "Ids that are not returned are asked for again and again.",
        change: "Return every id whose deletion has begun, or which is gone already.",
    },
    Text {
        check: Check::Decrease,
        group: DELETION,
        id: "decrease",
        title: "a deleted instance goes",
        why: "It costs until it is gone.",
        change: "Delete at the provider. List it as deleting until it is gone, then leave it out \
            (or list it as deleted).",
    },
    Text {
        check: Check::DecreaseOthers,
        group: DELETION,
        id: "decrease-others",
        title: "the others stay",
        why: "They may run jobs.",
        change: "Delete by id, never by lowering a number alone.",
    },
    Text {
        check: Check::DecreaseAgain,
        group: DELETION,
        id: "decrease-again",
        title: "deleting it once more succeeds",
        why: "Answers get lost; the host asks again, and would do so for ever.",
        change: "Count an instance that is going or gone as accepted.",
    },
    Text {
        check: Check::DecreaseUnknown,
        group: DELETION,
        id: "decrease-unknown",
        title: "deleting an unknown id succeeds",
        why: "Someone deleted it by hand, or it ended by itself: the host must be able to forget \
            it.",
        change: "Count an id that the provider does not know as accepted: return it, without error.",
    },
    Text {
        check: Check::LogLines,
        group: WORDS,
        id: "log-lines",
        title: "its log can be read by every host",
        why: "GitLab's host crashes on a JSON line whose `@message`, `@level` or `@timestamp` is \
            no text, and cuts lines at 64 KiB.",
        change: "Log plain lines, or hclog's JSON with texts under the @ keys; UTF-8, no line of 64 \
            KiB or more.",
    },
    Text {
        check: Check::Secrets,
        group: WORDS,
        id: "secrets",
        title: "no secret is in what it prints or says",
        why: "Logs and errors go to places that secrets must not go to.",
        change: "Log no configuration, no request and no ConnectInfo as a whole; leave tokens, \
            passwords and keys out of errors.",
    },
    Text {
        check: Check::ErrorTexts,
        group: WORDS,
        id: "error-texts",
        title: "its errors are one readable line",
        why: "An operator sees the text, and nothing else, in one line of a log.",
        change: "Return a sentence that says what failed, for which object, and what to do; put \
            details into the log.",
    },
];
