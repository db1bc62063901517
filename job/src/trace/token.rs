//! Replaces what follows a known token prefix, or a sensitive URL parameter.
//!
//! Nothing is held back: the prefix itself is shown, only what follows is not.

use std::sync::Arc;

use super::mask::Phrases;

const MASKED: &[u8] = b"[MASKED]";

/// Prefixes of GitLab's tokens.
pub(super) const TOKEN_PREFIXES: [&str; 14] = [
    "glpat-",
    "gloas-",
    "gldt-",
    "glrt-",
    "glcbt-",
    "glrtr-",
    "glptt-",
    "glft-",
    "glimt-",
    "glagent-",
    "glsoat-",
    "glffct-",
    "_gitlab_session=",
    "gltok-",
];

/// URL parameters whose values are secrets.
const PARAMETERS: [&str; 6] = [
    "private_token",
    "authenticity_token",
    "rss_token",
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
];

/// Masks what follows any of some prefixes.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    prefixes: Arc<Phrases>,
    at: usize,
    fold_case: bool,
    is_secret: fn(u8) -> bool,
    /// Bytes are being swallowed; `[MASKED]` was written for them already if `shown`.
    following: bool,
    shown: bool,
}

impl Follower {
    /// Tokens: `glpat-` and its kind, and the prefixes that the server names.
    pub(super) fn tokens<'a>(more: impl IntoIterator<Item = &'a str>) -> Self {
        let prefixes = TOKEN_PREFIXES.into_iter().chain(more);
        Self::new(prefixes.map(str::as_bytes), false, |byte| {
            byte.is_ascii_alphanumeric() || b"-._=".contains(&byte)
        })
    }

    /// `?private_token=…` and its kind.
    pub(super) fn parameters() -> Self {
        let keys: Vec<Vec<u8>> = PARAMETERS
            .iter()
            .flat_map(|name| ["?", "&"].map(|mark| format!("{mark}{name}=").into_bytes()))
            .collect();
        Self::new(keys.iter().map(Vec::as_slice), true, |byte| {
            !(byte == b'?' || byte == b'&' || byte.is_ascii_whitespace() || byte.is_ascii_control())
        })
    }

    fn new<'a>(
        prefixes: impl IntoIterator<Item = &'a [u8]>,
        fold_case: bool,
        is_secret: fn(u8) -> bool,
    ) -> Self {
        let prefixes = Arc::new(Phrases::new(prefixes));
        Self { prefixes, at: 0, fold_case, is_secret, following: false, shown: false }
    }

    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            if self.following && (self.is_secret)(*byte) {
                if !std::mem::replace(&mut self.shown, true) {
                    out.extend_from_slice(MASKED);
                }
                continue;
            }
            self.following = false;
            out.push(*byte);
            let seen = if self.fold_case { byte.to_ascii_lowercase() } else { *byte };
            self.at = self.prefixes.step(self.at, seen);
            if self.prefixes.ends(self.at) > 0 {
                self.at = 0;
                self.following = true;
                self.shown = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(mut follower: Follower, writes: &[&str]) -> String {
        let mut out = Vec::new();
        for write in writes {
            follower.push(write.as_bytes(), &mut out);
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn tokens_are_masked_after_their_prefix() {
        let cases: [(&[&str], &str); 5] = [
            (&["a glpat-abc.DEF-1_2 b"], "a glpat-[MASKED] b"),
            (&["glp", "at-ab", "cd\n"], "glpat-[MASKED]\n"),
            (&["mine:xyz glpat-"], "mine:[MASKED] glpat-"),
            (&["glpat glrt-t1_x"], "glpat glrt-[MASKED]"),
            (&["glpat-aglpat-b c"], "glpat-[MASKED] c"),
        ];
        for (writes, expected) in cases {
            assert_eq!(push(Follower::tokens(["mine:"]), writes), expected, "{writes:?}");
        }
    }

    #[test]
    fn parameters_are_masked_up_to_their_end() {
        let cases: [(&[&str], &str); 3] = [
            (
                &["https://h/?a=1&PRIVATE_TOKEN=x/y+z&b=2 rest"],
                "https://h/?a=1&PRIVATE_TOKEN=[MASKED]&b=2 rest",
            ),
            (&["?X-Amz-Sign", "ature=ab", "cd\nnext"], "?X-Amz-Signature=[MASKED]\nnext"),
            (&["private_token=shown"], "private_token=shown"),
        ];
        for (writes, expected) in cases {
            assert_eq!(push(Follower::parameters(), writes), expected, "{writes:?}");
        }
    }
}
