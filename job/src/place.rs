//! Where a stage runs. What a stage is, this module does not know: it gets a program's
//! input and an output, and starts a process.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};

use rustix::process::Pid;

/// Something to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A shell that reads its whole script from stdin, then runs it.
    Shell,
    /// The agent's own child for artifacts; stdin is the encoded transfer.
    Transfer,
}

/// A started process. It leads its own process group.
#[derive(Debug)]
pub struct Process {
    /// Its id, and that of its group.
    pub pid: Pid,
    /// Takes the work's input; closed when all is written.
    pub stdin: ChildStdin,
}

/// A place that can run stages.
pub trait Place {
    /// Starts `work`; what it prints, on stdout and stderr alike, goes to `output`.
    fn start(&self, work: Work, output: OwnedFd) -> io::Result<Process>;
}

/// The instance itself: every stage is a process on it.
#[derive(Clone, Debug)]
pub struct Processes {
    /// Where processes start.
    pub home: PathBuf,
    /// The program for `Work::Transfer`.
    pub agent: PathBuf,
    /// The word that makes `agent` transfer.
    pub transfer_role: &'static str,
}

impl Place for Processes {
    fn start(&self, work: Work, output: OwnedFd) -> io::Result<Process> {
        use std::os::unix::process::CommandExt as _;
        let stderr = output.try_clone()?;
        let mut command = match work {
            Work::Shell => shell(),
            Work::Transfer => {
                let mut command = Command::new(&self.agent);
                command.arg(self.transfer_role);
                command
            }
        };
        let mut child = command
            .current_dir(&self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(stderr))
            .process_group(0)
            .spawn()?;
        let stdin =
            child.stdin.take().ok_or_else(|| io::Error::other("the process has no stdin"))?;
        Ok(Process { pid: Pid::from_child(&child), stdin })
    }
}

/// bash where there is one. It takes its script in one read and in blocks: a shell that
/// executes its stdin reads it byte by byte, since its commands share it.
fn shell() -> Command {
    const BASH: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"];
    if let Some(bash) = BASH.iter().find(|path| std::path::Path::new(path).exists()) {
        let mut command = Command::new(bash);
        // The name that bash puts before its error messages.
        std::os::unix::process::CommandExt::arg0(&mut command, "bash");
        command.args(["-c", "eval \"$(</dev/stdin)\""]);
        return command;
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ". /dev/stdin"]);
    command
}
