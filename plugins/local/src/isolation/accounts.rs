//! User names and user ids of instances.
//!
//! Ids come from 60706–61183, the only range that systemd leaves to nobody
//! (systemd.io/UIDS-GIDS). All plugins of a machine share one directory of claims, so
//! that no two instances ever have the same id at the same time.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use instances::failed::{During as _, Failed};
use instances::processes::{self, Identity};
use serde::{Deserialize, Serialize};

use crate::record::Account;

pub(super) const FIRST_UID: u32 = 60_706;
const LAST_UID: u32 = 61_183;
const CLAIMS: &str = "/run/fleeting-plugin-local/uids";

/// The user ids that instances of this machine have.
pub(crate) struct UidClaims {
    directory: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Claim {
    instance: PathBuf,
    /// Until the instance exists, its claim lives as long as who made it.
    claimer: Option<Identity>,
}

impl Claim {
    fn holds(&self) -> bool {
        self.instance.exists() || self.claimer.is_some_and(Identity::is_alive)
    }
}

impl Default for UidClaims {
    fn default() -> Self {
        Self { directory: CLAIMS.into() }
    }
}

impl UidClaims {
    /// Whether ids can be claimed at all.
    pub(crate) fn check(&self) -> Result<(), Failed> {
        self.lock().map(drop)
    }

    /// Takes an id that no user, no group, no process and no other instance has.
    pub(crate) fn claim(&self, instance: &Path) -> Result<u32, Failed> {
        let _lock = self.lock()?;
        let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
        let running = processes::all();
        let start = rand::random_range(FIRST_UID..=LAST_UID);
        let uid = (start..=LAST_UID).chain(FIRST_UID..start).find(|uid| {
            !has_id(&passwd, *uid)
                && !has_id(&group, *uid)
                && !self.read(*uid).is_some_and(|claim| claim.holds())
                && processes::of_user(*uid, &running).is_empty()
        });
        let uid = uid
            .ok_or_else(|| std::io::Error::other(format!("none of {FIRST_UID}-{LAST_UID} is free")))
            .during("find a user id")?;
        let claimer = Identity::of(std::process::id().cast_signed());
        let claim = Claim { instance: instance.to_owned(), claimer };
        let path = self.path(uid);
        serde_json::to_vec(&claim)
            .map_err(std::io::Error::from)
            .and_then(|bytes| fs::write(&path, bytes))
            .during(format!("write {}", path.display()))?;
        Ok(uid)
    }

    /// Gives an id back, if it still belongs to this instance.
    pub(crate) fn release(&self, uid: u32, instance: &Path) -> Result<(), Failed> {
        let _lock = self.lock()?;
        if self.read(uid).is_some_and(|claim| claim.instance == instance) {
            let path = self.path(uid);
            fs::remove_file(&path).during(format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    fn lock(&self) -> Result<File, Failed> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .and_then(|()| File::create(self.directory.join("lock")))
            .and_then(|file| file.lock().map(|()| file))
            .during(format!("lock {}", self.directory.display()))
    }

    fn path(&self, uid: u32) -> PathBuf {
        self.directory.join(uid.to_string())
    }

    fn read(&self, uid: u32) -> Option<Claim> {
        serde_json::from_slice(&fs::read(self.path(uid)).ok()?).ok()
    }
}

/// The name in `/etc/passwd` of the user that this process runs as.
pub(crate) fn user_name() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = read("/etc/passwd");
    let line = passwd.lines().find(|line| id_of(line) == Some(uid))?;
    line.split(':').next().map(str::to_owned)
}

/// The machine's `passwd` and `group` with the instance's account in place of others of
/// the same name or id.
pub(crate) fn accounts_files(account: &Account) -> (String, String) {
    let Account { user, uid, gid, home, shell } = account;
    let (home, shell) = (home.display(), shell.display());
    let passwd = format!("{user}:x:{uid}:{gid}:Mayfly instance:{home}:{shell}");
    let group = format!("{user}:x:{gid}:");
    let groups = read("/etc/group");
    let groups = match has_id(&groups, *gid) {
        true => groups,
        false => replace_line(&groups, user, *gid, &group),
    };
    (replace_line(&read("/etc/passwd"), user, *uid, &passwd), groups)
}

fn replace_line(text: &str, name: &str, id: u32, line: &str) -> String {
    let mut result: String = text
        .lines()
        .filter(|line| line.split(':').next() != Some(name) && id_of(line) != Some(id))
        .flat_map(|line| [line, "\n"])
        .collect();
    result.push_str(line);
    result.push('\n');
    result
}

/// The id is the third field in both files.
fn id_of(line: &str) -> Option<u32> {
    line.split(':').nth(2)?.parse().ok()
}

fn has_id(text: &str, id: u32) -> bool {
    text.lines().any(|line| id_of(line) == Some(id))
}

/// A machine without the file has no accounts in it.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_and_one_id_stand_for_one_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nci:x:7:7::/:/bin/sh\nold:x:9:9::/:/bin/sh\n";
        let replaced = replace_line(passwd, "ci", 9, "ci:x:9:9::/h:/bin/sh");
        assert_eq!(replaced, "root:x:0:0:root:/root:/bin/sh\nci:x:9:9::/h:/bin/sh\n");
    }

    #[test]
    fn ids_are_claimed_once_and_given_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let claims = UidClaims { directory: dir.path().join("uids") };
        let a = claims.claim(Path::new("/nowhere/a")).expect("free");
        let b = claims.claim(Path::new("/nowhere/b")).expect("free");
        assert_ne!(a, b);
        assert!((FIRST_UID..=LAST_UID).contains(&a));
        claims.release(a, Path::new("/nowhere/b")).expect("ignored");
        assert!(claims.path(a).exists(), "not theirs to release");
        claims.release(a, Path::new("/nowhere/a")).expect("released");
        assert!(!claims.path(a).exists());
    }

    #[test]
    fn a_claim_without_instance_or_claimer_is_void() {
        let gone = Claim { instance: "/nowhere/x".into(), claimer: None };
        assert!(!gone.holds());
        let there = Claim { instance: "/".into(), claimer: None };
        assert!(there.holds());
    }
}
