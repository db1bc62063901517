//! Pure. A job's payload from what was compiled and what is known when it is handed out.

use super::{
    expand, predefined,
    wire::{
        Artifact, ArtifactsFile, Dependency, DockerOptions, ExecutorOptions, Features, GitInfo,
        Image, JobInfo, Payload, RunnerInfo, Service, Step, Variable,
    },
};
use crate::coordinator::{
    Context,
    context::PIPELINE_ID,
    pipeline::{self, Artifacts, ArtifactsWhen, CompiledJob},
};

/// History that jobs get when they do not set `GIT_DEPTH`: a new project's in GitLab.
const DEFAULT_DEPTH: u32 = 20;
/// The one project's id, and its namespace's.
pub(super) const PROJECT_ID: u64 = 1;
/// The depth that git takes for infinite. A shallow repository can be fetched from only with
/// some depth: without one, git refuses its cut-off commits.
const ALL_THERE_IS: u32 = 0x7fff_ffff;
/// The failure reasons that are understood; a runner maps others to these.
const FAILURE_REASONS: &[&str] = &[
    "unknown_failure",
    "script_failure",
    "api_failure",
    "stuck_or_timeout_failure",
    "runner_system_failure",
    "missing_dependency_failure",
    "runner_unsupported",
    "job_execution_timeout",
    "image_pull_failure",
    "runner_configuration_error",
    "runner_external_dependency_failure",
    "runner_interrupted",
    "job_canceled",
];

/// What a job gets when a runner takes it.
pub(in crate::coordinator) struct Assignment<'a> {
    pub(in crate::coordinator) id: u64,
    pub(in crate::coordinator) token: &'a str,
    /// Without a slash at its end.
    pub(in crate::coordinator) server_url: &'a str,
    /// With the job's token in it.
    pub(in crate::coordinator) repository_url: &'a str,
    /// ISO 8601.
    pub(in crate::coordinator) started_at: &'a str,
    /// ISO 8601.
    pub(in crate::coordinator) pipeline_created_at: &'a str,
    /// Whether the repository's history is cut off.
    pub(in crate::coordinator) is_shallow: bool,
    pub(in crate::coordinator) seconds_in_queue: u64,
    pub(in crate::coordinator) dependencies: Vec<Dependency>,
}

impl Dependency {
    pub(in crate::coordinator) fn new(
        id: u64,
        name: &str,
        token: &str,
        filename: &str,
        size: u64,
    ) -> Self {
        let artifacts_file = ArtifactsFile { filename: filename.into(), size };
        Self { id, name: name.into(), token: token.into(), artifacts_file }
    }
}

/// The payload of `job`.
pub(in crate::coordinator) fn build(
    context: &Context,
    job: &CompiledJob,
    assignment: Assignment<'_>,
) -> Payload {
    let variables = variables(context, job, &assignment);
    let timeout = job.timeout.as_secs();
    Payload {
        id: assignment.id,
        token: assignment.token.into(),
        allow_git_fetch: true,
        job_info: job_info(context, job, &assignment),
        git_info: git_info(context, &variables, &assignment),
        runner_info: RunnerInfo { timeout, runner_session_url: None },
        inputs: [],
        variables,
        steps: steps(job),
        image: job.image.as_ref().map(image),
        services: job.services.iter().map(service).collect(),
        artifacts: job.artifacts.as_ref().and_then(artifact).map(|artifact| [artifact]),
        cache: [],
        credentials: [],
        dependencies: assignment.dependencies,
        features: Features {
            trace_sections: true,
            token_mask_prefixes: [],
            failure_reasons: FAILURE_REASONS,
        },
        secrets: Default::default(),
        hooks: [],
        run: "",
        policy_options: None,
    }
}

fn variables(context: &Context, job: &CompiledJob, assignment: &Assignment<'_>) -> Vec<Variable> {
    let mut variables = predefined::variables(context, job, assignment);
    variables.extend(job.variables.iter().map(of_file));
    expand::expand(variables)
}

/// A variable of the pipeline file: nothing in there is a secret.
fn of_file(variable: &pipeline::Variable) -> Variable {
    Variable {
        key: variable.name.clone(),
        value: variable.value.clone(),
        public: true,
        file: false,
        masked: false,
        raw: variable.raw,
    }
}

fn image(image: &pipeline::Image) -> Image {
    let is_asked = image.platform.is_some() || image.user.is_some();
    let docker = is_asked
        .then(|| DockerOptions { platform: image.platform.clone(), user: image.user.clone() });
    Image {
        name: image.name.clone(),
        entrypoint: image.entrypoint.clone(),
        executor_opts: ExecutorOptions { docker },
        ports: [],
        pull_policy: (!image.pull_policy.is_empty()).then(|| image.pull_policy.clone()),
    }
}

fn service(service: &pipeline::Service) -> Service {
    Service {
        image: image(&service.image),
        alias: service.alias.clone(),
        command: service.command.clone(),
        variables: service.variables.iter().map(of_file).collect(),
    }
}

fn job_info(context: &Context, job: &CompiledJob, assignment: &Assignment<'_>) -> JobInfo {
    JobInfo {
        id: assignment.id,
        name: job.name.clone(),
        stage: job.stage.clone(),
        pipeline_id: PIPELINE_ID,
        project_id: PROJECT_ID,
        project_name: context.project.name().into(),
        project_full_path: context.project.path.clone(),
        namespace_id: PROJECT_ID,
        root_namespace_id: PROJECT_ID,
        user_id: 1,
        time_in_queue_seconds: assignment.seconds_in_queue,
        project_jobs_running_on_instance_runners_count: "0",
    }
}

fn git_info(context: &Context, variables: &[Variable], assignment: &Assignment<'_>) -> GitInfo {
    let commit = &context.commit;
    let wanted = variables.iter().find(|variable| variable.key == "GIT_DEPTH");
    let wanted = wanted.map_or(Some(DEFAULT_DEPTH), |depth| depth.value.trim().parse().ok());
    let depth = match wanted.unwrap_or_default() {
        0 if assignment.is_shallow => ALL_THERE_IS,
        depth => depth,
    };
    let branch = &commit.branch;
    GitInfo {
        repo_url: assignment.repository_url.into(),
        repo_object_format: if commit.sha.len() == 64 { "sha256" } else { "sha1" },
        reference: branch.clone(),
        sha: commit.sha.clone(),
        before_sha: commit.before_sha.clone(),
        ref_type: "branch",
        refspecs: vec![
            format!("+refs/pipelines/{PIPELINE_ID}:refs/pipelines/{PIPELINE_ID}"),
            format!("+refs/heads/{branch}:refs/remotes/origin/{branch}"),
        ],
        depth,
        protected: false,
    }
}

fn steps(job: &CompiledJob) -> Vec<Step> {
    let timeout = job.timeout.as_secs();
    let scripts = &job.scripts;
    let mut steps = vec![Step {
        name: "script",
        script: [scripts.before.as_slice(), scripts.script.as_slice()].concat(),
        timeout,
        when: "on_success",
        allow_failure: false,
    }];
    if !scripts.after.is_empty() {
        steps.push(Step {
            name: "after_script",
            script: scripts.after.clone(),
            timeout,
            when: "always",
            allow_failure: true,
        });
    }
    steps
}

/// The archive; `None` when nothing would go into it, as in GitLab.
fn artifact(artifacts: &Artifacts) -> Option<Artifact> {
    let is_wanted = artifacts.untracked || !artifacts.paths.is_empty();
    is_wanted.then(|| Artifact {
        name: artifacts.name.clone(),
        untracked: artifacts.untracked,
        paths: artifacts.paths.clone(),
        exclude: artifacts.exclude.clone(),
        when: match artifacts.when {
            ArtifactsWhen::OnSuccess => "on_success",
            ArtifactsWhen::OnFailure => "on_failure",
            ArtifactsWhen::Always => "always",
        },
        expire_in: artifacts.expire_in.clone(),
        artifact_type: "archive",
        artifact_format: "zip",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::Executor;

    fn payload(text: &str) -> serde_json::Value {
        payload_of(text, false)
    }

    fn payload_of(text: &str, is_shallow: bool) -> serde_json::Value {
        let executor = Executor::Docker { has_image: true };
        let context = Context { executor, ..Context::default() };
        let pipeline = pipeline::compile(text, "f", &context, &[]).expect("compiles");
        let assignment = Assignment {
            id: 7,
            token: "glcbt-x",
            server_url: "http://127.0.0.1:8000",
            repository_url: "http://gitlab-ci-token:glcbt-x@127.0.0.1:8000/local/project.git",
            started_at: "2026-01-02T03:04:05Z",
            pipeline_created_at: "2026-01-02T03:04:00Z",
            is_shallow,
            seconds_in_queue: 5,
            dependencies: vec![Dependency::new(3, "build", "glcbt-y", "artifacts.zip", 12)],
        };
        let payload = build(&context, &pipeline.jobs[0], assignment);
        serde_json::to_value(payload).expect("serialises")
    }

    fn variable(payload: &serde_json::Value, key: &str) -> serde_json::Value {
        let variables = payload["variables"].as_array().expect("a list");
        let mut found = variables.iter().filter(|variable| variable["key"] == key);
        let first = found.next().expect("is there").clone();
        assert!(found.next().is_none(), "{key} is there once");
        first
    }

    #[test]
    fn a_payload() {
        let payload = payload(
            "
My Job:
  before_script: [one]
  script: [two]
  after_script: [three]
  timeout: 10m
  variables: { V: '$CI_JOB_NAME_SLUG/$CI_COMMIT_SHORT_SHA', GIT_DEPTH: 3, CI_PROJECT_NAME: mine }
  artifacts: { paths: [out], exclude: [out/x], expire_in: 1 day }
",
        );
        assert_eq!(payload["job_info"]["name"], "My Job");
        assert_eq!(payload["runner_info"]["timeout"], 600);
        assert_eq!(payload["git_info"]["depth"], 3);
        assert_eq!(payload["git_info"]["refspecs"][1], "+refs/heads/main:refs/remotes/origin/main");
        assert_eq!(payload["steps"][0]["script"], serde_json::json!(["one", "two"]));
        assert_eq!(payload["steps"][1]["when"], "always");
        assert_eq!(payload["artifacts"][0]["artifact_format"], "zip");
        assert_eq!(payload["artifacts"][0].get("name"), None);
        assert_eq!(payload["dependencies"][0]["artifacts_file"]["filename"], "artifacts.zip");
        assert_eq!(variable(&payload, "V")["value"], "my-job/00000000");
        assert_eq!(variable(&payload, "CI_JOB_TOKEN")["masked"], true);
        assert_eq!(variable(&payload, "CI_SERVER_PORT")["value"], "8000");
        assert_eq!(variable(&payload, "CI_PROJECT_NAME")["value"], "mine");
        assert_eq!(payload["secrets"], serde_json::json!({}));
    }

    #[test]
    fn containers_are_gitlabs() {
        let payload = payload(
            "
services: [redis:7]
j:
  image: { name: '$X/i:1', entrypoint: [''], docker: { user: ci } }
  services:
    - name: db:1
      alias: one two
      command: [--fast]
      variables: { A: $B, RAW: { value: $C, expand: false } }
      pull_policy: [always, if-not-present]
      docker: { platform: linux/arm64 }
    - plain
  script: [x]
",
        );
        let image = serde_json::json!({
            "name": "$X/i:1", "entrypoint": [""], "executor_opts": {"docker": {"user": "ci"}},
            "ports": [], "pull_policy": null,
        });
        assert_eq!(payload["image"], image);
        let [db, plain] = &payload["services"].as_array().expect("a list")[..] else {
            panic!("{payload}")
        };
        assert_eq!((&db["name"], &db["alias"]), (&"db:1".into(), &"one two".into()));
        assert_eq!(db["command"], serde_json::json!(["--fast"]));
        assert_eq!(db["pull_policy"], serde_json::json!(["always", "if-not-present"]));
        assert_eq!(db["executor_opts"]["docker"]["platform"], "linux/arm64");
        let variables = db["variables"].as_array().expect("a list");
        let told: Vec<_> = variables.iter().map(|v| (&v["key"], &v["value"], &v["raw"])).collect();
        assert_eq!(told[0], (&"A".into(), &"$B".into(), &false.into()));
        assert_eq!(told[1], (&"RAW".into(), &"$C".into(), &true.into()));
        assert_eq!((&plain["name"], &plain["alias"]), (&"plain".into(), &().into()));
        assert_eq!(plain["executor_opts"], serde_json::json!({}));
    }

    #[test]
    fn depths() {
        let table = [("", false, 20), ("0", false, 0), ("0", true, 0x7fff_ffff), ("5", true, 5)];
        for (depth, is_shallow, expected) in table {
            let variables = match depth {
                "" => String::new(),
                depth => format!("variables: {{ GIT_DEPTH: {depth} }}\n"),
            };
            let payload = payload_of(&format!("{variables}j: {{ script: [x] }}"), is_shallow);
            assert_eq!(payload["git_info"]["depth"], expected, "{depth} {is_shallow}");
        }
    }

    #[test]
    fn every_key_of_a_recorded_payload_is_there() {
        let recorded = [
            "allow_git_fetch",
            "artifacts",
            "cache",
            "credentials",
            "dependencies",
            "features",
            "git_info",
            "hooks",
            "id",
            "image",
            "job_info",
            "policy_options",
            "run",
            "runner_info",
            "secrets",
            "services",
            "steps",
            "token",
            "variables",
        ];
        let payload = payload("j: { script: [x] }");
        let keys = payload.as_object().expect("an object");
        assert!(recorded.iter().all(|key| keys.contains_key(*key)), "{keys:?}");
        assert_eq!(payload["artifacts"], serde_json::Value::Null);
        assert_eq!(payload["steps"].as_array().map(Vec::len), Some(1));
    }
}
