//! The binaries under test, built once per test process as `cargo build` would.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A directory with all binaries of the workspace.
#[derive(Clone, Debug)]
pub struct Binaries {
    directory: PathBuf,
}

/// The binaries of the very build that this test belongs to, or those in
/// `MAYFLY_BIN_DIR`. Panics when they cannot be built.
pub fn binaries() -> &'static Binaries {
    static BINARIES: OnceLock<Binaries> = OnceLock::new();
    BINARIES.get_or_init(|| match std::env::var_os("MAYFLY_BIN_DIR") {
        Some(directory) => Binaries { directory: directory.into() },
        None => build(&Build::of_this_test()),
    })
}

impl Binaries {
    /// The manager.
    pub fn mayfly(&self) -> PathBuf {
        self.path("mayfly")
    }

    /// The agent.
    pub fn agent(&self) -> PathBuf {
        self.path("mayfly-agent")
    }

    /// A provider plugin by its short name, such as `local`.
    pub fn plugin(&self, name: &str) -> PathBuf {
        self.path(&format!("fleeting-plugin-{name}"))
    }

    /// Any binary. Panics where there is none.
    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        assert!(path.is_file(), "there is no {}: build it first", path.display());
        path
    }

    /// Whether there is such a binary.
    pub fn has(&self, name: &str) -> bool {
        self.directory.join(name).is_file()
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// How to build into the place where this test was built.
#[derive(Debug, PartialEq, Eq)]
struct Build {
    target_dir: PathBuf,
    triple: Option<String>,
    profile: String,
}

impl Build {
    fn of_this_test() -> Self {
        let test = std::env::current_exe().expect("a test knows its path");
        Self::of(&test, |dir| dir.join("CACHEDIR.TAG").is_file())
    }

    /// `TARGET_DIR[/TRIPLE]/PROFILE/deps/TEST`.
    fn of(test: &Path, is_target_dir: impl Fn(&Path) -> bool) -> Self {
        let mut above = test.ancestors().skip(1);
        let mut profile_dir = above.next().expect("a test lies in a directory");
        if profile_dir.ends_with("deps") {
            profile_dir = above.next().expect("deps lies in a directory");
        }
        let outer = above.next().expect("a profile lies in a directory");
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let profile = match name(profile_dir).as_str() {
            "debug" => "dev".to_owned(),
            other => other.to_owned(),
        };
        match outer.parent() {
            Some(target_dir) if !is_target_dir(outer) && is_target_dir(target_dir) => {
                Self { target_dir: target_dir.into(), triple: Some(name(outer)), profile }
            }
            _ => Self { target_dir: outer.into(), triple: None, profile },
        }
    }

    fn directory(&self) -> PathBuf {
        let profile = if self.profile == "dev" { "debug" } else { &self.profile };
        let triple = self.triple.as_deref().unwrap_or_default();
        self.target_dir.join(triple).join(profile)
    }
}

fn build(build: &Build) -> Binaries {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["build", "--workspace", "--bins", "--quiet", "--profile", &build.profile])
        .arg("--target-dir")
        .arg(&build.target_dir);
    if let Some(triple) = &build.triple {
        command.args(["--target", triple]);
    }
    let output = command.output().expect("cargo can be run");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    Binaries { directory: build.directory() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_is_told_from_the_test_s_path() {
        let is_target_dir = |path: &Path| path == Path::new("/x-y-z");
        let build = |test| Build::of(Path::new(test), is_target_dir);
        let plain = build("/x-y-z/debug/deps/jobs-0123");
        assert_eq!((plain.triple.clone(), plain.profile.as_str()), (None, "dev"));
        assert_eq!(plain.directory(), Path::new("/x-y-z/debug"));
        let musl = build("/x-y-z/x86_64-unknown-linux-musl/release/deps/jobs-0123");
        assert_eq!(musl.triple.as_deref(), Some("x86_64-unknown-linux-musl"));
        assert_eq!(musl.profile, "release");
        assert_eq!(musl.directory(), Path::new("/x-y-z/x86_64-unknown-linux-musl/release"));
    }
}
