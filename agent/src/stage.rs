//! One stage as it runs: a process with its input and output, or work that the agent
//! does by itself in no time.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::time::{Duration, Instant};

use job::place::{Place, Process, Processes, Work};
use job::plan::{Action, File, Plan, Prepare};
use job::sequence::{Ended, Status};
use prost::Message as _;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitStatus, kill_process_group, pidfd_open};

use crate::descendants::Reaper;

/// Time between asking a stage to stop and killing it.
const GRACE: Duration = Duration::from_secs(5);

/// The instance itself.
pub(crate) fn place() -> Processes {
    Processes {
        home: std::env::var_os("HOME").map_or_else(|| "/".into(), PathBuf::from),
        agent: "/proc/self/exe".into(),
        transfer_role: crate::TRANSFER,
    }
}

/// A process of a stage.
pub(crate) struct Running {
    pid: Pid,
    /// Readable once the process ended; absent on kernels without pidfds.
    pub(crate) pidfd: Option<OwnedFd>,
    input: Option<Input>,
    /// What it prints; never blocks. Taken when its stage begins.
    pub(crate) output: Option<OwnedFd>,
    /// When it is killed, once it was asked to stop.
    pub(crate) kill_at: Option<Instant>,
}

struct Input {
    stdin: ChildStdin,
    bytes: Vec<u8>,
    written: usize,
}

impl Running {
    fn start(place: &dyn Place, work: Work) -> io::Result<Self> {
        let (output, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        set_nonblocking(&output)?;
        let Process { pid, stdin } = place.start(work, writer)?;
        set_nonblocking(&stdin)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
        let input = Some(Input { stdin, bytes: Vec::new(), written: 0 });
        Ok(Self { pid, pidfd, input, output: Some(output), kill_at: None })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Gives the process its whole input.
    fn feed(&mut self, bytes: Vec<u8>) {
        if let Some(input) = &mut self.input {
            input.bytes = bytes;
        }
        self.feed_on();
    }

    /// Writes as much input as the process takes; closes it after the last byte.
    pub(crate) fn feed_on(&mut self) {
        let Some(input) = &mut self.input else {
            return;
        };
        while input.written < input.bytes.len() {
            match rustix::io::write(&input.stdin, &input.bytes[input.written..]) {
                Ok(written) => input.written += written,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // It does not want to read: it will say why by how it ends.
                Err(_) => break,
            }
        }
        self.input = None;
    }

    /// The input's end to watch, while there is input left.
    pub(crate) fn wants(&self) -> Option<&ChildStdin> {
        self.input.as_ref().map(|input| &input.stdin)
    }

    /// Asks the whole process group to stop.
    pub(crate) fn stop(&mut self) {
        let _ = kill_process_group(self.pid, Signal::TERM);
        self.kill_at.get_or_insert(Instant::now() + GRACE);
    }

    /// How the process ended, if it did.
    pub(crate) fn ended(&self, reaper: &mut Reaper) -> Option<Ended> {
        reaper.end_of(self.pid).map(ended)
    }
}

/// A shell's convention: 128 and the number of the signal.
fn ended(status: WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => Ended::Ok,
        (Some(code), _) => Ended::Exit(code),
        (None, Some(signal)) => Ended::Exit(128 + signal),
        (None, None) => Ended::Broken("it ended in an unknown way".into()),
    }
}

/// Starts the shell of the first script before it is needed.
pub(crate) fn start_ahead(plan: &Plan, place: &dyn Place) -> Option<Running> {
    let needs_shell = plan.stages.iter().any(|s| matches!(s.action, Some(Action::Script(_))));
    needs_shell.then(|| Running::start(place, Work::Shell).ok()).flatten()
}

/// A begun stage.
pub(crate) enum Begun {
    /// A process does it.
    Process(Running),
    /// It is done; with lines for the log.
    Done(Ended, String),
}

/// Begins a stage. `ahead` is a shell that waits for a script.
pub(crate) fn begin(
    action: &Action,
    plan: &Plan,
    status: Status,
    place: &dyn Place,
    ahead: &mut Option<Running>,
) -> Begun {
    let (work, input) = match action {
        Action::Script(script) => {
            let text = format!("export CI_JOB_STATUS={}\n{}", status.as_str(), script.text);
            (Work::Shell, text.into_bytes())
        }
        Action::Transfer(transfer) => (Work::Transfer, transfer.encode_to_vec()),
        Action::Prepare(prepare) => {
            return done(make_directories(plan, prepare), prepared(prepare));
        }
        Action::Cleanup(_) => return done(remove_files(plan), String::new()),
        Action::Furnish(_) | Action::Clear(_) => return done(Ok(()), String::new()),
    };
    let waiting = if work == Work::Shell { ahead.take() } else { None };
    match waiting.map_or_else(|| Running::start(place, work), Ok) {
        Ok(mut running) => {
            running.feed(input);
            Begun::Process(running)
        }
        Err(error) => Begun::Done(Ended::Broken(format!("cannot start: {error}")), String::new()),
    }
}

fn done(result: io::Result<()>, text: String) -> Begun {
    match result {
        Ok(()) => Begun::Done(Ended::Ok, text),
        Err(error) => Begun::Done(Ended::Broken(error.to_string()), text),
    }
}

fn prepared(prepare: &Prepare) -> String {
    let host = rustix::system::uname();
    format!("Running on {} via {}...\n", host.nodename().to_string_lossy(), prepare.via)
}

/// The project directory, and beside it the files that end with the job.
fn make_directories(plan: &Plan, prepare: &Prepare) -> io::Result<()> {
    let project_dir = Path::new(&plan.project_dir);
    if prepare.empty_project_dir && project_dir.exists() {
        fs::remove_dir_all(project_dir)?;
    }
    fs::create_dir_all(project_dir)?;
    remove_files(plan)?;
    let temp_dir = PathBuf::from(plan.temp_dir());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&temp_dir)?;
    for file in &plan.files {
        write_secret(&temp_dir, file)?;
    }
    Ok(())
}

fn write_secret(dir: &Path, file: &File) -> io::Result<()> {
    use std::io::Write as _;
    let path = dir.join(&file.name);
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    out.write_all(&file.content)
}

fn remove_files(plan: &Plan) -> io::Result<()> {
    match fs::remove_dir_all(plan.temp_dir()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn set_nonblocking(fd: impl std::os::fd::AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}
