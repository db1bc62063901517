//! Where a plugin's binary is: an absolute path, `PATH`, or the install directory.
//!
//! A name must lead to a regular file. GitLab Runner also takes whatever lies in the
//! working directory under that name, a directory included; here only a path with a
//! slash is a path.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A plugin that is not there.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// A path that leads nowhere.
    #[error("plugin {0:?}: there is no such file; correct `plugin` in the configuration")]
    NoSuchFile(String),
    /// A name that nothing has.
    #[error(
        "plugin {name:?}: no {binary} on PATH or in {}; install it there, or write its absolute path",
        directory.display()
    )]
    NotFound {
        /// As configured.
        name: String,
        /// The file that was looked for.
        binary: String,
        /// The install directory.
        directory: PathBuf,
    },
    /// A name that is none.
    #[error("plugin {0:?}: this is neither a path nor a name like aws or fleeting-plugin-aws")]
    BadName(String),
}

/// The file that `name` means. `beside` is searched after `PATH`: the directory of this
/// program, where plugins that come with it lie.
pub fn find(name: &str, beside: Option<&Path>) -> Result<PathBuf, FindError> {
    if name.contains('/') {
        let path = Path::new(name);
        return path
            .is_file()
            .then(|| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
            .ok_or_else(|| FindError::NoSuchFile(name.into()));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(FindError::BadName(name.into()));
    }
    let binary = match name.strip_prefix("fleeting-plugin-") {
        Some(_) => name.to_owned(),
        None => format!("fleeting-plugin-{name}"),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let install_dir = install_dir();
    search(&binary, &path)
        .or_else(|| file_in(&install_dir, &binary))
        .or_else(|| file_in(beside?, &binary))
        .ok_or(FindError::NotFound { name: name.into(), binary, directory: install_dir })
}

/// Where plugins are installed: `FLEETING_PLUGIN_PATH`, else `~/.config/fleeting/plugins`, as in GitLab Runner.
#[must_use]
pub fn install_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("FLEETING_PLUGIN_PATH").filter(|dir| !dir.is_empty()) {
        return dir.into();
    }
    let home = std::env::var_os("HOME").unwrap_or_default();
    Path::new(&home).join(".config/fleeting/plugins")
}

fn search(binary: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .find_map(|dir| file_in(&dir, binary))
}

fn file_in(dir: &Path, binary: &str) -> Option<PathBuf> {
    let file = dir.join(binary);
    file.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_on_a_path_and_directories_are_not_plugins() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("fleeting-plugin-dir")).expect("made");
        std::fs::write(dir.path().join("fleeting-plugin-x"), "").expect("written");
        let found = |binary: &str| search(binary, dir.path().as_os_str());
        assert_eq!(found("fleeting-plugin-x"), Some(dir.path().join("fleeting-plugin-x")));
        assert_eq!(found("fleeting-plugin-dir"), None);
        assert!(find("x", Some(dir.path())).is_ok());
        assert!(find("fleeting-plugin-x", Some(dir.path())).is_ok());
    }

    #[test]
    fn faults_say_what_to_do() {
        let cases = [
            ("", "neither a path nor a name"),
            ("../x", "there is no such file"),
            ("/nowhere/plugin", "correct `plugin`"),
            ("a b", "neither a path nor a name"),
            ("no-such-plugin", "no fleeting-plugin-no-such-plugin on PATH"),
        ];
        for (name, expected) in cases {
            let error = find(name, None).expect_err(name).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
