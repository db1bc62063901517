//! Makes an instance fit for jobs: looks at it, brings the agent, tests that a process
//! outlives its connection, runs the operator's ready command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::binary::{AgentBinary, Agents, Packing};
use super::connection::{Connection, Facts};
use super::docker::{self, Docker};
use super::own_key::OwnKey;
use super::ssh::{Access, DialError, Session};

/// Looking at an instance takes one command.
const PROBE_LIMIT: Duration = Duration::from_secs(30);
/// A few megabytes over any line.
const COPY_LIMIT: Duration = Duration::from_secs(120);
/// GitLab Runner sets none; an operator's cloud-init wait may take this long.
const READY_COMMAND_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Why an instance cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// It cannot be reached, or not be logged in to.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A step failed that may work the next time.
    #[error("{step}: {why}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// What went wrong.
        why: String,
    },
    /// It will never do.
    #[error("{0}")]
    Unfit(String),
}

impl PrepareError {
    /// Whether another attempt may succeed.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Dial(error) => {
                !matches!(error, DialError::HostKeyChanged { .. } | DialError::NoLogin(_))
            }
            Self::Step { .. } => true,
            Self::Unfit(_) => false,
        }
    }
}

/// What is needed to prepare any instance of a group.
pub(crate) struct Preparation {
    pub(crate) agents: Arc<Agents>,
    pub(crate) own_key: OwnKey,
    pub(crate) ready_command: String,
    /// What jobs in containers need; `None` where they are processes.
    pub(crate) docker: Option<Docker>,
}

/// What is known of an instance from before.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Remembered {
    /// Its host key, as text.
    pub(crate) host_key: String,
    /// Whether processes there outlive their connection; absent before it was tested.
    pub(crate) detached: Option<bool>,
    /// It was prepared once: the ready command is not run again.
    pub(crate) ready: bool,
    /// User, host and port that it was prepared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) login: Option<(String, String, u16)>,
}

impl Preparation {
    /// One attempt. `remembered` is brought up to date as far as the attempt gets.
    pub(crate) async fn attempt(
        &self,
        access: &Access,
        remembered: &mut Remembered,
    ) -> Result<Connection, PrepareError> {
        let session = dial(access, remembered).await?;
        let look = self.look(&session).await?;
        let agent = self.bring_agent(&session, &look).await?;
        let facts = Facts {
            home: look.get("home").to_owned(),
            base: look.get("base").to_owned(),
            agent: agent_path(look.get("base"), &agent.hash),
            arch: look.arch()?.to_owned(),
            detached: remembered.detached.unwrap_or(false),
            has_git: look.has("git"),
        };
        let (session, facts) = if remembered.detached.is_none() {
            let (session, detached) = test_survival(session, access, &facts, remembered).await?;
            remembered.detached = Some(detached);
            (session, Facts { detached, ..facts })
        } else {
            (session, facts)
        };
        if !self.ready_command.is_empty() && !remembered.ready {
            run(&session, "instance_ready_command", &self.ready_command, READY_COMMAND_LIMIT)
                .await?;
        }
        if let Some(docker) = &self.docker {
            run(&session, "looking at Docker", &docker.command(&facts), docker::LIMIT).await?;
        }
        remembered.ready = true;
        remembered.login = Some(access.login());
        Ok(Connection::new(session, access.clone(), facts))
    }

    /// One command that tells everything, and adds our own key.
    async fn look(&self, session: &Session) -> Result<Look, PrepareError> {
        let script = LOOK.replace("@KEY@", &self.own_key.public_line);
        // Through stdin: the login shell may be any.
        let output = session
            .run("exec sh -s", script.into_bytes(), PROBE_LIMIT)
            .await
            .map_err(|why| PrepareError::Step { step: "looking at the instance", why })?;
        if !output.succeeded() {
            let why = output.complaint();
            return Err(PrepareError::Step { step: "looking at the instance", why });
        }
        let look = Look::parse(&String::from_utf8_lossy(&output.stdout));
        if look.get("os").is_empty() {
            return Err(PrepareError::Unfit(format!(
                "its login shell does not run `sh -s`: it answered {}",
                shown(&output.stdout)
            )));
        }
        if look.get("os") != "Linux" {
            let os = look.get("os");
            return Err(PrepareError::Unfit(format!(
                "instances with {os} are not supported yet, only Linux"
            )));
        }
        if look.get("base").is_empty() {
            return Err(PrepareError::Unfit(format!(
                "no directory there is writable and allows to execute programs (tried: {})",
                look.get("tried")
            )));
        }
        Ok(look)
    }

    async fn bring_agent(
        &self,
        session: &Session,
        look: &Look,
    ) -> Result<Arc<AgentBinary>, PrepareError> {
        let arch = look.arch()?.to_owned();
        let packing = look.packing();
        let agents = Arc::clone(&self.agents);
        let step = "packing the agent";
        let failed = |why: String| PrepareError::Step { step, why };
        let load = move || agents.get(&arch);
        let agent = blocking(load).await.map_err(failed)?.map_err(PrepareError::Unfit)?;
        if look.get("agents").split(' ').any(|hash| hash == agent.hash) {
            return Ok(agent);
        }
        let _place = self.agents.copies.acquire().await;
        let packing_agent = Arc::clone(&agent);
        let packed = blocking(move || packing_agent.packed(packing)).await.map_err(failed)?;
        let packed = packed.map_err(|error| failed(error.to_string()))?;
        let command = copy_command(look.get("base"), &agent.hash, packing);
        let step = "copying the agent";
        let output = session
            .run(&command, packed, COPY_LIMIT)
            .await
            .map_err(|why| PrepareError::Step { step, why })?;
        if !output.succeeded() {
            return Err(PrepareError::Step { step, why: output.complaint() });
        }
        Ok(agent)
    }
}

/// Runs what would hold everything else up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

async fn dial(access: &Access, remembered: &mut Remembered) -> Result<Session, PrepareError> {
    let pinned = (!remembered.host_key.is_empty()).then_some(remembered.host_key.as_str());
    let session = access.dial(pinned).await?;
    remembered.host_key.clone_from(&session.host_key);
    Ok(session)
}

/// Whether processes outlive their connection. One that dies may have been killed by
/// somebody: it takes two to say that they don't.
async fn test_survival(
    session: Session,
    access: &Access,
    facts: &Facts,
    remembered: &mut Remembered,
) -> Result<(Session, bool), PrepareError> {
    let (session, survived) = test_once(session, access, facts, remembered).await?;
    if survived {
        return Ok((session, true));
    }
    test_once(session, access, facts, remembered).await
}

/// Starts a process that leaves its session, drops the connection, comes back and looks
/// whether the process lives.
async fn test_once(
    session: Session,
    access: &Access,
    facts: &Facts,
    remembered: &mut Remembered,
) -> Result<(Session, bool), PrepareError> {
    const STEP: &str = "testing that processes outlive a connection";
    let command = format!("exec {} survive --base {}", quote(&facts.agent), quote(&facts.base));
    let started = session
        .run(&format!("{command} --start"), bytes::Bytes::new(), PROBE_LIMIT)
        .await
        .map_err(|why| PrepareError::Step { step: STEP, why })?;
    if !started.succeeded() {
        return Err(PrepareError::Step { step: STEP, why: started.complaint() });
    }
    session.disconnect().await;
    drop(session);
    let session = dial(access, remembered).await?;
    let looked = session
        .run(&format!("{command} --look"), bytes::Bytes::new(), PROBE_LIMIT)
        .await
        .map_err(|why| PrepareError::Step { step: STEP, why })?;
    Ok((session, looked.succeeded()))
}

async fn run(
    session: &Session,
    step: &'static str,
    command: &str,
    limit: Duration,
) -> Result<(), PrepareError> {
    let output = session
        .run(command, bytes::Bytes::new(), limit)
        .await
        .map_err(|why| PrepareError::Step { step, why })?;
    if output.succeeded() {
        Ok(())
    } else {
        Err(PrepareError::Step { step, why: output.complaint() })
    }
}

/// What the instance said about itself.
struct Look(BTreeMap<String, String>);

impl Look {
    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// The architecture in Go's words.
    fn arch(&self) -> Result<&'static str, PrepareError> {
        match self.get("arch") {
            "x86_64" | "amd64" => Ok("amd64"),
            "aarch64" | "arm64" => Ok("arm64"),
            other => Err(PrepareError::Unfit(format!(
                "instances of architecture {other:?} are not supported"
            ))),
        }
    }

    /// Whether a tool of the list was found.
    fn has(&self, tool: &str) -> bool {
        self.get("tools").split(' ').any(|word| word == tool)
    }

    fn packing(&self) -> Packing {
        match (self.has("zstd"), self.has("gzip")) {
            (true, _) => Packing::Zstd,
            (false, true) => Packing::Gzip,
            (false, false) => Packing::Plain,
        }
    }
}

/// What a stranger printed, short and printable.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 200;
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES)];
    format!("\"{}\"", cut.escape_ascii())
}

fn agent_path(base: &str, hash: &str) -> String {
    format!("{base}/agents/{hash}")
}

/// Unpacks beside the final name, checks the sum there, then moves: an agent that runs is
/// never overwritten, a torn copy never started.
fn copy_command(base: &str, hash: &str, packing: Packing) -> String {
    let path = agent_path(base, hash);
    let script = format!(
        "umask 077; t={path}.$$; mkdir -p {base}/agents && {unpack} > $t && chmod 700 $t && \
         {{ s=$(sha256sum < $t 2>/dev/null) || s=$(openssl dgst -r -sha256 < $t) || s={hash}; \
         [ \"${{s%% *}}\" = {hash} ] || {{ echo checksum differs >&2; false; }}; }} && \
         mv $t {path} || {{ rm -f $t; exit 1; }}",
        path = quote(&path),
        base = quote(base),
        unpack = packing.filter(),
    );
    format!("exec sh -c {}", quote(&script))
}

/// `text` as one word of a POSIX shell.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Prints what there is to know as `key=value` lines. The agent's directory is the first
/// that is writable and allows to execute programs.
const LOOK: &str = r#"
set -u
umask 077
echo "os=$(uname -s)"
echo "arch=$(uname -m)"
echo "home=$(cd && pwd)"
key='@KEY@'
ssh="$HOME/.ssh/authorized_keys"
mkdir -p "$HOME/.ssh" && { grep -qF "$key" "$ssh" 2>/dev/null || echo "$key" >> "$ssh"; }
tools=
for tool in zstd gzip git bash docker; do
  command -v "$tool" >/dev/null 2>&1 && tools="$tools $tool"
done
echo "tools=$tools"
tried=
for dir in "$HOME/.mayfly" "/var/tmp/mayfly-$(id -u)" "/tmp/mayfly-$(id -u)"; do
  tried="$tried $dir"
  mkdir -p "$dir/agents" 2>/dev/null && [ -O "$dir" ] || continue
  probe="$dir/agents/probe.$$"
  printf '#!/bin/sh\nexit 0\n' > "$probe" 2>/dev/null && chmod 700 "$probe" && "$probe" 2>/dev/null
  works=$?
  rm -f "$probe"
  if [ "$works" = 0 ]; then
    echo "base=$dir"
    echo "agents=$(cd "$dir/agents" && echo *)"
    break
  fi
done
echo "tried=$tried"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_read() {
        let look = Look::parse(
            "os=Linux\narch=aarch64\ntools= gzip git\nbase=/home/x/.mayfly\nagents=*\n",
        );
        assert_eq!(look.arch().expect("known"), "arm64");
        assert_eq!(look.packing(), Packing::Gzip);
        assert_eq!(look.get("base"), "/home/x/.mayfly");
        assert!(Look::parse("arch=mips").arch().is_err());
    }

    #[test]
    fn the_look_runs_in_a_plain_shell() {
        let home = tempfile::tempdir().expect("a directory");
        let script = LOOK.replace("@KEY@", "ssh-ed25519 AAAA mayfly");
        for _ in 0..2 {
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .env("HOME", home.path())
                .output()
                .expect("a shell");
            assert!(output.status.success(), "{output:?}");
            let look = Look::parse(&String::from_utf8_lossy(&output.stdout));
            assert_eq!(look.get("base"), home.path().join(".mayfly").display().to_string());
            assert_eq!(look.get("os"), "Linux");
        }
        let keys = std::fs::read_to_string(home.path().join(".ssh/authorized_keys")).expect("keys");
        assert_eq!(keys, "ssh-ed25519 AAAA mayfly\n");
    }

    #[test]
    fn a_copy_is_checked_before_it_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let base = dir.path().display().to_string();
        let content = b"#!/bin/sh\necho agent\n";
        let hash: String = <sha2::Sha256 as sha2::Digest>::digest(content)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        for (hash, good) in [("00".repeat(32), false), (hash, true)] {
            let command = copy_command(&base, &hash, Packing::Plain);
            let mut child = std::process::Command::new("sh")
                .args(["-c", &command])
                .stdin(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("a shell");
            std::io::Write::write_all(&mut child.stdin.take().expect("piped"), content)
                .expect("written");
            assert_eq!(child.wait().expect("ended").success(), good);
            assert_eq!(std::path::Path::new(&agent_path(&base, &hash)).exists(), good);
        }
        assert_eq!(std::fs::read_dir(dir.path().join("agents")).expect("a directory").count(), 1);
    }
}
