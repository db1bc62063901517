//! An agent that waits for its plan: holds a slot, prepares the plan, and begins on `go`.
//!
//! Until `go` nothing outlives the connection: its end, or a day of silence, ends the
//! agent and leaves no file.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use job::place::Place;
use job::plan::Plan;
use job::wire::{
    Armed, Frames, FromAgent, NEWEST_PROTOCOL, OLDEST_PROTOCOL, Ready, Refused, ToAgent, encode,
    from_agent, to_agent,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::descendants::Reaper;
use crate::listener::{Line, Listener};
use crate::slot::{Slot, Taken};
use crate::stage::Running;
use crate::store::{self, Existing, Store};
use crate::supervisor::{Hands, Supervisor};
use crate::{Error, containers, stage};

/// Silence after which a waiting agent takes its manager for gone: the last resort, where
/// neither side's TCP noticed the end of the connection.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn run(base: &Path, slot: u32) -> Result<ExitCode, Error> {
    // A session of its own, before anything of the job is started. OpenSSH makes the
    // command a session leader already, then this fails: fine.
    let _ = rustix::process::setsid();
    let slot = match Slot::take(base, slot) {
        Ok(slot) => slot,
        Err(Taken::Running(key)) => {
            return refuse(&format!("the slot runs job {key}"), false);
        }
        Err(Taken::Error(error)) => return refuse(&error.to_string(), false),
    };
    let mut manager = Manager::default();
    say(from_agent::Message::Ready(Ready {
        oldest_protocol: OLDEST_PROTOCOL,
        newest_protocol: NEWEST_PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
    }))?;
    // Before the first child: older kernels tell no child of it that is there already.
    let mut reaper = Reaper::adopt_orphans();
    let mut made_ahead = MadeAhead(None);
    let Some(plan) = manager.plan(&mut made_ahead)? else {
        return Ok(ExitCode::SUCCESS);
    };
    if !(OLDEST_PROTOCOL..=NEWEST_PROTOCOL).contains(&plan.protocol) {
        return refuse(&format!("protocol {} is not spoken here", plan.protocol), false);
    }
    if let Some(containers) = &plan.containers
        && let Some(why) = containers::refusal(base, containers)
    {
        return refuse(&why, false);
    }
    let dir = store::job_dir(base, &plan.job_key)?;
    if let Existing::Job = store::existing(&dir) {
        return refuse("the job is here already", true);
    }
    let limit = plan.trace.as_ref().map_or(0, |trace| trace.limit_bytes);
    let store = match Store::create(&dir, limit) {
        Ok(store) => store,
        Err(error) => return refuse(&error.to_string(), false),
    };
    let place = stage::place(&plan);
    let mut ahead = made_ahead.or_start(&plan, &*place);
    say(from_agent::Message::Armed(Armed {}))?;
    if !manager.go()? {
        drop(ahead);
        reaper.kill_all(None);
        store.remove();
        return Ok(ExitCode::SUCCESS);
    }

    slot.runs(&plan.job_key);
    leave_connection()?;
    store.begin().map_err(Error::io("cannot mark that the job began"))?;
    let listener = manager.into_listener(&store)?;
    let ahead = ahead.0.take();
    if let Some(ahead) = &ahead {
        reaper.expect(ahead.pid());
    }
    let hands = Hands { place, ahead, reaper };
    Supervisor::new(plan, store, hands, listener).run(slot);
    Ok(ExitCode::SUCCESS)
}

/// A process that waits for the job's first work. Without one, it is given a moment to remove
/// what it made.
struct MadeAhead(Option<Running>);

impl MadeAhead {
    /// The plan's first process: this one if it can be, or a shell that is up when its script
    /// comes.
    fn or_start(mut self, plan: &Plan, place: &dyn Place) -> Self {
        let made = self.0.take_if(|made| plan.containers.is_some() && made.is_alive());
        Self(made.or_else(|| stage::start_ahead(plan, place)))
    }
}

impl Drop for MadeAhead {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.dismiss();
        }
    }
}

/// The manager at the other end of the SSH channel, before `go`.
#[derive(Default)]
struct Manager {
    frames: Frames,
}

impl Manager {
    /// The plan; `None` if the manager went away first. What the job will likely run in is
    /// made as soon as the manager says so.
    fn plan(&mut self, made_ahead: &mut MadeAhead) -> Result<Option<Plan>, Error> {
        loop {
            match self.next()? {
                Some(to_agent::Message::Plan(plan)) => return Ok(Some(plan)),
                Some(to_agent::Message::Ahead(shape)) => {
                    *made_ahead = MadeAhead(stage::make_ahead(shape));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Whether `go` came; `false` if the manager went away first.
    fn go(&mut self) -> Result<bool, Error> {
        loop {
            match self.next()? {
                Some(to_agent::Message::Go(_)) => return Ok(true),
                Some(to_agent::Message::Abort(_)) | None => return Ok(false),
                Some(_) => {}
            }
        }
    }

    fn next(&mut self) -> Result<Option<to_agent::Message>, Error> {
        let stdin = rustix::stdio::stdin();
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(ToAgent { message: Some(message) }) = self.frames.take()? {
                return Ok(Some(message));
            }
            let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
            let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
            match poll(&mut fds, Some(&patience)) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(_) => continue,
            }
            match rustix::io::read(stdin, &mut buffer) {
                Ok(0) => return Ok(None),
                Ok(read) => self.frames.push(&buffer[..read]),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(errno) => return Err(Error::io("cannot read the plan")(errno.into())),
            }
        }
    }

    /// The manager as one listener among others.
    fn into_listener(self, store: &Store) -> Result<Listener, Error> {
        let line = Line::of_stdio().map_err(Error::io("cannot keep the channel"))?;
        let log = store.log_reader().map_err(Error::io("cannot read the log"))?;
        Ok(Listener::new(line, log, Some(0), self.frames))
    }
}

/// Makes the job independent of the connection: no signals from its session, no stderr
/// that could break.
fn leave_connection() -> Result<(), Error> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let heard = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        // A handler that does nothing, not "ignore": children start with the default.
        signal_hook::flag::register(signal, std::sync::Arc::clone(&heard))
            .map_err(Error::io("cannot catch signals"))?;
    }
    let null = std::fs::File::options()
        .write(true)
        .open("/dev/null")
        .map_err(Error::io("cannot open /dev/null"))?;
    rustix::stdio::dup2_stderr(&null).map_err(|errno| Error::new(errno.to_string()))
}

fn say(message: from_agent::Message) -> Result<(), Error> {
    let frame = encode(&FromAgent::from(message));
    let mut stdout = std::io::stdout();
    stdout
        .write_all(&frame)
        .and_then(|()| stdout.flush())
        .map_err(Error::io("cannot answer the manager"))
}

fn refuse(message: &str, already_running: bool) -> Result<ExitCode, Error> {
    say(from_agent::Message::Refused(Refused { message: message.into(), already_running }))?;
    Ok(ExitCode::SUCCESS)
}
