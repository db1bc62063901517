//! Static builds of our binaries, for tests whose instances have no library of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where static binaries of the development profile are, built as `make static` does it.
/// Panics when they cannot be built.
pub fn static_binaries() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(build)
}

fn build() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|path| path.join("Cargo.lock").is_file());
    let root = root.expect("the repository");
    let output = Command::new("make")
        .args(["-s", "--no-print-directory", "-C"])
        .arg(root)
        .arg("static")
        .output();
    let output = output.expect("make can be run");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "make static: {complaint}");
    let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    root.join(directory.lines().next_back().unwrap_or_default())
}
