//! One run of a script: started under a guard, fed, heard, and ended at its deadline with
//! its whole process group.
//!
//! Invariant: when `run` returns, or is dropped, nothing of the script's group is left
//! running, or its guard is about to end it.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mayfly_plugin::guarding::Fate;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

use crate::environment::Environment;
use crate::failure::Failure;
use crate::guard;
use crate::script::Script;
use crate::speech::{Secrets, Speech};

/// What a script may print on stdout.
pub(crate) const ANSWER_LIMIT_BYTES: usize = 1 << 20;
/// Something that left the script's group may hold its outputs open for ever.
const SETTLE: Duration = Duration::from_millis(200);
/// The status by which a script asks for another attempt (`EX_TEMPFAIL`).
const TEMPORARY: i32 = 75;
/// The status of an operation that a script does not know (`EX_USAGE`).
const NOT_OFFERED: i32 = 64;

/// What all runs have in common.
pub(crate) struct Surroundings {
    pub(crate) environment: Environment,
    pub(crate) secrets: Secrets,
}

/// One run.
pub(crate) struct Run<'a> {
    pub(crate) operation: &'static str,
    pub(crate) script: &'a Script,
    pub(crate) directory: &'a Path,
    pub(crate) arguments: &'a [OsString],
    pub(crate) request: &'a [u8],
    pub(crate) deadline: Instant,
    pub(crate) limit: Duration,
}

enum End {
    Fate(Option<Fate>),
    TooMuch,
}

impl Run<'_> {
    /// Runs the script; what it printed on stdout if it ended with 0.
    pub(crate) async fn run(&self, surroundings: &Surroundings) -> Result<Vec<u8>, Failure> {
        self.script.check().map_err(|why| self.not_run(why))?;
        let (mut child, control) = self
            .spawn(&surroundings.environment)
            .map_err(|error| self.not_run(error.to_string()))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(self.not_run("its guard ended at once".into()));
        };
        let mut output = Vec::new();
        let mut speech = Speech::new(self.operation, surroundings.secrets.clone());
        let end = {
            let listening = async {
                let answer = read_answer(stdout, &mut output);
                let words = async {
                    speech.listen(stderr).await;
                    Ok(())
                };
                tokio::try_join!(answer, words).is_ok()
            };
            tokio::pin!(listening);
            let mut has_heard_all = false;
            let waiting = async {
                let talk = talk(control, self.request);
                tokio::pin!(talk);
                loop {
                    tokio::select! {
                        is_whole = &mut listening, if !has_heard_all => {
                            has_heard_all = true;
                            if !is_whole {
                                return End::TooMuch;
                            }
                        }
                        fate = &mut talk => return End::Fate(fate),
                    }
                }
            };
            let end = timeout_at(self.deadline, waiting).await;
            end_group(&mut child, group).await;
            let is_whole = match has_heard_all {
                true => true,
                false => timeout(SETTLE, listening).await.unwrap_or(true),
            };
            end.map(|end| if is_whole { end } else { End::TooMuch })
        };
        match end {
            Err(_) => Err(Failure::Deadline { limit: self.limit }),
            Ok(End::TooMuch) => Err(Failure::TooMuch { limit_bytes: ANSWER_LIMIT_BYTES }),
            Ok(End::Fate(fate)) => self.judge(fate, speech.last()).map(|()| output),
        }
    }

    fn spawn(&self, environment: &Environment) -> std::io::Result<(Child, UnixStream)> {
        let (ours, guards) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new("/proc/self/exe")
            .arg(guard::ROLE)
            .arg(self.script.path())
            .args(self.arguments)
            .env_clear()
            .envs(environment.variables())
            .current_dir(self.directory)
            .stdin(Stdio::from(OwnedFd::from(guards)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        Ok((child, UnixStream::from_std(ours)?))
    }

    fn not_run(&self, why: String) -> Failure {
        Failure::NotRun { program: self.script.path().display().to_string(), why }
    }

    fn judge(&self, fate: Option<Fate>, last: Option<&str>) -> Result<(), Failure> {
        let said = |status: i32| match last {
            Some(line) => line.to_owned(),
            None => format!("exit status {status}, and not a word on stderr"),
        };
        match fate {
            Some(Fate::Exited(0)) => Ok(()),
            Some(Fate::Exited(TEMPORARY)) => Err(Failure::Temporary { message: said(TEMPORARY) }),
            Some(Fate::Exited(NOT_OFFERED)) => Err(Failure::NotOffered),
            Some(Fate::Exited(status)) => Err(Failure::Refused { message: said(status) }),
            Some(Fate::Signaled(number)) => Err(Failure::Killed { number }),
            Some(Fate::NotExecuted(errno)) => {
                Err(self.not_run(std::io::Error::from_raw_os_error(errno).to_string()))
            }
            None => Err(self.not_run("its guard was killed".into())),
        }
    }
}

/// Tells the guard the request and hears what became of the script. The socket is held
/// open until then: its end is the script's.
async fn talk(mut control: UnixStream, request: &[u8]) -> Option<Fate> {
    // A guard that is gone already says so by its silence.
    let _ = control.write_all(request).await;
    let _ = control.shutdown().await;
    let mut told = String::new();
    let _ = control.read_to_string(&mut told).await;
    Fate::parse(&told)
}

/// Kills what is left of the group and waits for its leader's end.
async fn end_group(child: &mut Child, group: Option<Pid>) {
    // While the leader is not reaped its group's id cannot be taken by anyone else.
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
}

/// Reads to the end; an error as soon as it is too much.
async fn read_answer(stdout: impl AsyncRead + Unpin, output: &mut Vec<u8>) -> Result<(), ()> {
    let limit = ANSWER_LIMIT_BYTES as u64 + 1;
    // What cannot be read any more is missing in the answer, and told there.
    let _ = stdout.take(limit).read_to_end(output).await;
    if output.len() <= ANSWER_LIMIT_BYTES { Ok(()) } else { Err(()) }
}
