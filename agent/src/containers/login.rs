//! Logins for registries, in GitLab Runner's order: `DOCKER_AUTH_CONFIG`, the user's own
//! `config.json` with its credential helpers, then what the server gave to the job.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use job::plan::Containers;
use serde_json::{Value, json};

/// The key of Docker's own registry in such files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The logins for the registry of an image, each as the daemon takes it, and where it is from.
pub(super) fn logins(containers: &Containers, image: &str) -> Vec<(String, &'static str)> {
    let registry = registry_of(image);
    let own = home_config().unwrap_or(Value::Null);
    let of_job: Value = serde_json::from_str(&containers.auth_config).unwrap_or(Value::Null);
    let mut logins = Vec::new();
    logins.extend(in_config(&of_job, &registry).map(|login| (login, "DOCKER_AUTH_CONFIG")));
    logins.extend(in_config(&own, &registry).map(|login| (login, "the instance's config.json")));
    let given = containers.logins.iter().filter(|login| is_same(&login.registry, &registry));
    logins.extend(given.map(|login| {
        (encode(&login.username, &login.password, &registry), "the job's credentials")
    }));
    logins
}

/// The host of an image's registry; names without one are Docker's.
fn registry_of(image: &str) -> String {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host.to_owned(),
        _ => DOCKER_HUB.to_owned(),
    }
}

fn is_same(key: &str, registry: &str) -> bool {
    let bare = |text: &str| {
        let text = text.trim_start_matches("https://").trim_start_matches("http://");
        text.split('/').next().unwrap_or(text).to_owned()
    };
    let hub = |host: &str| matches!(host, "index.docker.io" | "docker.io" | "registry-1.docker.io");
    let (key, registry) = (bare(key), bare(registry));
    key == registry || hub(&key) && hub(&registry)
}

fn home_config() -> Option<Value> {
    let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    let text = std::fs::read_to_string(dir.or_else(home)?.join("config.json")).ok()?;
    serde_json::from_str(&text).ok()
}

/// What Docker's `config.json` says of a registry.
fn in_config(config: &Value, registry: &str) -> Option<String> {
    let helpers = config.get("credHelpers").and_then(Value::as_object);
    let helper = helpers.and_then(|all| all.iter().find(|(key, _)| is_same(key, registry)));
    let helper = helper.map(|(_, name)| name).or_else(|| config.get("credsStore"));
    if let Some(login) = helper.and_then(Value::as_str).and_then(|name| ask(name, registry)) {
        return Some(login);
    }
    let auths = config.get("auths")?.as_object()?;
    let (_, entry) = auths.iter().find(|(key, _)| is_same(key, registry))?;
    let word = |key: &str| entry.get(key).and_then(Value::as_str).filter(|word| !word.is_empty());
    if let Some(token) = word("identitytoken") {
        return Some(encode_token(token));
    }
    if let (Some(user), Some(password)) = (word("username"), word("password")) {
        return Some(encode(user, password, registry));
    }
    let pair = String::from_utf8(STANDARD.decode(word("auth")?).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some(encode(user, password.trim_end_matches('\0'), registry))
}

/// A credential helper of the instance, by Docker's protocol.
fn ask(helper: &str, registry: &str) -> Option<String> {
    if !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return None;
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(registry.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    let word = |key: &str| answer.get(key).and_then(Value::as_str);
    match (word("Username")?, word("Secret")?) {
        ("<token>", token) => Some(encode_token(token)),
        (user, secret) => Some(encode(user, secret, registry)),
    }
}

fn encode_token(token: &str) -> String {
    URL_SAFE.encode(json!({ "identitytoken": token }).to_string())
}

fn encode(user: &str, password: &str, registry: &str) -> String {
    let login = json!({ "username": user, "password": password, "serveraddress": registry });
    URL_SAFE.encode(login.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_dockers() {
        let cases = [
            ("busybox", DOCKER_HUB),
            ("library/busybox:1", DOCKER_HUB),
            ("localhost/x", "localhost"),
            ("h:5000/a/b:1", "h:5000"),
            ("registry.example.com/a", "registry.example.com"),
        ];
        for (image, expected) in cases {
            assert_eq!(registry_of(image), expected, "{image}");
        }
    }

    #[test]
    fn a_config_is_read_as_docker_reads_it() {
        let config = json!({ "auths": {
            "https://h:5000/v2/": { "auth": STANDARD.encode("user:pass:word") },
            "index.docker.io": { "username": "u", "password": "p" },
            "t": { "identitytoken": "token" },
        }});
        let read = |registry| {
            let login = URL_SAFE.decode(in_config(&config, registry)?).ok()?;
            serde_json::from_slice::<Value>(&login).ok()
        };
        assert_eq!(read("h:5000").expect("a login")["password"], "pass:word");
        assert_eq!(read(DOCKER_HUB).expect("a login")["username"], "u");
        assert_eq!(read("t").expect("a login")["identitytoken"], "token");
        assert_eq!(read("other"), None);
    }
}
