//! Starting machines, and finding those that an earlier plugin started.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use instances::failed::{During as _, Failed};
use instances::processes::Identity;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sshd::KeyPair;

use super::MARKER;
use super::role::{ROLE, ServerSettings};
use crate::access::Access;
use crate::facts::Facts;
use crate::{machine, store};

const LOGIN: &str = "login.json";
const PROCESS: &str = "process";
const NOTICE: &str = "interruption.json";

/// How to log in to a machine. No `Debug`: it holds a private key.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Login {
    pub(crate) address: String,
    pub(crate) user: String,
    pub(crate) key: String,
    /// The operator's key that may log in, too.
    pub(crate) operator_key: Option<String>,
}

/// How to log in to the machine in this directory.
pub(crate) fn login(directory: &Path) -> Result<Option<Login>, Failed> {
    store::read(&directory.join(LOGIN))
}

/// The process of the machine that an earlier plugin started, running or not. One whose
/// start was not finished is ended, and will be started anew.
pub(crate) fn find(directory: &Path) -> Result<Option<Identity>, Failed> {
    let known = store::read(&directory.join(PROCESS))?;
    if known.is_none() && directory.join(LOGIN).exists() {
        machine::end(directory, None)?;
    }
    Ok(known)
}

/// Tells the machine's jobs that it will be taken away.
pub(crate) fn leave_notice(directory: &Path, facts: &Facts) -> Result<(), Failed> {
    store::write(&directory.join(NOTICE), &json!({"taken_away_at_ms": facts.killed_ms}))
}

/// Starts the machine of an instance. Needs a tokio runtime, which collects it when it
/// ends before this process. Files that are kept, such as the home, are kept.
pub(crate) fn boot(directory: &Path, access: &Access) -> Result<Identity, Failed> {
    let home = directory.join("home");
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&home).during("make the home directory")?;
    let id = directory.file_name().unwrap_or_default().to_string_lossy();
    let pair = || KeyPair::generate(&id).map_err(std::io::Error::other).during("make a key pair");
    let (host, client) = (pair()?, pair()?);
    let listener = listen(&id)?;
    let address = listener.local_addr().during("learn the address")?.to_string();
    let user = access.user().to_owned();
    let operator_key = access.operator_key().map(str::to_owned);
    let trusted_keys = std::iter::once(client.public).chain(operator_key.clone()).collect();
    let settings = ServerSettings {
        environment: environment(directory, &home, &user),
        user: user.clone(),
        home,
        shell: shell(),
        host_key: host.private,
        trusted_keys,
    };
    store::write(&directory.join("server.json"), &settings)?;
    // From here on there may be a process: a plugin that is killed leaves this as a sign.
    let _ = std::fs::remove_file(directory.join(PROCESS));
    let login = Login { address, user, key: client.private, operator_key };
    store::write(&directory.join(LOGIN), &login)?;
    let process = start(directory, listener, &settings.environment)?;
    store::write(&directory.join(PROCESS), &process)?;
    Ok(process)
}

fn start(
    directory: &Path,
    listener: TcpListener,
    environment: &[(String, String)],
) -> Result<Identity, Failed> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("log"));
    let mut command = std::process::Command::new("/proc/self/exe");
    command
        .arg0(env!("CARGO_PKG_NAME"))
        .arg(ROLE)
        .arg(directory)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        // Out of the plugin's process group, which its host kills as a whole.
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(log.during("open the log")?);
    let mut child =
        tokio::process::Command::from(command).spawn().during("start the instance's process")?;
    let identity = child.id().and_then(|pid| Identity::of(pid.cast_signed()));
    let identity = identity
        .ok_or_else(|| std::io::Error::other("it ended at once"))
        .during("start the instance's process")?;
    // It outlives this process; until then somebody must collect it.
    tokio::spawn(async move { child.wait().await });
    Ok(identity)
}

/// Listens on a loopback address that the instance's id gives: a client that pins host
/// keys never meets another instance there. The kernel picks the port.
fn listen(id: &str) -> Result<TcpListener, Failed> {
    let own = address(id);
    TcpListener::bind((own, 0))
        // Some sandboxes have nothing but 127.0.0.1.
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .during(format!("listen on {own}"))
}

fn address(id: &str) -> Ipv4Addr {
    let digits = id.rsplit('-').next().and_then(|digits| digits.parse::<u32>().ok());
    let [_, a, b, c] = digits.unwrap_or_default().to_be_bytes();
    Ipv4Addr::new(127, 128 | (a & 63), b, 1 + c % 254)
}

fn environment(directory: &Path, home: &Path, user: &str) -> Vec<(String, String)> {
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        pair("PATH", PATH),
        pair("HOME", &home.to_string_lossy()),
        pair("USER", user),
        pair("LOGNAME", user),
        pair("SHELL", &shell().to_string_lossy()),
        pair("LANG", "C.UTF-8"),
        pair(MARKER, &directory.to_string_lossy()),
    ]
}

fn shell() -> PathBuf {
    let bash = Path::new("/bin/bash");
    if bash.exists() { bash.into() } else { "/bin/sh".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_addresses_of_their_own() {
        assert_eq!(address("sim-00001"), Ipv4Addr::new(127, 128, 0, 2));
        assert_eq!(address("sim-00300"), Ipv4Addr::new(127, 128, 1, 45));
        assert_eq!(address("other"), Ipv4Addr::new(127, 128, 0, 1));
    }
}
