//! Go programs, built once, from modules with pinned versions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A main package of the Go module in a folder beside this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Program {
    /// The module's folder; empty for this one.
    pub(super) folder: &'static str,
    /// Import path, or path in the module.
    pub(super) package: &'static str,
    /// File name of what is built.
    pub(super) name: &'static str,
    /// More flags of `go build`.
    pub(super) flags: &'static [&'static str],
}

/// A plugin on GitLab's library that panics in `Init`.
pub(super) const PANICKING: Program =
    Program { folder: "", package: "./panicking", name: "fleeting-plugin-panicking", flags: &[] };

impl Program {
    /// The built program; `None`, and told, where there is no Go. Panics when it does not
    /// build.
    pub(super) fn build(self) -> Option<PathBuf> {
        type Builds = BTreeMap<Program, Arc<OnceLock<PathBuf>>>;
        static BUILDS: Mutex<Builds> = Mutex::new(Builds::new());
        if let Err(error) = Command::new("go").arg("version").output() {
            support::skipped(&format!("there is no go on PATH ({error})"));
            return None;
        }
        let mut builds = BUILDS.lock().unwrap_or_else(PoisonError::into_inner);
        let build = Arc::clone(builds.entry(self).or_default());
        drop(builds);
        Some(build.get_or_init(|| self.compile()).clone())
    }

    fn compile(self) -> PathBuf {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go").join(self.folder);
        let program = target.join(self.name);
        let output = program.display().to_string();
        let build = self.go(&[&["build", "-o", &output], self.flags, &[self.package]].concat());
        if build.status.success() {
            return program;
        }
        let modfile = self.flags.iter().filter(|flag| flag.starts_with("-modfile")).copied();
        let download = ["mod", "download"].into_iter().chain(modfile).collect::<Vec<_>>();
        let download = self.go(&download);
        assert!(
            download.status.success(),
            "{}: its Go modules are not in the module cache and cannot be fetched; is the module \
             proxy that `go env GOPROXY` names reachable from here?\n{}",
            self.name,
            String::from_utf8_lossy(&download.stderr)
        );
        panic!("{} does not build:\n{}", self.name, String::from_utf8_lossy(&build.stderr));
    }

    /// Runs `go` in the module; flags of the environment do not change what is built.
    fn go(self, arguments: &[&str]) -> Output {
        Command::new("go")
            .args(arguments)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(self.folder))
            .env("GOFLAGS", "-mod=readonly -trimpath -buildvcs=false")
            .env("GOWORK", "off")
            .env("CGO_ENABLED", "0")
            .output()
            .expect("go can be run")
    }
}
