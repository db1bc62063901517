//! Where a stage runs. What a stage is, this module does not know: it gets a program's
//! input and an output, and starts a process.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use prost::Message as _;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;

use crate::plan::{Clear, ContainerWork, Containers, Furnish, Work as Inside};
use crate::wire::encode;

/// What follows the role of a process that makes something ahead of a job.
pub const AHEAD: &str = "ahead";
/// The body of a request and some names, in bytes.
const LONGEST_SHAPE: usize = 1024 * 1024;

/// Something to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A shell that reads its whole script from stdin, then runs it in the job's name.
    Shell,
    /// The same for the agent: it works on the job's files.
    AgentShell,
    /// The agent's own child for artifacts; stdin is the encoded transfer.
    Transfer,
    /// Makes the place ready for the job; no input.
    Furnish,
    /// Removes what the place made for the job; stdin names a directory to remove, too.
    Clear,
}

/// A started process. It leads its own process group.
#[derive(Debug)]
pub struct Process {
    /// Its id, and that of its group.
    pub pid: Pid,
    /// Takes the work's input, until its writing end is closed.
    pub stdin: OwnedFd,
    /// Where it says how the work ended, if it has more to say than its exit status: an
    /// encoded `Outcome`, there when it has ended. The same socket as `stdin`.
    pub verdict: Option<OwnedFd>,
}

/// A place that can run stages.
pub trait Place {
    /// Starts `work`; what it prints, on stdout and stderr alike, goes to `output`.
    fn start(&self, work: Work, output: OwnedFd) -> io::Result<Process>;

    /// The input of `work`, as the process reads it that does it here.
    fn input(&self, work: Work, input: Vec<u8>) -> Vec<u8>;
}

/// The instance itself: every stage is a process on it.
#[derive(Clone, Debug)]
pub struct Processes {
    /// Where processes start.
    pub home: PathBuf,
    /// The program for what is not a shell's.
    pub agent: PathBuf,
    /// The word that makes `agent` transfer.
    pub transfer_role: &'static str,
}

impl Place for Processes {
    fn start(&self, work: Work, output: OwnedFd) -> io::Result<Process> {
        let mut command = match work {
            Work::Shell | Work::AgentShell => shell(),
            Work::Transfer => self.agent(&[self.transfer_role]),
            Work::Furnish | Work::Clear => {
                return Err(io::Error::other("there is nothing to make on the instance itself"));
            }
        };
        command.stdin(Stdio::piped());
        let mut child = self.spawn(&mut command, output)?;
        let stdin =
            child.stdin.take().ok_or_else(|| io::Error::other("the process has no stdin"))?;
        Ok(Process { pid: Pid::from_child(&child), stdin: stdin.into(), verdict: None })
    }

    fn input(&self, _: Work, input: Vec<u8>) -> Vec<u8> {
        input
    }
}

impl Processes {
    fn agent(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.agent);
        command.args(words);
        command
    }

    fn spawn(&self, command: &mut Command, output: OwnedFd) -> io::Result<std::process::Child> {
        let stderr = output.try_clone()?;
        command
            .current_dir(&self.home)
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(stderr))
            .process_group(0)
            .spawn()
    }
}

/// Containers of the instance's daemon: a child of the agent drives them, one per stage.
/// What a job's containers need from stage to stage lies with the daemon.
#[derive(Debug)]
pub struct InContainers {
    /// The instance.
    pub processes: Processes,
    /// What the plan says.
    pub containers: Containers,
    /// The word that makes the agent drive containers.
    pub role: &'static str,
    /// A script was given to the job's container.
    pub began: Cell<bool>,
}

impl InContainers {
    /// Starts a process that makes what `containers` are here, a shape (see
    /// [`crate::ahead`]), prints nothing, and waits to be given the work of a job,
    /// [`Work::Furnish`]. Without one, what it made goes.
    pub fn start_ahead(&self, output: OwnedFd) -> io::Result<Process> {
        let frame = encode(&self.containers);
        if frame.len() > LONGEST_SHAPE {
            return Err(io::Error::other("too much to be made ahead"));
        }
        let process = self.start_role(&[self.role, AHEAD], output)?;
        let mut frame = frame.as_slice();
        while !frame.is_empty() {
            frame = &frame[rustix::io::write(&process.stdin, frame)?..];
        }
        Ok(process)
    }

    fn start_role(&self, words: &[&str], output: OwnedFd) -> io::Result<Process> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let mut command = self.processes.agent(words);
        command.stdin(Stdio::from(theirs));
        let child = self.processes.spawn(&mut command, output)?;
        Ok(Process { pid: Pid::from_child(&child), stdin: ours.try_clone()?, verdict: Some(ours) })
    }

    fn is_on_instance(&self, work: Work) -> bool {
        work == Work::AgentShell && self.containers.helper.is_none()
    }
}

impl Place for InContainers {
    fn start(&self, work: Work, output: OwnedFd) -> io::Result<Process> {
        if self.is_on_instance(work) {
            return self.processes.start(work, output);
        }
        self.start_role(&[self.role], output)
    }

    fn input(&self, work: Work, input: Vec<u8>) -> Vec<u8> {
        if self.is_on_instance(work) {
            return input;
        }
        let inside = match work {
            Work::Shell if self.began.replace(true) => Inside::Script(one_command(&input)),
            Work::Shell => Inside::FirstScript(one_command(&input)),
            Work::AgentShell => Inside::HelperScript(one_command(&input)),
            Work::Transfer => Inside::Transfer(input),
            Work::Furnish => Inside::Furnish(Furnish {}),
            Work::Clear => {
                Inside::Clear(Clear { remove: String::from_utf8_lossy(&input).into_owned() })
            }
        };
        let containers = Some(self.containers.clone());
        ContainerWork { containers, work: Some(inside) }.encode_to_vec()
    }
}

/// A script as one command. An image's entrypoint may have a shell of its own execute what it
/// reads from stdin: it must have read all before the first command can take stdin from it.
fn one_command(script: &[u8]) -> Vec<u8> {
    let mut command = b"eval '".to_vec();
    for byte in script {
        match byte {
            b'\'' => command.extend_from_slice(b"'\\''"),
            byte => command.push(*byte),
        }
    }
    command.extend_from_slice(b"'\n");
    command
}

/// Where a Docker daemon listens if nothing else is said, as its own client has it: root's
/// daemon, or a rootless one of this user.
pub fn default_docker_socket() -> PathBuf {
    const OF_ROOT: &str = "/var/run/docker.sock";
    let rootless = std::env::var_os("XDG_RUNTIME_DIR")
        .map(|dir| PathBuf::from(dir).join("docker.sock"))
        .filter(|path| path.exists());
    match rootless {
        Some(path) if !Path::new(OF_ROOT).exists() => path,
        _ => OF_ROOT.into(),
    }
}

/// bash where there is one. It takes its script in one read and in blocks: a shell that
/// executes its stdin reads it byte by byte, since its commands share it.
fn shell() -> Command {
    const BASH: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"];
    if let Some(bash) = BASH.iter().find(|path| Path::new(path).exists()) {
        let mut command = Command::new(bash);
        // The name that bash puts before its error messages.
        command.arg0("bash");
        command.args(["-c", "eval \"$(</dev/stdin)\""]);
        return command;
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ". /dev/stdin"]);
    command
}
