//! `sshd`: the SSH server of one instance, as the instance's user.
//!
//! Its settings come on stdin and its listening socket is stdout: what it needs from the
//! plugin's directory must reach it without the directory being visible.

use std::io::Read as _;
use std::net::TcpListener;

use instances::failed::{During as _, Failed};
use instances::serve_ssh;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::dispatch::null;
use crate::record::ServerSettings;

/// Channels per connection: eight agents and their siblings, several times over.
const MAX_CHANNELS: usize = 32;

pub(super) fn run() -> Result<(), Failed> {
    set_parent_process_death_signal(Some(Signal::KILL)).during("ask to die with the instance")?;
    let mut settings = Vec::new();
    std::io::stdin().read_to_end(&mut settings).during("read the settings")?;
    let settings: ServerSettings =
        serde_json::from_slice(&settings).map_err(std::io::Error::from).during("read settings")?;
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
        .during("take over the listener")?;
    let null = null()?;
    rustix::stdio::dup2_stdin(&null).during("close the settings")?;
    rustix::stdio::dup2_stdout(&null).during("close the listener")?;

    serve_ssh(server(settings), TcpListener::from(listener), std::future::pending())
}

fn server(settings: ServerSettings) -> sshd::Server {
    let ServerSettings { account, instance, host_key, trusted_keys } = settings;
    sshd::Server {
        host_key,
        environment: account.environment(&instance),
        authorized_keys: vec![account.home.join(".ssh/authorized_keys")],
        trusted_keys,
        user: account.user,
        home: account.home,
        shell: account.shell,
        max_channels: MAX_CHANNELS,
    }
}
