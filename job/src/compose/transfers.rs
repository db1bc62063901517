//! Artifacts of earlier jobs before the scripts, and of this job after them.

use std::time::Duration;

use super::{Context, millis};
use crate::payload::{Artifact, When as PayloadWhen};
use crate::plan::Source;
use crate::plan::{Action, Archive, Download, Role, Stage, Transfer, Upload, What, When};

/// GitLab Runner's default for `[runners.artifact] upload_timeout`.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);

/// One stage for all dependencies that have an archive; none without any.
pub(super) fn downloads(context: &Context<'_>) -> Option<Stage> {
    let dependencies = context.job.dependencies.iter();
    let sources: Vec<Source> = dependencies
        .filter(|dependency| !dependency.artifacts_file.filename.is_empty())
        .map(|dependency| Source {
            job_id: dependency.id,
            job_token: dependency.token.clone(),
            job_name: dependency.name.clone(),
        })
        .collect();
    if sources.is_empty() {
        return None;
    }
    let what = What::Download(Download { sources });
    let action = transfer(context, what);
    let mut stage =
        Stage::new("download_artifacts", "Downloading artifacts", Role::Downloads, action);
    stage.attempts = context.attempts("ARTIFACT_DOWNLOAD_ATTEMPTS");
    Some(stage)
}

/// A stage for what is uploaded after success and one for what is after failure, each
/// only where there is something.
pub(super) fn uploads(context: &Context<'_>) -> Vec<Stage> {
    let cases = [
        ("upload_artifacts_on_success", "Uploading artifacts for successful job", When::OnSuccess),
        ("upload_artifacts_on_failure", "Uploading artifacts for failed job", When::OnFailure),
    ];
    let stage = |(name, title, when): (&str, &str, When)| {
        let archives: Vec<Archive> = context
            .job
            .artifacts
            .iter()
            .filter(|artifact| is_due(artifact.when, when))
            .filter(|artifact| artifact.untracked || !artifact.paths.is_empty())
            .map(|artifact| archive(context, artifact))
            .collect();
        if archives.is_empty() {
            return None;
        }
        let timeout = context.runner.upload_timeout;
        let timeout = if timeout.is_zero() { UPLOAD_TIMEOUT } else { timeout };
        let upload = Upload {
            job_id: context.job.id,
            job_token: context.job.token.clone(),
            archives,
            timeout_ms: millis(timeout),
        };
        let action = transfer(context, What::Upload(upload));
        let mut stage = Stage::new(name, title, Role::Uploads, action);
        stage.when = when.into();
        Some(stage)
    };
    cases.into_iter().filter_map(stage).collect()
}

fn is_due(artifact: PayloadWhen, stage: When) -> bool {
    match artifact {
        PayloadWhen::Always => true,
        PayloadWhen::OnSuccess => stage == When::OnSuccess,
        PayloadWhen::OnFailure => stage == When::OnFailure,
    }
}

fn archive(context: &Context<'_>, artifact: &Artifact) -> Archive {
    let expand =
        |texts: &[String]| texts.iter().map(|text| context.variables.expand(text)).collect();
    Archive {
        name: context.variables.expand(&artifact.name),
        paths: expand(&artifact.paths),
        exclude: expand(&artifact.exclude),
        untracked: artifact.untracked,
        artifact_type: artifact.artifact_type.clone(),
        artifact_format: artifact.artifact_format.clone(),
        expire_in: artifact.expire_in.clone(),
    }
}

fn transfer(context: &Context<'_>, what: What) -> Action {
    let server = &context.runner.server;
    Action::Transfer(Transfer {
        api_url: server.api_url.clone(),
        ca_certificates: server.ca_certificates.clone(),
        user_agent: server.user_agent.clone(),
        project_dir: context.place.project_dir.clone(),
        what: Some(what),
    })
}
