//! Texts of the checks of what a plugin tells: Init, lists, creation, connecting.

use super::Text;
use crate::conformance::Check;

const INIT: &str = "Init";
const LISTS: &str = "Lists";
const CREATION: &str = "Creation";
const CONNECTING: &str = "Connecting";

pub(super) const TEXTS: &[Text] = &[
    Text {
        check: Check::BeforeInit,
        group: INIT,
        id: "before-init",
        title: "a call before Init is answered, without a crash",
        why: "Hosts that are restarted in the middle send calls in surprising order. A crash \
            hides the reason.",
        change: "Answer calls before a successful Init with an error such as `not initialized`.",
    },
    Text {
        check: Check::BrokenConfig,
        group: INIT,
        id: "broken-config",
        title: "a configuration that is no JSON is refused, with words",
        why: "A typing error must stop the start and say so; otherwise the plugin creates \
            instances that nobody described.",
        change: "Return an error from Init where the configuration cannot be decoded, with the \
            decoder's message, and go on running.",
    },
    Text {
        check: Check::Init,
        group: INIT,
        id: "init",
        title: "Init takes the configuration",
        why: "Without Init there is no group.",
        change: "Read the error above: either the configuration is wrong, or the plugin. Give a \
            configuration that works with --config FILE (JSON).",
    },
    Text {
        check: Check::GroupId,
        group: INIT,
        id: "group-id",
        title: "the group has an id",
        why: "Logs and metrics tell groups apart by it.",
        change: "Return a stable id from Init, such as `mycloud/REGION/NAME`.",
    },
    Text {
        check: Check::MaxSize,
        group: INIT,
        id: "max-size",
        title: "max_size is at least 1",
        why: "With 0, GitLab's host never creates an instance, and says nothing.",
        change: "Return the most instances that the group may have; a large number where the \
            provider sets no limit.",
    },
    Text {
        check: Check::Version,
        group: INIT,
        id: "version",
        title: "Init tells the plugin's version",
        why: "The host logs it; without it nobody knows what ran when something broke.",
        change: "Fill `version` (and `build_info`) of the answer.",
    },
    Text {
        check: Check::InitAgain,
        group: INIT,
        id: "init-again",
        title: "a second Init is refused or taken, without harm",
        why: "Hosts call it once, but a retry of a slow first one may come.",
        change: "Refuse it with an error, or begin anew; in both cases go on to answer Update.",
    },
    Text {
        check: Check::LargeMessage,
        group: INIT,
        id: "large-message",
        title: "it takes messages of several megabytes",
        why: "Hosts send up to 2 GiB; gRPC libraries take 4 MiB by default. A large plugin_config, or \
            many ids in one call, would fail.",
        change: "Set the server's limit of received messages to 2147483647 bytes.",
    },
    Text {
        check: Check::Update,
        group: LISTS,
        id: "update",
        title: "Update answers",
        why: "The list is the host's only picture of the group. Without it nothing is created \
            and nothing deleted.",
        change: "Let Update succeed whenever the provider can be asked; turn a failure into an \
            error with words, never into a shorter list.",
    },
    Text {
        check: Check::Ids,
        group: LISTS,
        id: "ids",
        title: "every instance has one id, and is listed once",
        why: "An empty id cannot be deleted. An id that comes twice in one list has two states.",
        change: "Give each instance the provider's own id, and list it once.",
    },
    Text {
        check: Check::States,
        group: LISTS,
        id: "states",
        title: "states are those of the protocol",
        why: "A host does not know what to do with another number and treats the instance as in \
            transition, for ever.",
        change: "Use creating 0, running 1, deleting 2, deleted 3, timeout 4, suspending 5, \
            suspended 6, resuming 7.",
    },
    Text {
        check: Check::ListRepeats,
        group: LISTS,
        id: "list-repeats",
        title: "lists without a change between them are the same",
        why: "Six lists without an instance, and GitLab's host gives it up: its job is lost and \
            it costs on.",
        change: "Return all pages of the provider's list, and all instances whatever their state. \
            Where a page fails, fail the whole call.",
    },
    Text {
        check: Check::IncreaseZero,
        group: CREATION,
        id: "increase-zero",
        title: "Increase by 0 makes nothing",
        why: "Whatever asks for nothing must cost nothing.",
        change: "Return 0 (or an error) before you speak to the provider.",
    },
    Text {
        check: Check::IncreaseAnswers,
        group: CREATION,
        id: "increase-answers",
        title: "Increase answers in time, with what it made",
        why: "The host waits for this call before it does anything else for the group.",
        change: "Start the creation, and return; do not wait until the instance runs: Update shows \
            how it goes on. Set deadlines on the provider's API.",
    },
    Text {
        check: Check::IncreaseCount,
        group: CREATION,
        id: "increase-count",
        title: "Increase makes as many as it says, and no more than asked",
        why: "The host counts on the answer. One too many costs money; one too few is waited for \
            without end.",
        change: "Count what the provider accepted. Return 3 when 3 of 5 were made, and an error \
            only when none was. List new instances at once, as creating.",
    },
    Text {
        check: Check::Boots,
        group: CREATION,
        id: "boots",
        title: "a new instance comes to run",
        why: "Only an instance in state running gets jobs.",
        change: "Report running as soon as the provider does; and an instance that will never run \
            as timeout, and delete it.",
    },
    Text {
        check: Check::ConnectInfo,
        group: CONNECTING,
        id: "connect-info",
        title: "ConnectInfo answers, with a connector",
        why: "GitLab's host crashes where the connector is missing.",
        change: "Always fill `connector`, beginning with a copy of the settings of Init.",
    },
    Text {
        check: Check::ConnectAddress,
        group: CONNECTING,
        id: "connect-address",
        title: "ConnectInfo has an address",
        why: "Without an address nobody can log in; the instance boots, costs and is deleted.",
        change: "Fill internal_addr or external_addr (both where there are two). Return an error \
            while the address is not known.",
    },
    Text {
        check: Check::ConnectProtocol,
        group: CONNECTING,
        id: "connect-protocol",
        title: "its protocol is one that exists",
        why: "A host refuses a protocol that it does not know.",
        change: "Use `ssh`, `winrm`, `winrm+https`, or leave it empty.",
    },
    Text {
        check: Check::ConnectTimes,
        group: CONNECTING,
        id: "connect-times",
        title: "it hands on keepalive and timeout",
        why: "With a timeout of 0 GitLab's host fails every connection at once; with a keepalive \
            of 0 it sends without a pause.",
        change: "Copy `timeout` and `keepalive` (nanoseconds) of the settings of Init into every \
            answer.",
    },
    Text {
        check: Check::ConnectLogin,
        group: CONNECTING,
        id: "connect-login",
        title: "it names a user, or leaves the login to the operator",
        why: "A key or password without a user is of no use to anybody.",
        change: "Fill `username` whenever you fill `key` or `password`.",
    },
    Text {
        check: Check::ConnectKey,
        group: CONNECTING,
        id: "connect-key",
        title: "its key can be read",
        why: "A key that does not parse shows only at the first login, on an instance that costs \
            already.",
        change: "Send the private key as PEM or OpenSSH text, unencrypted, as it is in a file: no \
            base64 around it, line ends kept.",
    },
    Text {
        check: Check::ConnectExpires,
        group: CONNECTING,
        id: "connect-expires",
        title: "its expiry is a time to come, in seconds",
        why: "The host fetches new credentials shortly before. A wrong unit makes it never do \
            so, or all the time.",
        change: "Fill `expires` with Unix seconds; 0 where the credentials do not end.",
    },
    Text {
        check: Check::ConnectUnknown,
        group: CONNECTING,
        id: "connect-unknown",
        title: "for an id that is unknown it is an error",
        why: "The host would connect to the address of another instance, or to none.",
        change: "Look the id up, and return an error where the provider does not know it.",
    },
    Text {
        check: Check::Heartbeat,
        group: CONNECTING,
        id: "heartbeat",
        title: "Heartbeat says that a running instance is healthy",
        why: "An instance whose heartbeat fails gets no job and is replaced.",
        change: "Return an error only for an instance that is unfit for work. Leave the call \
            Unimplemented where you cannot tell.",
    },
    Text {
        check: Check::HeartbeatUnknown,
        group: CONNECTING,
        id: "heartbeat-unknown",
        title: "Heartbeat of an unknown id is an error",
        why: "An instance that is gone would count as healthy, and be given jobs.",
        change: "Return an error (`instance is unhealthy`) for ids that the provider does not know; \
            or leave the call Unimplemented.",
    },
];
