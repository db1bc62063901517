//! Credentials for registries, where Docker, Podman and GitLab CI keep them.
//!
//! They are looked up by registry and repository, and go nowhere but to that registry and
//! to the token server that it names.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt as _;

use super::RegistryError;
use crate::secret::Secret;

/// A program that keeps credentials may ask someone something.
const HELPER_LIMIT: Duration = Duration::from_secs(60);
/// What such a program says where it has none.
const NONE_THERE: &str = "credentials not found";
/// Docker Hub has another name in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Secret,
    /// The password is a token that gives tokens, not a password.
    pub(crate) is_identity_token: bool,
}

/// A look into the environment.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The credentials for a repository, from the first of: `DOCKER_AUTH_CONFIG`, the file
/// that GitLab Runner reads, the variables of a CI job.
pub(crate) async fn stored(
    registry: &str,
    repository: &str,
    environment: Environment<'_>,
) -> Result<Option<Credentials>, RegistryError> {
    if let Some(text) = text_of(environment, "DOCKER_AUTH_CONFIG") {
        let config = parse(&text, "DOCKER_AUTH_CONFIG")?;
        if let Some(found) = in_config(&config, registry, repository).await? {
            return Ok(Some(found));
        }
    }
    if let Some(path) = file_to_read(environment) {
        let config = read(&path)?;
        if let Some(found) = in_config(&config, registry, repository).await? {
            return Ok(Some(found));
        }
    }
    Ok(of_ci_job(registry, environment))
}

/// Keeps credentials where `stored` and GitLab Runner find them. Returns that place.
pub(crate) async fn store(
    registry: &str,
    credentials: &Credentials,
    environment: Environment<'_>,
) -> Result<String, RegistryError> {
    let directory = docker_directory(environment);
    // The file itself, where its name is a link to it.
    let path = directory.join("config.json");
    let path = path.canonicalize().unwrap_or(path);
    let mut config = if path.exists() { read(&path)? } else { json!({}) };
    let key = keys(registry, "").remove(0);
    if let Some(helper) = helper_of(&config, registry) {
        let entry = json!({
            "ServerURL": key, "Username": credentials.user, "Secret": credentials.password.reveal(),
        });
        ask_helper(&helper, "store", entry.to_string()).await?;
        return Ok(format!("docker-credential-{helper}"));
    }
    let both = format!("{}:{}", credentials.user, credentials.password.reveal());
    let Some(top) = config.as_object_mut() else {
        return Err(unusable(&path.display().to_string(), "it holds no JSON object"));
    };
    let auths = top.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    let Some(auths) = auths.as_object_mut() else {
        return Err(unusable(&path.display().to_string(), "`auths` is no JSON object"));
    };
    auths.insert(key, json!({"auth": STANDARD.encode(both)}));
    let write = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(&directory);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut file = tempfile::Builder::new().prefix(".config.json-").tempfile_in(directory)?;
        serde_json::to_writer_pretty(&mut file, &config)?;
        file.write_all(b"\n")?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(|error| unusable(&path.display().to_string(), &error.to_string()))?;
    Ok(path.display().to_string())
}

/// The file that GitLab Runner's library reads; none is no error.
fn file_to_read(environment: Environment<'_>) -> Option<PathBuf> {
    let docker = docker_directory(environment).join("config.json");
    let at_home = home(environment).join(".docker/config.json");
    if docker.exists() || at_home.exists() {
        return docker.exists().then_some(docker);
    }
    let podman =
        environment("REGISTRY_AUTH_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let runtime = environment("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let of_session = runtime.map(|dir| Path::new(&dir).join("containers/auth.json"));
    podman.into_iter().chain(of_session).find(|path| path.exists())
}

fn docker_directory(environment: Environment<'_>) -> PathBuf {
    match environment("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
        Some(dir) => dir.into(),
        None => home(environment).join(".docker"),
    }
}

fn home(environment: Environment<'_>) -> PathBuf {
    environment("HOME").unwrap_or_default().into()
}

fn text_of(environment: Environment<'_>, name: &str) -> Option<String> {
    environment(name)?.into_string().ok().filter(|text| !text.is_empty())
}

/// What GitLab gives every job for the registry of its own server.
fn of_ci_job(registry: &str, environment: Environment<'_>) -> Option<Credentials> {
    let of = |name: &str| text_of(environment, name);
    (of("CI_REGISTRY")? == registry).then_some(())?;
    Some(Credentials {
        user: of("CI_REGISTRY_USER")?,
        password: Secret::new(of("CI_REGISTRY_PASSWORD")?),
        is_identity_token: false,
    })
}

fn read(path: &Path) -> Result<Value, RegistryError> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|error| unusable(&name, &error.to_string()))?;
    parse(&text, &name)
}

/// Shows nothing of the text: it holds secrets.
fn parse(text: &str, name: &str) -> Result<Value, RegistryError> {
    serde_json::from_str(text)
        .map_err(|error| unusable(name, &format!("not JSON at line {}", error.line())))
}

fn unusable(place: &str, why: &str) -> RegistryError {
    RegistryError::Credentials(format!("{place}: {why}"))
}

async fn in_config(
    config: &Value,
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>, RegistryError> {
    let keys = keys(registry, repository);
    if let Some(helper) = helper_of(config, registry) {
        let host = if is_docker_hub(registry) { DOCKER_HUB } else { registry };
        if let Some(found) = from_helper(&helper, host).await? {
            return Ok(Some(found));
        }
    }
    let auths = config.get("auths").and_then(Value::as_object);
    let entry = auths.and_then(|auths| keys.iter().find_map(|key| auths.get(key)));
    entry.map_or(Ok(None), |entry| from_entry(entry, registry))
}

/// Under which names a repository's credentials may be, the most exact first.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{registry}/{path}"));
        path = path.rsplit_once('/').map_or("", |(above, _)| above);
    }
    if is_docker_hub(registry) {
        keys.push(DOCKER_HUB.into());
    }
    keys.push(registry.into());
    for old in ["https://{}", "https://{}/", "https://{}/v1/", "https://{}/v2/", "http://{}"] {
        keys.push(old.replace("{}", registry));
    }
    keys
}

pub(super) fn is_docker_hub(registry: &str) -> bool {
    ["docker.io", "index.docker.io", "registry-1.docker.io"].contains(&registry)
}

fn from_entry(entry: &Value, registry: &str) -> Result<Option<Credentials>, RegistryError> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials {
            user: "<token>".into(),
            password: Secret::new(token),
            is_identity_token: true,
        }));
    }
    if let Some(auth) = text("auth") {
        let bytes = STANDARD.decode(auth.trim()).ok();
        let both = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let both = both.as_deref().and_then(|both| both.trim_end_matches('\0').split_once(':'));
        let Some((user, password)) = both else {
            let why = "`auth` is not the base64 of user:password; log in again";
            return Err(unusable(&format!("the credentials of {registry}"), why));
        };
        return Ok(Some(Credentials {
            user: user.into(),
            password: Secret::new(password),
            is_identity_token: false,
        }));
    }
    Ok(text("username").zip(text("password")).map(|(user, password)| Credentials {
        user: user.into(),
        password: Secret::new(password),
        is_identity_token: false,
    }))
}

/// The program that keeps the credentials of a registry.
fn helper_of(config: &Value, registry: &str) -> Option<String> {
    let of_registry = config.get("credHelpers").and_then(|helpers| helpers.get(registry));
    let helper = of_registry.or_else(|| config.get("credsStore"))?.as_str()?;
    (!helper.is_empty()).then(|| helper.to_owned())
}

async fn from_helper(helper: &str, host: &str) -> Result<Option<Credentials>, RegistryError> {
    let Some(answer) = ask_helper(helper, "get", host.to_owned()).await? else {
        return Ok(None);
    };
    let answer = parse(&answer, &format!("docker-credential-{helper}"))?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    let user = text("Username");
    Ok(Some(Credentials {
        user: user.into(),
        password: Secret::new(text("Secret")),
        is_identity_token: user == "<token>",
    }))
}

/// Runs `docker-credential-HELPER`. Its answer; `None` where it knows nothing of that host.
async fn ask_helper(
    helper: &str,
    verb: &str,
    input: String,
) -> Result<Option<String>, RegistryError> {
    let program = format!("docker-credential-{helper}");
    let failed = |why: &str| Err(unusable(&program, why));
    if helper.contains(['/', '\0']) {
        return failed("this is no name of a program on PATH");
    }
    let asked = async {
        let mut child = tokio::process::Command::new(&program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read says by its exit what it thinks.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(HELPER_LIMIT, asked).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return failed(&format!("cannot be run: {error}")),
        Err(_) => return failed("it does not answer"),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(Some(text)),
        false if verb == "get" && text.contains(NONE_THERE) => Ok(None),
        false => failed(&format!("`{program} {verb}` failed: {}", output.status)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn look(
        registry: &str,
        repository: &str,
        variables: &BTreeMap<&str, String>,
    ) -> Result<Option<(String, String)>, String> {
        let environment = |name: &str| variables.get(name).map(OsString::from);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
        let found = runtime.block_on(stored(registry, repository, &environment));
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.map(|found| (found.user, found.password.reveal().to_owned())))
    }

    fn entry(user: &str) -> Value {
        json!({"auth": STANDARD.encode(format!("{user}:p:w"))})
    }

    #[test]
    fn the_most_exact_entry_wins() {
        let config = json!({"auths": {
            "host:5000": entry("all"), "host:5000/group": entry("group"),
            "https://old.tld/v1/": entry("old"), DOCKER_HUB: entry("hub"),
            "plain.tld": {"username": "u", "password": "p:w"}, "empty.tld": {},
        }});
        let variables = [("DOCKER_AUTH_CONFIG", config.to_string())].into();
        for (registry, repository, expected) in [
            ("host:5000", "group/x", Some("group")),
            ("host:5000", "grouped/x", Some("all")),
            ("old.tld", "x", Some("old")),
            ("docker.io", "a/x", Some("hub")),
            ("plain.tld", "x", Some("u")),
            ("empty.tld", "x", None),
            ("host", "group/x", None),
            ("host:50000", "x", None),
        ] {
            let found = look(registry, repository, &variables).unwrap_or_else(|e| panic!("{e}"));
            let expected = expected.map(|user| (user.to_owned(), "p:w".to_owned()));
            assert_eq!(found, expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn places_are_looked_at_in_their_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let write = |name: &str, user: &str| {
            std::fs::create_dir_all(at(name).parent().expect("a parent")).expect("made");
            std::fs::write(at(name), json!({"auths": {"host": entry(user)}}).to_string())
                .expect("written");
        };
        let mut variables: BTreeMap<&str, String> = BTreeMap::new();
        let set = |name: &str| at(name).display().to_string();
        let user = |variables: &BTreeMap<&str, String>| {
            look("host", "x", variables).unwrap_or_else(|e| panic!("{e}")).map(|(user, _)| user)
        };
        variables.insert("HOME", set("home"));
        assert_eq!(user(&variables), None);
        for (name, value) in
            [("CI_REGISTRY", "host"), ("CI_REGISTRY_USER", "job"), ("CI_REGISTRY_PASSWORD", "x")]
        {
            variables.insert(name, value.into());
        }
        assert_eq!(user(&variables).as_deref(), Some("job"));
        write("run/containers/auth.json", "podman");
        variables.insert("XDG_RUNTIME_DIR", set("run"));
        assert_eq!(user(&variables).as_deref(), Some("podman"));
        write("auth.json", "file");
        variables.insert("REGISTRY_AUTH_FILE", set("auth.json"));
        assert_eq!(user(&variables).as_deref(), Some("file"));
        write("home/.docker/config.json", "home");
        assert_eq!(user(&variables).as_deref(), Some("home"));
        write("docker/config.json", "docker");
        variables.insert("DOCKER_CONFIG", set("docker"));
        assert_eq!(user(&variables).as_deref(), Some("docker"));
        variables.insert(
            "DOCKER_AUTH_CONFIG",
            json!({"auths": {"host": entry("variable")}}).to_string(),
        );
        assert_eq!(user(&variables).as_deref(), Some("variable"));
    }

    #[test]
    fn faults_show_no_secret() {
        for text in ["{\"auths\": {\"host\": {\"auth\": \"SECRET\"}}}", "{\"SECRET\""] {
            let variables = [("DOCKER_AUTH_CONFIG", text.to_owned())].into();
            let error = look("host", "x", &variables).expect_err(text);
            assert!(!error.contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn a_login_keeps_what_else_is_in_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("new/config.json");
        let variables: BTreeMap<&str, String> =
            [("DOCKER_CONFIG", dir.path().join("new").display().to_string())].into();
        let environment = |name: &str| variables.get(name).map(OsString::from);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
        let login = |user: &str, registry: &str| {
            let password = Secret::new("p:w");
            let credentials = Credentials { user: user.into(), password, is_identity_token: false };
            runtime
                .block_on(store(registry, &credentials, &environment))
                .unwrap_or_else(|e| panic!("{e}"))
        };
        assert_eq!(login("one", "host"), file.display().to_string());
        let mut config = read(&file).unwrap_or_else(|e| panic!("{e}"));
        config["other"] = json!(1);
        std::fs::write(&file, config.to_string()).expect("written");
        login("two", "host");
        login("three", "other.tld");
        let config = read(&file).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(config["other"], json!(1));
        let of = |host: &str| {
            look(host, "x", &variables).unwrap_or_else(|e| panic!("{e}")).map(|found| found.0)
        };
        assert_eq!(
            (of("host").as_deref(), of("other.tld").as_deref()),
            (Some("two"), Some("three"))
        );
        let mode = std::fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
