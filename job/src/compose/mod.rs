//! From a job payload to a plan of stages. Pure.
//!
//! Stages, their order, titles and variables are GitLab Runner's, so that a job behaves
//! and reads as its author knows it. What a stage does is decided here; where it runs is
//! not: scripts are plain text for a shell, everything else is an action by name.

pub mod docker;
mod environment;
mod git;
mod shell;
mod transfers;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::outcome::{FailureReason, Outcome};
use crate::payload::{Job, Variable};
use crate::plan::{
    Action, Cleanup, Clear, File, Furnish, Plan, Prepare, Role, Script, Stage, TraceOptions,
    temp_dir,
};
use crate::trace::colour::RESET;
use crate::trace::colour::YELLOW;
use crate::variables::Variables;
pub(crate) use environment::is_name;
use environment::{Place, duration_of};
use shell::Shell;

/// GitLab Runner's default for a job without a timeout (`DefaultTimeout`).
const DEFAULT_JOB_TIMEOUT: Duration = Duration::from_secs(7200);
/// GitLab allows a month.
const LONGEST_JOB_TIMEOUT: Duration = Duration::from_secs(366 * 24 * 3600);
/// GitLab Runner's default for `RUNNER_AFTER_SCRIPT_TIMEOUT`.
const AFTER_SCRIPT_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The first section of a job's log, as GitLab Runner names it.
pub const PREPARE_EXECUTOR: &str = "prepare_executor";
/// The variable that has every command shown.
const DEBUG_TRACE: &str = "CI_DEBUG_TRACE";
/// Most attempts that a stage may be given (`GET_SOURCES_ATTEMPTS` and its kind).
const MAX_ATTEMPTS: u32 = 10;

/// What one `[[runners]]` entry says about its jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Runner {
    /// Its description.
    pub name: String,
    /// First characters of its token, without the prefix.
    pub short_token: String,
    /// Version of the manager.
    pub version: String,
    /// `builds_dir`; relative ones are under the login directory.
    pub builds_dir: String,
    /// `cache_dir`; relative ones are under the login directory.
    pub cache_dir: String,
    /// `clone_url`: scheme, host and port that replace those of the repository.
    pub clone_url: String,
    /// `environment`, as `NAME=value`.
    pub environment: Vec<String>,
    /// `feature_flags`; they win over the job's variables.
    pub feature_flags: BTreeMap<String, bool>,
    /// `output_limit` in bytes.
    pub output_limit_bytes: u64,
    /// `pre_get_sources_script`.
    pub pre_get_sources_script: String,
    /// `post_get_sources_script`.
    pub post_get_sources_script: String,
    /// `pre_build_script`.
    pub pre_build_script: String,
    /// `post_build_script`.
    pub post_build_script: String,
    /// `debug_trace_disabled`.
    pub debug_trace_disabled: bool,
    /// `custom_build_dir.enabled`: whether `GIT_CLONE_PATH` counts.
    pub custom_build_dir: bool,
    /// Where artifacts go.
    pub server: Server,
    /// `artifact.upload_timeout`; zero is an hour.
    pub upload_timeout: Duration,
    /// `[runners.docker]` of a `docker-autoscaler`; `None` runs stages as processes.
    pub docker: Option<docker::Docker>,
}

/// GitLab's name of the executor.
pub fn executor(in_containers: bool) -> &'static str {
    if in_containers { "docker-autoscaler" } else { "instance" }
}

/// The server that a job talks to by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    /// Base of the runner API with a slash at its end.
    pub api_url: String,
    /// Certificates to trust, PEM; empty for the instance's own.
    pub ca_certificates: Vec<u8>,
    /// `User-Agent` of its requests.
    pub user_agent: String,
}

/// Where the job will run.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// The provider's name for it.
    pub id: String,
    /// The login directory, absolute.
    pub home: String,
    /// The slot, from 0.
    pub slot: u32,
    /// Architecture in Go's words.
    pub arch: String,
    /// Host name of the manager, for the log.
    pub via: String,
    /// Whether it has git.
    pub has_git: bool,
}

/// Where a job's files are, before its plan is known.
pub fn project_dir(job: &Job, runner: &Runner, instance: &Instance) -> String {
    Place::of(job, runner, instance).project_dir
}

/// Makes the plan, or says with which outcome the job ends instead.
pub fn compose(job: &Job, runner: &Runner, instance: &Instance) -> Result<Plan, Outcome> {
    refuse_unsupported(job)?;
    let place = Place::of(job, runner, instance);
    let variables = environment::variables(job, runner, instance, &place);
    let place = place.with_clone_path(runner, &variables)?;
    // Once more: the path may be another one, and the variables tell it.
    let variables = environment::variables(job, runner, instance, &place);
    let context = Context { job, runner, variables: &variables, place: &place };
    let containers = match &runner.docker {
        Some(docker) => {
            let outside = environment::outside(runner, instance);
            Some(docker::containers(&context, docker, instance, &outside)?)
        }
        None => None,
    };
    // The same files, as the agent sees them.
    let outside = place.seen_from(containers.as_ref().map_or(&place.builds_dir, |c| &c.outside));
    let outer = environment::variables(job, runner, instance, &outside);
    let agents = Context { job, runner, variables: &outer, place: &outside };

    let timeout = job_timeout(job);
    let script_timeout = duration_of(&variables, "RUNNER_SCRIPT_TIMEOUT").unwrap_or_default();
    let after_script_timeout =
        duration_of(&variables, "RUNNER_AFTER_SCRIPT_TIMEOUT").unwrap_or(AFTER_SCRIPT_TIMEOUT);
    let mut files = context.file_variables();
    files.extend(git::credentials(&context));

    let fetches_inside = containers.as_ref().is_some_and(|it| it.helper.is_some());
    let fetches = git::stage(if fetches_inside { &context } else { &agents });
    Ok(Plan {
        job_key: job_key(job, runner),
        stages: context.stages(&agents, fetches, instance),
        timeout_ms: millis(timeout),
        script_timeout_ms: millis(script_timeout),
        after_script_timeout_ms: millis(after_script_timeout),
        trace: Some(context.trace_options()),
        project_dir: outside.project_dir.clone(),
        files,
        containers,
        after_script_counts: variables.get("AFTER_SCRIPT_IGNORE_ERRORS") == Some("false"),
        ..Plan::default()
    })
}

/// Whether every command of the job is shown with its values: the log may hold secrets.
pub fn is_debug(job: &Job, runner: &Runner) -> bool {
    let is_on = |variable: &&Variable| variable.key == DEBUG_TRACE;
    let last = job.variables.iter().rfind(is_on);
    let variables = Variables::resolve(last.cloned(), |_| String::new());
    variables.is_on(DEBUG_TRACE) && !runner.debug_trace_disabled
}

/// The image in which the job's scripts run; empty where they run in none.
pub fn image(job: &Job, runner: &Runner) -> String {
    let Some(docker) = &runner.docker else {
        return String::new();
    };
    let variables = Variables::resolve(job.variables.iter().cloned(), |_| String::new());
    docker::image_name(job.image.as_ref(), docker, &variables)
}

/// How long the job may take, from the moment that it was handed out.
pub fn job_timeout(job: &Job) -> Duration {
    match job.runner_info.timeout {
        0 => DEFAULT_JOB_TIMEOUT,
        seconds => Duration::from_secs(seconds).min(LONGEST_JOB_TIMEOUT),
    }
}

/// The name of the job's directory on the instance.
pub fn job_key(job: &Job, runner: &Runner) -> String {
    let token: String = runner.short_token.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{token}-{}", job.id)
}

/// What this runner cannot do is said at once, with GitLab's reason for it.
fn refuse_unsupported(job: &Job) -> Result<(), Outcome> {
    let refuse = |what: &str| {
        let message = format!("{what} is not supported by this runner");
        Err(Outcome::failure(FailureReason::RunnerConfigurationError, message))
    };
    if !job.run.is_empty() && job.run != "null" && job.run != "[]" {
        return refuse("a job with `run` (native steps)");
    }
    if let Some(name) = job.secrets.keys().next() {
        return refuse(&format!("the external secret {name}"));
    }
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What every part of a plan is made from.
struct Context<'a> {
    job: &'a Job,
    runner: &'a Runner,
    variables: &'a Variables,
    place: &'a Place,
}

impl Context<'_> {
    /// `agents` is this context as the agent sees it.
    fn stages(&self, agents: &Self, fetches: Stage, instance: &Instance) -> Vec<Stage> {
        let in_containers = self.runner.docker.is_some();
        let mut stages = Vec::new();
        if in_containers {
            let title = "Preparing the \"docker-autoscaler\" executor";
            let furnish = Action::Furnish(Furnish {});
            stages.push(Stage::new(PREPARE_EXECUTOR, title, Role::Preparation, furnish));
        }
        stages.extend([self.prepare(instance), fetches]);
        stages.extend(transfers::downloads(agents));
        stages.extend(self.steps());
        stages.extend(self.after_script());
        stages.extend(transfers::uploads(agents));
        let title = "Cleaning up project directory and file based variables";
        let cleanup = match in_containers {
            true => Action::Clear(Clear::default()),
            false => Action::Cleanup(Cleanup {}),
        };
        stages.push(Stage::new("cleanup_file_variables", title, Role::Cleanup, cleanup));
        stages
    }

    fn prepare(&self, instance: &Instance) -> Stage {
        let prepare = Prepare {
            via: instance.via.clone(),
            empty_project_dir: self.variables.get("GIT_STRATEGY") == Some("empty"),
        };
        let action = Action::Prepare(prepare);
        Stage::new("prepare_script", "Preparing environment", Role::Preparation, action)
    }

    fn steps(&self) -> Vec<Stage> {
        let steps =
            self.job.steps.iter().filter(|s| s.name != "after_script" && !s.script.is_empty());
        let stage = |step: &crate::payload::Step| {
            let name = format!("step_{}", step.name);
            let mut shell = self.shell();
            shell.hook(&self.runner.pre_build_script);
            shell.commands(&step.script);
            shell.hook(&self.runner.post_build_script);
            let title = format!("Executing \"{name}\" stage of the job script");
            let action = Action::Script(Script { text: shell.finish(), of_agent: false });
            let mut stage = Stage::new(&name, title, Role::Step, action);
            if !self.job.cache.is_empty() {
                stage.notes = format!(
                    "{YELLOW}WARNING: caches are not supported yet: {} left out{RESET}\n",
                    self.job.cache.len()
                );
            }
            stage
        };
        steps.map(stage).collect()
    }

    fn after_script(&self) -> Option<Stage> {
        let step = self.job.steps.iter().find(|step| step.name == "after_script")?;
        if step.script.is_empty() {
            return None;
        }
        let mut shell = self.shell();
        shell.notice("Running after script...");
        shell.commands(&step.script);
        let action = Action::Script(Script { text: shell.finish(), of_agent: false });
        Some(Stage::new("after_script", "Running after_script", Role::AfterScript, action))
    }

    /// A script that stands in the project directory with all variables set.
    fn shell(&self) -> Shell {
        let mut shell = Shell::new();
        if self.is_debug() {
            shell.line("set -o xtrace");
        }
        environment::export(&mut shell, self.variables, self.place);
        shell.change_dir(&self.place.project_dir);
        shell
    }

    fn is_debug(&self) -> bool {
        self.variables.is_on(DEBUG_TRACE) && !self.runner.debug_trace_disabled
    }

    /// A feature flag: the runner's word wins over the job's.
    fn flag(&self, name: &str, default: bool) -> bool {
        if let Some(on) = self.runner.feature_flags.get(name) {
            return *on;
        }
        self.variables.get(name).map_or(default, |_| self.variables.is_on(name))
    }

    fn attempts(&self, name: &str) -> u32 {
        let attempts = self.variables.get(name).and_then(|text| text.trim().parse().ok());
        attempts.unwrap_or(1).clamp(1, MAX_ATTEMPTS)
    }

    fn file_variables(&self) -> Vec<File> {
        let files = self.variables.iter().filter(|variable| variable.file);
        files
            .filter(|variable| environment::is_file_name(&variable.key))
            .map(|variable| File {
                name: variable.key.clone(),
                content: variable.value.clone().into_bytes(),
            })
            .collect()
    }

    fn trace_options(&self) -> TraceOptions {
        TraceOptions {
            preamble: String::new(),
            masks: self.masks(),
            token_prefixes: self.job.features.token_mask_prefixes.clone(),
            timestamps: self.flag("FF_TIMESTAMPS", true),
            sections: self.job.features.trace_sections,
            limit_bytes: self.runner.output_limit_bytes,
        }
    }

    /// Values of masked variables, the job's tokens, and the forms in which this engine
    /// itself writes them down.
    fn masks(&self) -> Vec<String> {
        let masked = self.variables.iter().filter(|variable| variable.masked);
        let mut masks: Vec<String> = masked.map(|variable| variable.value.clone()).collect();
        masks.push(self.job.token.clone());
        masks.extend(self.job.dependencies.iter().map(|dependency| dependency.token.clone()));
        masks.extend(git::secrets(self));
        masks.retain(|mask| !mask.is_empty());
        masks.sort();
        masks.dedup();
        masks
    }
}

impl Place {
    /// The same place with `GIT_CLONE_PATH`, which must stay inside the builds directory.
    fn with_clone_path(mut self, runner: &Runner, variables: &Variables) -> Result<Self, Outcome> {
        let Some(path) = variables.get("GIT_CLONE_PATH").filter(|path| !path.is_empty()) else {
            return Ok(self);
        };
        let refuse = |why: &str| {
            let message = format!("the GIT_CLONE_PATH={path:?} {why}");
            Err(Outcome::failure(FailureReason::RunnerConfigurationError, message))
        };
        if !runner.custom_build_dir {
            return refuse("is set, but custom_build_dir is not enabled for this runner");
        }
        let inside = path.strip_prefix(&self.builds_dir).is_some_and(|rest| rest.starts_with('/'));
        if !inside || path.split('/').any(|part| part == "..") {
            return refuse(&format!("has to be within {:?}", self.builds_dir));
        }
        self.project_dir = path.trim_end_matches('/').to_owned();
        self.temp_dir = temp_dir(&self.project_dir);
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
