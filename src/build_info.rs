//! Name, version and origin of a binary, printed as stock plugins print it.

use std::fmt;

/// Where a plugin binary comes from. Make one with [`build_info!`](crate::build_info).
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo {
    /// Name of the plugin.
    pub name: &'static str,
    /// Its version, such as `1.2.3`.
    pub version: &'static str,
    /// Git revision, if the build knew it.
    pub revision: Option<&'static str>,
    /// Git branch or tag, if the build knew it.
    pub reference: Option<&'static str>,
    /// Time of the build, if the build said it.
    pub built_at: Option<&'static str>,
}

/// The calling crate's [`BuildInfo`], from Cargo and from the variables
/// `MAYFLY_GIT_REVISION`, `MAYFLY_GIT_REF` and `MAYFLY_BUILT_AT` at build time.
#[macro_export]
macro_rules! build_info {
    () => {
        $crate::BuildInfo {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            revision: option_env!("MAYFLY_GIT_REVISION"),
            reference: option_env!("MAYFLY_GIT_REF"),
            built_at: option_env!("MAYFLY_BUILT_AT"),
        }
    };
}

impl BuildInfo {
    /// The one-line form that `InitResponse.build_info` carries.
    pub fn line(&self) -> String {
        format!(
            "sha={}; ref={}; rust={}; built_at={}; os_arch={}",
            self.revision.unwrap_or("unknown"),
            self.reference.unwrap_or("unknown"),
            RUST_VERSION,
            self.built_at.unwrap_or("unknown"),
            os_arch(),
        )
    }
}

/// The seven lines of `version`; values start in column 15 as in stock plugins.
impl fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Name:         {}", self.name)?;
        writeln!(f, "Version:      {}", self.version)?;
        writeln!(f, "Git revision: {}", self.revision.unwrap_or("unknown"))?;
        writeln!(f, "Git ref:      {}", self.reference.unwrap_or("unknown"))?;
        writeln!(f, "Rust version: {RUST_VERSION}")?;
        writeln!(f, "Built:        {}", self.built_at.unwrap_or("unknown"))?;
        writeln!(f, "OS/Arch:      {}", os_arch())
    }
}

const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// Operating system and architecture in Go's words, as the ecosystem writes them.
fn os_arch() -> String {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    format!("{os}/{}", go_arch(std::env::consts::ARCH))
}

/// Go's word for an architecture that Rust names otherwise.
pub(crate) fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        arch => arch,
    }
}
