//! What the job's processes print: one pipe per stage, each read until everyone who holds
//! it has closed it. Processes that a stage left in the background go on printing.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// Most that is read from one output before the others get their turn.
const READ_BYTES: usize = 256 * 1024;

/// Each round reads more from every output than a pipe holds by itself (64 KiB, see
/// pipe(7)).
const DRAIN_ROUNDS: usize = 4;

/// The open outputs, by number. None of them ever blocks.
#[derive(Default)]
pub(crate) struct Outputs {
    open: Vec<(u64, OwnedFd)>,
    next: u64,
}

/// What an output gave.
pub(crate) struct Piece {
    /// Its number.
    pub(crate) output: u64,
    pub(crate) text: Vec<u8>,
    /// Nothing more comes.
    pub(crate) is_last: bool,
}

impl Outputs {
    pub(crate) fn add(&mut self, output: OwnedFd) {
        self.open.push((self.next, output));
        self.next += 1;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.open.iter().map(|(_, output)| output)
    }

    /// Some of what is there to read now.
    pub(crate) fn read(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        self.open.retain(|(number, output)| {
            let mut text = Vec::new();
            let is_open = read_some(output, &mut text);
            if !text.is_empty() || !is_open {
                pieces.push(Piece { output: *number, text, is_last: !is_open });
            }
            is_open
        });
        pieces
    }

    /// All that is in the pipes now. Not until they are empty: a process left in the
    /// background may fill them faster than they are read.
    pub(crate) fn drain(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for _ in 0..DRAIN_ROUNDS {
            let more = self.read();
            if more.iter().all(|piece| piece.text.is_empty()) {
                pieces.extend(more);
                break;
            }
            pieces.extend(more);
        }
        pieces
    }
}

/// Returns whether the output is still open.
fn read_some(output: &OwnedFd, text: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 64 * 1024];
    while text.len() < READ_BYTES {
        match rustix::io::read(output, &mut buffer) {
            Ok(0) => return false,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(Errno::INTR) => {}
            Err(errno) => return errno == Errno::AGAIN,
        }
    }
    true
}
