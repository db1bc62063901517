//! Plugins from registries: installed, listed, updated, rolled back and run, from a real
//! registry; and what hostile or broken ones cannot do.

#[path = "install/artifact.rs"]
mod artifact;
#[path = "install/home.rs"]
mod home;
#[expect(dead_code, reason = "other tests have other programs")]
#[path = "go/program.rs"]
mod program;
#[path = "install/registry.rs"]
mod registry;
#[path = "install/tokens.rs"]
mod tokens;
#[path = "install/wire.rs"]
mod wire;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{GitLab, JobSpec, Manager, Runner, State, binaries, seconds, until};

use artifact::{Artifact, INDEX, MANIFEST, digest, packed, packed_link, script};
use home::{Home, files};
use program::Program;
use registry::{PASSWORD, Registry, USER};
use tokens::Tokens;
use wire::{Server, Then, proxy};

#[test]
fn plugins_of_a_configuration_are_installed_as_gitlab_runner_does_it() {
    let Some(registry) = Registry::start() else { return };
    let home = Home::new();
    let any = format!("{}/group/mine", registry.address);
    let one = format!("{any}:1");
    home.configure(&[&one, &any]);
    let says = |arguments: &[&str], expected: &str| {
        let text = home.bad(arguments);
        assert!(text.contains(expected), "{arguments:?}: {text}");
    };
    says(&["fleeting", "list"], "`mayfly fleeting install` fetches it");
    let listed = home.run(&["plugin", "list"]);
    assert!(listed.code == Some(1) && listed.stdout.contains("missing"), "{listed:?}");
    says(&["fleeting", "install"], "has no");
    assert!(home.good(&["config", "check"]).stderr.contains("`mayfly fleeting install`"));

    registry.push("group/mine", &Artifact::script("1.2.0"), &["1.2.0", "1.2", "1", "latest"]);
    let installed = home.good(&["fleeting", "install"]);
    let file = |version: &str| home.plugins().join(&any).join(version).join("plugin");
    let line =
        format!("runner: r1, plugin: {one}, path: {}, version: 1.2.0\n", file("1.2.0").display());
    assert!(installed.stdout.starts_with(&line), "{installed:?}");
    assert_eq!(std::fs::read_to_string(file("1.2.0")).ok(), Some(script("1.2.0")));
    for path in [home.plugins(), file("1.2.0").parent().expect("a parent").into(), file("1.2.0")] {
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{}", path.display());
    }
    assert!(home.good(&["fleeting", "list"]).stdout.contains(&line));
    let checked = home.good(&["config", "check"]);
    assert!(checked.stdout.contains(&file("1.2.0").display().to_string()), "{checked:?}");
}

#[test]
fn versions_come_when_they_are_asked_for_and_can_be_taken_back() {
    let Some(registry) = Registry::start() else { return };
    let home = Home::new();
    let any = format!("{}/group/mine", registry.address);
    let one = format!("{any}:1");
    home.configure(&[&one, &any]);
    registry.push("group/mine", &Artifact::script("1.2.0"), &["1.2.0", "1", "latest"]);
    home.good(&["fleeting", "install"]);
    registry.push("group/mine", &Artifact::script("1.3.0"), &["1.3.0", "1"]);
    registry.push("group/mine", &Artifact::script("2.0.0"), &["2.0.0", "latest"]);
    let there = home.good(&["fleeting", "install"]).stdout;
    assert_eq!(there.matches("version: 1.2.0").count(), 2, "{there}");
    let updated = home.good(&["plugin", "update", "--json"]).json();
    let seen = |field: &str| -> Vec<Value> {
        updated["plugins"].as_array().expect("a list").iter().map(|p| p[field].clone()).collect()
    };
    assert_eq!(
        (seen("version"), seen("state")),
        (vec![json!("1.3.0"), json!("2.0.0")], vec![json!("installed"); 2])
    );

    // The one before is used again, and stays so until that version is asked for by name.
    let back = home.good(&["plugin", "rollback", &one, "--json"]).json();
    assert_eq!((&back["rolled_back"], &back["version"]), (&json!("1.3.0"), &json!("1.2.0")));
    let again = home.good(&["fleeting", "install", "--upgrade"]);
    assert!(again.stderr.contains("1.3.0 was rolled back and stays so"), "{again:?}");
    let listed = home.good(&["plugin", "list", "--json"]).json();
    let plugins = listed["plugins"].as_array().expect("a list").iter();
    let rows: Vec<(&Value, &Value, &Value)> = plugins
        .filter(|p| p["plugin"] == *any)
        .map(|p| (&p["version"], &p["state"], &p["used_by"]))
        .collect();
    let row =
        |version: &str, state: &str, users: &[&str]| (json!(version), json!(state), json!(users));
    let expected = [
        row("1.2.0", "installed", &["r1"]),
        row("2.0.0", "installed", &["r2"]),
        row("1.3.0", "rolled back", &[]),
    ];
    assert_eq!(rows, expected.each_ref().map(|(v, s, u)| (v, s, u)));
    assert!(home.good(&["plugin", "list"]).stdout.contains("1.3.0 (rolled back)"));
    home.good(&["plugin", "update", &one]);
    assert!(home.good(&["fleeting", "list"]).stdout.contains("version: 1.3.0"));
    for _ in 0..2 {
        home.good(&["plugin", "rollback", &any]);
    }
    let text = home.bad(&["plugin", "rollback", &any]);
    assert!(text.contains("1.2.0 is the only version"), "{text}");
}

#[test]
fn a_tag_that_is_missing_is_the_newest_version_that_it_allows() {
    let Some(registry) = Registry::start() else { return };
    let home = Home::new();
    for version in ["1.2.9", "1.2.10", "1.3.0-rc.1", "2.0.0"] {
        registry.push("x", &Artifact::script(version), &[version]);
    }
    for (constraint, expected) in
        [("1", "1.2.10"), ("latest", "2.0.0"), ("1.3.0-rc.1", "1.3.0-rc.1")]
    {
        let plugin = format!("{}/x:{constraint}", registry.address);
        let installed = home.good(&["fleeting", "install", &plugin, "--upgrade", "--json"]).json();
        assert_eq!(installed["plugins"][0]["version"], expected, "{constraint}");
    }
    let text = home.bad(&["fleeting", "install", &format!("{}/x:3", registry.address)]);
    assert!(text.contains("no version of") && text.contains("that 3 allows"), "{text}");
    // A tag that lies.
    registry.push("x", &Artifact::script("5.0.0"), &["4"]);
    let text = home.bad(&["fleeting", "install", &format!("{}/x:4", registry.address)]);
    assert!(text.contains("the tag 4 holds version 5.0.0"), "{text}");
}

#[test]
fn a_registry_with_a_password_wants_a_login_first() {
    let Some(open) = Registry::start() else { return };
    open.push("g/x", &Artifact::script("1.0.0"), &["latest"]);
    let registry = open.with_password(&json!({}));
    let home = Home::new();
    let plugin = format!("{}/g/x", registry.address);
    let text = home.bad(&["fleeting", "install", &plugin]);
    assert!(text.contains("`mayfly fleeting login"), "{text}");

    let config = home.path("home/.docker/config.json");
    let login = ["fleeting", "login", "--username", USER, "--password-stdin", &registry.address];
    let wrong = home.run_with(&login, "wrong password\n");
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(
        wrong.stderr.contains("does not accept") && !wrong.stderr.contains("wrong password"),
        "{wrong:?}"
    );
    assert!(!config.exists());
    let shown = home.bad(&[
        "fleeting",
        "login",
        "--username",
        USER,
        "--password",
        PASSWORD,
        &registry.address,
    ]);
    assert!(shown.contains("--password-stdin") && !shown.contains(PASSWORD), "{shown}");
    assert!(!config.exists());

    let right = home.run_with(&login, &format!("{PASSWORD}\r\n"));
    assert_eq!(right.code, Some(0), "{right:?}");
    assert_eq!(right.stdout, format!("logged in via {}\n", config.display()));
    let mode = std::fs::metadata(&config).expect("kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let installed = home.good(&["fleeting", "install", &plugin]);
    assert!(!format!("{installed:?}").contains(PASSWORD));

    // Without a file: as a job of GitLab CI has it.
    let mut of_job = Home::new();
    let values = [registry.address.as_str(), USER, PASSWORD];
    for (name, value) in
        ["CI_REGISTRY", "CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"].into_iter().zip(values)
    {
        of_job.set(name, value);
    }
    of_job.good(&["fleeting", "install", &plugin]);
}

#[test]
fn a_program_that_keeps_credentials_is_asked() {
    let Some(open) = Registry::start() else { return };
    open.push("g/x", &Artifact::script("1.0.0"), &["latest"]);
    let registry = open.with_password(&json!({}));
    let mut home = Home::new();
    let programs = home.path("bin");
    std::fs::create_dir_all(&programs).expect("made");
    let program = programs.join("docker-credential-test");
    let text = "#!/bin/sh
case $1 in
store) cat >\"$HOME/kept\" ;;
get) cat >/dev/null; cat \"$HOME/kept\" 2>/dev/null || { echo credentials not found; exit 1; } ;;
esac
";
    write_program(&program, text);
    let path = std::env::var("PATH").expect("text");
    home.set("PATH", format!("{}:{path}", programs.display()));
    let config = home.path("home/.docker/config.json");
    std::fs::create_dir_all(config.parent().expect("a parent")).expect("made");
    std::fs::write(&config, r#"{"credsStore": "test"}"#).expect("written");
    let plugin = format!("{}/g/x", registry.address);
    assert!(home.bad(&["fleeting", "install", &plugin]).contains("wants credentials"));
    let login = ["fleeting", "login", "--username", USER, "--password-stdin", &registry.address];
    let right = home.run_with(&login, PASSWORD);
    assert_eq!(right.stdout, "logged in via docker-credential-test\n", "{right:?}");
    assert!(!std::fs::read_to_string(&config).expect("there").contains("auth"));
    home.good(&["fleeting", "install", &plugin]);
}

/// Renamed into its place: one that is still open for writing cannot be run.
fn write_program(path: &Path, text: &str) {
    let unfinished = path.with_extension("unfinished");
    let written = Command::new("sh")
        .args(["-c", "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", text])
        .arg(&unfinished)
        .status();
    assert!(written.is_ok_and(|status| status.success()));
    std::fs::rename(unfinished, path).expect("renamed");
}

#[test]
fn a_registry_with_tokens_gets_them_from_where_it_says() {
    let Some(open) = Registry::start() else { return };
    open.push("g/x", &Artifact::script("1.0.0"), &["latest"]);
    let Some(tokens) = Tokens::start() else { return };
    let registry = open.beside(&json!({}), &tokens.of_registry());
    let home = Home::new();
    let plugin = format!("{}/g/x", registry.address);
    let text = home.bad(&["fleeting", "install", &plugin]);
    assert!(text.contains("wants credentials"), "{text}");
    let login = ["fleeting", "login", "--username", USER, "--password-stdin", &registry.address];
    assert_eq!(home.run_with(&login, "wrong").code, Some(1));
    let right = home.run_with(&login, PASSWORD);
    assert_eq!(right.code, Some(0), "{right:?}");
    home.good(&["fleeting", "install", &plugin]);
    // With a token that gives tokens.
    let mut other = Home::new();
    let entry = json!({"auths": {registry.address.clone(): {"identitytoken": PASSWORD}}});
    other.set("DOCKER_AUTH_CONFIG", entry.to_string());
    other.good(&["fleeting", "install", &plugin]);
    let asked = tokens.server.requests();
    for request in &asked[asked.len() - 2..] {
        assert!(request.contains("scope=repository%3Ag%2Fx%3Apull"), "{request}");
        assert!(request.contains("service=test"), "{request}");
    }
    let last = asked.last().expect("a request");
    assert!(!last.lines().next().expect("a line").contains("refresh_token"), "{last}");
}

#[test]
fn a_registry_with_tls_needs_a_certificate_that_is_trusted() {
    let Some(open) = Registry::start() else { return };
    open.push("g/x", &Artifact::script("1.0.0"), &["latest"]);
    let mut home = Home::new();
    let (ca, certificate, key) = match tokens::certificates(&home.path("tls")) {
        Some(files) => files,
        None => return,
    };
    let registry = open.with_password(&json!({"tls": {"certificate": certificate, "key": key}}));
    home.set(
        "DOCKER_AUTH_CONFIG",
        json!({"auths": {registry.address.clone():
        {"username": USER, "password": PASSWORD}}})
        .to_string(),
    );
    let plugin = format!("{}/g/x", registry.address);
    let text = home.bad(&["fleeting", "install", &plugin]);
    assert!(text.contains("certificate"), "{text}");
    home.assert_nothing_installed();
    let ca = ca.display().to_string();
    home.good(&["fleeting", "install", &plugin, "--ca-file", &ca]);
    std::fs::remove_dir_all(home.plugins()).expect("removed");
    home.set("SSL_CERT_FILE", ca);
    home.good(&["fleeting", "install", &plugin]);
}

#[test]
fn archives_do_not_reach_out_of_their_directory() {
    let Some(registry) = Registry::start() else { return };
    let home = Home::new();
    let program = b"#!/bin/sh\n";
    let good = ("plugin/plugin", 0o755, &program[..]);
    let evil = |name| packed(&[good, (name, 0o755, &b"evil"[..])]);
    let outside = home.path("evil").display().to_string();
    let cases = [
        (evil("plugin/../../../evil"), "leads out"),
        (evil("../../../../../../evil"), "leads out"),
        (evil(&outside), "leads out"),
        (evil("other/evil"), "not under plugin/"),
        (packed_link("plugin/plugin", &outside), "neither file nor directory"),
        (packed(&[("plugin/other", 0o755, &program[..])]), "no program plugin/plugin"),
        (b"no archive".to_vec(), "archive is refused"),
    ];
    for (n, (layer, expected)) in cases.iter().enumerate() {
        registry.push(&format!("evil{n}"), &Artifact::new("1.0.0", layer), &["latest"]);
        let text = home.bad(&["fleeting", "install", &format!("{}/evil{n}", registry.address)]);
        assert!(text.contains(expected), "{text}");
        home.assert_nothing_installed();
        assert!(files(&home.path("")).iter().all(|path| !path.ends_with("evil")));
    }
}

#[test]
fn what_changed_on_its_way_or_at_its_place_is_refused() {
    let Some(registry) = Registry::start() else { return };
    let home = Home::new();
    let plugin = format!("{}/x", registry.address);
    // At the registry: the layer, then the manifest.
    let artifact = Artifact::script("1.0.0");
    registry.push("x", &artifact, &["latest"]);
    registry.spoil(&artifact.layer);
    let text = home.bad(&["fleeting", "install", &plugin]);
    assert!(text.contains("the layer has the digest"), "{text}");
    home.assert_nothing_installed();

    // Here.
    registry.push("y", &Artifact::script("1.0.0-a"), &["1.0.0-a"]);
    let plugin = format!("{}/y:1.0.0-a", registry.address);
    home.configure(&[&plugin]);
    home.good(&["fleeting", "install"]);
    let file = home.plugins().join(format!("{}/y/1.0.0-a/plugin", registry.address));
    std::fs::write(&file, "#!/bin/sh\necho another\n").expect("written");
    for arguments in [["fleeting", "list"], ["fleeting", "install"]] {
        let text = home.bad(&arguments);
        assert!(text.contains("was changed since it was installed"), "{text}");
    }
    let refused = home.run(&["run"]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("was changed since it was installed"), "{refused:?}");
    assert!(home.bad(&["plugin", "list"]).is_empty());

    // A version that is another one now.
    std::fs::remove_dir_all(file.parent().expect("a parent")).expect("removed");
    registry.push("y", &Artifact::program("1.0.0-a", b"#!/bin/sh\necho other\n"), &["1.0.0-a"]);
    let text = home.bad(&["fleeting", "install"]);
    assert!(text.contains("is not what it was") && text.contains("mayfly.lock"), "{text}");
    assert!(!file.exists());
}

#[test]
fn a_transfer_that_is_cut_is_tried_again_and_leaves_nothing() {
    let Some(registry) = Registry::start() else { return };
    let program = [b"#!/bin/sh\n", vec![b'#'; 1 << 20].as_slice()].concat();
    registry.push("x", &Artifact::program("1.0.0", &program), &["latest"]);
    let home = Home::new();
    let never = proxy(&registry.address, 200_000, Then::Cut, usize::MAX);
    let text = home.bad(&["fleeting", "install", &format!("{never}/x")]);
    assert!(text.contains("the transfer was cut") && text.contains("tries again"), "{text}");
    home.assert_nothing_installed();
    let once = proxy(&registry.address, 200_000, Then::Cut, 1);
    let installed = home.good(&["fleeting", "install", &format!("{once}/x")]);
    assert!(installed.stderr.contains("tries again"), "{installed:?}");
    let file = home.plugins().join(format!("{once}/x/1.0.0/plugin"));
    assert_eq!(std::fs::read(file).ok(), Some(program));
}

#[test]
fn an_installation_that_is_killed_is_done_again() {
    let Some(registry) = Registry::start() else { return };
    let program = [b"#!/bin/sh\n", vec![b'#'; 1 << 20].as_slice()].concat();
    registry.push("x", &Artifact::program("1.0.0", &program), &["latest"]);
    let home = Home::new();
    let stalls = proxy(&registry.address, 200_000, Then::Stall, 1);
    let plugin = format!("{stalls}/x");
    let mut child = home.spawn(&["fleeting", "install", &plugin]);
    let archives = || {
        let found = files(&home.plugins()).into_iter().filter(|path| path.ends_with("archive"));
        found.filter(|path| path.metadata().is_ok_and(|file| file.len() > 100_000)).count()
    };
    until("it downloads", seconds(60), || archives() == 1);
    child.kill().expect("killed");
    child.wait().expect("reaped");
    home.good(&["fleeting", "install", &plugin]);
    assert_eq!(archives(), 0);
    let there: Vec<_> = files(&home.plugins());
    assert!(there.contains(&home.plugins().join(format!("{plugin}/1.0.0/plugin"))), "{there:?}");
}

#[test]
fn installations_that_run_at_once_do_not_disturb_each_other() {
    let Some(registry) = Registry::start() else { return };
    let home = Home::new();
    let names: Vec<String> = (0..3).map(|n| format!("{}/x{n}", registry.address)).collect();
    for n in 0..3 {
        registry.push(&format!("x{n}"), &Artifact::script("1.0.0"), &["latest"]);
    }
    // Each of them twice.
    let arguments = |name| ["fleeting", "install", "--upgrade", name];
    let children: Vec<_> =
        names.iter().chain(&names).map(|name| home.spawn(&arguments(name.as_str()))).collect();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
    }
    let lock = std::fs::read_to_string(home.plugins().join("mayfly.lock")).expect("a lock file");
    for name in &names {
        assert!(lock.contains(name), "{name}: {lock}");
        assert!(home.plugins().join(name).join("1.0.0/plugin").is_file());
    }
    home.configure(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let listed = home.good(&["plugin", "list", "--json"]).json();
    let plugins = listed["plugins"].as_array().expect("a list").iter();
    assert_eq!(plugins.filter(|plugin| plugin["state"] == "installed").count(), 3, "{listed}");
    assert!(files(&home.plugins()).len() == 5, "{:?}", files(&home.plugins()));
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    let artifact = Artifact::script("1.0.0");
    let blob = artifact.layer.clone();
    let elsewhere = Server::start(move |_| ("200 OK", Vec::new(), blob.clone()));
    let to = elsewhere.address.clone();
    let layer = digest(&artifact.layer);
    let manifest = artifact.manifests[1].clone();
    let named = digest(&manifest);
    let registry = Server::start(move |head| {
        let kind = |kind: &str| vec![("content-type", kind.to_owned())];
        if !head.to_ascii_lowercase().contains("authorization: basic ") {
            return (
                "401 Unauthorized",
                vec![("www-authenticate", "Basic realm=\"x\"".into())],
                Vec::new(),
            );
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            _ if path.ends_with(&layer) && path.contains("/open/") => (
                "307 Temporary Redirect",
                vec![("location", "http://example.invalid/layer".into())],
                Vec::new(),
            ),
            _ if path.ends_with(&layer) => (
                "307 Temporary Redirect",
                vec![("location", format!("http://{to}/layer?signature=SIGNED"))],
                Vec::new(),
            ),
            _ if path.ends_with(&named) => ("200 OK", kind(MANIFEST), manifest.clone()),
            _ => ("200 OK", kind(INDEX), artifact.index.clone()),
        }
    });
    let mut home = Home::new();
    home.set(
        "DOCKER_AUTH_CONFIG",
        json!({"auths": {registry.address.clone():
        {"username": USER, "password": PASSWORD}}})
        .to_string(),
    );
    home.good(&["fleeting", "install", &format!("{}/x", registry.address)]);
    let seen = elsewhere.requests();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(!seen[0].to_ascii_lowercase().contains("authorization"), "{seen:?}");
    // And nothing goes in the open to another machine.
    let text = home.bad(&["fleeting", "install", &format!("{}/open/x", registry.address)]);
    assert!(text.contains("not https"), "{text}");
}

#[test]
fn plugins_come_from_a_directory_where_there_is_no_network() {
    let home = Home::new();
    let directory = home.path("layout");
    let names =
        ["googlecloud:1.2.0", "registry.gitlab.com/gitlab-org/fleeting/plugins/googlecloud:1.3.0"];
    for (name, version) in names.iter().zip(["1.2.0", "1.3.0"]) {
        Artifact::script(version).write_layout(&directory, &[name]);
    }
    let from = directory.display().to_string();
    home.configure(&["googlecloud", "googlecloud:1.2"]);
    let installed = home.good(&["fleeting", "install", "--from", &from]);
    let there = home.plugins().join("registry.gitlab.com/gitlab-org/fleeting/plugins/googlecloud");
    assert!(installed.stdout.contains("version: 1.2.0"), "{installed:?}");
    assert_eq!(std::fs::read_to_string(there.join("1.3.0/plugin")).ok(), Some(script("1.3.0")));
    let text = home.bad(&["fleeting", "install", "azure", "--from", &from]);
    assert!(text.contains("no entry is called") && text.contains("googlecloud:1.2.0"), "{text}");
    let text = home.bad(&["fleeting", "install", "azure", "--from", "/nowhere"]);
    assert!(text.contains("/nowhere/index.json"), "{text}");
    // Spoiled.
    let artifact = Artifact::script("2.0.0");
    artifact.write_layout(&directory, &["googlecloud:2.0.0"]);
    let blob = directory.join("blobs/sha256").join(artifact::hex(&artifact.layer));
    std::fs::write(blob, "something else").expect("written");
    let text = home.bad(&["fleeting", "install", "googlecloud:2", "--from", &from]);
    assert!(text.contains("the layer has the digest"), "{text}");
    assert!(!there.join("2.0.0").exists());
}

/// GitLab's tool that publishes plugins, on the library with which GitLab Runner finds
/// them.
const PUBLISHER: Program = Program {
    folder: "artifact",
    package: "gitlab.com/gitlab-org/fleeting/fleeting-artifact/cmd/fleeting-artifact",
    name: "fleeting-artifact",
    flags: &[],
};

#[test]
fn what_gitlab_s_tool_publishes_is_installed_and_it_finds_what_was_installed() {
    let Some(registry) = Registry::start() else { return };
    let Some(program) = PUBLISHER.build() else { return };
    let home = Home::new();
    let publisher = |arguments: &[&str]| {
        let output = Command::new(&program)
            .args(arguments)
            .current_dir(home.path(""))
            .env("HOME", home.path("home"))
            .env("FLEETING_PLUGIN_PATH", home.plugins())
            .output()
            .expect("it can be run");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success(), "{arguments:?}: {text}{:?}", output.stderr);
        text
    };
    let plugin = format!("{}/group/mine", registry.address);
    for version in ["1.2.3", "1.3.0"] {
        let directory = home.path("dist/linux").join(artifact::architecture());
        std::fs::create_dir_all(&directory).expect("made");
        write_program(&directory.join("plugin"), &script(version));
        publisher(&["release", "-dir", "dist", &format!("{plugin}:{version}")]);
    }
    publisher(&["update-aliases", &plugin]);
    home.good(&["fleeting", "install", &format!("{plugin}:1")]);
    let file = home.plugins().join(&plugin).join("1.3.0/plugin");
    assert_eq!(std::fs::read_to_string(file).ok(), Some(script("1.3.0")));

    let layout = home.path("layout");
    for version in ["1.0.0", "1.1.0-RC.1", "1.1.0"] {
        let name = format!("aws:{version}");
        Artifact::script(version).write_layout(&layout, &[&name]);
        home.good(&[
            "fleeting",
            "install",
            "--upgrade",
            &name,
            "--from",
            &layout.display().to_string(),
        ]);
    }
    let aws = home.plugins().join("registry.gitlab.com/gitlab-org/fleeting/plugins/aws");
    let finds = |name: &str, version: &str| {
        let path = aws.join(version).join("plugin");
        assert_eq!(Path::new(publisher(&["lookpath", name]).trim()), path, "{name}");
    };
    finds("aws", "1.1.0");
    finds("aws:1.0", "1.0.0");
    finds("aws:1.1.0-RC.1", "1.1.0-!r!c.1");
    home.good(&["plugin", "rollback", "aws"]);
    finds("aws", "1.0.0");
}

#[test]
fn what_gitlab_runner_installed_is_used() {
    let home = Home::new();
    let aws = home.plugins().join("registry.gitlab.com/gitlab-org/fleeting/plugins/aws");
    for version in ["0.5.0", "1.0.0", "2.0.0-rc.1"] {
        std::fs::create_dir_all(aws.join(version)).expect("made");
        std::fs::write(aws.join(version).join("plugin"), script(version)).expect("written");
    }
    home.configure(&["aws", "aws:0"]);
    // GitLab Runner takes the configuration before the command.
    let config = home.path("config.toml").display().to_string();
    let listed = home.good(&["fleeting", "--config", &config, "list", "--json"]).json();
    let path =
        |n: usize| listed["plugins"][n]["path"].as_str().map(Path::new).expect("a path").to_owned();
    assert_eq!((path(0), path(1)), (aws.join("1.0.0/plugin"), aws.join("0.5.0/plugin")));
    let table = home.good(&["plugin", "list"]).stdout;
    assert!(table.contains("not locked"), "{table}");
    let back = home.good(&["plugin", "rollback", "aws", "--json"]).json();
    assert_eq!(back["version"], "0.5.0");
}

#[test]
fn an_installed_plugin_is_checked_and_runs_jobs() {
    let Some(registry) = Registry::start() else { return };
    let program = std::fs::read(binaries().plugin("local")).expect("built");
    registry.push("group/here", &Artifact::program("1.0.0", &program), &["1.0.0", "1"]);
    let home = Home::new();
    let plugin = format!("{}/group/here:1", registry.address);
    home.good(&["fleeting", "install", &plugin]);
    let settings = home.path("settings.json");
    std::fs::write(&settings, json!({"root": home.path("instances")}).to_string())
        .expect("written");
    let checked =
        home.good(&["plugin", "check", &plugin, "--config", &settings.display().to_string()]);
    assert!(checked.stdout.contains("0 failed"), "{checked:?}");

    let gitlab = GitLab::start();
    let runner = Runner::new(&gitlab, &plugin)
        .plugin_config("root", home.path("instances").display().to_string());
    let manager =
        Manager::setup().env("FLEETING_PLUGIN_PATH", home.plugins()).runner(runner).start();
    let job = gitlab.enqueue(JobSpec::script(["echo runs"]));
    gitlab.wait_for(job, State::Success, seconds(120));
    let file = home.plugins().join(format!("{}/group/here/1.0.0/plugin", registry.address));
    assert!(manager.plugins().iter().any(|process| process.exe == file), "{:?}", manager.plugins());
    drop(manager);
    support::processes::kill_mentioning(&home.path("").display().to_string());
}

#[test]
fn an_installed_plugin_that_is_changed_under_a_manager_is_not_started_again() {
    let home = Home::new();
    let layout = home.path("layout");
    let program = std::fs::read(binaries().plugin("local")).expect("built");
    Artifact::program("1.0.0", &program).write_layout(&layout, &["here:1.0.0"]);
    home.good(&["fleeting", "install", "here:1", "--from", &layout.display().to_string()]);
    let file = home.plugins().join(DEFAULT_GROUP).join("here/1.0.0/plugin");

    let gitlab = GitLab::start();
    let runner = Runner::new(&gitlab, "here:1")
        .plugin_config("root", home.path("instances").display().to_string())
        .max_instances(1)
        .max_use_count(1);
    let mut manager =
        Manager::setup().env("FLEETING_PLUGIN_PATH", home.plugins()).runner(runner).start();
    let first = gitlab.enqueue(JobSpec::script(["echo first"]));
    gitlab.wait_for(first, State::Success, seconds(120));

    let (ran, aside) = (home.path("ran"), home.path("aside"));
    let other = format!("#!/bin/sh\ntouch {}\n", ran.display());
    std::fs::rename(&file, &aside).expect("put aside");
    write_program(&file, &other);
    for plugin in manager.plugins() {
        plugin.kill();
    }
    let log = manager.wait_for_log("plugin is not started again", seconds(30));
    let digests = [digest(other.as_bytes()), digest(&program)];
    let parts = ["was changed since it was installed", "mayfly fleeting install"];
    let path = file.display().to_string();
    let told = digests.iter().map(String::as_str).chain(parts).chain([path.as_str()]);
    let told: Vec<&str> = told.collect();
    assert!(told.iter().all(|part| log.contains(part)), "{told:?}: {log}");
    let state = manager.state_dir().display().to_string();
    let status = home.good(&["status", "--state-dir", &state]).stdout;
    assert!(status.contains("its plugin is down"), "{status}");
    assert!(told.iter().all(|part| status.contains(part)), "{told:?}: {status}");

    std::fs::rename(&aside, &file).expect("put back");
    let log = manager.wait_for_log("plugin is up again", seconds(30));
    assert_eq!(log.matches("plugin is not started again").count(), 1, "{log}");
    assert!(!ran.exists(), "the changed program ran");
    let next = gitlab.enqueue(JobSpec::script(["echo next"]));
    gitlab.wait_for(next, State::Success, seconds(60));
    drop(manager);
    support::processes::kill_mentioning(&home.path("").display().to_string());
}

/// Where plugins are whose names have neither registry nor group.
const DEFAULT_GROUP: &str = "registry.gitlab.com/gitlab-org/fleeting/plugins";

#[test]
fn old_versions_go_unless_someone_needs_them() {
    let home = Home::new();
    let layout = home.path("layout");
    let from = layout.display().to_string();
    let here = home.plugins().join(DEFAULT_GROUP).join("here");
    let there = || -> Vec<String> {
        let entries = std::fs::read_dir(&here).expect("a directory").flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().into_string().expect("text")).collect();
        names.sort();
        names
    };
    let update = |version: &str, more: &[&str]| {
        Artifact::script(version).write_layout(&layout, &[&format!("here:{version}")]);
        let plugin = format!("here:{version}");
        home.good(&[&["plugin", "update", &plugin, "--from", &from, "--json"], more].concat())
    };
    let removed = |updated: &home::Ended| updated.json()["plugins"][0]["removed"].clone();

    // By another program.
    std::fs::create_dir_all(here.join("0.1.0")).expect("made");
    std::fs::write(here.join("0.1.0/plugin"), script("0.1.0")).expect("written");
    // A configuration that refers to one, and one that cannot be used.
    let by_path = here.join("1.1.0/plugin").display().to_string();
    home.configure(&["here:1.0.0", &by_path]);
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"] {
        assert_eq!(removed(&update(version, &[])), json!([]), "{version}");
    }
    let config = std::fs::read(home.path("config.toml")).expect("it is there");
    std::fs::write(home.path("config.toml"), "concurrent = many").expect("written");
    let unsure = update("1.5.0", &[]);
    assert!(unsure.stderr.contains("old versions stay") && unsure.stderr.contains("config.toml"));
    assert!(there().contains(&"1.2.0".to_owned()), "{:?}", there());
    std::fs::write(home.path("config.toml"), config).expect("written");

    let said = home.good(&["plugin", "update", "here", "--from", &from]);
    assert!(said.stdout.contains("plugin: here, removed: 1.2.0\n"), "{said:?}");
    assert_eq!(there(), ["0.1.0", "1.0.0", "1.1.0", "1.3.0", "1.4.0", "1.5.0"]);
    // What comes back must be what it was.
    let other = Artifact::program("1.2.0", b"#!/bin/sh\necho other\n");
    let elsewhere = home.path("elsewhere");
    other.write_layout(&elsewhere, &["here:1.2.0"]);
    let elsewhere = elsewhere.display().to_string();
    let text = home.bad(&["fleeting", "install", "here:1.2.0", "--from", &elsewhere]);
    assert!(text.contains("is not what it was"), "{text}");

    // One that was rolled back leaves its mark only, and stays out of use.
    home.good(&["plugin", "rollback", "here"]);
    assert!(here.join(".rolled-back-1.5.0/plugin").is_file());
    let all =
        home.good(&["plugin", "update", "here:1.4.0", "--from", &from, "--keep", "0", "--json"]);
    assert_eq!(removed(&all), json!(["1.3.0", "1.5.0"]));
    assert_eq!(there(), [".rolled-back-1.5.0", "0.1.0", "1.0.0", "1.1.0", "1.4.0"]);
    assert!(!here.join(".rolled-back-1.5.0/plugin").exists());
    let again = home.good(&["fleeting", "install", "here", "--upgrade", "--from", &from]);
    assert!(again.stderr.contains("1.5.0 was rolled back and stays so"), "{again:?}");
    home.good(&["plugin", "update", "here", "--from", &from]);
    assert_eq!(there(), ["0.1.0", "1.0.0", "1.1.0", "1.4.0", "1.5.0"]);

    // A path into the install directory is no way around the lock file.
    home.good(&["fleeting", "list"]);
    std::fs::write(&by_path, script("another")).expect("written");
    let text = home.bad(&["fleeting", "list"]);
    assert!(
        text.contains("was changed since it was installed") && text.contains(&by_path),
        "{text}"
    );
}

#[test]
fn a_version_that_a_manager_runs_stays_until_it_ends() {
    let home = Home::new();
    let layout = home.path("layout");
    let program = std::fs::read(binaries().plugin("local")).expect("built");
    let update = |version: &str, program: &[u8]| {
        let name = format!("here:{version}");
        Artifact::program(version, program).write_layout(&layout, &[&name]);
        let from = layout.display().to_string();
        home.good(&["plugin", "update", "--from", &from, "--keep", "0"])
    };
    home.configure(&["here"]);
    update("1.0.0", &program);
    let gitlab = GitLab::start();
    let runner = Runner::new(&gitlab, "here")
        .plugin_config("root", home.path("instances").display().to_string());
    let mut manager =
        Manager::setup().env("FLEETING_PLUGIN_PATH", home.plugins()).runner(runner).start();
    manager.wait_until_up();
    let first = home.plugins().join(DEFAULT_GROUP).join("here/1.0.0");
    let updated = update("1.1.0", script("1.1.0").as_bytes());
    assert!(updated.stderr.contains("1.0.0 stays, it is in use"), "{updated:?}");
    for plugin in manager.plugins() {
        plugin.kill();
    }
    manager.wait_for_log("plugin is up again", seconds(30));
    let updated = update("1.2.0", script("1.2.0").as_bytes());
    assert!(updated.stdout.contains("removed: 1.1.0\n"), "{updated:?}");
    assert!(first.join("plugin").is_file());
    manager.terminate();
    manager.wait_for_exit(seconds(30));
    let updated = update("1.2.0", script("1.2.0").as_bytes());
    assert!(updated.stdout.contains("removed: 1.0.0\n") && !first.exists(), "{updated:?}");
}

/// Runs openssl; `None` after saying that there is none.
fn openssl(arguments: &[&str], directory: &Path) -> Option<()> {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output();
    let Ok(output) = output else {
        support::skipped("no openssl: run tests/setup");
        return None;
    };
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}
