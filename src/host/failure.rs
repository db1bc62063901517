//! Why a plugin did not start: one message per cause, with the binary, the end of its
//! stderr and what to do.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::build_info::go_arch;
use crate::guarding::Fate;
use crate::handshake::HandshakeError;

/// A plugin that could not be started, or not be used.
#[derive(Debug)]
pub struct StartError {
    /// The plugin's binary.
    pub binary: PathBuf,
    /// What went wrong.
    pub cause: StartCause,
    /// The last lines of its stderr; may be empty.
    pub stderr: String,
}

/// What went wrong at a plugin's start. The text ends with what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartCause {
    /// Its host has a rule for the binary, which says no: see `Launch::only_if`.
    #[error("it is not started: {0}")]
    Refused(String),
    /// No such file.
    #[error("there is no such file; install the plugin, or correct `plugin` in the configuration")]
    NotFound,
    /// A `#!` script whose interpreter does not exist.
    #[error(
        "its interpreter {interpreter:?} does not exist; install it, or correct the first line of the script"
    )]
    NoInterpreter {
        /// The path after `#!`.
        interpreter: String,
    },
    /// A program that needs a dynamic loader that does not exist here.
    #[error(
        "its dynamic loader does not exist here; it was built for another libc, get a static build"
    )]
    NoLoader,
    /// The execute bit is missing.
    #[error("it is not executable; run: chmod +x {}", path.display())]
    NotExecutable {
        /// The binary.
        path: PathBuf,
    },
    /// A directory, socket or device.
    #[error("it is not a regular file; `plugin` must name the plugin's binary")]
    NotAFile,
    /// A binary for another machine.
    #[error("it is built for {binary}, this machine is {machine}; install the {machine} build")]
    WrongArchitecture {
        /// What it is built for.
        binary: String,
        /// What this machine is.
        machine: String,
    },
    /// Neither a program nor a script.
    #[error(
        "it is not a program: no ELF header and no #! line; the file may be damaged, install it again"
    )]
    NotAProgram,
    /// Any other refusal of the kernel.
    #[error("it cannot be executed: {0}")]
    Spawn(std::io::Error),
    /// It ended as go-plugin binaries do that do not know this host's cookie.
    #[error(
        "it refuses the start as if run by hand: it is a plugin of another program, not a fleeting plugin"
    )]
    WrongCookie,
    /// Its first line is not the right handshake.
    #[error("{0}; is it a fleeting plugin, and does it print nothing before its handshake?")]
    Handshake(HandshakeError),
    /// It ended without a handshake line.
    #[error("it {how} before its handshake{printed}; see its stderr")]
    Exited {
        /// How it ended.
        how: String,
        /// What it had printed, with a leading `, having printed`; may be empty.
        printed: String,
    },
    /// It closed stdout and lives on.
    #[error("it closed its stdout without a handshake; see its stderr")]
    ClosedStdout,
    /// It printed no line in time.
    #[error("it printed no handshake within {} s{printed}; see its stderr", limit.as_secs_f32())]
    Silent {
        /// The deadline.
        limit: Duration,
        /// What it had printed, with a leading `, having printed`; may be empty.
        printed: String,
    },
    /// The address it named is not one to connect to.
    #[error("its address {address} is refused: {why}")]
    Address {
        /// The address.
        address: String,
        /// Why it is refused.
        why: String,
    },
    /// `Init` did not come back, because the plugin ended.
    #[error("it {how} in Init; check `plugin_config` and its stderr")]
    CrashedInInit {
        /// How it ended.
        how: String,
    },
    /// `Init` did not come back in time.
    #[error("Init did not answer within {} s; is the provider's API reachable from here?", limit.as_secs_f32())]
    SilentInInit {
        /// The deadline.
        limit: Duration,
    },
    /// `Init` said no.
    #[error("Init failed: {message}; check `plugin_config`")]
    Init {
        /// The plugin's words.
        message: String,
    },
    /// `Init` was answered with something unusable.
    #[error("Init was answered with {what}; the plugin is faulty, report it to its author")]
    Answer {
        /// What is wrong with it.
        what: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {}: {}", self.binary.display(), self.cause)?;
        if !self.stderr.is_empty() {
            write!(f, "\nthe end of its stderr:\n")?;
            for line in self.stderr.lines() {
                let cut: String = line.chars().take(300).collect();
                writeln!(f, "  {cut}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for StartError {}

/// Why the kernel refused to execute `path`, told from what the file is.
pub(super) fn not_executed(path: &Path, errno: i32) -> StartCause {
    let error = std::io::Error::from_raw_os_error(errno);
    let Ok(metadata) = std::fs::metadata(path) else {
        return match error.kind() {
            std::io::ErrorKind::NotFound => StartCause::NotFound,
            _ => StartCause::Spawn(error),
        };
    };
    if !metadata.is_file() {
        return StartCause::NotAFile;
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return StartCause::NotExecutable { path: path.to_owned() };
    }
    let head = read_head(path);
    match error.kind() {
        std::io::ErrorKind::NotFound => match interpreter(&head) {
            Some(interpreter) => StartCause::NoInterpreter { interpreter },
            None => StartCause::NoLoader,
        },
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            match elf_machine(&head) {
                Some(binary) => StartCause::WrongArchitecture {
                    binary,
                    machine: go_arch(std::env::consts::ARCH).to_owned(),
                },
                None => StartCause::NotAProgram,
            }
        }
        _ => StartCause::Spawn(error),
    }
}

/// How a plugin that printed no handshake ended.
pub(super) fn ended_early(path: &Path, fate: Fate, printed: &[u8], stderr: &str) -> StartCause {
    match fate {
        Fate::NotExecuted(errno) => not_executed(path, errno),
        Fate::Exited(1) if stderr.contains("These are not meant to be executed directly") => {
            StartCause::WrongCookie
        }
        fate => StartCause::Exited { how: how(fate), printed: having_printed(printed) },
    }
}

/// A fate as a verb phrase: `exited with status 3`.
pub(super) fn how(fate: Fate) -> String {
    match fate {
        Fate::NotExecuted(errno) => {
            format!("could not be executed ({})", std::io::Error::from_raw_os_error(errno))
        }
        Fate::Exited(status) => format!("exited with status {status}"),
        Fate::Signaled(number) => {
            let name = rustix::process::Signal::from_named_raw(number).map(|s| format!("{s:?}"));
            let name = name.as_deref().map(|name| name.trim_matches('"'));
            let name = name.and_then(|name| name.strip_prefix("Signal::"));
            format!("was ended by signal {number} ({})", name.unwrap_or("?"))
        }
    }
}

/// `, having printed "…"`, or nothing.
pub(super) fn having_printed(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        String::new()
    } else {
        format!(", having printed {}", crate::handshake::escape(bytes))
    }
}

fn read_head(path: &Path) -> Vec<u8> {
    use std::io::Read as _;
    let mut head = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // An unreadable file has no head: the answer is then the plain errno.
        let _ = file.take(256).read_to_end(&mut head);
    }
    head
}

fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = String::from_utf8_lossy(line);
    word.split_whitespace().next().map(str::to_owned)
}

/// The architecture in an ELF header, in Go's words; `None` if this is no ELF file, or
/// one for this machine (then it is damaged).
fn elf_machine(head: &[u8]) -> Option<String> {
    if !head.starts_with(b"\x7fELF") || head.len() < 20 {
        return None;
    }
    let bytes = [head[18], head[19]];
    let number = if head[5] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    // e_machine, from the ELF specification's registry.
    let name = match number {
        3 => "386",
        8 => "mips",
        20 => "ppc",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        other => return Some(format!("ELF machine {other}")),
    };
    (name != go_arch(std::env::consts::ARCH)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_tells_the_machine() {
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(20, 0);
        head[18] = 183;
        assert_eq!(elf_machine(&head).as_deref(), Some("arm64"));
        head[5] = 2;
        head[18..20].copy_from_slice(&[0, 22]);
        assert_eq!(elf_machine(&head).as_deref(), Some("s390x"));
        assert_eq!(elf_machine(b"#!/bin/sh"), None);
    }

    #[test]
    fn the_interpreter_is_the_first_word() {
        assert_eq!(interpreter(b"#! /usr/bin/python9 -u\nx").as_deref(), Some("/usr/bin/python9"));
        assert_eq!(interpreter(b"#!\n"), None);
        assert_eq!(interpreter(b"\x7fELF"), None);
    }

    #[test]
    fn a_directory_is_not_a_file() {
        let cause = not_executed(Path::new("/"), rustix::io::Errno::ACCESS.raw_os_error());
        assert!(matches!(cause, StartCause::NotAFile), "{cause}");
    }
}
