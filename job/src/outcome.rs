//! How a job ends, in GitLab's words.

pub use crate::wire::generated::{FailureReason, Outcome};

impl FailureReason {
    /// The word for `failure_reason` of a job update.
    pub fn as_gitlab(self) -> &'static str {
        match self {
            Self::UnknownFailure => "unknown_failure",
            Self::ScriptFailure => "script_failure",
            Self::RunnerSystemFailure => "runner_system_failure",
            Self::JobExecutionTimeout => "job_execution_timeout",
            Self::JobCanceled => "job_canceled",
            Self::RunnerInterrupted => "runner_interrupted",
            Self::RunnerConfigurationError => "runner_configuration_error",
            Self::ImagePullFailure => "image_pull_failure",
        }
    }

    /// The word for a server that knows only `known` reasons. Three are always known;
    /// the replacements are GitLab Runner's.
    pub fn for_server(self, known: &[String]) -> &'static str {
        let word = self.as_gitlab();
        let always = matches!(
            self,
            Self::ScriptFailure | Self::RunnerSystemFailure | Self::JobExecutionTimeout
        );
        if always || known.iter().any(|k| k == word) {
            return word;
        }
        match self {
            Self::ImagePullFailure => Self::RunnerSystemFailure.as_gitlab(),
            Self::RunnerConfigurationError => Self::ScriptFailure.as_gitlab(),
            _ => Self::UnknownFailure.as_gitlab(),
        }
    }
}

impl Outcome {
    /// The job did what it should.
    pub fn success() -> Self {
        Self { success: true, ..Self::default() }
    }

    /// The job failed for `reason`; `message` completes "Job failed: ".
    pub fn failure(reason: FailureReason, message: impl Into<String>) -> Self {
        Self { success: false, reason: reason.into(), exit_code: None, message: message.into() }
    }

    /// A script of the job ended with `code`.
    pub fn script_failure(code: i32) -> Self {
        Self {
            exit_code: Some(code),
            ..Self::failure(FailureReason::ScriptFailure, format!("exit code {code}"))
        }
    }

    /// The last line of the log, with GitLab Runner's words and colours.
    pub fn last_line(&self) -> String {
        use crate::trace::colour::{BOLD_GREEN, BOLD_RED, RESET};
        if self.success {
            return format!("{BOLD_GREEN}Job succeeded{RESET}\n");
        }
        let system = match self.reason() {
            FailureReason::RunnerSystemFailure => " (system failure)",
            _ => "",
        };
        format!("{BOLD_RED}ERROR: Job failed{system}: {}\n{RESET}\n", self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_a_server_does_not_know_are_replaced() {
        let known = ["job_canceled".to_owned()];
        let cases = [
            (FailureReason::ScriptFailure, "script_failure"),
            (FailureReason::JobCanceled, "job_canceled"),
            (FailureReason::ImagePullFailure, "runner_system_failure"),
            (FailureReason::RunnerConfigurationError, "script_failure"),
            (FailureReason::RunnerInterrupted, "unknown_failure"),
        ];
        for (reason, word) in cases {
            assert_eq!(reason.for_server(&known), word);
        }
    }
}
