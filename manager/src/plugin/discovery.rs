//! Where a plugin's binary is: a path, `PATH`, or the install directory.
//!
//! The order is GitLab Runner's, for its references as for its names; what it would not
//! find at all, a plain name may be of a program on `PATH`. A name must lead to a regular
//! file: GitLab Runner also takes a directory of that name in the working directory.

use std::path::{Path, PathBuf};

use mayfly_plugin::host;

use crate::install::{BadReference, InUse, Layout, LockError, Reference};

const PREFIX: &str = "fleeting-plugin-";

/// A plugin that is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    /// No program of this name or path.
    #[error(transparent)]
    Program(#[from] host::FindError),
    /// A reference of which nothing is there.
    #[error(
        "plugin {name:?}: no such version is installed in {}; `mayfly fleeting install` fetches it",
        directory.display()
    )]
    NotInstalled {
        /// As configured.
        name: String,
        /// The install directory.
        directory: PathBuf,
    },
    /// A reference that is none.
    #[error("plugin {0}")]
    BadReference(BadReference),
    /// One that is not what was installed.
    #[error("plugin {name:?}: {source}")]
    Changed {
        /// As configured.
        name: String,
        /// What is wrong.
        source: LockError,
    },
}

impl FindError {
    /// Whether it may be there later: what is no name never is.
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(self, Self::BadReference(_) | Self::Program(host::FindError::BadName(_)))
    }
}

/// The directory of this program, where plugins that come with it lie.
pub(crate) fn beside() -> Option<PathBuf> {
    std::env::current_exe().ok()?.parent().map(PathBuf::from)
}

/// What a name means.
pub(crate) struct Found {
    /// The program.
    pub(crate) path: PathBuf,
    /// What it is to be compared with before each start, where it is from the install directory.
    pub(crate) installed: Option<InUse>,
}

impl Found {
    fn program(path: PathBuf) -> Self {
        Self { path, installed: None }
    }

    fn installed(installed: InUse) -> Self {
        Self { path: installed.path.clone(), installed: Some(installed) }
    }
}

/// The file that `name` means. `beside` is searched after `PATH`.
pub(crate) fn find(name: &str, beside: Option<&Path>) -> Result<PathBuf, FindError> {
    find_to_run(name, beside).map(|found| found.path)
}

/// The same, for who starts it, maybe again and again.
pub(crate) fn find_to_run(name: &str, beside: Option<&Path>) -> Result<Found, FindError> {
    let layout = Layout::of_user();
    let changed = |source| FindError::Changed { name: name.into(), source };
    if name.starts_with(['/', '.']) || name.contains('/') && Path::new(name).is_file() {
        let path = host::find(name, beside)?;
        let installed = layout.resolve_path(&path).map_err(changed)?;
        return Ok(installed.map_or_else(|| Found::program(path), Found::installed));
    }
    let is_plain = !name.contains(['/', ':', '@']);
    if !(is_plain && name.starts_with(PREFIX)) {
        match name.parse::<Reference>() {
            Ok(reference) => {
                if let Some(installed) = layout.resolve(&reference).map_err(changed)? {
                    return Ok(Found::installed(installed));
                }
            }
            Err(error) if !is_plain => return Err(FindError::BadReference(error)),
            Err(_) => {}
        }
        if !is_plain {
            let directory = layout.root().to_owned();
            return Err(FindError::NotInstalled { name: name.into(), directory });
        }
    }
    Ok(Found::program(host::find(name, beside)?))
}

/// All programs whose names say that they are plugins: on `PATH`, in the install
/// directory, beside this program. Of two with one name, the one that is used.
pub(crate) fn on_path(layout: &Layout) -> Vec<(String, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> =
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    directories.push(layout.root().to_owned());
    directories.extend(beside());
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for directory in directories {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_new = found.iter().all(|(known, _)| *known != name);
            if name.starts_with(PREFIX) && is_new && is_program(&entry.path()) {
                found.push((name, entry.path()));
            }
        }
    }
    found.sort();
    found
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(path);
    metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_say_what_to_do() {
        let cases = [
            ("", "neither a path nor a name"),
            ("../x", "there is no such file"),
            ("/nowhere/plugin", "correct `plugin`"),
            ("a b", "neither a path nor a name"),
            ("no-such-plugin", "no fleeting-plugin-no-such-plugin on PATH"),
            ("fleeting-plugin-no-such", "no fleeting-plugin-no-such on PATH"),
            ("no-such:1", "`mayfly fleeting install` fetches it"),
            ("host.tld/no/such", "`mayfly fleeting install` fetches it"),
            ("x:v1", "\"v1\" is no version"),
            ("host.tld/X", "names no plugin"),
            ("x@sha256:01", "a digest is not taken"),
        ];
        for (name, expected) in cases {
            let error = find(name, None).expect_err(name).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
