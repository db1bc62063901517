//! What each job must have come to, and whether it did. Pure: it judges what the server
//! wrote down, what the jobs said themselves, and whom the injections hit.

use std::time::Instant;

use support::{Audit, Event, State};

use crate::inject::Effect;
use crate::log::{LOST, difference, plain};
use crate::plan::Job;
use crate::run::{Life, taken};
use crate::witness::Heard;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Success,
    ScriptFailure,
    Canceled,
    /// Its agent or its instance was killed under it.
    LostWithItsAgent,
    /// Its manager was killed while it waited for an instance.
    NeverHadAnInstance,
    /// Its manager was killed between writing `go` and saying it.
    LostAtGo,
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ScriptFailure => "script_failure",
            Self::Canceled => "canceled",
            Self::LostWithItsAgent => "lost_with_its_agent",
            Self::NeverHadAnInstance => "never_had_an_instance",
            Self::LostAtGo => "lost_at_go",
        }
    }
}

/// All that is known of one job.
pub(crate) struct Case<'a> {
    pub(crate) job: &'a Job,
    pub(crate) audit: &'a Audit,
    pub(crate) log: &'a str,
    pub(crate) heard: Heard,
    pub(crate) effects: Vec<Effect>,
    pub(crate) lives: &'a [Life],
}

impl Case<'_> {
    /// How it ended, or the promise that was broken.
    pub(crate) fn judge(&self) -> Result<Outcome, String> {
        self.told_once()?;
        self.log_grew_without_gaps()?;
        let Heard { began, ended } = self.heard;
        if began > 1 || ended > 1 {
            return Err(format!("it ran more than once: began {began} times, ended {ended} times"));
        }
        match self.audit.state {
            State::Canceled => self.canceled(),
            State::Success => self.ran_to_its_end(Outcome::Success, 0),
            State::Failed => match self.audit.failure_reason.as_deref() {
                Some("script_failure") => {
                    self.ran_to_its_end(Outcome::ScriptFailure, self.job.exit)
                }
                Some("runner_system_failure") => self.lost(),
                other => Err(format!("it failed with {other:?}")),
            },
            state => Err(format!("it did not end: {state:?}")),
        }
    }

    fn told_once(&self) -> Result<(), String> {
        let ends = self.audit.count(|event| *event == Event::Ended);
        if ends != 1 {
            return Err(format!("it ended {ends} times"));
        }
        if self.audit.count(|event| *event == Event::LogDiffers) > 0 {
            return Err("its end was told with a log that differs".into());
        }
        let end = self.audit.ended();
        for (at, event) in &self.audit.events {
            // A manager that died before it read the answer says it again in its next life.
            let is_repeated = end.is_some_and(|end| {
                self.lives.iter().any(|life| life.from >= end && life.from <= *at)
            });
            if matches!(event, Event::Forbidden(_)) && !is_repeated {
                return Err(format!("{event:?} by a manager that knew better"));
            }
        }
        Ok(())
    }

    fn log_grew_without_gaps(&self) -> Result<(), String> {
        let (mut end, mut refused) = (0, 0);
        for (_, event) in &self.audit.events {
            match event {
                Event::Patched(from, _) if *from != end => {
                    return Err(format!("a PATCH from {from} on where the log ended at {end}"));
                }
                Event::Patched(_, to) => end = *to,
                Event::RangeRefused(..) => refused += 1,
                _ => {}
            }
        }
        // Each life of the manager asks once where the log ends.
        let lives = self.lives.iter().filter(|life| Some(life.from) > taken(self.audit)).count();
        if refused > lives {
            return Err(format!("{refused} PATCHes were refused in {lives} new lives"));
        }
        if end != self.log.len() as u64 {
            return Err(format!("the log has {} bytes, {end} were stored", self.log.len()));
        }
        Ok(())
    }

    fn ran_to_its_end(&self, outcome: Outcome, code: u8) -> Result<Outcome, String> {
        let job = self.job;
        if code != job.exit || (outcome == Outcome::ScriptFailure) != (job.exit != 0) {
            return Err(format!("{outcome:?}, but its exit code is {}", job.exit));
        }
        if code != 0 && self.audit.exit_code != Some(i64::from(code)) {
            return Err(format!("exit code {:?}, not {code}", self.audit.exit_code));
        }
        if self.effects.contains(&Effect::Lost) {
            return Err(format!("{outcome:?}, although its agent was killed while it ran"));
        }
        if self.heard != (Heard { began: 1, ended: 1 }) {
            return Err(format!("{outcome:?}, but itself it said {:?}", self.heard));
        }
        let uploads = self.audit.count(|event| matches!(event, Event::Uploaded(_)));
        if uploads != usize::from(job.artifact) {
            return Err(format!("{uploads} uploads"));
        }
        let (expected, found) = (job.log(), plain(self.log));
        if expected != found {
            return Err(format!("its log is wrong {}", difference(&expected, &found)));
        }
        Ok(outcome)
    }

    fn canceled(&self) -> Result<Outcome, String> {
        let asked = self.audit.first(|event| *event == Event::CancelAsked);
        if asked.is_none() || asked > self.audit.ended() {
            return Err("it was canceled, and nobody asked for that".into());
        }
        let found = plain(self.log);
        let (before, printed) = (self.job.log_to_script(), self.job.printed());
        let Some(rest) = found.strip_prefix(before.as_str()) else {
            return self.is_beginning(&found).map(|()| Outcome::Canceled);
        };
        // To its own end, or to where it was stopped; then come the words of the runner.
        let script = rest.split("section_end:").next().unwrap_or(rest);
        let script = script.split("\x1b[31;1mERROR: Job failed").next().unwrap_or(script);
        // The shell says so when what it waits for is stopped.
        let script = script.strip_suffix("Terminated\n").unwrap_or(script);
        let script = script.strip_suffix('\n').unwrap_or(script);
        if printed.starts_with(script) {
            return Ok(Outcome::Canceled);
        }
        Err(format!("its log is wrong {}", difference(&printed, script)))
    }

    fn lost(&self) -> Result<Outcome, String> {
        let Some((found, why)) = self.log.split_once(LOST) else {
            return Err("a system failure without a word in the log".into());
        };
        self.is_beginning(&plain(found))?;
        let may_be = |effect: &Effect| matches!(effect, Effect::Lost | Effect::MayBeLost);
        if self.effects.iter().any(may_be) {
            return Ok(Outcome::LostWithItsAgent);
        }
        let had_not_begun = self.heard.began == 0 && self.a_manager_died();
        if had_not_begun && why.contains("ended before the job had an instance") {
            return Ok(Outcome::NeverHadAnInstance);
        }
        if had_not_begun && why.contains("does not know the job any more") {
            return Ok(Outcome::LostAtGo);
        }
        Err(format!("a system failure without a cause of ours: {}", why.trim_end()))
    }

    /// Whether a log is the beginning of what it had to become.
    fn is_beginning(&self, found: &str) -> Result<(), String> {
        let whole = self.job.log();
        // The last words begin on a line of their own.
        let is_beginning = whole.starts_with(found)
            || found.strip_suffix('\n').is_some_and(|found| whole.starts_with(found));
        // A log that no instance ever had a part in has another beginning, or none.
        let is_preamble = !found.contains("Instance local-");
        if is_beginning || (is_preamble && self.heard.began == 0) {
            return Ok(());
        }
        Err(format!("its log is wrong {}", difference(&whole, found)))
    }

    /// Whether a process of the manager ended while it had the job.
    fn a_manager_died(&self) -> bool {
        let had: Option<Instant> = self.audit.handed_out();
        let ended = self.audit.ended();
        self.lives.iter().any(|life| life.to.is_some() && life.to > had && life.to < ended)
    }
}
