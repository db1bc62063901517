//! Which paths an instance must not see.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::Isolation;

/// Further paths to hide, separated by colons; the manager sets it.
const VARIABLE: &str = "MAYFLY_PLUGIN_HIDE";

/// The paths that instances of this isolation get to see empty. `root` is where all
/// instances live; an instance finds its own home there all the same.
pub(crate) fn hidden_paths(isolation: Isolation, root: &Path) -> Result<Vec<PathBuf>, String> {
    if isolation == Isolation::None {
        return Ok(Vec::new());
    }
    let mut paths: Vec<PathBuf> = ["/etc/gitlab-runner", "/etc/mayfly", "/var/lib/mayfly", "/root"]
        .into_iter()
        .map(PathBuf::from)
        .collect();
    paths.push(root.to_owned());
    if isolation == Isolation::User {
        paths.extend(of_the_user().into_iter().filter(|path| refusal(path).is_none()));
    }
    if let Some(listed) = std::env::var_os(VARIABLE) {
        paths.extend(parse(&listed)?);
    }
    Ok(paths)
}

/// Where a user's own secrets are: the home, and the sockets of their session, through
/// which processes outside could be started.
fn of_the_user() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let runtime = format!("/run/user/{}", rustix::process::geteuid().as_raw());
    [variable("HOME"), variable("XDG_RUNTIME_DIR"), Some(runtime.into()), home_in_passwd()]
        .into_iter()
        .flatten()
        .collect()
}

fn home_in_passwd() -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2) == Some(&uid.as_str())).then(|| fields.get(5).map(PathBuf::from))?
    })
}

fn parse(listed: &OsStr) -> Result<Vec<PathBuf>, String> {
    listed
        .as_bytes()
        .split(|byte| *byte == b':')
        .filter(|path| !path.is_empty())
        .map(|path| PathBuf::from(OsStr::from_bytes(path)))
        .map(|path| match refusal(&path) {
            None => Ok(path),
            Some(why) => Err(format!("{VARIABLE}: {} {why}", path.display())),
        })
        .collect()
}

fn refusal(path: &Path) -> Option<&'static str> {
    const NEEDED: [&str; 10] =
        ["/", "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr"];
    if !path.is_absolute() {
        return Some("is not an absolute path");
    }
    NEEDED
        .iter()
        .any(|needed| path == Path::new(needed))
        .then_some("cannot be hidden: instances need it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_split_and_checked() {
        let parsed = parse(OsStr::new("/a:/b/c::/d"));
        assert_eq!(parsed, Ok(["/a", "/b/c", "/d"].map(PathBuf::from).to_vec()));
        for bad in ["relative", "/a:/", "/usr/"] {
            let refused = parse(OsStr::new(bad)).expect_err(bad);
            assert!(refused.starts_with(VARIABLE), "{refused}");
        }
    }

    #[test]
    fn nothing_is_hidden_without_isolation() {
        assert_eq!(hidden_paths(Isolation::None, Path::new("/x")), Ok(Vec::new()));
        let hidden = hidden_paths(Isolation::Full, Path::new("/x")).expect("fine");
        assert!(hidden.contains(&PathBuf::from("/x")) && hidden.contains(&PathBuf::from("/root")));
    }
}
