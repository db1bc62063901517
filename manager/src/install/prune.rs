//! Old versions: which of them nobody needs, and how they go.
//!
//! Only what Mayfly installed goes, which its lock file knows. The lock file itself forgets
//! nothing: a version that comes back must be what it was.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::fetch::Progress;
use super::layout::Layout;
use super::lock::Lock;
use super::reference::Reference;
use super::version::{Constraint, Version};
use super::{InstallError, file_error};

/// What stays beside the newest versions.
#[derive(Debug, Default)]
pub(crate) struct Keep {
    /// What a configuration refers to.
    pub(crate) references: Vec<Reference>,
    /// Programs that it names by their path.
    pub(crate) paths: Vec<PathBuf>,
    /// So many versions before each that is used: `plugin rollback` goes back to them.
    pub(crate) previous: usize,
}

/// Removes versions of the reference's plugin that nobody needs. Returns which.
///
/// Of all versions, of those that the reference allows, and of those that each reference
/// to keep allows, the newest stays and so many before it; and so does what a manager runs.
/// Of versions that were rolled back, older ones lose their files and keep their mark.
pub(crate) async fn prune(
    layout: &Layout,
    reference: &Reference,
    keep: &Keep,
    progress: Progress<'_>,
) -> Result<Vec<Version>, InstallError> {
    let _guard = layout.guard(progress).await?;
    let lock = Lock::read(layout.root())?;
    let plugin = reference.plugin();
    let is_ours = |version: &Version| lock.get(&plugin, version).is_some();
    let stays = |version: &Version| progress(&format!("{plugin}: {version} stays, it is in use"));
    let of_plugin = keep.references.iter().filter(|kept| kept.plugin() == plugin);
    let constraints: Vec<&Constraint> =
        of_plugin.chain([reference]).map(|reference| &reference.constraint).collect();

    let installed = layout.versions(reference);
    let versions: Vec<&Version> = installed.iter().map(|one| &one.version).collect();
    let surplus = surplus(&versions, &constraints, keep.previous);
    let mut removed = Vec::new();
    for one in &installed {
        let goes = surplus.contains(&&one.version) && !keep.paths.contains(&one.path);
        if !goes || !is_ours(&one.version) {
            continue;
        }
        if remove(layout, one.directory())? {
            removed.push(one.version.clone());
        } else {
            stays(&one.version);
        }
    }
    let rolled_back = layout.versions_rolled_back(reference).into_iter().rev();
    for version in rolled_back.skip(keep.previous).filter(is_ours) {
        if empty(&layout.rolled_back(reference, &version))? {
            removed.push(version);
        }
    }
    Ok(removed)
}

/// Those of ascending versions that none of the constraints needs, nor who wants any.
fn surplus<'a>(
    versions: &[&'a Version],
    constraints: &[&Constraint],
    previous: usize,
) -> Vec<&'a Version> {
    let newest = |allows: &dyn Fn(&Version) -> bool| -> Vec<&'a Version> {
        let allowed = versions.iter().rev().filter(|version| allows(version));
        allowed.take(previous.saturating_add(1)).copied().collect()
    };
    let mut needed = newest(&|_| true);
    for constraint in constraints.iter().copied().chain([&Constraint::Latest]) {
        needed.extend(newest(&|version| constraint.allows(version)));
    }
    versions.iter().filter(|version| !needed.contains(version)).copied().collect()
}

/// Takes a version away in one step, then removes it. `false` where someone uses it.
fn remove(layout: &Layout, directory: &Path) -> Result<bool, InstallError> {
    let Some(_alone) = alone(directory)? else { return Ok(false) };
    let away = layout.unfinished()?;
    std::fs::rename(directory, away.path().join("old")).map_err(file_error("remove", directory))?;
    away.close().map_err(file_error("remove", directory))?;
    Ok(true)
}

/// Removes what is in a directory. `false` where nothing was, or someone uses it.
fn empty(directory: &Path) -> Result<bool, InstallError> {
    // What a link leads to is not the installation's.
    let is_link = directory.is_symlink();
    let Some(_alone) = alone(directory)?.filter(|_| !is_link) else { return Ok(false) };
    let mut was_empty = true;
    for entry in std::fs::read_dir(directory).map_err(file_error("read", directory))? {
        let path = entry.map_err(file_error("read", directory))?.path();
        let is_directory = path.is_dir() && !path.is_symlink();
        let removed = match is_directory {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        removed.map_err(file_error("remove", &path))?;
        was_empty = false;
    }
    Ok(!was_empty)
}

/// The directory, while nobody else has it: see `InUse`.
fn alone(directory: &Path) -> Result<Option<File>, InstallError> {
    let file = File::open(directory).map_err(file_error("open", directory))?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_someone_refers_to_stays_with_those_before_it() {
        const ALL: &str = "0.9.0 1.0.0 1.1.0 1.2.0 1.3.0 2.0.0 2.1.0 2.2.0-rc.1 2.2.0-rc.2";
        let cases = [
            // Newest of all, and newest releases.
            (2, "latest", "0.9.0 1.0.0 1.1.0 1.2.0"),
            (1, "latest", "0.9.0 1.0.0 1.1.0 1.2.0 1.3.0"),
            (0, "latest", "0.9.0 1.0.0 1.1.0 1.2.0 1.3.0 2.0.0 2.2.0-rc.1"),
            (0, "1", "0.9.0 1.0.0 1.1.0 1.2.0 2.0.0 2.2.0-rc.1"),
            (1, "1", "0.9.0 1.0.0 1.1.0"),
            (1, "1 0", "1.0.0 1.1.0"),
            (0, "1.1 2.2.0-rc.1", "0.9.0 1.0.0 1.2.0 1.3.0 2.0.0"),
            (1, "0.9.0 3", "1.0.0 1.1.0 1.2.0 1.3.0"),
            (usize::MAX, "latest", ""),
            (100, "1", ""),
        ];
        let parse = |text: &str| -> Vec<Version> {
            let parts = text.split_whitespace();
            parts.map(|part| part.parse().unwrap_or_else(|error| panic!("{error}"))).collect()
        };
        let all = parse(ALL);
        for (previous, constraints, expected) in cases {
            let of = constraints.split(' ').map(|text| text.parse().expect("a constraint"));
            let of: Vec<Constraint> = of.collect();
            let found =
                surplus(&all.iter().collect::<Vec<_>>(), &of.iter().collect::<Vec<_>>(), previous);
            assert_eq!(
                found,
                parse(expected).iter().collect::<Vec<_>>(),
                "{previous} {constraints}"
            );
        }
    }
}
