//! Text of a shell script: what bash, dash and busybox all read alike.
//!
//! Values are never interpolated: everything from outside is in single quotes.

use crate::trace::colour::{BOLD_GREEN, RESET};

/// A script under construction.
pub(super) struct Shell(String);

impl Shell {
    /// Fails at the first error, in pipes too where the shell can; its own text is not
    /// the input of what it runs.
    pub(super) fn new() -> Self {
        let mut shell = Self(String::with_capacity(4096));
        shell.line("exec </dev/null");
        shell.line("trap 'exit 1' TERM");
        shell.line("[ -z \"${BASH_VERSION:-}\" ] || set -o pipefail");
        shell.line("set -o errexit");
        shell.line("set +o noclobber");
        shell
    }

    pub(super) fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    /// One command of our own, every word quoted.
    pub(super) fn command(&mut self, words: &[&str]) {
        let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
        self.line(&quoted.join(" "));
    }

    pub(super) fn export(&mut self, name: &str, value: &str) {
        self.line(&format!("export {name}={}", quote(value)));
    }

    pub(super) fn change_dir(&mut self, dir: &str) {
        self.command(&["cd", dir]);
    }

    /// A green line of the runner's.
    pub(super) fn notice(&mut self, text: &str) {
        let text = format!("{BOLD_GREEN}{text}{RESET}");
        self.command(&["printf", "%s\\n", &text]);
    }

    /// The user's commands, each shown before it runs.
    pub(super) fn commands(&mut self, commands: &[String]) {
        for command in commands {
            let command = command.trim();
            match command.split_once('\n') {
                _ if command.is_empty() => self.line("echo"),
                None => self.notice(&format!("$ {command}")),
                Some((first, _)) => {
                    self.notice(&format!("$ {} # collapsed multi-line command", first.trim_end()));
                }
            }
            self.line(command);
        }
    }

    /// A script of the runner's configuration, where there is one.
    pub(super) fn hook(&mut self, script: &str) {
        if !script.trim().is_empty() {
            self.commands(&[script.to_owned()]);
        }
    }
}

/// `text` as one word of a POSIX shell.
pub(super) fn quote(text: &str) -> String {
    // No shell has a NUL byte in a word.
    let text = text.replace('\0', "");
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn multi_line_commands_show_their_first_line() {
        let mut shell = Shell(String::new());
        shell.commands(&["if true; then\n  echo hi\nfi".into(), "echo 'a b'".into(), " ".into()]);
        let expected = "'printf' '%s\\n' '\x1b[32;1m$ if true; then # collapsed multi-line command\x1b[0;m'\n\
                        if true; then\n  echo hi\nfi\n\
                        'printf' '%s\\n' '\x1b[32;1m$ echo '\\''a b'\\''\x1b[0;m'\n\
                        echo 'a b'\n\
                        echo\n\n";
        assert_eq!(shell.finish(), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn real_shells_read_back_what_was_quoted(text in "[^\0\r]{0,40}") {
            let script = format!("printf %s {}", quote(&text));
            for shell in ["bash", "dash"] {
                let Ok(output) = Command::new(shell).arg("-c").arg(&script).output() else {
                    continue;
                };
                prop_assert_eq!(&String::from_utf8_lossy(&output.stdout), &text);
            }
        }
    }
}
