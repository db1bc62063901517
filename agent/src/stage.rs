//! One stage as it runs: a process with its input and output, or work that the agent
//! does by itself in no time.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use job::outcome::Outcome;
use job::place::{InContainers, Place, Process, Processes, Work};
use job::plan::{Action, Containers, File, Plan, Prepare};
use job::sequence::{Ended, Status};
use prost::Message as _;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process_group, pidfd_open, waitpid,
};

use crate::descendants::Reaper;

/// Time between asking a stage to stop and killing it.
const GRACE: Duration = Duration::from_secs(5);
/// To remove a container takes the daemon a fraction of a second.
const DISMISSAL: Duration = Duration::from_secs(3);
/// A verdict is a sentence or two.
const LONGEST_VERDICT: usize = 64 * 1024;

/// Where the stages of a plan run: on the instance itself, or in its containers.
pub(crate) fn place(plan: &Plan) -> Box<dyn Place> {
    match plan.containers.clone() {
        None => Box::new(on_instance()),
        Some(containers) => Box::new(inside(containers)),
    }
}

fn on_instance() -> Processes {
    Processes {
        home: std::env::var_os("HOME").map_or_else(|| "/".into(), PathBuf::from),
        agent: "/proc/self/exe".into(),
        transfer_role: crate::TRANSFER,
    }
}

fn inside(containers: Containers) -> InContainers {
    let (processes, role) = (on_instance(), crate::CONTAINERS);
    InContainers { processes, containers, role, began: false.into() }
}

/// A process of a stage.
pub(crate) struct Running {
    work: Work,
    pid: Pid,
    /// Readable once the process ended; absent on kernels without pidfds.
    pub(crate) pidfd: Option<OwnedFd>,
    input: Option<Input>,
    /// What it prints; never blocks. Taken when its stage begins.
    pub(crate) output: Option<OwnedFd>,
    /// Where it may say more than by its exit status.
    verdict: Option<OwnedFd>,
    /// When it is killed, once it was asked to stop.
    pub(crate) kill_at: Option<Instant>,
}

struct Input {
    stdin: OwnedFd,
    bytes: Vec<u8>,
    written: usize,
}

impl Running {
    fn start(place: &dyn Place, work: Work) -> io::Result<Self> {
        Self::started(work, |output| place.start(work, output))
    }

    fn started(work: Work, start: impl FnOnce(OwnedFd) -> io::Result<Process>) -> io::Result<Self> {
        let (output, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        set_nonblocking(&output)?;
        let Process { pid, stdin, verdict } = start(writer)?;
        set_nonblocking(&stdin)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
        let input = Some(Input { stdin, bytes: Vec::new(), written: 0 });
        Ok(Self { work, pid, pidfd, input, output: Some(output), verdict, kill_at: None })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it has not ended; only of a child that nobody else waits for.
    pub(crate) fn is_alive(&self) -> bool {
        has_not_ended(self.pid)
    }

    /// Tells a process that waits that nothing comes, and gives it a moment to end: what it
    /// made ahead goes.
    pub(crate) fn dismiss(self) {
        let (pid, deadline) = (self.pid, Instant::now() + DISMISSAL);
        drop(self);
        while Instant::now() < deadline && has_not_ended(pid) {
            std::thread::sleep(Duration::from_millis(5));
        }
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
        if let Some(verdict) = &self.verdict {
            // What is kept of the socket would keep its writing end open.
            let _ = rustix::net::shutdown(verdict, rustix::net::Shutdown::Write);
        }
    }

    /// The input's end to watch, while there is input left.
    pub(crate) fn wants(&self) -> Option<&OwnedFd> {
        self.input.as_ref().map(|input| &input.stdin)
    }

    /// Asks the whole process group to stop.
    pub(crate) fn stop(&mut self) {
        let _ = kill_process_group(self.pid, Signal::TERM);
        self.kill_at.get_or_insert(Instant::now() + GRACE);
    }

    /// How the process ended, if it did.
    pub(crate) fn ended(&self, reaper: &mut Reaper) -> Option<Ended> {
        let ended = reaper.end_of(self.pid).map(ended)?;
        Some(self.verdict.as_ref().and_then(read_verdict).map_or(ended, Ended::Failed))
    }
}

/// Reaps the child if it has.
fn has_not_ended(child: Pid) -> bool {
    matches!(waitpid(Some(child), WaitOptions::NOHANG), Ok(None))
}

/// What a process said before it ended; never blocks.
fn read_verdict(socket: &OwnedFd) -> Option<Outcome> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while bytes.len() < LONGEST_VERDICT
        && let Ok(read @ 1..) = rustix::io::read(socket, &mut buffer)
    {
        bytes.extend_from_slice(&buffer[..read]);
    }
    if bytes.is_empty() { None } else { Outcome::decode(bytes.as_slice()).ok() }
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

/// Starts the first process of the plan before it is needed.
pub(crate) fn start_ahead(plan: &Plan, place: &dyn Place) -> Option<Running> {
    let work = plan.stages.iter().find_map(|stage| stage.action.as_ref().and_then(work_of))?;
    Running::start(place, work).ok()
}

/// Starts to make what a job will likely run in. The process waits for the job's first work.
pub(crate) fn make_ahead(shape: Containers) -> Option<Running> {
    let place = inside(shape);
    Running::started(Work::Furnish, |output| place.start_ahead(output)).ok()
}

/// What of an action is a process's; `None` where the agent does it by itself.
fn work_of(action: &Action) -> Option<Work> {
    match action {
        Action::Script(script) if script.of_agent => Some(Work::AgentShell),
        Action::Script(_) => Some(Work::Shell),
        Action::Transfer(_) => Some(Work::Transfer),
        Action::Furnish(_) => Some(Work::Furnish),
        Action::Clear(_) => Some(Work::Clear),
        Action::Prepare(_) | Action::Cleanup(_) => None,
    }
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
    let input = match action {
        Action::Script(script) => {
            format!("export CI_JOB_STATUS={}\n{}", status.as_str(), script.text).into_bytes()
        }
        Action::Transfer(transfer) => transfer.encode_to_vec(),
        Action::Furnish(_) => Vec::new(),
        Action::Clear(_) => {
            // A job that is over before it began leaves what was made for it to this.
            if let Some(unused) = ahead.take() {
                unused.dismiss();
            }
            plan.temp_dir().into_bytes()
        }
        Action::Prepare(prepare) => {
            return done(make_directories(plan, prepare), prepared(prepare));
        }
        Action::Cleanup(_) => return done(remove_files(plan), String::new()),
    };
    let Some(work) = work_of(action) else {
        return done(Ok(()), String::new());
    };
    let waiting = ahead.take_if(|ahead| ahead.work == work);
    match waiting.map_or_else(|| Running::start(place, work), Ok) {
        Ok(mut running) => {
            running.feed(place.input(work, input));
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
    if plan.containers.is_some() {
        open_to_containers(plan, &temp_dir)?;
    }
    Ok(())
}

fn write_secret(dir: &Path, file: &File) -> io::Result<()> {
    use std::io::Write as _;
    let path = dir.join(&file.name);
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    out.write_all(&file.content)
}

/// Whoever the user in the container is reads and writes the job's files, as under GitLab
/// Runner. On the instance nobody else gets there: `outside` lies in a directory of ours.
fn open_to_containers(plan: &Plan, temp_dir: &Path) -> io::Result<()> {
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let root = plan.containers.as_ref().map_or("", |containers| &containers.outside);
    let dirs = Path::new(&plan.project_dir).ancestors();
    for dir in dirs.take_while(|dir| dir.starts_with(root)).chain([temp_dir]) {
        open(dir, 0o777)?;
    }
    plan.files.iter().try_for_each(|file| open(&temp_dir.join(&file.name), 0o666))
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
