//! Joins a job: through its agent while that lives, from its files once it is gone.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use job::wire::{Frames, FromAgent, Lost, Refused, encode, from_agent};
use rustix::event::{PollFd, PollFlags, poll};

use crate::listener::{Asked, Line, Listener};
use crate::{Error, descendants, store};

pub(crate) fn run(base: &Path, key: &str) -> Result<ExitCode, Error> {
    let dir = store::job_dir(base, key)?;
    if !dir.is_dir() {
        let message = format!("there is no job {key} here");
        let refused = from_agent::Message::Refused(Refused { message, already_running: false });
        io::stdout()
            .write_all(&encode(&FromAgent::from(refused)))
            .map_err(Error::io("cannot answer the manager"))?;
        return Ok(ExitCode::SUCCESS);
    }
    match store::connect(&dir) {
        Ok(agent) => through(&agent),
        Err(_) => from_files(&dir),
    }
}

/// Copies frames both ways until the agent closes its socket.
fn through(agent: &UnixStream) -> Result<ExitCode, Error> {
    let up = agent.try_clone().map_err(Error::io("cannot join the job"))?;
    thread::spawn(move || {
        let mut up = up;
        let _ = copy(&mut io::stdin().lock(), &mut up);
        // The manager is gone: so is this listener.
        let _ = up.shutdown(std::net::Shutdown::Both);
    });
    let mut down = agent;
    copy(&mut down, &mut io::stdout().lock()).map_err(Error::io("the job's agent is lost"))?;
    Ok(ExitCode::SUCCESS)
}

/// Copies without holding anything back.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                to.write_all(&buffer[..read])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The agent is gone. With a result the job ended by itself; without one the agent was
/// killed, and what is left of the job is killed now.
fn from_files(dir: &Path) -> Result<ExitCode, Error> {
    let log = store::open_log(dir).map_err(Error::io("the job's log is lost"))?;
    let log_bytes = log.metadata().map_err(Error::io("the job's log is lost"))?.len();
    let line = Line::of_stdio().map_err(Error::io("cannot keep the channel"))?;
    let mut listener = Listener::new(line, log, None, Frames::default());
    if let Some(finished) = store::read_result(dir) {
        listener.finish(finished);
    } else {
        if let Some(session) = store::read_session(dir) {
            descendants::kill_session(session);
        }
        let message = "the agent was killed before the job ended".to_owned();
        listener.lose(Lost { message, log_bytes });
    }
    while !listener.gone {
        let mut fds = vec![PollFd::from_borrowed_fd(listener.input(), PollFlags::IN)];
        if listener.is_writing() {
            fds.push(PollFd::from_borrowed_fd(listener.output(), PollFlags::OUT));
        }
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if listener.hear().contains(&Asked::Done) {
            store::remove(dir);
            break;
        }
        listener.speak(log_bytes);
    }
    Ok(ExitCode::SUCCESS)
}
