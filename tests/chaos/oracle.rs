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
    /// Its manager was killed, or its connection cut, about when `go` was written: it was
    /// never said, and the job may have begun as far as anybody can know.
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
    /// When connections were cut.
    pub(crate) cuts: Vec<Instant>,
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
        if self.heard.began == 0 {
            let had_none = why.contains("ended before the job had an instance");
            if had_none && self.a_manager_died() {
                return Ok(Outcome::NeverHadAnInstance);
            }
            let is_unknown = why.contains("does not know the job any more");
            if is_unknown && (self.a_manager_died() || self.a_connection_was_cut()) {
                return Ok(Outcome::LostAtGo);
            }
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
        self.lives.iter().filter_map(|life| life.to).any(|to| self.had_it_at(to))
    }

    fn a_connection_was_cut(&self) -> bool {
        self.cuts.iter().any(|at| self.had_it_at(*at))
    }

    fn had_it_at(&self, at: Instant) -> bool {
        Some(at) > self.audit.handed_out() && Some(at) < self.audit.ended()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use support::JobId;

    use super::*;
    use crate::plan::Prints;

    const WHOLE: Heard = Heard { began: 1, ended: 1 };

    fn job(exit: u8) -> Job {
        Job {
            arrives: Duration::ZERO,
            prints: Prints::NoText,
            number: 7,
            bursts: 3,
            lasts: Duration::from_secs(1),
            exit,
            after_script: true,
            artifact: false,
            canceled: None,
        }
    }

    fn audit(state: State, reason: Option<&str>, exit_code: Option<i64>, log: &str) -> Audit {
        let now = Instant::now();
        let size = log.len() as u64;
        let events = [
            Event::Queued,
            Event::HandedOut,
            Event::Acknowledged,
            Event::Patched(0, size / 2),
            Event::Patched(size / 2, size),
            Event::Ended,
        ];
        Audit {
            job: JobId(1),
            state,
            failure_reason: reason.map(str::to_owned),
            exit_code,
            events: events.into_iter().map(|event| (now, event)).collect(),
        }
    }

    fn judge(
        job: &Job,
        audit: &Audit,
        log: &str,
        heard: Heard,
        effects: &[Effect],
    ) -> Result<Outcome, String> {
        Case { job, audit, log, heard, effects: effects.to_vec(), cuts: vec![], lives: &[] }.judge()
    }

    #[test]
    fn only_the_true_result_with_the_whole_log_is_taken() {
        let job = job(0);
        let log = job.log();
        let good = audit(State::Success, None, None, &log);
        assert_eq!(judge(&job, &good, &log, WHOLE, &[]), Ok(Outcome::Success));
        let disturbed = judge(&job, &good, &log, WHOLE, &[Effect::Disturbed]);
        assert_eq!(disturbed, Ok(Outcome::Success));

        let fault = |audit: &Audit, log: &str, heard, effects: &[Effect]| {
            judge(&job, audit, log, heard, effects).expect_err("a broken promise")
        };
        assert!(fault(&good, &log, WHOLE, &[Effect::Lost]).contains("was killed while it ran"));
        let twice = Heard { began: 2, ended: 1 };
        assert!(fault(&good, &log, twice, &[]).contains("more than once"));
        let other = log.replacen("no end", "no and", 1);
        assert!(fault(&good, &other, WHOLE, &[]).contains("its log is wrong"));
        let mut gap = good.clone();
        gap.events[4].1 = Event::Patched(log.len() as u64 / 2 + 1, log.len() as u64);
        assert!(fault(&gap, &log, WHOLE, &[]).contains("a PATCH from"));
        let mut again = good.clone();
        again.events.push((Instant::now(), Event::Ended));
        assert!(fault(&again, &log, WHOLE, &[]).contains("ended 2 times"));
        let mut late = good.clone();
        late.events.push((Instant::now(), Event::Forbidden("a log")));
        assert!(fault(&late, &log, WHOLE, &[]).contains("knew better"));
        let failed = audit(State::Failed, Some("script_failure"), Some(1), &log);
        assert!(fault(&failed, &log, WHOLE, &[]).contains("exit code is 0"));
        let canceled = audit(State::Canceled, Some("job_canceled"), None, &log);
        assert!(fault(&canceled, &log, WHOLE, &[]).contains("nobody asked"));
    }

    #[test]
    fn a_failure_of_the_system_needs_a_cause_and_the_beginning_of_the_log() {
        let job = job(3);
        let whole = job.log();
        let begun = Heard { began: 1, ended: 0 };
        let log = format!("{}{LOST}the agent was killed\n", &whole[..whole.len() / 2]);
        let lost = audit(State::Failed, Some("runner_system_failure"), None, &log);
        for effect in [Effect::Lost, Effect::MayBeLost] {
            let outcome = judge(&job, &lost, &log, begun, &[effect]);
            assert_eq!(outcome, Ok(Outcome::LostWithItsAgent));
        }
        for effects in [&[][..], &[Effect::Disturbed]] {
            let fault = judge(&job, &lost, &log, begun, effects).expect_err("no cause");
            assert!(fault.contains("without a cause"), "{fault}");
        }
        let log = format!(
            "{}{LOST}the agent was killed\n",
            &whole[..whole.len() / 2].replace("Git", "git")
        );
        let lost = audit(State::Failed, Some("runner_system_failure"), None, &log);
        let fault = judge(&job, &lost, &log, begun, &[Effect::Lost]).expect_err("another log");
        assert!(fault.contains("its log is wrong"), "{fault}");
    }
}
