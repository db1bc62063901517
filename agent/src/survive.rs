//! Whether a process on this instance outlives the connection that started it: `--start`
//! leaves one behind, `--look` over a later connection tells whether it is still there.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::Error;

/// The process that stays ends by itself after this.
const STAY: Duration = Duration::from_secs(120);
const PID_FILE: &str = "survive";

pub(crate) fn run(base: &Path, step: &str) -> Result<ExitCode, Error> {
    match step {
        "--start" => start(base),
        "--stay" => {
            // As an agent with a job does.
            let _ = rustix::process::setsid();
            std::thread::sleep(STAY);
            Ok(ExitCode::SUCCESS)
        }
        "--look" => look(base),
        other => Err(Error::new(format!("survive {other}: what is that?"))),
    }
}

fn start(base: &Path) -> Result<ExitCode, Error> {
    let child = Command::new("/proc/self/exe")
        .args(["survive", "--base"])
        .arg(base)
        .arg("--stay")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::io("cannot start a process that stays"))?;
    fs::write(base.join(PID_FILE), child.id().to_string())
        .map_err(Error::io("cannot note its id"))?;
    Ok(ExitCode::SUCCESS)
}

fn look(base: &Path) -> Result<ExitCode, Error> {
    let path = base.join(PID_FILE);
    let text = fs::read_to_string(&path).map_err(Error::io("no process was started"))?;
    let _ = fs::remove_file(&path);
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::new(format!("{text:?} is no process id")))?;
    if test_kill_process(pid).is_err() {
        return Ok(ExitCode::FAILURE);
    }
    let _ = kill_process(pid, Signal::KILL);
    Ok(ExitCode::SUCCESS)
}
