//! Accounts of this machine that live as long as a test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use crate::processes::{self, Process};
use crate::wait::look_until;

/// Names are `mayflytest-PID-N`: who is left over from a killed test can be told.
const PREFIX: &str = "mayflytest-";
/// What the kernel takes to end processes, and useradd to get its lock.
const PATIENCE: Duration = Duration::from_secs(20);

/// One account; removed, with all its processes, on drop.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) home: PathBuf,
    uid: u32,
}

impl Account {
    pub(super) fn create(home: &Path, group: Option<u32>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_leftovers);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let home_text = home.display().to_string();
        // `*` is a password that fits nothing; the `!` of an unset one would lock the
        // account also for keys.
        let options = ["-M", "-N", "-g", "nogroup", "-d", &home_text, "-s", "/bin/bash", "-p", "*"];
        let group = group.map(|id| id.to_string());
        let more: Vec<&str> = group.iter().flat_map(|id| ["-G", id.as_str()]).collect();
        patiently("useradd", &[&options[..], &more, &[name.as_str()]].concat());
        let uid = uid_of(&name).expect("useradd made the account");
        std::fs::create_dir_all(home).expect("a home");
        std::os::unix::fs::chown(home, Some(uid), None).expect("the home's owner");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(home, private).expect("the home's mode");
        Self { name, home: home.to_owned(), uid }
    }

    pub(super) fn processes(&self) -> Vec<Process> {
        of_user(self.uid)
    }

    pub(super) fn kill_all(&self) {
        kill_of_user(self.uid);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        remove(&self.name, self.uid);
        // Bases of agents beside the home.
        for base in ["/tmp", "/var/tmp"] {
            // Most homes are good enough, and there is none.
            let _ = std::fs::remove_dir_all(format!("{base}/mayfly-{}", self.uid));
        }
    }
}

fn of_user(uid: u32) -> Vec<Process> {
    processes::all().into_iter().filter(|process| process.uid == uid).collect()
}

fn kill_of_user(uid: u32) {
    look_until(PATIENCE, || {
        let left = of_user(uid);
        left.iter().for_each(Process::kill);
        left.is_empty().then_some(())
    });
}

fn remove(name: &str, uid: u32) {
    kill_of_user(uid);
    patiently("userdel", &["-f", name]);
}

fn remove_leftovers() {
    for (name, uid) in accounts() {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&name, uid);
        }
    }
}

fn uid_of(name: &str) -> Option<u32> {
    accounts().into_iter().find(|(known, _)| known == name).map(|(_, uid)| uid)
}

/// Names and ids of all accounts.
fn accounts() -> Vec<(String, u32)> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(account).collect()
}

/// Runs a program of the shadow suite. Others may hold the lock of /etc/passwd.
fn patiently(program: &str, args: &[&str]) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut last: Option<Output> = None;
    let done = look_until(PATIENCE, || {
        let output = Command::new(program).args(args).output().expect("the program is there");
        let succeeded = output.status.success();
        last = Some(output);
        succeeded.then_some(())
    });
    assert!(done.is_some() || std::thread::panicking(), "{program} {args:?}: {last:?}");
}
