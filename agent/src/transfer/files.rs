//! Which files an archive is made of: GitLab's `paths`, `exclude` and `untracked`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use job::plan::Archive;
use walkdir::WalkDir;

use crate::Error;

/// Selects files and directories below `project`, as sorted relative paths. Says for each
/// pattern what it found.
pub(super) fn select(project: &Path, archive: &Archive) -> Result<Vec<PathBuf>, Error> {
    let exclude = glob_set(&archive.exclude)?;
    let mut selected = BTreeSet::new();
    for pattern in &archive.paths {
        let found = matching(project, pattern)?;
        report(pattern, keep(found, &exclude, &mut selected));
    }
    if archive.untracked {
        let found = untracked(project)?;
        report("untracked", keep(found, &exclude, &mut selected));
    }
    Ok(selected.into_iter().collect())
}

fn report(what: &str, count: usize) {
    match count {
        0 => println!(
            "WARNING: {what}: no matching files. Ensure that the artifact path is relative to the working directory"
        ),
        count => println!("{what}: found {count} matching artifact files and directories"),
    }
}

fn keep(found: Vec<PathBuf>, exclude: &GlobSet, selected: &mut BTreeSet<PathBuf>) -> usize {
    let kept: Vec<PathBuf> = found.into_iter().filter(|path| !exclude.is_match(path)).collect();
    let count = kept.len();
    selected.extend(kept);
    count
}

/// What a path or glob names, directories with all that is in them.
fn matching(project: &Path, pattern: &str) -> Result<Vec<PathBuf>, Error> {
    let Some(pattern) = inside(project, pattern) else {
        println!("WARNING: {pattern}: is outside of the project directory, left out");
        return Ok(Vec::new());
    };
    let literal: PathBuf = pattern.components().take_while(|part| !is_glob(part)).collect();
    if literal == pattern {
        return Ok(all_below(project, &literal));
    }
    let glob = glob_set(&[pattern.to_string_lossy().into_owned()])?;
    let mut found = Vec::new();
    let mut whole: Option<PathBuf> = None;
    for path in all_below(project, &literal) {
        if whole.as_ref().is_some_and(|dir| path.starts_with(dir)) {
            found.push(path);
        } else if glob.is_match(&path) {
            if project.join(&path).is_dir() {
                whole = Some(path.clone());
            }
            found.push(path);
        }
    }
    Ok(found)
}

/// The pattern relative to the project; `None` if it leaves it.
fn inside(project: &Path, pattern: &str) -> Option<PathBuf> {
    let path = Path::new(pattern);
    let path = if path.is_absolute() { path.strip_prefix(project).ok()? } else { path };
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

fn is_glob(part: &Component<'_>) -> bool {
    part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{'])
}

/// A file, or a directory and everything below it; symlinks are not followed.
fn all_below(project: &Path, start: &Path) -> Vec<PathBuf> {
    if fs::symlink_metadata(project.join(start)).is_err() {
        return Vec::new();
    }
    WalkDir::new(project.join(start))
        .follow_root_links(false)
        .sort_by_file_name()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.path().strip_prefix(project).ok().map(Path::to_owned))
        .filter(|path| !path.as_os_str().is_empty())
        .collect()
}

/// What git does not track and does not ignore differently: GitLab takes ignored files
/// too.
fn untracked(project: &Path) -> Result<Vec<PathBuf>, Error> {
    use std::os::unix::ffi::OsStrExt as _;
    let output = Command::new("git")
        .args(["ls-files", "-o", "-z"])
        .current_dir(project)
        .output()
        .map_err(Error::io("cannot ask git for untracked files"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::new(format!("git ls-files: {text}")));
    }
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name))).collect())
}

fn glob_set(patterns: &[String]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let trimmed = pattern.trim_start_matches("./").trim_end_matches('/');
        let glob = GlobBuilder::new(trimmed).literal_separator(true).build();
        set.add(glob.map_err(|error| Error::new(format!("{pattern}: {error}")))?);
    }
    set.build().map_err(|error| Error::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for file in ["a.txt", "out/b.txt", "out/deep/c.log", "out/deep/d.txt", ".hidden/e"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, file).expect("written");
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).expect("linked");
        dir
    }

    fn select_paths(paths: &[&str], exclude: &[&str]) -> String {
        let dir = project();
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let archive =
            Archive { paths: owned(paths), exclude: owned(exclude), ..Archive::default() };
        let found = select(dir.path(), &archive).expect("selected");
        found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn paths_and_globs_select_what_gitlab_selects() {
        let cases: [(&[&str], &[&str], &str); 10] = [
            (&["a.txt"], &[], "a.txt"),
            (&["out/"], &[], "out out/b.txt out/deep out/deep/c.log out/deep/d.txt"),
            (&["./out/deep"], &[], "out/deep out/deep/c.log out/deep/d.txt"),
            (&["*.txt"], &[], "a.txt"),
            (&["**/*.txt"], &[], "a.txt out/b.txt out/deep/d.txt"),
            (&["out/*"], &[], "out/b.txt out/deep out/deep/c.log out/deep/d.txt"),
            (&["out/"], &["out/**/*.log"], "out out/b.txt out/deep out/deep/d.txt"),
            (&["none", "../etc", "/etc/passwd"], &[], ""),
            (&["out/../a.txt"], &[], "a.txt"),
            (&["link"], &[], "link"),
        ];
        for (paths, exclude, expected) in cases {
            assert_eq!(select_paths(paths, exclude), expected, "{paths:?}");
        }
    }
}
