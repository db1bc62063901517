//! The log of a container as a daemon sends it: frames of both streams, mixed.

/// Kind, three zeros, four bytes of length.
const HEADER_BYTES: usize = 8;

/// What was printed, as one line. A stream that was cut off ends early.
pub(super) fn text(mut stream: &[u8]) -> String {
    let mut printed = Vec::new();
    while let Some((header, rest)) = stream.split_at_checked(HEADER_BYTES) {
        let [kind, 0, 0, 0, length @ ..] = header else {
            break;
        };
        let Ok(length) = <[u8; 4]>::try_from(length) else {
            break;
        };
        if *kind > 2 {
            break;
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        printed.extend_from_slice(&rest[..length.min(rest.len())]);
        stream = rest.get(length..).unwrap_or_default();
    }
    // A log is one line, and a terminal's codes have no meaning in it.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = String::from_utf8_lossy(&printed).lines().collect::<Vec<_>>().join("; ");
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_put_together() {
        let mut stream = Vec::new();
        for (kind, line) in [(1u8, "one\n"), (2, "two\n")] {
            stream.extend([kind, 0, 0, 0, 0, 0, 0, line.len() as u8]);
            stream.extend(line.bytes());
        }
        assert_eq!(text(&stream), "one; two");
        assert_eq!(text(&stream[..stream.len() - 2]), "one; tw");
        assert_eq!(text(&stream[..5]), "");
        assert_eq!(text(b""), "");
    }
}
