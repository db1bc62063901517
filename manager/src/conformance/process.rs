//! Checks of the process: how it starts, what it is without `Init`, how it ends.

use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mayfly_plugin::host::{COOKIE, CallError, Probe, StartCause};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::Check;
use super::bare::{Bare, run_to_end};
use super::exam::Exam;
use super::lab::{LOOK, PATIENCE};

/// What hosts wait for between `Controller.Shutdown` and SIGKILL.
const END_CALL: Duration = Duration::from_secs(2);
/// A signal that ends a process does so within this time.
const SIGNAL: Duration = Duration::from_millis(500);
/// An id that no provider has.
pub(super) const NOBODY: &str = "mayfly-check-no-such-instance";

/// All that can be seen without `Init`. An error says why there will not be one.
pub(super) async fn examine(exam: &mut Exam<'_, '_>) -> Result<(), String> {
    by_hand(exam).await;
    version_word(exam).await;
    handshake(exam).await?;
    version_sets(exam).await;
    parent_gone(exam).await;
    health(exam).await;
    interrupt(exam).await;
    terminate(exam).await;
    before_init(exam).await;
    broken_config(exam).await;
    Ok(())
}

fn command(exam: &Exam<'_, '_>, program: &OsStr) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for (name, value) in &exam.lab.launch.environment {
        command.env(name, value);
    }
    command
}

async fn by_hand(exam: &mut Exam<'_, '_>) {
    let mut result = Ok(());
    for cookie in [None, Some("4c6410b1")] {
        let mut by_hand = command(exam, exam.lab.options.binary.as_os_str());
        let how = match cookie {
            None => "without the cookie",
            Some(wrong) => {
                by_hand.env(COOKIE.0, wrong);
                "with a wrong cookie"
            }
        };
        let what = match run_to_end(by_hand, &[], PATIENCE).await {
            Err(error) => Some(format!("cannot be started: {error}")),
            Ok(None) => Some("does not end".to_owned()),
            Ok(Some(output)) if output.status.success() => Some("ends with status 0".to_owned()),
            Ok(Some(output)) if !output.stdout.is_empty() => Some("prints on stdout".to_owned()),
            Ok(Some(output)) if output.stderr.is_empty() => Some("ends without a word".to_owned()),
            Ok(Some(_)) => None,
        };
        if let Some(what) = what {
            result = Err(format!("{how} it {what}"));
            break;
        }
    }
    exam.findings.judge(Check::ByHand, result);
}

async fn version_word(exam: &mut Exam<'_, '_>) {
    let version = command(exam, exam.lab.options.binary.as_os_str());
    let result = match run_to_end(version, &["version".as_ref()], PATIENCE).await {
        Err(error) => Err(format!("it cannot be started: {error}")),
        Ok(None) => Err("asked for `version`, it does not end".into()),
        Ok(Some(output)) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let has_lines = ["Name:", "Version:"].iter().all(|word| text.contains(word));
            match output.status.code() {
                Some(0) if has_lines => Ok(()),
                Some(0) => Err("asked for `version`, it prints no `Name:` and `Version:`".into()),
                _ => Err(format!("asked for `version`, it ends with {}", output.status)),
            }
        }
    };
    exam.findings.judge(Check::VersionWord, result);
}

async fn handshake(exam: &mut Exam<'_, '_>) -> Result<(), String> {
    let error = match exam.lab.start().await {
        Ok(_) => {
            exam.findings.pass(Check::Handshake);
            exam.findings.pass(Check::SocketPlace);
            return Ok(());
        }
        Err(error) => error,
    };
    if matches!(error.cause, StartCause::Address { .. }) {
        exam.findings.pass(Check::Handshake);
        exam.findings.fail(Check::SocketPlace, error.cause.to_string());
        return Err("there is no connection to it".into());
    }
    exam.findings.fail(Check::Handshake, error.to_string());
    Err("it does not start".into())
}

async fn version_sets(exam: &mut Exam<'_, '_>) {
    let mut result = Ok(());
    for versions in [None, Some("5"), Some("x"), Some("0,1")] {
        let mut program = command(exam, exam.lab.options.binary.as_os_str());
        program.env(COOKIE.0, COOKIE.1).stdin(Stdio::null());
        if let Some(versions) = versions {
            program.env("PLUGIN_PROTOCOL_VERSIONS", versions);
        }
        let line = match Bare::start(program, Stdio::null()) {
            Ok(mut plugin) => plugin.first_line(PATIENCE).await,
            Err(error) => Some((error.to_string(), String::new())),
        };
        let (line, rest) = line.unwrap_or_default();
        if exam.lab.beside_handshake.is_empty() {
            exam.lab.beside_handshake = rest;
        }
        if !line.starts_with("1|0|") {
            let set = versions.map_or("unset".to_owned(), |versions| format!("{versions:?}"));
            let line = if line.is_empty() { "no line".to_owned() } else { format!("{line:?}") };
            result = Err(format!("with PLUGIN_PROTOCOL_VERSIONS {set} it prints {line}"));
            break;
        }
    }
    exam.findings.judge(Check::VersionSets, result);
}

/// Between this process and the plugin stand two shells: one that is killed, and one that
/// ends everything when this process is gone.
const TWO_SHELLS: &str = r#"
sh -c '"$0" </dev/null 3>&- & echo $$ $! >"$1/new"; mv "$1/new" "$1/pids"; wait' "$0" "$TMPDIR" &
read -r _
kill -KILL 0
"#;

async fn parent_gone(exam: &mut Exam<'_, '_>) {
    let mut shells = command(exam, "/bin/sh".as_ref());
    shells
        .args(["-c".as_ref(), TWO_SHELLS.as_ref(), exam.lab.options.binary.as_os_str()])
        .env(COOKIE.0, COOKIE.1)
        .env("PLUGIN_PROTOCOL_VERSIONS", "0")
        .stdin(Stdio::piped());
    let result = async {
        let mut shells = Bare::start(shells, Stdio::null()).map_err(|error| error.to_string())?;
        let line = shells.first_line(PATIENCE).await;
        line.ok_or("it prints no handshake under a shell")?;
        let deadline = Instant::now() + PATIENCE;
        let (shell, plugin) = loop {
            if let Some(pids) = pids(&shells.directory().join("pids")) {
                break pids;
            }
            if Instant::now() >= deadline {
                return Err("the shell above it does not start".to_owned());
            }
            sleep(LOOK).await;
        };
        let _ = kill_process(shell, Signal::KILL);
        while runs(plugin) {
            if Instant::now() >= deadline {
                let waited = PATIENCE.as_secs();
                return Err(format!("it still runs {waited} s after its parent has ended"));
            }
            sleep(LOOK).await;
        }
        Ok(())
    };
    let result = result.await;
    exam.findings.judge(Check::ParentGone, result);
}

fn pids(file: &Path) -> Option<(Pid, Pid)> {
    let text = std::fs::read_to_string(file).ok()?;
    let (shell, plugin) = text.trim().split_once(' ')?;
    Some((Pid::from_raw(shell.parse().ok()?)?, Pid::from_raw(plugin.parse().ok()?)?))
}

/// Whether a process is there, and is more than a zombie.
fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let Ok(stat) = stat else { return false };
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// A fresh process, or the check fails.
async fn fresh(exam: &mut Exam<'_, '_>, check: Check) -> Option<Probe> {
    match exam.lab.start().await {
        Ok(probe) => Some(probe),
        Err(error) => {
            exam.findings.fail(check, format!("it does not start again: {error}"));
            None
        }
    }
}

async fn health(exam: &mut Exam<'_, '_>) {
    let Some(probe) = fresh(exam, Check::Health).await else { return };
    let result = match probe.serves("plugin", exam.lab.limit()).await {
        Ok(true) => Ok(()),
        Ok(false) => Err("the service `plugin` is not SERVING".into()),
        Err(error) => Err(error.to_string()),
    };
    exam.findings.judge(Check::Health, result);
}

async fn interrupt(exam: &mut Exam<'_, '_>) {
    let Some(probe) = fresh(exam, Check::Interrupt).await else { return };
    probe.interrupt();
    let ended = timeout(SIGNAL, probe.ended()).await.is_ok();
    let result = if ended {
        Err("it ends by it".into())
    } else {
        answers(&probe, exam.lab.limit().min(PATIENCE)).await
    };
    exam.findings.judge(Check::Interrupt, result);
}

async fn terminate(exam: &mut Exam<'_, '_>) {
    let Some(probe) = fresh(exam, Check::Terminate).await else { return };
    probe.terminate();
    let ended = timeout(SIGNAL, probe.ended()).await.is_ok();
    let mut result = Ok(());
    if !ended {
        result = answers(&probe, exam.lab.limit().min(PATIENCE)).await;
        // It may just have been on its way out.
        if result.is_err() && timeout(PATIENCE, probe.ended()).await.is_ok() {
            result = Ok(());
        }
    }
    exam.findings.judge(Check::Terminate, result);
}

/// Whether a call is answered, if only by an error.
async fn answers(probe: &Probe, limit: Duration) -> Result<(), String> {
    match probe.serves("plugin", limit).await {
        Err(error @ (CallError::Gone { .. } | CallError::Deadline { .. })) => {
            Err(format!("then it runs, but answers no more: {error}"))
        }
        _ => Ok(()),
    }
}

async fn before_init(exam: &mut Exam<'_, '_>) {
    let Some(probe) = fresh(exam, Check::BeforeInit).await else { return };
    let limit = exam.lab.limit();
    let listed = probe.update(limit).await.map(|_| ());
    let connected = probe.connect_info(NOBODY, limit).await.map(|_| ());
    let mut result = Ok(());
    for answer in [listed, connected] {
        match answer {
            Err(error) if error.outcome_unknown() => result = Err(error.to_string()),
            Err(CallError::Refused { message, .. }) => exam.lab.errors.push(message),
            _ => {}
        }
    }
    exam.findings.judge(Check::BeforeInit, result);
}

async fn broken_config(exam: &mut Exam<'_, '_>) {
    let Some(probe) = fresh(exam, Check::BrokenConfig).await else { return };
    // The configuration without its end: a message that repeats it all would show.
    let config = exam.lab.options.config.trim_ascii_end();
    let broken = config.strip_suffix(b"}").unwrap_or(b"{");
    let broken = if broken.is_empty() { b"{" } else { broken };
    let answer = probe.init(broken, &exam.lab.settings, exam.lab.limit()).await;
    let result = match answer {
        Ok(_) => Err("Init takes a configuration whose last `}` is missing".into()),
        Err(CallError::Refused { message, .. }) if message.trim().is_empty() => {
            Err("Init refuses it without a word".into())
        }
        Err(CallError::Refused { message, .. }) => {
            exam.lab.errors.push(message);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    exam.findings.judge(Check::BrokenConfig, result);
}

/// Ends a plugin after `Init` as hosts do, and looks at what that leaves.
pub(super) async fn end(exam: &mut Exam<'_, '_>, probe: &Probe) {
    let shutdown = probe.shutdown(exam.lab.limit()).await;
    let is_gone = matches!(shutdown, Err(CallError::Gone { .. }));
    exam.findings.judge(Check::Shutdown, shutdown.map_err(|error| error.to_string()));
    let rest = [Check::Ends, Check::SocketRemoved, Check::FilesLeft];
    if is_gone {
        exam.findings.skip(&rest, "it ended before it was told to");
        return;
    }
    probe.end(END_CALL).await;
    let result = match timeout(PATIENCE, probe.ended()).await {
        Ok(Ok(0)) => Ok(()),
        Ok(Ok(status)) => Err(format!("it ends with status {status}")),
        Ok(Err(how)) => Err(format!("it {how}")),
        Err(_) => Err(format!("it still runs {} s later", PATIENCE.as_secs())),
    };
    let was_killed = result.is_err();
    exam.findings.judge(Check::Ends, result);
    if was_killed {
        exam.findings.skip(&rest, "it does not end by itself in order");
        return;
    }
    let (mut sockets, mut files) = (Ok(()), Ok(()));
    for entry in std::fs::read_dir(probe.directory()).into_iter().flatten().flatten() {
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        let left = Err(format!("{} is left", entry.file_name().to_string_lossy()));
        *(if is_socket { &mut sockets } else { &mut files }) = left;
    }
    exam.findings.judge(Check::SocketRemoved, sockets);
    exam.findings.judge(Check::FilesLeft, files);
}

/// After all: no process that descends from a plugin is left. What is left is ended.
pub(super) async fn leftovers(exam: &mut Exam<'_, '_>) {
    let (name, value) = exam.lab.made.marker();
    let marker = format!("{name}={value}");
    let deadline = Instant::now() + PATIENCE / 2;
    let left = loop {
        let left = marked(&marker);
        if left.is_empty() || Instant::now() >= deadline {
            break left;
        }
        sleep(LOOK).await;
    };
    let names: Vec<String> = left.iter().map(|(pid, name)| format!("{name} ({pid})")).collect();
    for pid in left.iter().filter_map(|(pid, _)| Pid::from_raw(*pid)) {
        let _ = kill_process(pid, Signal::KILL);
    }
    let result = if names.is_empty() { Ok(()) } else { Err(format!("left: {}", names.join(", "))) };
    exam.findings.judge(Check::ProcessesLeft, result);
}

fn marked(marker: &str) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let has_it = environment.split(|byte| *byte == 0).any(|it| it == marker.as_bytes());
        if has_it && Pid::from_raw(pid).is_some_and(runs) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push((pid, name.trim().to_owned()));
        }
    }
    found
}
