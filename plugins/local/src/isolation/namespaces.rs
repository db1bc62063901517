//! Namespaces and user ids, from the keeper's step to that of the instance's first process.
//!
//! Every function here changes the whole process and must run before any thread exists.
//!
//! In `user` isolation two user namespaces lie one in the other. In the outer one the
//! first process is root and may mount; in the inner one it has its real id again, and
//! the kernel then guards the mounts of the outer one against everybody inside.

use std::fs;
use std::io;

use instances::failed::{During as _, Failed};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::accounts::FIRST_UID;
use super::{Isolation, view};
use crate::record::Record;
use crate::registry::InstanceDir;

/// In the keeper: what it starts from now on is kept apart from other processes.
pub(crate) fn separate_children(isolation: Isolation) -> Result<(), Failed> {
    match isolation {
        Isolation::Full => unshare(CloneFlags::CLONE_NEWPID).during("unshare(CLONE_NEWPID)"),
        Isolation::User => {
            let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID)
                .during("unshare(CLONE_NEWUSER | CLONE_NEWPID)")?;
            map_ids((0, uid), (0, gid))
        }
        Isolation::None => {
            let this = rustix::process::getpid();
            rustix::process::set_child_subreaper(Some(this)).during("adopt orphans")
        }
    }
}

/// In the first process of the instance: gives it its view of the files and its user.
/// Afterwards it has no privilege left and dies with its keeper.
pub(crate) fn enter(record: &Record, instance: &InstanceDir) -> Result<(), Failed> {
    // Until the last step a dying keeper must not leave a privileged process.
    die_with_parent()?;
    own_mounts_and_ipc()?;
    view::build(record, instance)?;
    become_user(record.isolation, record.account.uid, record.account.gid)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    die_with_parent()
}

/// Does to a fresh first process what [`enter`] does, without an instance.
pub(crate) fn try_out(isolation: Isolation) -> Result<(), Failed> {
    own_mounts_and_ipc()?;
    view::own_mounts()?;
    let (uid, gid) = match isolation {
        Isolation::Full => (FIRST_UID, FIRST_UID),
        // The ids of the outer namespace do not matter to a probe.
        Isolation::User | Isolation::None => (1, 1),
    };
    become_user(isolation, uid, gid)
}

fn die_with_parent() -> Result<(), Failed> {
    set_parent_process_death_signal(Some(Signal::KILL)).during("ask to die with the keeper")
}

fn own_mounts_and_ipc() -> Result<(), Failed> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)
        .during("unshare(CLONE_NEWNS | CLONE_NEWIPC)")
}

fn become_user(isolation: Isolation, uid: u32, gid: u32) -> Result<(), Failed> {
    match isolation {
        Isolation::Full => {
            setgroups(&[]).during("drop supplementary groups")?;
            let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
            setresgid(group, group, group).during(format!("become group {gid}"))?;
            setresuid(user, user, user).during(format!("become user {uid}"))?;
        }
        Isolation::User => {
            unshare(CloneFlags::CLONE_NEWUSER).during("unshare(CLONE_NEWUSER)")?;
            map_ids((uid, 0), (gid, 0))?;
        }
        Isolation::None => {}
    }
    rustix::thread::set_no_new_privs(true).during("set no_new_privs")
}

/// Maps one user and one group of the new user namespace to one outside, `(in, out)`.
fn map_ids(uid: (u32, u32), gid: (u32, u32)) -> Result<(), Failed> {
    // Without this the kernel refuses an unprivileged group map. It may be so already.
    match fs::write("/proc/self/setgroups", "deny") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result.during("write /proc/self/setgroups")?,
    }
    fs::write("/proc/self/uid_map", format!("{} {} 1", uid.0, uid.1))
        .during("write /proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", format!("{} {} 1", gid.0, gid.1))
        .during("write /proc/self/gid_map")
}
