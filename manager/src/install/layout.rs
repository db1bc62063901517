//! The install directory, as GitLab Runner has it:
//! `<root>/<registry>/<repository>/<version>/plugin`.
//!
//! What is no full version is ignored there, by both; so that is where versions go that
//! were rolled back.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::fetch::Progress;
use super::in_use::InUse;
use super::lock::LockError;
use super::reference::Reference;
use super::version::Version;
use super::{InstallError, file_error};

/// The file that is run.
pub(super) const PLUGIN: &str = "plugin";
const ROLLED_BACK: &str = ".rolled-back-";
/// Held by who changes the directory.
const GUARD: &str = ".mayfly-installing";
/// What is not finished yet begins so.
const UNFINISHED: &str = ".mayfly-unfinished-";
/// Another installation may download for a while.
const GUARD_LIMIT: Duration = Duration::from_secs(20 * 60);
const GUARD_PAUSE: Duration = Duration::from_millis(100);
/// Groups in groups; deeper than any registry has them.
const MAX_DEPTH: usize = 12;

/// An install directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// A version that is there.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) version: Version,
    /// The program.
    pub(crate) path: PathBuf,
}

impl Installed {
    /// What belongs to the version.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

/// No two installations change a directory at once.
pub(super) struct Guard {
    _file: File,
}

impl Layout {
    /// Where plugins are looked for, too.
    pub(crate) fn of_user() -> Self {
        Self { root: absolute(&mayfly_plugin::host::install_dir()) }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn repository(&self, reference: &Reference) -> PathBuf {
        self.root.join(&reference.registry).join(&reference.repository)
    }

    pub(super) fn directory(&self, reference: &Reference, version: &Version) -> PathBuf {
        self.repository(reference).join(escaped(version))
    }

    /// Where a version goes that was rolled back.
    pub(super) fn rolled_back(&self, reference: &Reference, version: &Version) -> PathBuf {
        self.repository(reference).join(format!("{ROLLED_BACK}{}", escaped(version)))
    }

    /// All versions of a plugin that are there, ascending.
    pub(crate) fn versions(&self, reference: &Reference) -> Vec<Installed> {
        let repository = self.repository(reference);
        let mut found: Vec<_> = names(&repository)
            .filter_map(|name| {
                let version = unescaped(&name)?;
                Some(Installed { version, path: repository.join(name).join(PLUGIN) })
            })
            .collect();
        found.sort_by(|a, b| a.version.cmp(&b.version));
        found
    }

    /// Versions that were rolled back, ascending.
    pub(crate) fn versions_rolled_back(&self, reference: &Reference) -> Vec<Version> {
        let mut found: Vec<_> = names(&self.repository(reference))
            .filter_map(|name| unescaped(name.strip_prefix(ROLLED_BACK)?))
            .collect();
        found.sort();
        found
    }

    /// The newest that the constraint allows, as GitLab Runner chooses.
    pub(crate) fn newest(&self, reference: &Reference) -> Option<Installed> {
        let allowed = |installed: &Installed| reference.constraint.allows(&installed.version);
        self.versions(reference).into_iter().rfind(allowed)
    }

    /// The newest that the constraint allows, if it is what was installed.
    pub(crate) fn resolve(&self, reference: &Reference) -> Result<Option<InUse>, LockError> {
        let newest = self.newest(reference);
        newest.map(|installed| self.checked(reference.plugin(), installed)).transpose()
    }

    /// The version whose program has this path, if it is what was installed; `None` for
    /// programs from elsewhere.
    pub(crate) fn resolve_path(&self, path: &Path) -> Result<Option<InUse>, LockError> {
        let found = || {
            let directory = path.parent().filter(|_| path.ends_with(PLUGIN))?;
            let version = unescaped(directory.file_name()?.to_str()?)?;
            let plugin = directory.parent()?.strip_prefix(&self.root).ok()?.to_str()?;
            Some((plugin.to_owned(), Installed { version, path: path.to_owned() }))
        };
        found().map(|(plugin, installed)| self.checked(plugin, installed)).transpose()
    }

    fn checked(&self, plugin: String, installed: Installed) -> Result<InUse, LockError> {
        let used = InUse::new(&self.root, plugin, installed);
        used.check()?;
        Ok(used)
    }

    /// All plugins that have a version here.
    pub(crate) fn plugins(&self) -> Vec<Reference> {
        let mut found = Vec::new();
        let mut next: Vec<Vec<String>> = names(&self.root)
            .filter(|name| !name.starts_with('.'))
            .map(|name| vec![name])
            .collect();
        while let Some(parts) = next.pop() {
            let inside: Vec<String> =
                names(&parts.iter().fold(self.root.clone(), |path, part| path.join(part)))
                    .collect();
            let is_version =
                |name: &String| unescaped(name.strip_prefix(ROLLED_BACK).unwrap_or(name)).is_some();
            if parts.len() > 1 && inside.iter().any(is_version) {
                found.push(Reference::any(&parts[0], &parts[1..].join("/")));
            }
            if parts.len() < MAX_DEPTH {
                let deeper =
                    inside.into_iter().filter(|name| !name.starts_with('.') && !is_version(name));
                next.extend(deeper.map(|name| [parts.clone(), vec![name]].concat()));
            }
        }
        found.sort_by_key(Reference::plugin);
        found
    }

    /// Makes the root, waits until no other installation runs, and takes away what a
    /// killed one left.
    pub(super) async fn guard(&self, progress: Progress<'_>) -> Result<Guard, InstallError> {
        make_directories(Path::new("/"), &self.root)?;
        let path = self.root.join(GUARD);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(file_error("open", &path))?;
        let is_held = || flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        let held = async {
            if is_held() {
                return;
            }
            progress("another installation is running; waits for its end");
            while !is_held() {
                tokio::time::sleep(GUARD_PAUSE).await;
            }
        };
        if tokio::time::timeout(GUARD_LIMIT, held).await.is_err() {
            return Err(InstallError::Busy(self.root.clone()));
        }
        for name in names(&self.root).filter(|name| name.starts_with(UNFINISHED)) {
            // What cannot be removed takes room, and does no other harm.
            let _ = std::fs::remove_dir_all(self.root.join(name));
        }
        Ok(Guard { _file: file })
    }

    /// A directory for what is not finished yet, beside the finished.
    pub(super) fn unfinished(&self) -> Result<tempfile::TempDir, InstallError> {
        tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempdir_in(&self.root)
            .map_err(file_error("make a directory in", &self.root))
    }

    /// Puts a finished tree into its place, in one step.
    pub(super) fn put(&self, tree: &Path, target: &Path) -> Result<(), InstallError> {
        let parent = target.parent().unwrap_or(&self.root);
        make_directories(&self.root, parent)?;
        std::fs::rename(tree, target).map_err(file_error("write", target))
    }
}

/// Makes what is missing between two directories, 0755 whatever the umask: who runs the
/// plugins need not be who installs them.
pub(super) fn make_directories(from: &Path, to: &Path) -> Result<(), InstallError> {
    let mut path = from.to_owned();
    for part in to.strip_prefix(from).unwrap_or(to).components() {
        if matches!(part, Component::RootDir | Component::CurDir) {
            continue;
        }
        path.push(part);
        match DirBuilder::new().mode(0o755).create(&path) {
            Ok(()) => std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // On a read-only file system, what is there need not be made.
            Err(_) if path.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(file_error("make the directory", &path))?;
    }
    Ok(())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Names of directories in a directory. One that cannot be read has none.
fn names(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
}

/// As Go escapes versions in paths: file systems may not tell capitals.
fn escaped(version: &Version) -> String {
    let mut name = String::new();
    for c in version.to_string().chars() {
        if c.is_ascii_uppercase() {
            name.push('!');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

fn unescaped(name: &str) -> Option<Version> {
    let mut text = String::new();
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match c {
            '!' => text.push(chars.next().filter(char::is_ascii_lowercase)?.to_ascii_uppercase()),
            'A'..='Z' => return None,
            c => text.push(c),
        }
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn what_gitlab_runner_installed_is_found_as_it_finds_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout { root: dir.path().into() };
        let aws = dir.path().join("registry.gitlab.com/gitlab-org/fleeting/plugins/aws");
        for version in [
            "1.2.3",
            "1.3.0",
            "1.4.0-rc.1",
            "2.0.0",
            "3.0.0-!r!c",
            "temp",
            "1",
            ".rolled-back-2.1.0",
        ] {
            std::fs::create_dir_all(aws.join(version)).expect("made");
        }
        std::fs::write(aws.join("9.9.9"), "no directory").expect("written");
        let newest = |text: &str| layout.newest(&reference(text)).map(|i| i.version.to_string());
        assert_eq!(newest("aws").as_deref(), Some("2.0.0"));
        assert_eq!(newest("aws:1").as_deref(), Some("1.3.0"));
        assert_eq!(newest("aws:1.4.0-rc.1").as_deref(), Some("1.4.0-rc.1"));
        assert_eq!(newest("aws:3.0.0-RC").as_deref(), Some("3.0.0-RC"));
        assert_eq!(newest("aws:1.4"), None);
        assert_eq!(newest("azure"), None);
        let path = layout.newest(&reference("aws:1.2")).expect("found").path;
        assert_eq!(path, aws.join("1.2.3/plugin"));
        assert_eq!(layout.versions_rolled_back(&reference("aws"))[0].to_string(), "2.1.0");
        assert_eq!(layout.plugins(), [reference("aws")]);
    }

    #[test]
    fn plugins_may_be_nested_in_one_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout { root: dir.path().into() };
        for path in ["host:5000/a/1.0.0", "host:5000/a/b/c/2.0.0", "x.tld/.hidden/1.0.0", "1.0.0/x"]
        {
            std::fs::create_dir_all(dir.path().join(path)).expect("made");
        }
        assert_eq!(layout.plugins(), [reference("host:5000/a"), reference("host:5000/a/b/c")]);
    }
}
