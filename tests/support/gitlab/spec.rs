//! What a job is to do, and the payload that GitLab would send for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::JobId;
use super::git::Repository;

const NO_COMMIT: &str = "0000000000000000000000000000000000000000";
/// GitLab's project default.
const TIMEOUT: Duration = Duration::from_secs(3600);
/// Failure reasons that GitLab 17 knows.
const FAILURE_REASONS: [&str; 12] = [
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
    "runner_interrupted",
    "job_canceled",
];

type Change = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// One job to be enqueued. Sources are not fetched unless [`JobSpec::git`] says so.
#[derive(Clone)]
pub struct JobSpec {
    name: String,
    steps: Vec<Value>,
    before: Vec<String>,
    variables: Vec<Value>,
    timeout: Duration,
    artifacts: Vec<Value>,
    needs: Vec<JobId>,
    git: Option<Git>,
    features: Map<String, Value>,
    changes: Vec<Change>,
    pub(super) runner: Option<String>,
}

#[derive(Clone)]
struct Git {
    url: String,
    sha: String,
    reference: String,
}

/// What a payload needs to know of the server and of the other jobs.
pub(super) struct Around<'a> {
    pub(super) id: JobId,
    pub(super) token: &'a str,
    /// `http://127.0.0.1:PORT`.
    pub(super) url: &'a str,
    pub(super) queued_for: Duration,
    pub(super) needed: &'a dyn Fn(JobId) -> Value,
}

impl JobSpec {
    /// A job that runs these lines.
    pub fn script<L: Into<String>>(lines: impl IntoIterator<Item = L>) -> Self {
        let lines: Vec<String> = lines.into_iter().map(Into::into).collect();
        let script = json!({
            "name": "script", "script": lines, "timeout": 3600, "when": "on_success",
            "allow_failure": false,
        });
        Self {
            name: "job".into(),
            steps: vec![script],
            before: Vec::new(),
            variables: Vec::new(),
            timeout: TIMEOUT,
            artifacts: Vec::new(),
            needs: Vec::new(),
            git: None,
            features: Map::new(),
            changes: Vec::new(),
            runner: None,
        }
    }

    /// Names the job.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Lines of `before_script`, which GitLab puts before those of the script.
    #[must_use]
    pub fn before<L: Into<String>>(mut self, lines: impl IntoIterator<Item = L>) -> Self {
        self.before.extend(lines.into_iter().map(Into::into));
        self
    }

    /// Lines that run afterwards, whatever became of the script.
    #[must_use]
    pub fn after_script<L: Into<String>>(mut self, lines: impl IntoIterator<Item = L>) -> Self {
        let lines: Vec<String> = lines.into_iter().map(Into::into).collect();
        self.steps.push(json!({
            "name": "after_script", "script": lines, "timeout": 3600, "when": "always",
            "allow_failure": true,
        }));
        self
    }

    /// A plain variable.
    #[must_use]
    pub fn variable(self, key: &str, value: &str) -> Self {
        self.variable_like(json!({"key": key, "value": value, "public": true}))
    }

    /// A variable whose value must never be seen in the log.
    #[must_use]
    pub fn masked(self, key: &str, value: &str) -> Self {
        self.variable_like(json!({"key": key, "value": value, "masked": true}))
    }

    /// A variable that the job sees as the path of a file.
    #[must_use]
    pub fn file(self, key: &str, content: &str) -> Self {
        self.variable_like(json!({"key": key, "value": content, "file": true}))
    }

    /// A variable as GitLab writes it: `key`, `value`, `public`, `file`, `masked`, `raw`.
    #[must_use]
    pub fn variable_like(mut self, variable: Value) -> Self {
        self.variables.push(variable);
        self
    }

    /// What the whole job may take, in whole seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Paths to upload as one zip archive after success.
    #[must_use]
    pub fn artifacts<P: Into<String>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        let paths: Vec<String> = paths.into_iter().map(Into::into).collect();
        self.artifacts_like(json!({
            "name": "artifacts", "untracked": false, "paths": paths, "when": "on_success",
            "artifact_type": "archive", "artifact_format": "zip", "expire_in": "1 day",
        }))
    }

    /// Artifacts as GitLab writes them.
    #[must_use]
    pub fn artifacts_like(mut self, artifacts: Value) -> Self {
        self.artifacts.push(artifacts);
        self
    }

    /// The job downloads the archive of an earlier job.
    #[must_use]
    pub fn needs(mut self, job: JobId) -> Self {
        self.needs.push(job);
        self
    }

    /// Fetches the newest commit of a repository, with the job token as password.
    #[must_use]
    pub fn git(self, repository: &Repository) -> Self {
        self.git_at(&repository.url(), &repository.head(), "main")
    }

    /// Fetches `sha` of a branch of any repository. `{token}` in the URL is replaced by
    /// the job token.
    #[must_use]
    pub fn git_at(mut self, url: &str, sha: &str, branch: &str) -> Self {
        self.git = Some(Git { url: url.into(), sha: sha.into(), reference: branch.into() });
        self
    }

    /// A field of `features`, such as `trace_sections`.
    #[must_use]
    pub fn feature(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.features.insert(name.into(), value.into());
        self
    }

    /// Only the runner with this token gets the job.
    #[must_use]
    pub fn for_runner(mut self, token: &str) -> Self {
        self.runner = Some(token.into());
        self
    }

    /// A key of the payload is this.
    #[must_use]
    pub fn key(self, key: &'static str, value: Value) -> Self {
        self.payload(move |payload| payload[key] = value.clone())
    }

    /// The image that the job names.
    #[must_use]
    pub fn image(self, name: &str) -> Self {
        self.key("image", serde_json::json!({ "name": name }))
    }

    /// Changes the finished payload: for whatever has no method here.
    #[must_use]
    pub fn payload(mut self, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.changes.push(Arc::new(change));
        self
    }

    /// The whole payload.
    pub(super) fn render(&self, around: &Around<'_>) -> Value {
        let id = around.id.0;
        let null_if_empty =
            |list: &[Value]| if list.is_empty() { Value::Null } else { json!(list) };
        let mut payload = json!({
            "id": id,
            "token": around.token,
            "allow_git_fetch": true,
            "job_info": {
                "id": id, "name": self.name, "stage": "test", "project_id": 1,
                "project_name": "project", "project_full_path": "group/project",
                "namespace_id": 1, "root_namespace_id": 1,
                "time_in_queue_seconds": around.queued_for.as_secs_f64(),
                "project_jobs_running_on_instance_runners_count": "0",
            },
            "git_info": self.git_info(around.token),
            "runner_info": {
                "timeout": self.timeout.as_secs(), "runner_session_url": null,
            },
            "variables": self.all_variables(around),
            "steps": self.all_steps(),
            "image": null,
            "services": [],
            "artifacts": null_if_empty(&self.artifacts),
            "cache": [],
            "credentials": [],
            "dependencies": self.needs.iter().map(|job| (around.needed)(*job)).collect::<Vec<_>>(),
            "features": {
                "trace_sections": true, "token_mask_prefixes": [],
                "failure_reasons": FAILURE_REASONS,
            },
            "secrets": {},
            "hooks": [],
            "run": "",
            "policy_options": null,
        });
        for (name, value) in &self.features {
            payload["features"][name] = value.clone();
        }
        for change in &self.changes {
            change(&mut payload);
        }
        payload
    }

    fn all_steps(&self) -> Vec<Value> {
        let mut steps = self.steps.clone();
        if let Some(script) = steps[0]["script"].as_array_mut() {
            script.splice(0..0, self.before.iter().cloned().map(Value::from));
        }
        for step in &mut steps {
            step["timeout"] = self.timeout.as_secs().into();
        }
        steps
    }

    fn git_info(&self, token: &str) -> Value {
        let none = Git {
            url: "http://127.0.0.1:1/none.git".into(),
            sha: NO_COMMIT.into(),
            reference: "main".into(),
        };
        let git = self.git.as_ref().unwrap_or(&none);
        json!({
            "repo_url": git.url.replace("{token}", token),
            "repo_object_format": "sha1",
            "ref": git.reference, "sha": git.sha, "before_sha": NO_COMMIT, "ref_type": "branch",
            "refspecs": [
                format!("+refs/heads/{0}:refs/remotes/origin/{0}", git.reference),
            ],
            "depth": 20,
        })
    }

    fn all_variables(&self, around: &Around<'_>) -> Vec<Value> {
        let sha = self.git.as_ref().map_or(NO_COMMIT, |git| git.sha.as_str());
        let id = around.id.0.to_string();
        let api = format!("{}/api/v4", around.url);
        let mut variables: Vec<Value> = [
            ("CI", "true"),
            ("GITLAB_CI", "true"),
            ("CI_SERVER_URL", around.url),
            ("CI_API_V4_URL", &api),
            ("CI_JOB_ID", &id),
            ("CI_JOB_NAME", &self.name),
            ("CI_PIPELINE_ID", "1"),
            ("CI_PROJECT_ID", "1"),
            ("CI_PROJECT_PATH", "group/project"),
            ("CI_PROJECT_NAME", "project"),
            ("CI_COMMIT_SHA", sha),
            ("CI_COMMIT_REF_NAME", "main"),
        ]
        .into_iter()
        .map(|(key, value)| {
            json!({"key": key, "value": value, "public": true, "file": false, "masked": false,
                   "raw": false})
        })
        .collect();
        variables.push(json!({
            "key": "CI_JOB_TOKEN", "value": around.token, "public": false, "masked": true,
        }));
        if self.git.is_none() {
            variables.push(json!({"key": "GIT_STRATEGY", "value": "none", "public": true}));
        }
        variables.extend(self.variables.iter().cloned());
        variables
    }
}
