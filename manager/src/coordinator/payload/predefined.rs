//! Pure. GitLab's predefined variables, as far as they make sense without a GitLab.

use super::{
    build::{Assignment, PROJECT_ID},
    wire::Variable,
};
use crate::coordinator::{Context, context::PIPELINE_ID, pipeline::CompiledJob};

/// The version of GitLab whose API and variables are spoken here: scripts compare it.
const SERVER_VERSION: [&str; 3] = ["17", "9", "0"];
/// Titles are cut from longer messages only below this, as in GitLab, in characters.
const TITLE_LIMIT: usize = 100;

/// All predefined variables of a job.
pub(super) fn variables(
    context: &Context,
    job: &CompiledJob,
    assignment: &Assignment<'_>,
) -> Vec<Variable> {
    let mut list = List(Vec::new());
    server(&mut list, assignment);
    project(&mut list, context, assignment);
    commit(&mut list, context);
    pipeline(&mut list, context, assignment);
    of_job(&mut list, job, assignment);
    list.0
}

struct List(Vec<Variable>);

impl List {
    /// A value of ours, in which nothing is to be expanded.
    fn plain(&mut self, key: &str, value: impl Into<String>) {
        let value = value.into();
        let raw = value.contains(['$', '%']);
        let key = key.into();
        self.0.push(Variable { key, value, public: true, file: false, masked: false, raw });
    }

    fn secret(&mut self, key: &str, value: impl Into<String>, masked: bool) {
        let (key, value) = (key.into(), value.into());
        self.0.push(Variable { key, value, public: false, file: false, masked, raw: false });
    }
}

fn server(list: &mut List, assignment: &Assignment<'_>) {
    let url = assignment.server_url;
    let (protocol, authority) = url.split_once("://").unwrap_or(("http", url));
    let authority = authority.split('/').next().unwrap_or(authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (authority, if protocol == "https" { "443" } else { "80" }),
    };
    let [major, minor, patch] = SERVER_VERSION;
    list.plain("CI", "true");
    list.plain("GITLAB_CI", "true");
    list.plain("GITLAB_FEATURES", "");
    list.plain("CI_SERVER", "yes");
    list.plain("CI_SERVER_NAME", "GitLab");
    list.plain("CI_SERVER_URL", url);
    list.plain("CI_SERVER_HOST", host);
    list.plain("CI_SERVER_FQDN", authority);
    list.plain("CI_SERVER_PORT", port);
    list.plain("CI_SERVER_PROTOCOL", protocol);
    list.plain("CI_SERVER_VERSION", SERVER_VERSION.join("."));
    list.plain("CI_SERVER_VERSION_MAJOR", major);
    list.plain("CI_SERVER_VERSION_MINOR", minor);
    list.plain("CI_SERVER_VERSION_PATCH", patch);
    list.plain("CI_SERVER_REVISION", "mayfly");
    list.plain("CI_API_V4_URL", format!("{url}/api/v4"));
}

fn project(list: &mut List, context: &Context, assignment: &Assignment<'_>) {
    let project = &context.project;
    let root = project.path.split('/').next().unwrap_or_default();
    list.plain("CI_PROJECT_ID", PROJECT_ID.to_string());
    list.plain("CI_PROJECT_NAME", project.name());
    list.plain("CI_PROJECT_TITLE", project.name());
    list.plain("CI_PROJECT_DESCRIPTION", "");
    list.plain("CI_PROJECT_PATH", &project.path);
    list.plain("CI_PROJECT_PATH_SLUG", slug(&project.path));
    list.plain("CI_PROJECT_NAMESPACE", project.namespace());
    list.plain("CI_PROJECT_NAMESPACE_ID", PROJECT_ID.to_string());
    list.plain("CI_PROJECT_ROOT_NAMESPACE", root);
    list.plain("CI_PROJECT_URL", format!("{}/{}", assignment.server_url, project.path));
    list.plain("CI_PROJECT_VISIBILITY", "private");
    list.plain("CI_PROJECT_REPOSITORY_LANGUAGES", "");
    list.plain("CI_PROJECT_CLASSIFICATION_LABEL", "");
    list.plain("CI_DEFAULT_BRANCH", &project.default_branch);
    list.plain("CI_CONFIG_PATH", &context.config_path);
}

fn commit(list: &mut List, context: &Context) {
    let commit = &context.commit;
    let (title, rest) = commit.message.split_once('\n').unwrap_or((&commit.message, ""));
    let is_title = title.chars().count() < TITLE_LIMIT;
    let description = if is_title { rest.trim_start_matches('\n') } else { &commit.message };
    list.plain("CI_COMMIT_SHA", &commit.sha);
    list.plain("CI_COMMIT_SHORT_SHA", commit.sha.get(..8).unwrap_or(&commit.sha));
    list.plain("CI_COMMIT_BEFORE_SHA", &commit.before_sha);
    list.plain("CI_COMMIT_BRANCH", &commit.branch);
    list.plain("CI_COMMIT_REF_NAME", &commit.branch);
    list.plain("CI_COMMIT_REF_SLUG", slug(&commit.branch));
    list.plain("CI_COMMIT_REF_PROTECTED", "false");
    list.plain("CI_COMMIT_MESSAGE", &commit.message);
    list.plain("CI_COMMIT_TITLE", title);
    list.plain("CI_COMMIT_DESCRIPTION", description);
    list.plain("CI_COMMIT_AUTHOR", &commit.author);
    list.plain("CI_COMMIT_TIMESTAMP", &commit.timestamp);
    list.plain("GITLAB_USER_ID", "1");
    list.plain("GITLAB_USER_LOGIN", &context.user.login);
    list.plain("GITLAB_USER_NAME", &context.user.name);
    list.plain("GITLAB_USER_EMAIL", &context.user.email);
}

fn pipeline(list: &mut List, context: &Context, assignment: &Assignment<'_>) {
    let id = PIPELINE_ID.to_string();
    let project = format!("{}/{}", assignment.server_url, context.project.path);
    list.plain("CI_PIPELINE_URL", format!("{project}/-/pipelines/{id}"));
    list.plain("CI_PIPELINE_ID", &id);
    list.plain("CI_PIPELINE_IID", id);
    list.plain("CI_PIPELINE_SOURCE", "push");
    list.plain("CI_PIPELINE_CREATED_AT", assignment.pipeline_created_at);
    list.plain("CI_JOB_URL", format!("{project}/-/jobs/{}", assignment.id));
}

fn of_job(list: &mut List, job: &CompiledJob, assignment: &Assignment<'_>) {
    list.plain("CI_JOB_ID", assignment.id.to_string());
    list.plain("CI_JOB_NAME", &job.name);
    list.plain("CI_JOB_NAME_SLUG", slug(&job.name));
    list.plain("CI_JOB_STAGE", &job.stage);
    list.plain("CI_JOB_STARTED_AT", assignment.started_at);
    list.plain("CI_JOB_TIMEOUT", job.timeout.as_secs().to_string());
    list.plain("CI_NODE_TOTAL", "1");
    list.plain("CI_RUNNER_ID", "1");
    list.plain("CI_RUNNER_DESCRIPTION", "mayfly exec");
    list.plain("CI_RUNNER_TAGS", "[]");
    list.secret("CI_JOB_TOKEN", assignment.token, true);
    list.secret("CI_REPOSITORY_URL", assignment.repository_url, false);
}

/// GitLab's slug: lower case, only `a-z0-9-`, at most 63 characters, no dash at either end.
pub(in crate::coordinator) fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let slug: String = lower.chars().map(|c| if allowed(c) { c } else { '-' }).take(63).collect();
    slug.trim_matches('-').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        for (text, expected) in [
            ("Feature/Über_x", "feature--ber-x"),
            ("--a--", "a"),
            ("test job: 1/2", "test-job--1-2"),
            ("", ""),
        ] {
            assert_eq!(slug(text), expected);
        }
        assert_eq!(slug(&"x".repeat(100)).len(), 63);
    }
}
