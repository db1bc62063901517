//! Texts of the checks of the process.

use super::Text;
use crate::conformance::Check;

const PROCESS: &str = "Process";

pub(super) const TEXTS: &[Text] = &[
    Text {
        check: Check::ByHand,
        group: PROCESS,
        id: "by-hand",
        title: "started by hand, it says what it is and ends",
        why: "Someone will run it in a terminal. Without the host's cookie it must not wait for \
            calls that never come.",
        change: "Before anything else compare the environment variable \
            FLEETING_INSTANCE_GROUP_PLUGIN with its value; on a difference print an \
            explanation on stderr, nothing on stdout, and end with status 1. go-plugin and \
            `serve` do it for you.",
    },
    Text {
        check: Check::VersionWord,
        group: PROCESS,
        id: "version-word",
        title: "`version` prints what it is",
        why: "Operators ask the binary which version they have installed, without a host.",
        change: "Handle the argument `version` before the cookie: print `Name:`, `Version:` and the \
            build on stdout, end with status 0. fleeting's `plugin.Main` and `serve` do it.",
    },
    Text {
        check: Check::Handshake,
        group: PROCESS,
        id: "handshake",
        title: "its first line on stdout is the handshake",
        why: "A host reads exactly one line to learn where to connect; a banner or a log line \
            there ends the start.",
        change: "Print `1|0|unix|PATH|grpc|` once the socket listens, and log to stderr only. Look \
            for prints in libraries, too.",
    },
    Text {
        check: Check::SocketPlace,
        group: PROCESS,
        id: "socket-place",
        title: "it listens where the host can reach it, and nobody else",
        why: "The socket is the only door to the plugin, and has no password: its directory must \
            be private.",
        change: "Make the socket in PLUGIN_UNIX_SOCKET_DIR, or else in TMPDIR, and name exactly \
            that path in the handshake. TCP is taken on loopback only.",
    },
    Text {
        check: Check::VersionSets,
        group: PROCESS,
        id: "version-sets",
        title: "it shakes hands whatever versions the host names",
        why: "Hosts name the protocol versions they know in PLUGIN_PROTOCOL_VERSIONS, and some \
            name none. The plugin offers its own; the host decides.",
        change: "Print protocol version 0 also where the variable is absent, or has numbers that \
            you do not know.",
    },
    Text {
        check: Check::ParentGone,
        group: PROCESS,
        id: "parent-gone",
        title: "it ends when its host is gone",
        why: "A host may be killed. A plugin that lives on drives the instances beside the next \
            host's plugin.",
        change: "Watch the parent process (a pidfd, or prctl PR_SET_PDEATHSIG) and end with it. \
            `serve` does it; go-plugin does not.",
    },
    Text {
        check: Check::Health,
        group: PROCESS,
        id: "health",
        title: "go-plugin's health service says that it serves",
        why: "Hosts of the go-plugin family ask `grpc.health.v1.Health` for the service `plugin` \
            before they call.",
        change: "Register the health service with `plugin` as SERVING before the handshake line.",
    },
    Text {
        check: Check::Interrupt,
        group: PROCESS,
        id: "interrupt",
        title: "it ignores SIGINT",
        why: "Ctrl-C in a terminal reaches host and plugin at once. A plugin that ends by it \
            takes away what the host needs to end in order.",
        change: "Ignore SIGINT. The host says when to end, by its calls.",
    },
    Text {
        check: Check::Terminate,
        group: PROCESS,
        id: "terminate",
        title: "at SIGTERM it ends, or goes on to serve",
        why: "A service manager signals the whole group. Half dead, a plugin lets every call of \
            the host hang.",
        change: "Ignore SIGTERM (best: the host will call Shutdown), or end at once. Do not stop \
            serving while the process stays.",
    },
    Text {
        check: Check::Stdout,
        group: PROCESS,
        id: "stdout",
        title: "it prints nothing on stdout but the handshake",
        why: "After the handshake stdout belongs to the host. What is printed there is lost, and \
            blocks under a host that does not read it.",
        change: "Send logs to stderr. Look for prints in libraries, too.",
    },
    Text {
        check: Check::Ends,
        group: PROCESS,
        id: "ends",
        title: "at Controller.Shutdown it ends with status 0",
        why: "go-plugin kills after 2 s: what is not done by then is lost, and the log has an \
            error at every stop. (The check waits for 10 s.)",
        change: "Serve `plugin.GRPCController/Shutdown`: stop the server, let running calls end, \
            exit with 0. Nothing that hangs may hold the process.",
    },
    Text {
        check: Check::SocketRemoved,
        group: PROCESS,
        id: "socket-removed",
        title: "it removes its socket when it ends",
        why: "Hosts older than 2023 and GitLab's use the system's temporary directory: sockets \
            add up there.",
        change: "Unlink the socket on every way out.",
    },
    Text {
        check: Check::FilesLeft,
        group: PROCESS,
        id: "files-left",
        title: "it leaves no file in its temporary directory",
        why: "A plugin is started thousands of times; files with keys or state in TMPDIR stay \
            for everyone who comes later.",
        change: "Remove temporary files in Shutdown and at the end of the process. What must stay \
            belongs into a directory that the configuration names.",
    },
    Text {
        check: Check::ProcessesLeft,
        group: PROCESS,
        id: "processes-left",
        title: "it leaves no process behind",
        why: "Once its instances are deleted nothing of it may go on: leftovers hold files, \
            ports and credentials.",
        change: "End every child process before you exit, and give each a way to notice that its \
            parent is gone.",
    },
];
