//! Bodies of the runner API. Seen by nobody but the client.

use serde::{Deserialize, Serialize};

/// `info` of every request: what this manager is and can do.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Info {
    name: &'static str,
    version: &'static str,
    revision: &'static str,
    platform: &'static str,
    architecture: &'static str,
    executor: &'static str,
    shell: &'static str,
    features: Features,
}

/// GitLab hands out a job only to a runner with the features that it needs.
#[derive(Clone, Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the wire's shape")]
struct Features {
    variables: bool,
    image: bool,
    services: bool,
    artifacts: bool,
    cache: bool,
    fallback_cache_keys: bool,
    shared: bool,
    upload_multiple_artifacts: bool,
    upload_raw_artifacts: bool,
    session: bool,
    terminal: bool,
    refspecs: bool,
    masking: bool,
    proxy: bool,
    raw_variables: bool,
    artifacts_exclude: bool,
    multi_build_steps: bool,
    trace_reset: bool,
    trace_checksum: bool,
    trace_size: bool,
    vault_secrets: bool,
    cancelable: bool,
    return_exit_code: bool,
    cancel_gracefully: bool,
    two_phase_job_commit: bool,
}

impl Info {
    pub(super) fn new(in_containers: bool) -> Self {
        Self {
            name: "mayfly",
            version: env!("CARGO_PKG_VERSION"),
            revision: option_env!("MAYFLY_GIT_REVISION").unwrap_or("unknown"),
            platform: "linux",
            architecture: crate::go_arch(),
            executor: job::compose::executor(in_containers),
            shell: "bash",
            features: Features {
                variables: true,
                image: in_containers,
                services: in_containers,
                artifacts: true,
                // A cache is an optimisation: a job runs without, and its log says so.
                cache: true,
                fallback_cache_keys: true,
                shared: !in_containers,
                upload_multiple_artifacts: true,
                upload_raw_artifacts: true,
                session: false,
                terminal: false,
                refspecs: true,
                masking: true,
                proxy: false,
                raw_variables: true,
                artifacts_exclude: true,
                multi_build_steps: true,
                trace_reset: true,
                trace_checksum: true,
                trace_size: true,
                vault_secrets: false,
                cancelable: true,
                return_exit_code: true,
                cancel_gracefully: true,
                two_phase_job_commit: true,
            },
        }
    }
}

#[derive(Serialize)]
pub(super) struct JobRequestBody<'a> {
    pub(super) info: &'a Info,
    pub(super) token: &'a str,
    pub(super) system_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) last_update: &'a str,
}

/// What must be readable of any job, to give it back.
#[derive(Deserialize)]
pub(super) struct JobIdentity {
    pub(super) id: u64,
    pub(super) token: String,
}

#[derive(Serialize)]
pub(super) struct VerifyBody<'a> {
    pub(super) info: &'a Info,
    pub(super) token: &'a str,
    pub(super) system_id: &'a str,
}
