//! What the job's processes print: one pipe per stage, each read until everyone who holds
//! it has closed it. Processes that a stage left in the background go on printing.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// Most that is read from one output before the others get their turn.
const READ_BYTES: usize = 256 * 1024;

/// Each round reads more from every output than a pipe holds by itself (64 KiB, see
/// pipe(7)).
const DRAIN_ROUNDS: usize = 4;

/// The open outputs. None of them ever blocks.
#[derive(Default)]
pub(crate) struct Outputs(Vec<OwnedFd>);

impl Outputs {
    pub(crate) fn add(&mut self, output: OwnedFd) {
        self.0.push(output);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.0.iter()
    }

    /// Some of what is there to read now.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        self.0.retain(|output| read_some(output, &mut text));
        text
    }

    /// All that is in the pipes now. Not until they are empty: a process left in the
    /// background may fill them faster than they are read.
    pub(crate) fn drain(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..DRAIN_ROUNDS {
            let before = text.len();
            self.0.retain(|output| read_some(output, &mut text));
            if text.len() == before {
                break;
            }
        }
        text
    }
}

/// Returns whether the output is still open.
fn read_some(output: &OwnedFd, text: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 64 * 1024];
    let limit = text.len() + READ_BYTES;
    while text.len() < limit {
        match rustix::io::read(output, &mut buffer) {
            Ok(0) => return false,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(Errno::INTR) => {}
            Err(errno) => return errno == Errno::AGAIN,
        }
    }
    true
}
