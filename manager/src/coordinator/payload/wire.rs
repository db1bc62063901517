//! Pure. The job payload as it goes over the wire; field for field GitLab's, written here only.

use std::collections::BTreeMap;

use serde::Serialize;

/// Answer to a job request.
#[derive(Debug, Serialize)]
pub(in crate::coordinator) struct Payload {
    pub(super) id: u64,
    pub(super) token: String,
    pub(super) allow_git_fetch: bool,
    pub(super) job_info: JobInfo,
    pub(super) git_info: GitInfo,
    pub(super) runner_info: RunnerInfo,
    pub(super) inputs: [(); 0],
    pub(super) variables: Vec<Variable>,
    pub(super) steps: Vec<Step>,
    pub(super) image: Option<Image>,
    pub(super) services: Vec<Service>,
    pub(super) artifacts: Option<[Artifact; 1]>,
    pub(super) cache: [(); 0],
    pub(super) credentials: [(); 0],
    pub(super) dependencies: Vec<Dependency>,
    pub(super) features: Features,
    pub(super) secrets: BTreeMap<(), ()>,
    pub(super) hooks: [(); 0],
    pub(super) run: &'static str,
    pub(super) policy_options: Option<()>,
}

#[derive(Debug, Serialize)]
pub(super) struct JobInfo {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) stage: String,
    pub(super) pipeline_id: u64,
    pub(super) project_id: u64,
    pub(super) project_name: String,
    pub(super) project_full_path: String,
    pub(super) namespace_id: u64,
    pub(super) root_namespace_id: u64,
    pub(super) user_id: u64,
    pub(super) time_in_queue_seconds: u64,
    pub(super) project_jobs_running_on_instance_runners_count: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct GitInfo {
    pub(super) repo_url: String,
    pub(super) repo_object_format: &'static str,
    #[serde(rename = "ref")]
    pub(super) reference: String,
    pub(super) sha: String,
    pub(super) before_sha: String,
    pub(super) ref_type: &'static str,
    pub(super) refspecs: Vec<String>,
    pub(super) depth: u32,
    pub(super) protected: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct RunnerInfo {
    pub(super) timeout: u64,
    pub(super) runner_session_url: Option<()>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Variable {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) public: bool,
    pub(super) file: bool,
    pub(super) masked: bool,
    pub(super) raw: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) script: Vec<String>,
    pub(super) timeout: u64,
    pub(super) when: &'static str,
    pub(super) allow_failure: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) executor_opts: ExecutorOptions,
    pub(super) ports: [(); 0],
    pub(super) pull_policy: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
pub(super) struct ExecutorOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) docker: Option<DockerOptions>,
}

#[derive(Debug, Serialize)]
pub(super) struct DockerOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Service {
    #[serde(flatten)]
    pub(super) image: Image,
    pub(super) alias: Option<String>,
    pub(super) command: Option<Vec<String>>,
    pub(super) variables: Vec<Variable>,
}

#[derive(Debug, Serialize)]
pub(super) struct Artifact {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) untracked: bool,
    pub(super) paths: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) exclude: Vec<String>,
    pub(super) when: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expire_in: Option<String>,
    pub(super) artifact_type: &'static str,
    pub(super) artifact_format: &'static str,
}

/// A job whose artifacts are to be downloaded, with the token for that.
#[derive(Debug, Clone, Serialize)]
pub(in crate::coordinator) struct Dependency {
    /// The job's id.
    pub(in crate::coordinator) id: u64,
    /// Its name.
    pub(in crate::coordinator) name: String,
    /// Its own token.
    pub(in crate::coordinator) token: String,
    /// Its archive.
    pub(in crate::coordinator) artifacts_file: ArtifactsFile,
}

#[derive(Debug, Clone, Serialize)]
pub(in crate::coordinator) struct ArtifactsFile {
    pub(in crate::coordinator) filename: String,
    pub(in crate::coordinator) size: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Features {
    pub(super) trace_sections: bool,
    pub(super) token_mask_prefixes: [&'static str; 0],
    pub(super) failure_reasons: &'static [&'static str],
}
