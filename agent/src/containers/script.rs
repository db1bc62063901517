//! A script in the job's container: fed by stdin, its output passed on, its end told truly.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use job::outcome::{FailureReason, Outcome};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use super::daemon::{Ask, Daemon, Fault, read};
use super::furnish::{BUILD, Ties};
use super::{Done, Job, Trouble, While as _, room, system_failure};

/// The container of the helper image.
const HELPER: &str = "helper";
/// From asking the processes of a container to stop to killing them: a second before the
/// agent kills this process.
const KILL_AFTER: Duration = Duration::from_secs(4);
/// The exit code of a shell that SIGKILL ended.
const KILLED: u8 = 137;

impl Job<'_> {
    /// Runs a script in the job's container. `first`: none ran there before.
    pub(super) async fn script(&self, script: &[u8], first: bool) -> Result<Done, Trouble> {
        let name = self.name(BUILD);
        let Some(inspected) = self.container(&name).await? else {
            return Err(system_failure("the job's container is gone: somebody removed it"));
        };
        let mut is_running = inspected["State"]["Running"] == true;
        if is_running && !first {
            // What a canceled or timed-out script left behind.
            self.kill(&name).await?;
            is_running = false;
        }
        self.give_away(&inspected).await?;
        let end = self.feed(&name, script, is_running).await?;
        self.judge(&name, end).await
    }

    /// Runs a script in a container of the helper image, which goes afterwards.
    pub(super) async fn helper_script(&self, script: &[u8]) -> Result<Done, Trouble> {
        let Some(helper) = &self.containers.helper else {
            return Err(system_failure("the plan names no helper image"));
        };
        super::say("The instance has no git: sources are fetched in the helper image");
        self.image(helper).await?;
        let build = self.container(&self.name(BUILD)).await?.unwrap_or_default();
        let network = build["HostConfig"]["NetworkMode"].as_str();
        let network = network.filter(|_| self.containers.network.is_some());
        let ties = Ties { network: network.map(str::to_owned), ..Ties::default() };
        self.make(HELPER, helper, ties).await?;
        let name = self.name(HELPER);
        // Its user is root, too, and git refuses to work on the files of others.
        let made = self.container(&name).await?.unwrap_or_default();
        self.give_away(&made).await?;
        let end = self.feed(&name, script, false).await;
        let done = match end {
            Ok(end) => self.judge(&name, end).await,
            Err(trouble) => Err(trouble),
        };
        let _ = self.remove(&name).await;
        done
    }

    /// Attaches to the container, starts it if need be, writes the script and passes on what
    /// is printed until it ends.
    async fn feed(&self, name: &str, script: &[u8], is_running: bool) -> Result<End, Trouble> {
        let logs = u8::from(is_running);
        let path =
            format!("/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1&logs={logs}");
        let attached = self.daemon.hijack(Ask::order(&path)).await;
        let attached = attached.during("the container cannot be attached to")?;
        let (mut reader, mut writer) = tokio::io::split(attached);
        if !is_running {
            self.start(name).await?;
        }
        // Waits from the start: a daemon that dies breaks this connection, too.
        let wait = tokio::spawn(wait(self.daemon.clone(), name.to_owned()));
        let was_stopped = Arc::new(AtomicBool::new(false));
        let stop = stop_at_term(self.daemon.clone(), name.to_owned(), Arc::clone(&was_stopped));
        tokio::spawn(stop);
        let feeding = async {
            // A script that ends early does not read all: its exit code says why.
            let _ = writer.write_all(script).await;
            let _ = writer.shutdown().await;
        };
        let reading = async {
            let (mut frames, mut buffer) = (Frames::default(), vec![0; 64 * 1024]);
            let mut stdout = std::io::stdout().lock();
            while let Ok(read @ 1..) = reader.read(&mut buffer).await {
                frames.push(&buffer[..read], |text| {
                    // Nobody reads it any more: the agent is gone.
                    let _ = stdout.write_all(text);
                });
                let _ = stdout.flush();
            }
        };
        tokio::join!(feeding, reading);
        let code = wait.await.unwrap_or_else(|error| Err(Fault::Broken(error.to_string())));
        Ok(End { code, was_stopped: was_stopped.load(Ordering::Relaxed) })
    }

    /// What the end of a container means.
    async fn judge(&self, name: &str, end: End) -> Result<Done, Trouble> {
        let code = match end.code {
            Ok(code) => code,
            Err(fault) => {
                return Err(system_failure(format!(
                    "the Docker daemon went away while the script ran: {fault}"
                )));
            }
        };
        // Its script may have taken the daemon's signal for a reason to end well.
        if !end.was_stopped && self.is_daemon_gone().await {
            return Err(system_failure("the Docker daemon was stopped while the script ran"));
        }
        if code == 0 || end.was_stopped {
            return Ok(Done::Exit(code));
        }
        let inspected = self.container(name).await?.unwrap_or(Value::Null);
        // Whoever removes a container kills it first.
        if matches!(inspected["State"]["Status"].as_str(), None | Some("removing" | "dead")) {
            return Err(system_failure("the job's container was removed while its script ran"));
        }
        if code == KILLED && inspected["State"]["OOMKilled"] == true {
            return Ok(Done::Failed(out_of_memory(&inspected)));
        }
        if let Some(full) = room::full(self).await {
            return Err(system_failure(format!(
                "exit code {code}, and {full}: the instance has no space left"
            )));
        }
        Ok(Done::Exit(code))
    }

    /// Runs a container of ours that takes no input; its exit code.
    pub(super) async fn run_quietly(&self, name: &str) -> Result<u8, Trouble> {
        self.start(name).await?;
        wait(self.daemon.clone(), name.to_owned()).await.during("a container of ours does not end")
    }

    pub(super) async fn kill(&self, name: &str) -> Result<(), Trouble> {
        let path = format!("/containers/{name}/kill");
        match self.daemon.call(Ask::order(&path)).await {
            // It has ended already.
            Err(fault) if fault.is(StatusCode::CONFLICT) || fault.is(StatusCode::NOT_FOUND) => {}
            other => drop(other.during("what is left of a script cannot be stopped")?),
        }
        let ended = wait(self.daemon.clone(), name.to_owned()).await;
        ended.map(drop).during("what is left of a script does not end")
    }
}

/// How a container ended.
struct End {
    /// Its exit code, if the daemon lived to tell it.
    code: Result<u8, Fault>,
    /// It was asked to stop.
    was_stopped: bool,
}

/// A container within its own limit is the job's doing; the kernel's choice on a machine
/// without memory is not.
fn out_of_memory(inspected: &Value) -> Outcome {
    match inspected["HostConfig"]["Memory"].as_i64() {
        Some(limit @ 1..) => Outcome {
            exit_code: Some(i32::from(KILLED)),
            ..Outcome::failure(
                FailureReason::ScriptFailure,
                format!(
                    "exit code {KILLED}: the container needed more memory than its limit of {} MiB",
                    limit / (1024 * 1024)
                ),
            )
        },
        _ => Outcome::failure(
            FailureReason::RunnerSystemFailure,
            "the instance ran out of memory, and the kernel killed the job's processes",
        ),
    }
}

async fn wait(daemon: Daemon, name: String) -> Result<u8, Fault> {
    let path = format!("/containers/{name}/wait");
    let text = read(daemon.stream(Ask::order(&path)).await?).await?;
    let value: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
    let code = value["StatusCode"].as_i64();
    let code =
        code.ok_or_else(|| Fault::Broken("it did not tell how the container ended".into()))?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Once this process is asked to stop, all processes of the container are: the shell, whose
/// trap ends the script, and whatever it waits for. What does not is killed before this
/// process is: nothing of a script runs beside what follows it.
async fn stop_at_term(daemon: Daemon, name: String, was_stopped: Arc<AtomicBool>) {
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    term.recv().await;
    was_stopped.store(true, Ordering::Relaxed);
    let all = serde_json::json!({ "Cmd": ["sh", "-c", "kill -TERM -1"], "User": "0" });
    let path = format!("/containers/{name}/exec");
    if let Ok(made) = daemon.call(Ask::post(&path, &all)).await
        && let Some(id) = made["Id"].as_str()
    {
        let path = format!("/exec/{id}/start");
        let _ = daemon.call(Ask::post(&path, &serde_json::json!({ "Detach": true }))).await;
    }
    let path = format!("/containers/{name}/kill?signal=TERM");
    let _ = daemon.call(Ask::order(&path)).await;
    tokio::time::sleep(KILL_AFTER).await;
    let _ = daemon.call(Ask::order(&format!("/containers/{name}/kill"))).await;
}

/// Takes the frames of a container's output apart: a stream's number, three empty bytes,
/// four of length, big-endian, the text (Engine API, "Attach to a container").
#[derive(Default)]
pub(super) struct Frames {
    header: Vec<u8>,
    left: usize,
}

impl Frames {
    pub(super) fn push(&mut self, mut bytes: &[u8], mut text: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = (8 - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
                if let [_, _, _, _, a, b, c, d] = self.header[..] {
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.header.clear();
                }
                continue;
            }
            let take = self.left.min(bytes.len());
            text(&bytes[..take]);
            self.left -= take;
            bytes = &bytes[take..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let whole = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x02de";
        for size in 1..whole.len() {
            let (mut frames, mut text) = (Frames::default(), Vec::new());
            for piece in whole.chunks(size) {
                frames.push(piece, |piece| text.extend_from_slice(piece));
            }
            assert_eq!(text, b"abcde", "pieces of {size}");
        }
    }
}
