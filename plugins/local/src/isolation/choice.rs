//! Which isolation it is: the operator's wish, tried out on this kernel.

use std::fmt;
use std::process::Stdio;

use serde::{Deserialize, Serialize};

use crate::config::Wish;
use crate::roles;

/// How an instance is kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Isolation {
    Full,
    User,
    None,
}

impl Isolation {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::User => "user",
            Self::None => "none",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Full, Self::User, Self::None].into_iter().find(|known| known.as_str() == word)
    }

    /// Finds the isolation that the operator wants and the kernel allows. An error is one
    /// line that says what was refused and what to write.
    pub(crate) fn choose(wish: Wish) -> Result<Self, String> {
        let candidates: &[Self] = match wish {
            Wish::None => return Ok(Self::None),
            Wish::Full => &[Self::Full],
            Wish::User => &[Self::User],
            Wish::Auto => &[Self::Full, Self::User],
        };
        let mut refusals = Vec::new();
        for candidate in candidates {
            match probe(*candidate) {
                Ok(()) => return Ok(*candidate),
                Err(refusal) => refusals.push(format!("{candidate}: {refusal}")),
            }
        }
        Err(format!(
            "isolation = \"{}\" is not possible here: {}; write isolation = \"none\" to run \
             instances as plain processes that can read whatever this user can",
            match wish {
                Wish::Auto | Wish::None => "auto",
                Wish::Full => "full",
                Wish::User => "user",
            },
            refusals.join("; ")
        ))
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Tries the isolation out in a process of its own.
fn probe(isolation: Isolation) -> Result<(), String> {
    if isolation == Isolation::Full && !rustix::process::geteuid().is_root() {
        return Err("needs root".into());
    }
    let output = roles::role_command(roles::PROBE)
        .arg(isolation.as_str())
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start /proc/self/exe: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let refusal = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(format!("{refusal} ({})", what_to_look_at(isolation)))
}

fn what_to_look_at(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Full => "needs CAP_SYS_ADMIN; a container must be privileged",
        Isolation::User | Isolation::None => {
            "needs user namespaces: see the sysctls user.max_user_namespaces, \
             kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns; \
             a container must allow unshare and mount"
        }
    }
}
