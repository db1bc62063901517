//! What a job runs, and what it must print then: two sides of one thing. Pure.
use support::JobSpec;

use crate::plan::{Job, Prints};

/// Widths of lines, with their end, and how many there are in a burst.
const LONG: usize = 40_000;
const MEGABYTE_LINE: usize = 1024;
const MEGABYTE_LINES: usize = 1024;
/// Bytes that no text has: a stray one, half a character, a surrogate.
const NO_TEXT: &[u8] = b"\xff\xfe \xc3( \xf0\x9f\x92 \xed\xa0\x80 caf\xc3\xa9";
const NO_TEXT_ESCAPED: &str = r"\377\376 \303( \360\237\222 \355\240\200 caf\303\251";
/// The last words of a job that prints no text.
const RAGGED: &str = "no end";

impl Job {
    /// The job for the server. It tells the witness at this port that it began and ended.
    pub(crate) fn spec(&self, witness: u16) -> JobSpec {
        let mut spec = JobSpec::script([self.script(witness)])
            .name("chaos")
            .variable("FF_TIMESTAMPS", "false");
        if self.after_script {
            spec = spec.after_script(["echo after: $CI_JOB_STATUS"]);
        }
        if self.artifact {
            spec = spec.artifacts(["made"]);
        }
        spec
    }

    fn script(&self, witness: u16) -> String {
        let pause = self.lasts / (self.bursts + 1);
        let pause = format!("sleep {}.{:03}", pause.as_secs(), pause.subsec_millis());
        let mut script = format!(
            "x={}
say() {{ {{ exec 9<>/dev/tcp/127.0.0.1/{witness}; }} 2>/dev/null && echo \"$1 $CI_JOB_ID\" >&9; exec 9>&-; }}
next() {{ x=$((x * 16807 % 2147483647)); }}
lines() {{ local n=$1 pad; printf -v pad \"%0$2d\" 0
  while [ $n -gt 0 ]; do next; printf '%010d%s\\n' $x \"$pad\"; n=$((n - 1)); done; }}
no_text() {{ next; printf '{NO_TEXT_ESCAPED} %d\\n' $x; }}
say began
{pause}
",
            self.number
        );
        for burst in 0..self.bursts {
            let (lines, width) = self.burst(burst);
            match self.prints {
                Prints::NoText => script.push_str("no_text\n"),
                _ if lines == 0 => {}
                _ => script.push_str(&format!("lines {lines} {}\n", width - 11)),
            }
            script.push_str(&format!("{pause}\n"));
        }
        if self.prints == Prints::NoText {
            script.push_str(&format!("printf '{RAGGED}'\n"));
        }
        if self.artifact {
            script.push_str("echo $x > made\n");
        }
        script.push_str(&format!("say ended\nexit {}", self.exit));
        script
    }

    /// Lines of a burst, and their width with their end.
    fn burst(&self, at: u32) -> (usize, usize) {
        match self.prints {
            Prints::Nothing => (0, 0),
            Prints::Lines => (5, 40),
            Prints::LongLines => (2, LONG),
            Prints::NoText => (1, 0),
            Prints::Megabyte => {
                let each = MEGABYTE_LINES / self.bursts as usize;
                let rest = MEGABYTE_LINES - each * (self.bursts as usize - 1);
                (if at + 1 == self.bursts { rest } else { each }, MEGABYTE_LINE)
            }
        }
    }

    /// What the log holds of it once it has run to its end: the text between the marks of
    /// the section of its script.
    pub(crate) fn printed(&self) -> String {
        let mut number = self.number;
        let mut bytes = Vec::new();
        for burst in 0..self.bursts {
            let (lines, width) = self.burst(burst);
            for _ in 0..lines {
                number = number * 16807 % 2_147_483_647;
                if self.prints == Prints::NoText {
                    bytes.extend_from_slice(NO_TEXT);
                    bytes.extend_from_slice(format!(" {number}\n").as_bytes());
                } else {
                    bytes.extend_from_slice(format!("{number:010}").as_bytes());
                    bytes.resize(bytes.len() + width - 11, b'0');
                    bytes.push(b'\n');
                }
            }
        }
        if self.prints == Prints::NoText {
            bytes.extend_from_slice(RAGGED.as_bytes());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
