//! A Docker daemon of a test's own: on a file system of its own, and to be stopped.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::docker::{command, in_containers_of};
use crate::manager::Runner;

/// A daemon that goes with this value; it has the image of busybox.
pub struct OwnDocker {
    directory: PathBuf,
}

impl OwnDocker {
    /// Starts one that keeps its files below a directory, or says what is missing.
    pub fn start(directory: &Path) -> Result<Self, String> {
        let own = Self { directory: directory.to_owned() };
        if own.script("start") { Ok(own) } else { Err("a Docker daemon of the test's own".into()) }
    }

    /// Runs `tests/dockerd COMMAND` for it; whether that did what it should.
    pub fn script(&self, command: &str) -> bool {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dockerd");
        let status = Command::new(script).arg(command).arg(&self.directory).status();
        status.is_ok_and(|status| status.success())
    }

    fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.directory.display())
    }

    /// A runner with its jobs in containers of this daemon.
    pub fn in_containers(&self, runner: Runner, image: &str, keys: Value) -> Runner {
        in_containers_of(&self.host(), runner, image, keys)
    }

    /// What a `docker` command prints, trimmed. Panics if it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        command(&self.host(), arguments)
    }
}

impl Drop for OwnDocker {
    fn drop(&mut self) {
        self.script("remove");
    }
}

/// A small file system in a file; it goes with this value.
pub struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    /// Makes one of so many megabytes, or says what is missing.
    pub fn make(megabytes: u32) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let disk = Self { directory };
        let image = disk.directory.path().join("image");
        let run = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).status();
            match status.is_ok_and(|status| status.success()) {
                true => Ok(()),
                false => Err(format!("{program}, to make a file system in a file")),
            }
        };
        let (image, path) = (image.display().to_string(), disk.path());
        std::fs::create_dir(&path).map_err(|error| error.to_string())?;
        run("truncate", &["-s", &format!("{megabytes}M"), &image])?;
        run("mkfs.ext4", &["-q", "-m", "0", &image])?;
        run("mount", &["-o", "loop", &image, &path.display().to_string()])?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// Takes so many megabytes of it, until the file goes.
    pub fn fill(&self, megabytes: u32) -> PathBuf {
        let path = self.path().join("fill");
        let arguments = ["-l", &format!("{megabytes}M"), &path.display().to_string()];
        let status = Command::new("fallocate").args(arguments).status();
        assert!(status.is_ok_and(|status| status.success()), "fallocate");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
