//! From what the file says to what it means. Reports everything that is wrong at once.
//!
//! Reads nothing but the files that keys name (certificates, private keys) and the
//! variables of the environment that `token` and `url` refer to.

mod autoscaler;
mod docker;
mod own;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{File, RunnerEntry};
use super::report::{Findings, Severity};
use super::{Config, Runner, Server, system_id};
use crate::secret::Secret;

/// GitLab's defaults.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
const OUTPUT_LIMIT_KIB: u64 = 4096;

/// What a check needs to know beside the text.
pub(super) struct Surroundings {
    pub(super) config_dir: PathBuf,
    /// From the command line; wins over the file.
    pub(super) state_dir: Option<PathBuf>,
    pub(super) file_mode: u32,
}

/// `None` where an error leaves no configuration to speak of.
pub(super) fn check(file: &File, around: &Surroundings, findings: &mut Findings) -> Option<Config> {
    if around.file_mode & 0o077 != 0 && file.runners.iter().any(|runner| !runner.token.is_empty()) {
        let message = format!(
            "others can read this file (mode {:o}), and it has tokens in it",
            around.file_mode & 0o777
        );
        findings.warn("", message, "run: chmod 600 on it");
    }
    let concurrent = positive(file.concurrent.unwrap_or(1), "concurrent", 1, findings);
    let runners: Vec<Runner> = file
        .runners
        .iter()
        .enumerate()
        .filter_map(|(index, entry)| runner(entry, &format!("runners[{index}]"), around, findings))
        .collect();
    refuse_twins(&runners, findings);
    if file.runners.is_empty() {
        findings.error(
            "",
            "there is no [[runners]] entry",
            "add one: see README.md, first configuration",
        );
    } else if runners.is_empty() && !has_errors(findings) {
        findings.error(
            "runners",
            "no [[runners]] entry has a token",
            "put the runner's authentication token (glrt-…) into `token`",
        );
    }
    warn_about_ignored(file, findings);
    if has_errors(findings) {
        return None;
    }
    let (system_id, unwritable) = system_id::read_or_make(&around.config_dir);
    if let Some(error) = unwritable {
        findings.warn(
            "",
            format!("cannot keep the system id in {}: {error}", around.config_dir.display()),
            "the server will take each start for a new manager",
        );
    }
    Some(Config {
        concurrent,
        check_interval: seconds(file.check_interval).unwrap_or(CHECK_INTERVAL),
        shutdown_timeout: seconds(file.shutdown_timeout.unwrap_or(0)).unwrap_or(SHUTDOWN_TIMEOUT),
        log_level: file.log_level.clone(),
        log_json: file.log_format.as_deref() == Some("json"),
        system_id,
        state_dir: state_dir(file, around),
        config_dir: around.config_dir.clone(),
        runners,
    })
}

/// Jobs and instances are kept by server and runner: two entries would share them.
fn refuse_twins(runners: &[Runner], findings: &mut Findings) {
    for (place, entry) in runners.iter().enumerate() {
        if runners[..place].iter().any(|other| other.key() == entry.key()) {
            findings.error(
                "runners",
                format!("{:?} is the second entry with this url and id", entry.name),
                "register a runner of its own for it, or raise `limit` of the first",
            );
        }
    }
}

fn has_errors(findings: &Findings) -> bool {
    findings.0.iter().any(|finding| finding.severity == Severity::Error)
}

/// Flag, key, `/var/lib/mayfly` for root, `$XDG_STATE_HOME/mayfly` for others.
fn state_dir(file: &File, around: &Surroundings) -> PathBuf {
    if let Some(dir) = &around.state_dir {
        return dir.clone();
    }
    if let Some(dir) = &file.mayfly.state_dir {
        return around.config_dir.join(dir);
    }
    if rustix::process::geteuid().is_root() {
        return "/var/lib/mayfly".into();
    }
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    base.or_else(home).unwrap_or_else(|| around.config_dir.clone()).join("mayfly")
}

fn warn_about_ignored(file: &File, findings: &mut Findings) {
    let ignored = [
        ("listen_address", file.listen_address.is_some()),
        ("sentry_dsn", file.sentry_dsn.is_some()),
        ("session_server", file.session_server.is_some()),
        ("experimental", file.experimental.is_some()),
    ];
    for (key, is_set) in ignored {
        if is_set {
            findings.warn(key, "not supported yet, and ignored", "");
        }
    }
}

fn runner(
    entry: &RunnerEntry,
    at: &str,
    around: &Surroundings,
    findings: &mut Findings,
) -> Option<Runner> {
    let token = expand_env(&entry.token);
    if token.trim().is_empty() {
        findings.warn(
            &format!("{at}.token"),
            "is empty: this entry is left out",
            "put the runner's authentication token (glrt-…) here",
        );
        return None;
    }
    let url = server_url(entry, at, findings);
    check_executor(entry, at, findings);
    let Some(table) = &entry.autoscaler else {
        findings.error(
            at,
            "has no [runners.autoscaler] table",
            "jobs run on instances that a provider plugin makes: name one with `plugin`",
        );
        return None;
    };
    let mut autoscaler =
        autoscaler::check(table, entry, &format!("{at}.autoscaler"), around, findings);
    let ca_certificates =
        read_file(&entry.tls_ca_file, &format!("{at}.tls-ca-file"), around, findings);
    for (key, value) in
        [("tls-cert-file", &entry.tls_cert_file), ("tls-key-file", &entry.tls_key_file)]
    {
        if !value.is_empty() {
            findings.error(
                &format!("{at}.{key}"),
                "client certificates are not supported yet",
                "remove the key if the server does not ask for one",
            );
        }
    }
    warn_about_variables(&entry.environment, &format!("{at}.environment"), findings);
    let mut engine = engine(entry, at, &url, (token.trim(), &ca_certificates), findings);
    if entry.runs_containers() {
        docker::apply(&mut engine, entry, at, around, findings);
    }
    if let Some(autoscaler) = &mut autoscaler {
        autoscaler.template.docker_host = engine.docker.as_ref().map(|it| it.host.clone());
    }
    let mut count = |value, key: &str| positive(value, &format!("{at}.{key}"), 0, findings);
    Some(Runner {
        name: entry.name.clone(),
        server: Server { url, token: Secret::new(token.trim()), id: entry.id, ca_certificates },
        limit: count(entry.limit, "limit"),
        request_concurrency: count(entry.request_concurrency, "request_concurrency").max(1),
        engine,
        autoscaler: autoscaler?,
        report_alone_after: own::alone_after(entry, at, findings),
        containers_ahead: entry.mayfly.containers_ahead.unwrap_or(true),
    })
}

/// Variables of jobs or services, as `NAME=value`.
fn warn_about_variables(variables: &[String], key: &str, findings: &mut Findings) {
    for (index, variable) in variables.iter().enumerate() {
        if !variable.contains('=') {
            findings.warn(
                key,
                format!("entry {index} has no `=`, and is ignored"),
                "write it as \"NAME=value\"",
            );
        }
    }
}

fn engine(
    entry: &RunnerEntry,
    at: &str,
    url: &str,
    (token, ca_certificates): (&str, &[u8]),
    findings: &mut Findings,
) -> job::compose::Runner {
    let limit_kib = positive(entry.output_limit, &format!("{at}.output_limit"), 0, findings);
    let limit_kib = if limit_kib == 0 { OUTPUT_LIMIT_KIB } else { u64::from(limit_kib) };
    if !entry.clone_url.is_empty() && !is_url(&entry.clone_url) {
        findings.error(
            &format!("{at}.clone_url"),
            format!("{:?} is no URL", entry.clone_url),
            "write it as https://host",
        );
    }
    let or_old =
        |new: &String, old: &String| if new.is_empty() { old.clone() } else { new.clone() };
    job::compose::Runner {
        name: entry.name.clone(),
        short_token: short_token(token),
        version: env!("CARGO_PKG_VERSION").into(),
        builds_dir: entry.builds_dir.clone(),
        cache_dir: entry.cache_dir.clone(),
        clone_url: entry.clone_url.clone(),
        environment: entry.environment.clone(),
        feature_flags: entry.feature_flags.clone(),
        output_limit_bytes: limit_kib * 1024,
        pre_get_sources_script: or_old(&entry.pre_get_sources_script, &entry.pre_clone_script),
        post_get_sources_script: or_old(&entry.post_get_sources_script, &entry.post_clone_script),
        pre_build_script: entry.pre_build_script.clone(),
        post_build_script: entry.post_build_script.clone(),
        debug_trace_disabled: entry.debug_trace_disabled,
        custom_build_dir: entry.custom_build_dir.enabled.unwrap_or(false),
        server: job::compose::Server {
            api_url: format!("{url}/api/v4/"),
            ca_certificates: ca_certificates.to_vec(),
            user_agent: crate::USER_AGENT.into(),
        },
        docker: None,
        upload_timeout: entry.artifact.upload_timeout.unwrap_or_default().0,
    }
}

/// Executors of GitLab Runner that this manager may be asked for.
fn check_executor(entry: &RunnerEntry, at: &str, findings: &mut Findings) {
    let key = format!("{at}.executor");
    match entry.executor.as_str() {
        "instance" | "docker-autoscaler" => {}
        "" => findings.error(
            &key,
            "is missing",
            "write: executor = \"instance\", or \"docker-autoscaler\" for containers",
        ),
        other => {
            let hint = if other.starts_with("docker") {
                "use \"docker-autoscaler\": jobs run in containers of autoscaled instances, or of this machine with fleeting-plugin-local"
            } else {
                "it runs jobs on autoscaled instances: use \"instance\" or \"docker-autoscaler\", or leave this entry to GitLab Runner"
            };
            findings.error(&key, format!("{other:?} is not an executor of this manager"), hint);
        }
    }
    if !matches!(entry.shell.as_str(), "" | "bash" | "sh") {
        findings.error(
            &format!("{at}.shell"),
            format!("{:?} is not supported", entry.shell),
            "use \"bash\" or \"sh\", or leave the key out",
        );
    }
}

fn server_url(entry: &RunnerEntry, at: &str, findings: &mut Findings) -> String {
    let key = format!("{at}.url");
    let url = expand_env(&entry.url);
    let url = url.trim().trim_end_matches('/');
    if url.is_empty() {
        findings.error(
            &key,
            "is missing",
            "write the server's address, such as https://gitlab.example.com",
        );
    } else if !is_url(url) {
        findings.error(
            &key,
            format!("{url:?} is no http or https URL"),
            "write it as https://gitlab.example.com",
        );
    }
    match url.strip_suffix("/ci") {
        Some(stripped) => {
            findings.warn(&key, "the /ci at its end is cut off", "remove it");
            stripped.to_owned()
        }
        None => url.to_owned(),
    }
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace)
    })
}

/// Reads a file that a key names; nothing where the key is empty.
fn read_file(name: &str, key: &str, around: &Surroundings, findings: &mut Findings) -> Vec<u8> {
    if name.is_empty() {
        return Vec::new();
    }
    let path = around.config_dir.join(name);
    match std::fs::read(&path) {
        Ok(content) => content,
        Err(error) => {
            findings.error(
                key,
                format!("cannot read {}: {error}", path.display()),
                "correct the path, or the file's permissions",
            );
            Vec::new()
        }
    }
}

/// GitLab Runner's short form: without a known prefix, nine characters.
fn short_token(token: &str) -> String {
    let mut rest = token;
    for prefix in ["glrt-", "glrtr-", "glcbt-"] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    for partition in ["t1_", "t2_", "t3_"] {
        rest = rest.strip_prefix(partition).unwrap_or(rest);
    }
    rest.chars().take(9).collect()
}

/// `$NAME` and `${NAME}` from the environment, as GitLab Runner does for token and url.
fn expand_env(text: &str) -> String {
    let lookup = |name: &str| std::env::var(name).unwrap_or_default();
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (name, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, after)) => (name, after),
            None => rest.split_at(
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len()),
            ),
        };
        out.push_str(&lookup(name));
        rest = after;
    }
    out + rest
}

/// A count that must not be below `least`.
fn positive(value: i64, key: &str, least: i64, findings: &mut Findings) -> u32 {
    if value < least {
        findings.error(key, format!("{value} is too small"), format!("use {least} or more"));
    }
    u32::try_from(value).unwrap_or(if value > 0 { u32::MAX } else { 0 })
}

/// Seconds where they are positive.
fn seconds(value: i64) -> Option<Duration> {
    u64::try_from(value).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_shortened_as_gitlab_does() {
        let cases = [
            ("glrt-side000000000000", "side00000"),
            ("glrt-t1_abcdefghijkl", "abcdefghi"),
            ("abc", "abc"),
        ];
        for (token, short) in cases {
            assert_eq!(short_token(token), short);
        }
    }

    #[test]
    fn urls_are_http_with_a_host() {
        for (url, good) in [
            ("https://gitlab.example.com", true),
            ("http://127.0.0.1:8080/gitlab", true),
            ("gitlab.example.com", false),
            ("https://", false),
            ("ftp://host", false),
            ("https://a b", false),
        ] {
            assert_eq!(is_url(url), good, "{url}");
        }
    }
}
