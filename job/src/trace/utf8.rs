//! Replaces invalid UTF-8 by U+FFFD, wherever writes are split.

const REPLACEMENT: &str = "\u{fffd}";

/// Cleans one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Cleaner {
    /// The beginning of a character whose rest has not come yet: at most 3 bytes.
    pending: Vec<u8>,
}

impl Cleaner {
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.pending.is_empty() && std::str::from_utf8(bytes).is_ok() {
            out.extend_from_slice(bytes);
            return;
        }
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut chunks = pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.extend_from_slice(chunk.valid().as_bytes());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && may_go_on(invalid) {
                self.pending = invalid.to_vec();
            } else if !invalid.is_empty() {
                out.extend_from_slice(REPLACEMENT.as_bytes());
            }
        }
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.pending).is_empty() {
            out.extend_from_slice(REPLACEMENT.as_bytes());
        }
    }
}

/// Whether these bytes, invalid by themselves, could begin a character.
fn may_go_on(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => false,
        Err(error) => error.valid_up_to() == 0 && error.error_len().is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(writes: &[&[u8]]) -> String {
        let mut cleaner = Cleaner::default();
        let mut out = Vec::new();
        for write in writes {
            cleaner.push(write, &mut out);
        }
        cleaner.flush(&mut out);
        String::from_utf8(out).expect("clean")
    }

    #[test]
    fn every_split_of_valid_text_is_kept() {
        let text = "aé€😀z".as_bytes();
        for split in 0..=text.len() {
            assert_eq!(clean(&[&text[..split], &text[split..]]), "aé€😀z", "split at {split}");
        }
    }

    #[test]
    fn invalid_bytes_are_replaced() {
        assert_eq!(clean(&[b"a\xffb"]), "a\u{fffd}b");
        assert_eq!(clean(&[b"a\xf0\x9f"]), "a\u{fffd}");
        assert_eq!(clean(&[b"a\xf0", b"b"]), "a\u{fffd}b");
        assert_eq!(clean(&[b"\xc3\x28"]), "\u{fffd}(");
    }
}
