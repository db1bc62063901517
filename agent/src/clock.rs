//! The deadlines of a job: its own, that of its scripts, that of its after_script.

use std::time::{Duration, Instant};

use job::plan::{Plan, Role};

pub(crate) struct Clock {
    /// When the whole job must be over.
    pub(crate) job: Instant,
    pub(crate) job_limit: Duration,
    /// For all step stages together; set when the first begins.
    scripts: Option<Instant>,
    after_script: Option<Instant>,
}

impl Clock {
    pub(crate) fn start(job_limit: Duration) -> Self {
        let job = Instant::now() + job_limit;
        Self { job, job_limit, scripts: None, after_script: None }
    }

    pub(crate) fn stage_begins(&mut self, role: Role, plan: &Plan) {
        let limit = Self::limit_of(role, plan);
        let deadline = (!limit.is_zero()).then(|| Instant::now() + limit);
        match role {
            Role::Step if self.scripts.is_none() => self.scripts = deadline,
            Role::AfterScript => self.after_script = deadline,
            _ => {}
        }
    }

    /// The deadline of stages of this role, beside the job's own.
    pub(crate) fn of(&self, role: Role) -> Option<Instant> {
        match role {
            Role::Step => self.scripts,
            Role::AfterScript => self.after_script,
            _ => None,
        }
    }

    /// How long stages of this role may take; zero is no limit of their own.
    pub(crate) fn limit_of(role: Role, plan: &Plan) -> Duration {
        match role {
            Role::Step => Duration::from_millis(plan.script_timeout_ms),
            Role::AfterScript => Duration::from_millis(plan.after_script_timeout_ms),
            _ => Duration::ZERO,
        }
    }
}
