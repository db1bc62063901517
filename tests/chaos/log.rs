//! The whole log of a job as it must be, and a log as it is, both without what nobody can
//! know before: times, instance, host. Pure.

use crate::plan::Job;

const CLEAR: &str = "\x1b[0K";
const RESET: &str = "\x1b[0;m";
const GREEN: &str = "\x1b[32;1m";
/// What differs from run to run: the text between these two is not compared.
const UNKNOWN: [(&str, &str); 7] = [
    ("Running with mayfly ", RESET),
    (", system ID: ", RESET),
    ("section_start:", ":"),
    ("section_end:", ":"),
    ("Instance local-", "\n"),
    ("Running on ", "\n"),
    ("201 Created id=", "\n"),
];
/// How the last line of a job begins that was lost.
pub(crate) const LOST: &str = "\x1b[31;1mERROR: Job failed (system failure): ";

impl Job {
    /// The log of the job where nobody stopped it.
    pub(crate) fn log(&self) -> String {
        let mut log = self.log_to_script();
        log.push_str(&self.printed());
        log.push_str(&end("step_script"));
        if self.after_script {
            let status = if self.exit == 0 { "success" } else { "failed" };
            log.push_str(&begin("after_script", "Running after_script"));
            log.push_str(&format!("{GREEN}Running after script...{RESET}\n"));
            log.push_str(&format!("{GREEN}$ echo after: $CI_JOB_STATUS{RESET}\n"));
            log.push_str(&format!("after: {status}\n"));
            log.push_str(&end("after_script"));
        }
        if self.artifact {
            let title = "Uploading artifacts for successful job";
            log.push_str(&begin("upload_artifacts_on_success", title));
            log.push_str("Uploading artifacts...\n");
            log.push_str("made: found 1 matching artifact files and directories\n");
            log.push_str("Uploading artifacts as \"archive\" to coordinator... 201 Created id=*\n");
            log.push_str(&end("upload_artifacts_on_success"));
        }
        let title = "Cleaning up project directory and file based variables";
        log.push_str(&begin("cleanup_file_variables", title));
        log.push_str(&end("cleanup_file_variables"));
        log.push_str(&match self.exit {
            0 => format!("{GREEN}Job succeeded{RESET}\n"),
            code => format!("\x1b[31;1mERROR: Job failed: exit code {code}\n{RESET}\n"),
        });
        log
    }

    /// The log to the first byte that the script prints.
    pub(crate) fn log_to_script(&self) -> String {
        let mut log = format!("{CLEAR}Running with mayfly *{RESET}\n");
        log.push_str(&format!("{CLEAR}  on test mayflytes, system ID: *{RESET}\n"));
        log.push_str(&begin("prepare_executor", "Preparing the \"instance\" executor"));
        log.push_str(&format!("Instance local-*\n{}", end("prepare_executor")));
        log.push_str(&begin("prepare_script", "Preparing environment"));
        log.push_str(&format!("Running on *\n{}", end("prepare_script")));
        log.push_str(&begin("get_sources", "Getting source from Git repository"));
        for skipped in ["repository", "checkout", "submodules"] {
            let setup = if skipped == "checkout" { "" } else { " setup" };
            log.push_str(&format!("{GREEN}Skipping Git {skipped}{setup}{RESET}\n"));
        }
        log.push_str(&end("get_sources"));
        let title = "Executing \"step_script\" stage of the job script";
        log.push_str(&begin("step_script", title));
        let shown = format!("$ x={} # collapsed multi-line command", self.number);
        log.push_str(&format!("{GREEN}{shown}{RESET}\n"));
        log
    }
}

fn begin(section: &str, title: &str) -> String {
    format!("section_start:*:{section}\r{CLEAR}{CLEAR}\x1b[36;1m{title}{RESET}{RESET}\n")
}

fn end(section: &str) -> String {
    format!("section_end:*:{section}\r{CLEAR}")
}

/// A log without what nobody can know before.
pub(crate) fn plain(log: &str) -> String {
    let mut text = log.to_owned();
    for (before, after) in UNKNOWN {
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find(before) {
            let value = at + before.len();
            out.push_str(&rest[..value]);
            out.push('*');
            // A log that was cut may end within.
            rest = &rest[value..];
            rest = rest.find(after).map_or("", |end| &rest[end..]);
        }
        out.push_str(rest);
        text = out;
    }
    text
}

/// Where two texts begin to differ, with what is there, for people.
pub(crate) fn difference(expected: &str, found: &str) -> String {
    let (one, other) = (expected.as_bytes(), found.as_bytes());
    let at = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let (from, to) = (at.saturating_sub(40), (at + 80).min(bytes.len()));
        format!("{:?}", String::from_utf8_lossy(&bytes[from.min(to)..to]))
    };
    format!(
        "from byte {at} on ({} expected, {} found): expected {}, found {}",
        one.len(),
        other.len(),
        around(one),
        around(other)
    )
}
