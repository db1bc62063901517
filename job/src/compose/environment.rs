//! Where a job's files are and which variables its scripts see.

use std::time::Duration;

use super::docker::BUILDS_DIR;
use super::shell::Shell;
use super::{Instance, Runner, image, job_timeout};
use crate::payload::{Job, Variable};
use crate::plan::temp_dir;
use crate::variables::{Variables, plain};

/// The directories of a job, all absolute.
pub(super) struct Place {
    pub(super) builds_dir: String,
    pub(super) project_dir: String,
    pub(super) temp_dir: String,
}

impl Place {
    /// `<builds>/<short token>/<slot>/<group>/<project>`: jobs that run at the same time
    /// never share it, later jobs of the same project fetch into it.
    ///
    /// In a container nothing is shared: there it is `<builds>/<group>/<project>`.
    pub(super) fn of(job: &Job, runner: &Runner, instance: &Instance) -> Self {
        let slug = project_slug(job);
        if runner.docker.is_some() {
            let builds_dir = absolute(&runner.builds_dir, BUILDS_DIR, "");
            let project_dir = format!("{builds_dir}/{slug}");
            return Self { temp_dir: temp_dir(&project_dir), builds_dir, project_dir };
        }
        let builds_dir = absolute(&runner.builds_dir, "builds", &instance.home);
        let project_dir = format!("{builds_dir}/{}/{}/{slug}", runner.short_token, instance.slot);
        let temp_dir = temp_dir(&project_dir);
        Self { builds_dir, project_dir, temp_dir }
    }

    /// The same place as it is seen where its builds directory is `outside`.
    pub(super) fn seen_from(&self, outside: &str) -> Self {
        let moved = |path: &str| match path.strip_prefix(&self.builds_dir) {
            Some(rest) => format!("{outside}{rest}"),
            None => path.to_owned(),
        };
        let project_dir = moved(&self.project_dir);
        Self { builds_dir: outside.to_owned(), temp_dir: temp_dir(&project_dir), project_dir }
    }
}

/// Where the builds directory of a slot's containers is on the instance.
pub(super) fn outside(runner: &Runner, instance: &Instance) -> String {
    format!("{}/builds/{}/{}", instance.home, runner.short_token, instance.slot)
}

fn absolute(dir: &str, default: &str, home: &str) -> String {
    let dir = if dir.is_empty() { default } else { dir.trim_end_matches('/') };
    if dir.starts_with('/') { dir.to_owned() } else { format!("{home}/{dir}") }
}

/// The repository's path on its server, as far as it makes a safe directory name.
fn project_slug(job: &Job) -> String {
    let url = &job.git_info.repo_url;
    let path =
        url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
    let path = path.unwrap_or(&job.job_info.project_full_path);
    let path = path.trim_end_matches('/').trim_end_matches(".git");
    let is_safe = |part: &str| !part.is_empty() && part != "." && part != "..";
    let parts: Vec<&str> = path.split('/').filter(|part| is_safe(part)).collect();
    if parts.is_empty() { format!("project-{}", job.job_info.project_id) } else { parts.join("/") }
}

/// The runner's variables, then its configured ones, then the job's, then those that
/// nobody may change.
pub(super) fn variables(
    job: &Job,
    runner: &Runner,
    instance: &Instance,
    place: &Place,
) -> Variables {
    let timeout = job_timeout(job).as_secs().to_string();
    let before = [
        plain("CI_BUILDS_DIR", &place.builds_dir),
        plain("CI_PROJECT_DIR", &place.project_dir),
        plain("CI_CONCURRENT_ID", instance.slot.to_string()),
        plain("CI_CONCURRENT_PROJECT_ID", instance.slot.to_string()),
        plain("CI_SERVER", "yes"),
        plain("CI_JOB_TIMEOUT", timeout),
    ];
    let configured = runner.environment.iter().filter_map(|entry| {
        let (key, value) = entry.split_once('=')?;
        Some(plain(key, value))
    });
    let shared = match runner.docker {
        Some(_) => "CI_DISPOSABLE_ENVIRONMENT",
        None => "CI_SHARED_ENVIRONMENT",
    };
    let image = runner.docker.as_ref().map(|_| plain("CI_JOB_IMAGE", image(job, runner)));
    let after = [
        plain(shared, "true"),
        plain("CI_RUNNER_SHORT_TOKEN", &runner.short_token),
        plain("CI_RUNNER_VERSION", &runner.version),
        plain("CI_RUNNER_EXECUTABLE_ARCH", format!("linux/{}", instance.arch)),
        plain("RUNNER_TEMP_PROJECT_DIR", &place.temp_dir),
        plain("GITLAB_ENV", format!("{}/gitlab_runner_env", place.temp_dir)),
    ];
    let all: Vec<Variable> = before
        .into_iter()
        .chain(configured)
        .chain(job.variables.iter().cloned())
        .chain(image)
        .chain(after)
        .collect();
    Variables::resolve(all, |name| format!("{}/{name}", place.temp_dir))
}

/// Exports all variables and what earlier scripts of the job left in `GITLAB_ENV`.
pub(super) fn export(shell: &mut Shell, variables: &Variables, place: &Place) {
    for variable in variables.iter().filter(|variable| is_name(&variable.key)) {
        if variable.file {
            shell.export(&variable.key, &format!("{}/{}", place.temp_dir, variable.key));
        } else {
            shell.export(&variable.key, &variable.value);
        }
    }
    shell.line(
        "if [ -f \"$GITLAB_ENV\" ]; then while IFS= read -r line; do \
         export \"$line\" || true; done < \"$GITLAB_ENV\"; fi",
    );
}

/// Names that a shell can export; others would end the script.
pub(crate) fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && is_file_name(name)
}

/// Names that are safe as a file's.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A variable that holds a duration in Go's form (`1h30m`), or a plain number of seconds.
pub(super) fn duration_of(variables: &Variables, name: &str) -> Option<Duration> {
    let text = variables.get(name)?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    go_duration(text)
}

fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| n + digits);
        let seconds = match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::GitInfo;

    #[test]
    fn durations_are_gos() {
        let cases = [
            ("90", Some(90.0)),
            ("1h30m", Some(5400.0)),
            ("1.5m", Some(90.0)),
            ("250ms", Some(0.25)),
            ("", None),
            ("5 m", None),
            ("h", None),
            ("10x", None),
        ];
        for (text, seconds) in cases {
            let variables = Variables::resolve([plain("T", text)], |_| String::new());
            let found = duration_of(&variables, "T").map(|duration| duration.as_secs_f64());
            assert_eq!(found, seconds, "{text}");
        }
    }

    #[test]
    fn a_project_directory_never_escapes() {
        let cases = [
            ("https://gitlab-ci-token:t@h/group/project.git", "group/project"),
            ("https://h/../../etc/passwd", "etc/passwd"),
            ("https://h/", "project-7"),
            ("nonsense", "g/p"),
        ];
        for (url, expected) in cases {
            let mut job: Job = serde_json::from_str(r#"{"id": 1, "token": "t"}"#).expect("a job");
            job.git_info = GitInfo { repo_url: url.into(), ..GitInfo::default() };
            job.job_info.project_id = 7;
            job.job_info.project_full_path = "g/p".into();
            assert_eq!(project_slug(&job), expected, "{url}");
        }
    }
}
