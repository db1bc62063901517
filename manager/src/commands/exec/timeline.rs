//! Where the time of each job went: waited, booted, prepared, each stage. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::events::{JobEvent, JobStep};

/// What the manager told of each job.
#[derive(Debug)]
pub(super) struct Timelines(Vec<Timeline>);

/// The steps of one job, as far as it got.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    taken: Option<SystemTime>,
    bound: Option<SystemTime>,
    begun: Option<SystemTime>,
    instance: Option<String>,
    /// Stages in order, with their durations; that of a running one is absent.
    stages: Vec<(String, Option<Duration>)>,
}

/// The parts of a job's time that a person tells apart, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Parts {
    /// In the queue until a runner took it.
    pub(super) waited_s: f64,
    /// Until an instance had a slot for it.
    pub(super) booted_s: f64,
    /// Until its plan was on the instance and told to begin.
    pub(super) prepared_s: f64,
    /// Each stage.
    pub(super) stages: Vec<Stage>,
}

/// One stage of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) seconds: f64,
}

impl Timelines {
    pub(super) fn new(jobs: usize) -> Self {
        Self(vec![Timeline::default(); jobs])
    }

    /// Takes what the manager told. Returns a job that begins with this, and its instance.
    /// The coordinator numbers its jobs from 1.
    pub(super) fn step(&mut self, event: &JobEvent) -> Option<(usize, &str)> {
        let index = usize::try_from(event.job).ok()?.checked_sub(1)?;
        let timeline = self.0.get_mut(index)?;
        timeline.step(event);
        let instance = timeline.instance()?;
        matches!(event.what, JobStep::Begun).then_some((index, instance))
    }

    pub(super) fn of(&self, job: usize) -> &Timeline {
        &self.0[job]
    }
}

impl Timeline {
    /// The instance that the job is on.
    pub(super) fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    fn step(&mut self, event: &JobEvent) {
        match &event.what {
            JobStep::Taken => self.taken = Some(event.at),
            JobStep::Bound { instance } => {
                self.bound = Some(event.at);
                self.instance = Some(instance.clone());
            }
            JobStep::Begun => self.begun = Some(event.at),
            JobStep::Stage(progress) => {
                let ended = progress.ended_us.checked_sub(progress.started_us);
                let duration = ended.filter(|_| progress.ended_us > 0).map(Duration::from_micros);
                match self.stages.iter_mut().find(|(name, _)| *name == progress.stage) {
                    Some(stage) => stage.1 = duration,
                    None => self.stages.push((progress.stage.clone(), duration)),
                }
            }
        }
    }

    /// The parts, given when the job was queued.
    pub(super) fn parts(&self, queued: Option<SystemTime>) -> Parts {
        let between = |from: Option<SystemTime>, to: Option<SystemTime>| {
            let duration = from.zip(to).and_then(|(from, to)| to.duration_since(from).ok());
            duration.unwrap_or_default().as_secs_f64()
        };
        Parts {
            waited_s: between(queued, self.taken),
            booted_s: between(self.taken, self.bound),
            prepared_s: between(self.bound, self.begun),
            stages: self
                .stages
                .iter()
                .map(|(name, duration)| Stage {
                    name: name.clone(),
                    seconds: duration.unwrap_or_default().as_secs_f64(),
                })
                .collect(),
        }
    }
}

impl Parts {
    /// Seconds of the kinds that the table shows, in its order: sources, script, other.
    pub(super) fn columns(&self) -> [f64; 3] {
        let mut sums = BTreeMap::new();
        for stage in &self.stages {
            let column = match stage.name.as_str() {
                "get_sources" => 0,
                name if name.starts_with("step_") => 1,
                _ => 2,
            };
            *sums.entry(column).or_insert(0.0) += stage.seconds;
        }
        [0, 1, 2].map(|column| sums.get(&column).copied().unwrap_or(0.0))
    }

    pub(super) fn total(&self) -> f64 {
        let stages: f64 = self.stages.iter().map(|stage| stage.seconds).sum();
        self.waited_s + self.booted_s + self.prepared_s + stages
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use job::wire::Progress;

    use super::*;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let mut timelines = Timelines::new(1);
        let stage = |name: &str, from: u64, to: u64| {
            JobStep::Stage(Progress {
                stage: name.into(),
                started_us: from * 1000,
                ended_us: to * 1000,
            })
        };
        let steps = [
            (100, JobStep::Taken),
            (400, JobStep::Bound { instance: "i".into() }),
            (410, JobStep::Begun),
            (420, stage("get_sources", 410, 0)),
            (500, stage("get_sources", 410, 510)),
            (800, stage("step_script", 510, 810)),
            (900, stage("after_script", 810, 910)),
        ];
        for (millis, what) in steps {
            timelines.step(&JobEvent { job: 1, at: at(millis), what });
        }
        timelines.step(&JobEvent { job: 9, at: at(0), what: JobStep::Taken });
        let parts = timelines.of(0).parts(Some(at(50)));
        let round = |seconds: f64| (seconds * 1000.0).round();
        assert_eq!(
            [parts.waited_s, parts.booted_s, parts.prepared_s].map(round),
            [50.0, 300.0, 10.0]
        );
        assert_eq!(parts.columns().map(round), [100.0, 300.0, 100.0]);
        assert_eq!(round(parts.total()), 860.0);
    }
}
