//! `mayfly exec`: runs the pipeline file of the current repository here and now, on the
//! embedded coordinator and local instances; its scripts as processes there, or in
//! containers. The manager inside is the very one that serves a GitLab.

mod containers;
mod progress;
mod setup;
mod summary;
mod timeline;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::error::ErrorKind;
use tokio::net::TcpListener;

use super::{Exit, block_on, run::exit_of};
use crate::app::{App, StartError};
use crate::cli::LogFlags;
use crate::coordinator::pipeline::{Diagnostic, Pipeline, compile};
use crate::coordinator::server::{self, Handle, Options};
use crate::coordinator::{self, PipelineOutcome, snapshot};
use crate::shutdown::{Ending, Signals};
use crate::telemetry;
use containers::{Containers, Executor};
use progress::Progress;
use timeline::Timelines;

/// The pipeline file where none is named.
const DEFAULT_FILE: &str = ".gitlab-ci.yml";
/// How long instances may take to go at the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// The pipeline file (anything that ends in .yml, or exists), then names of jobs
    #[arg(value_name = "FILE|JOB")]
    words: Vec<String>,
    /// How many local instances may run at once
    #[arg(short = 'n', long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    instances: u32,
    /// How instances are kept apart: auto, full, user or none. auto takes the strongest
    /// that works here
    #[arg(long, value_name = "HOW", default_value = "auto")]
    isolation: String,
    /// What the scripts of jobs run as
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Executor::Instance)]
    executor: Executor,
    /// With --executor docker: the image of jobs that name none
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// With --executor docker: the daemon's socket; by default that of DOCKER_HOST, or this
    /// machine's own
    #[arg(long, value_name = "unix:///PATH", value_parser = containers::parse_host)]
    docker_host: Option<PathBuf>,
    /// Directory for the full logs; by default one in the user's state directory
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Print one JSON object at the end, and nothing else
    #[arg(long)]
    json: bool,
}

impl Flags {
    /// Ends the process where flags contradict each other, as clap does.
    fn check(&self) {
        let is_docker = self.executor == Executor::Docker;
        let message = if !is_docker && (self.image.is_some() || self.docker_host.is_some()) {
            "--image and --docker-host are of --executor docker: add it"
        } else if is_docker && !matches!(self.isolation.as_str(), "auto" | "none") {
            "instances cannot be isolated with --executor docker: the daemon must see their \
             files, and scripts run in containers anyway; leave --isolation out"
        } else {
            return;
        };
        let mut command = Self::augment_args(clap::Command::new("mayfly exec"));
        command.error(ErrorKind::ArgumentConflict, message).exit();
    }

    fn executor(&self) -> coordinator::Executor {
        let has_image = self.image.as_ref().is_some_and(|image| !image.trim().is_empty());
        match self.executor {
            Executor::Instance => coordinator::Executor::Instance,
            Executor::Docker => coordinator::Executor::Docker { has_image },
        }
    }
}

pub(crate) fn run(flags: &Flags, log: &LogFlags) -> Exit {
    flags.check();
    telemetry::init(log, Some("warn"), false);
    match block_on(execute(flags)) {
        Ok(exit) => exit,
        Err(error) => complain(flags, &format!("cannot start: {error}"), Exit::State),
    }
}

/// One error, for people or for programs.
fn complain(flags: &Flags, message: &str, exit: Exit) -> Exit {
    if flags.json {
        println!("{}", serde_json::json!({"outcome": "error", "errors": [{"message": message}]}));
    } else {
        eprintln!("error: {message}");
    }
    exit
}

async fn execute(flags: &Flags) -> Exit {
    // Everything of this run; removed on every way out.
    let Ok(directory) = tempfile::Builder::new().prefix("mayfly-exec-").tempdir() else {
        return complain(flags, "cannot make a temporary directory", Exit::State);
    };
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => return complain(flags, &error.to_string(), Exit::State),
    };
    let (pipeline, snapshot) = match prepare(flags, directory.path()).await {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let containers = match Containers::find(flags).await {
        Ok(containers) => containers,
        Err(error) => return complain(flags, &error, Exit::Plugin),
    };
    let logs = match setup::log_directory(flags.logs.as_deref(), &pipeline.context.project) {
        Ok(logs) => logs,
        Err(error) => {
            return complain(
                flags,
                &format!("cannot make a directory for the logs: {error}"),
                Exit::State,
            );
        }
    };
    let token = format!("glrt-{}", server::new_token());
    let options = Options::new(token.clone(), &logs, directory.path().join("artifacts"));
    let started = async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        server::start(listener, pipeline.clone(), &snapshot, options)
    };
    let handle = match started.await {
        Ok(handle) => handle,
        Err(error) => {
            return complain(flags, &format!("cannot serve the pipeline: {error}"), Exit::State);
        }
    };
    let place =
        setup::Place { directory: directory.path(), url: handle.url(), token: &token, containers };
    let app = match start_manager(flags, &place).await {
        Ok(app) => app,
        Err(error) if flags.json => return complain(flags, &error.to_string(), Exit::Plugin),
        Err(error) => return exit_of(&error),
    };
    let run = Run { flags, pipeline: &pipeline, handle: &handle, app: &app };
    let exit = run.watch(signals).await;
    if tokio::time::timeout(CLOSE_LIMIT, app.close()).await.is_err() {
        tracing::warn!("not all instances are gone; their lease ends them");
    }
    if let Some(containers) = &place.containers
        && let Err(error) = containers.clear().await
    {
        tracing::warn!(%error, "containers of this run may be left on the Docker daemon");
    }
    handle.shutdown().await;
    exit
}

/// The compiled pipeline and the repository that its jobs will clone.
async fn prepare(flags: &Flags, directory: &Path) -> Result<(Pipeline, snapshot::Snapshot), Exit> {
    let here = std::env::current_dir().unwrap_or_else(|_| ".".into());
    let mut snapshot = snapshot::create(&here, &directory.join("snapshot"))
        .await
        .map_err(|error| complain(flags, &with_causes(&error), Exit::State))?;
    let (file, jobs) = setup::file_and_jobs(&flags.words, &here);
    let name =
        file.as_deref().map_or_else(|| DEFAULT_FILE.to_owned(), |file| file.display().to_string());
    let path = match file {
        Some(file) => here.join(file),
        None => setup::repository_root(&here).join(DEFAULT_FILE),
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let message = format!("cannot read the pipeline file {}: {error}", path.display());
        complain(flags, &message, Exit::Config)
    })?;
    snapshot.context.config_path.clone_from(&name);
    snapshot.context.executor = flags.executor();
    let pipeline = compile(&text, &name, &snapshot.context, &jobs)
        .map_err(|findings| show_findings(flags, &findings))?;
    if !flags.json {
        for note in pipeline.notes.iter().chain(&snapshot.notes) {
            eprintln!("note: {note}");
        }
        if snapshot.has_uncommitted_changes {
            eprintln!("note: the jobs see your uncommitted changes, too");
        }
    }
    Ok((pipeline, snapshot))
}

fn show_findings(flags: &Flags, findings: &[Diagnostic]) -> Exit {
    if flags.json {
        println!("{}", serde_json::json!({"outcome": "error", "errors": findings}));
    } else {
        for finding in findings {
            eprintln!("{finding}\n");
        }
        let count = findings.len();
        eprintln!("the pipeline is not run: {count} error{}", if count == 1 { "" } else { "s" });
    }
    Exit::Config
}

/// Starts the manager; without isolation where the machine allows none and the user left
/// the choice. The daemon of containers sees only instances without it.
async fn start_manager(flags: &Flags, place: &setup::Place<'_>) -> Result<App, StartError> {
    let config = |isolation: &str| setup::config(flags, place, isolation);
    let wanted = if place.containers.is_some() { "none" } else { flags.isolation.as_str() };
    match App::start(config(wanted)).await {
        Err(StartError::Provider(error))
            if wanted == "auto" && error.to_string().contains("isolation = \"none\"") =>
        {
            if !flags.json {
                eprintln!(
                    "note: this machine does not allow to isolate instances; jobs run as plain processes of yours"
                );
            }
            App::start(config("none")).await
        }
        result => result,
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// A pipeline under way.
struct Run<'a> {
    flags: &'a Flags,
    pipeline: &'a Pipeline,
    handle: &'a Handle,
    app: &'a App,
}

impl Run<'_> {
    /// Shows how it goes until it has ended, and then how it went.
    async fn watch(&self, mut signals: Signals) -> Exit {
        let mut events = self.handle.events();
        let mut steps = self.app.shared.events.listen();
        let mut timelines = Timelines::new(self.pipeline.jobs.len());
        let mut progress = Progress::new(self.pipeline, self.flags.json);
        let mut ticks = tokio::time::interval(progress::TICK);
        let mut ending = None;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => progress.event(&event),
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
                },
                Ok(step) = steps.recv() => {
                    if let Some((job, instance)) = timelines.step(&step) {
                        progress.begun(job, instance);
                    }
                }
                _ = ticks.tick() => progress.tick(),
                outcome = self.handle.finished() => {
                    while let Ok(step) = steps.try_recv() {
                        timelines.step(&step);
                    }
                    while let Ok(event) = events.try_recv() {
                        progress.event(&event);
                    }
                    return self.finished(outcome, &timelines, &mut progress);
                }
                wish = signals.next() => {
                    ending = Some(Ending::then(ending, wish.max(Ending::Abort)));
                    progress.note("stopping the jobs; once more stops them at once");
                    match ending {
                        Some(Ending::Now) => self.handle.abort(),
                        _ => self.handle.cancel(),
                    }
                }
            }
        }
        let outcome = self.handle.finished().await;
        self.finished(outcome, &timelines, &mut progress)
    }

    fn finished(
        &self,
        outcome: PipelineOutcome,
        timelines: &Timelines,
        progress: &mut Progress,
    ) -> Exit {
        progress.end();
        let jobs = self.handle.jobs();
        let logs = |job| self.handle.trace_path(job);
        let summary = summary::Summary { pipeline: self.pipeline, outcome, jobs: &jobs, timelines };
        if self.flags.json {
            println!("{}", summary.json(logs));
        } else {
            print!("{}", summary.text(logs));
        }
        match outcome {
            PipelineOutcome::Success => Exit::Success,
            PipelineOutcome::Failed | PipelineOutcome::Skipped => Exit::Failed,
            PipelineOutcome::Canceled => Exit::Interrupted,
        }
    }
}
