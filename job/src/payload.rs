//! The job payload of `POST /api/v4/jobs/request`, as far as the engine reads it.
//!
//! Field names are GitLab's. GitLab sends `null` where a list or object is empty, so
//! every field tolerates it. Unknown fields are ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// One job.
#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    /// GitLab's id of the job.
    pub id: u64,
    /// The job's own token; it never outlives the job.
    pub token: String,
    /// Whether a build directory of an earlier job may be fetched into.
    #[serde(default, deserialize_with = "or_default")]
    pub allow_git_fetch: bool,
    /// Names and ids for people.
    #[serde(default, deserialize_with = "or_default")]
    pub job_info: JobInfo,
    /// The sources.
    #[serde(default, deserialize_with = "or_default")]
    pub git_info: GitInfo,
    /// Limits from the server.
    #[serde(default, deserialize_with = "or_default")]
    pub runner_info: RunnerInfo,
    /// Variables in GitLab's order; later ones win.
    #[serde(default, deserialize_with = "or_default")]
    pub variables: Vec<Variable>,
    /// `script`, `after_script`, and whatever else there may come.
    #[serde(default, deserialize_with = "or_default")]
    pub steps: Vec<Step>,
    /// The container image; only container executors look at it, and at `services`.
    #[serde(default, deserialize_with = "or_default")]
    pub image: Option<Image>,
    /// Containers beside the job's.
    #[serde(default, deserialize_with = "or_default")]
    pub services: Vec<Image>,
    /// Logins for registries and the like.
    #[serde(default, deserialize_with = "or_default")]
    pub credentials: Vec<Credentials>,
    /// What to upload at the end.
    #[serde(default, deserialize_with = "or_default")]
    pub artifacts: Vec<Artifact>,
    /// Caches.
    #[serde(default, deserialize_with = "or_default")]
    pub cache: Vec<Cache>,
    /// Earlier jobs whose artifacts this one gets.
    #[serde(default, deserialize_with = "or_default")]
    pub dependencies: Vec<Dependency>,
    /// What the server can do.
    #[serde(default, deserialize_with = "or_default")]
    pub features: Features,
    /// External secrets by variable name; refused, see `compose`.
    #[serde(default, deserialize_with = "or_default")]
    pub secrets: BTreeMap<String, serde_json::Value>,
    /// Scripts around fetching the sources.
    #[serde(default, deserialize_with = "or_default")]
    pub hooks: Vec<Hook>,
    /// Native steps as JSON text; refused, see `compose`.
    #[serde(default, deserialize_with = "or_default")]
    pub run: String,
}

/// Names and ids of a job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobInfo {
    /// The job's name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Its stage in the pipeline.
    #[serde(deserialize_with = "or_default")]
    pub stage: String,
    /// Project id.
    #[serde(deserialize_with = "or_default")]
    pub project_id: u64,
    /// Project name.
    #[serde(deserialize_with = "or_default")]
    pub project_name: String,
    /// `group/subgroup/project`.
    #[serde(deserialize_with = "or_default")]
    pub project_full_path: String,
    /// How long GitLab had the job queued.
    #[serde(deserialize_with = "or_default")]
    pub time_in_queue_seconds: f64,
}

/// What to fetch and check out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct GitInfo {
    /// URL of the repository, with the job token as password.
    #[serde(deserialize_with = "or_default")]
    pub repo_url: String,
    /// `sha1` or `sha256`; empty means `sha1`.
    #[serde(deserialize_with = "or_default")]
    pub repo_object_format: String,
    /// Branch or tag.
    #[serde(rename = "ref", deserialize_with = "or_default")]
    pub ref_name: String,
    /// Commit to check out.
    #[serde(deserialize_with = "or_default")]
    pub sha: String,
    /// What to fetch.
    #[serde(deserialize_with = "or_default")]
    pub refspecs: Vec<String>,
    /// Number of commits to fetch; 0 is all.
    #[serde(deserialize_with = "or_default")]
    pub depth: u64,
}

/// Limits from the server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RunnerInfo {
    /// Seconds the whole job may take; 0 means GitLab's default of two hours.
    #[serde(deserialize_with = "or_default")]
    pub timeout: u64,
}

/// One variable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Variable {
    /// Name.
    pub key: String,
    /// Value before expansion.
    #[serde(deserialize_with = "or_default")]
    pub value: String,
    /// The job sees a path to a file with the value.
    #[serde(deserialize_with = "or_default")]
    pub file: bool,
    /// The value never appears in the trace.
    #[serde(deserialize_with = "or_default")]
    pub masked: bool,
    /// References in the value are not expanded.
    #[serde(deserialize_with = "or_default")]
    pub raw: bool,
    /// Not a secret of the project: services see it.
    #[serde(deserialize_with = "or_default")]
    pub public: bool,
}

/// One script of the job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Step {
    /// `script`, `after_script`, …
    pub name: String,
    /// Commands, one shell for all of them.
    #[serde(deserialize_with = "or_default")]
    pub script: Vec<String>,
    /// Whether a failure counts.
    #[serde(deserialize_with = "or_default")]
    pub allow_failure: bool,
}

/// A container image, and how it is run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Image {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Of a service: names under which the job reaches it.
    #[serde(deserialize_with = "or_default")]
    pub alias: String,
    /// Replaces the image's.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// Of a service: replaces the image's.
    #[serde(deserialize_with = "or_default")]
    pub command: Vec<String>,
    /// Of a service: its own.
    #[serde(deserialize_with = "or_default")]
    pub variables: Vec<Variable>,
    /// `always`, `if-not-present` or `never`, in the order in which they are tried.
    #[serde(deserialize_with = "or_default")]
    pub pull_policy: Vec<String>,
    /// What only some executors read.
    #[serde(deserialize_with = "or_default")]
    pub executor_opts: ExecutorOptions,
    /// It comes from the runner's configuration, not from the job.
    #[serde(skip)]
    pub is_configured: bool,
}

/// `image:docker` and its kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ExecutorOptions {
    /// For Docker.
    #[serde(deserialize_with = "or_default")]
    pub docker: DockerOptions,
}

/// `image:docker`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DockerOptions {
    /// As os/architecture.
    #[serde(deserialize_with = "or_default")]
    pub platform: String,
    /// User in the container.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
}

/// A login.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// `registry` for one of images.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// Host and port of the registry.
    #[serde(deserialize_with = "or_default")]
    pub url: String,
    /// User.
    #[serde(deserialize_with = "or_default")]
    pub username: String,
    /// Password or token.
    #[serde(deserialize_with = "or_default")]
    pub password: String,
}

/// Files to upload at the end.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Artifact {
    /// Name of the archive.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// All files that git does not track.
    #[serde(deserialize_with = "or_default")]
    pub untracked: bool,
    /// Paths and globs, relative to the project directory.
    #[serde(deserialize_with = "or_default")]
    pub paths: Vec<String>,
    /// Globs of what is left out.
    #[serde(deserialize_with = "or_default")]
    pub exclude: Vec<String>,
    /// When to upload.
    #[serde(deserialize_with = "or_default")]
    pub when: When,
    /// `archive`, `junit`, …; the server's word, passed back to it.
    #[serde(deserialize_with = "or_default")]
    pub artifact_type: String,
    /// `zip`, `gzip` or `raw`; empty means `zip`.
    #[serde(deserialize_with = "or_default")]
    pub artifact_format: String,
    /// When the server may delete it.
    #[serde(deserialize_with = "or_default")]
    pub expire_in: String,
}

/// When something happens, by the job's result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// After success.
    #[default]
    #[serde(alias = "")]
    OnSuccess,
    /// After failure.
    OnFailure,
    /// After both.
    Always,
}

/// A cache; only counted for now, to say in the trace that it is left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// Its key.
    #[serde(deserialize_with = "or_default")]
    pub key: String,
}

/// An earlier job whose artifacts are downloaded.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Dependency {
    /// Id of that job.
    pub id: u64,
    /// Token that allows the download.
    #[serde(deserialize_with = "or_default")]
    pub token: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The archive; absent when the job has none.
    #[serde(deserialize_with = "or_default")]
    pub artifacts_file: ArtifactsFile,
}

/// An archive on the server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ArtifactsFile {
    /// Empty when there is no archive.
    #[serde(deserialize_with = "or_default")]
    pub filename: String,
}

/// What the server can do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Features {
    /// It folds sections of the trace.
    #[serde(deserialize_with = "or_default")]
    pub trace_sections: bool,
    /// Prefixes of tokens to mask beside the known ones.
    #[serde(deserialize_with = "or_default")]
    pub token_mask_prefixes: Vec<String>,
    /// Failure reasons that it knows.
    #[serde(deserialize_with = "or_default")]
    pub failure_reasons: Vec<String>,
}

/// A script around fetching the sources.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// `pre_get_sources_script` or `post_get_sources_script`.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Commands.
    #[serde(deserialize_with = "or_default")]
    pub script: Vec<String>,
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_absent_fields_are_empty() {
        let job: Job = serde_json::from_str(
            r#"{"id": 7, "token": "t", "image": null, "artifacts": null, "variables": [{"key": "A", "value": null}],
                "features": null, "steps": [{"name": "script", "script": ["x"]}], "unknown": {}}"#,
        )
        .expect("a payload");
        assert_eq!((job.id, job.variables.len(), job.artifacts.len()), (7, 1, 0));
        assert_eq!(job.variables[0].value, "");
    }

    #[test]
    fn when_may_be_empty() {
        let artifact: Artifact = serde_json::from_str(r#"{"when": ""}"#).expect("an artifact");
        assert_eq!(artifact.when, When::OnSuccess);
    }
}
