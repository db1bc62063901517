//! A script of the operator's: where it is, and whether it may be trusted.
//!
//! Invariant: nothing is run that another user than root and the plugin's own could have
//! written, be it through the file or through a directory above it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// One executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    path: PathBuf,
}

impl Script {
    /// Finds a script; a relative path is one below `directory`. An error names the key.
    pub(crate) fn find(key: &str, text: &str, directory: Option<&Path>) -> Result<Self, String> {
        let path = match (Path::new(text), directory) {
            (path, _) if path.is_absolute() => path.to_owned(),
            (path, Some(directory)) => directory.join(path),
            (_, None) => {
                return Err(format!(
                    "{key} = {text:?}: a relative path is looked for in directory, which is not \
                     set: set it, or write an absolute path"
                ));
            }
        };
        let script = Self { path };
        script.check().map_err(|why| format!("{key} = {text:?}: {why}"))?;
        Ok(script)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Says in one line why the script must not be run now.
    pub(crate) fn check(&self) -> Result<(), String> {
        let shown = self.path.display();
        let real =
            fs::canonicalize(&self.path).map_err(|error| format!("cannot find it: {error}"))?;
        let metadata = fs::metadata(&real).map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err("it is no file".into());
        }
        if metadata.mode() & 0o111 == 0 {
            return Err(format!("it is not executable: run chmod +x {shown}"));
        }
        for path in real.ancestors() {
            let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
            trusted(path, metadata.uid(), metadata.mode(), metadata.is_dir())?;
        }
        // The way through symbolic links is as good as the way to the file.
        for path in self.path.ancestors().skip(1) {
            let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
            trusted(path, metadata.uid(), metadata.mode(), metadata.is_dir())?;
        }
        Ok(())
    }
}

fn trusted(path: &Path, owner: u32, mode: u32, is_dir: bool) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    let shown = path.display();
    if owner != 0 && owner != own {
        return Err(format!(
            "{shown} belongs to user {owner}, who could make this plugin run anything: it must \
             belong to root or to user {own}"
        ));
    }
    // In a sticky directory nobody replaces what is somebody else's.
    let is_sticky = is_dir && mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !is_sticky {
        return Err(format!(
            "others may write to {shown} and so make this plugin run anything: run chmod go-w \
             {shown}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_this_user_may_be_able_to_write() {
        let own = rustix::process::geteuid().as_raw();
        let path = Path::new("/x");
        for (owner, mode, is_dir, is_fine) in [
            (own, 0o100755, false, true),
            (0, 0o100755, false, true),
            (own + 1, 0o100755, false, own == u32::MAX),
            (own, 0o100775, false, false),
            (own, 0o100757, false, false),
            (own, 0o101757, false, false),
            (0, 0o041777, true, true),
            (0, 0o040777, true, false),
        ] {
            let result = trusted(path, owner, mode, is_dir);
            assert_eq!(result.is_ok(), is_fine, "{owner} {mode:o}: {result:?}");
        }
    }

    #[test]
    fn a_relative_path_needs_a_directory() {
        let complaint = Script::find("command", "a.sh", None).expect_err("no directory");
        assert!(complaint.starts_with("command = \"a.sh\"") && complaint.contains("directory"));
        let complaint = Script::find("list", "none", Some(Path::new("/"))).expect_err("no file");
        assert!(complaint.starts_with("list = \"none\": cannot find it"), "{complaint}");
    }
}
