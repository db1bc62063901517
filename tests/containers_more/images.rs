//! Odd images: entrypoints, none of a shell, private ones.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use support::{BUSYBOX, ContainerJobs, Docker, JobSpec, State, seconds};

use super::needed;
use super::registry::{PASSWORD, Registry, USER};

/// An image that a test made; it goes with this value.
pub(super) struct Derived<'a> {
    docker: &'a Docker,
    pub(super) name: String,
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("c{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl<'a> Derived<'a> {
    /// An image after this command, with changes as in a Dockerfile.
    pub(super) fn of(docker: &'a Docker, image: &str, command: &str, changes: &[&str]) -> Self {
        let container = unique();
        docker.run(&["run", "--name", &container, image, "sh", "-c", command]);
        let name = format!("mayfly-test/{container}");
        let changes = changes.iter().flat_map(|change| ["--change", *change]);
        let arguments: Vec<&str> =
            ["commit"].into_iter().chain(changes).chain([container.as_str(), &name]).collect();
        docker.run(&arguments);
        docker.run(&["rm", "-v", &container]);
        Self { docker, name }
    }

    /// Nothing but a static program.
    fn scratch(docker: &'a Docker) -> Self {
        let container = unique();
        docker.run(&["create", "--name", &container, BUSYBOX, "true"]);
        let directory = tempfile::tempdir().expect("a directory");
        let program = directory.path().join("program");
        docker.run(&["cp", &format!("{container}:/bin/busybox"), &program.display().to_string()]);
        docker.run(&["rm", "-v", &container]);
        let archive = directory.path().join("archive.tar");
        let file = std::fs::File::create(&archive).expect("a file");
        let mut builder = tar::Builder::new(file);
        builder.append_path_with_name(&program, "program").expect("packed");
        builder.finish().expect("packed");
        let name = format!("mayfly-test/{container}");
        docker.run(&["import", &archive.display().to_string(), &name]);
        Self { docker, name }
    }
}

impl Drop for Derived<'_> {
    fn drop(&mut self) {
        // A failed test may still use it.
        self.docker.forget(&self.name);
    }
}

#[test]
fn entrypoints_run_before_scripts_or_are_taken_away() {
    let rig = needed!(ContainerJobs::local(json!({}), |runner| runner));
    let make = "printf '#!/bin/sh\\necho by the entry''point\\nexec \"$@\"\\n' > /entry; \
                chmod +x /entry";
    let printing = Derived::of(&rig.docker, BUSYBOX, make, &["ENTRYPOINT [\"/entry\"]"]);
    let shell = Derived::of(&rig.docker, BUSYBOX, "true", &["ENTRYPOINT [\"/bin/sh\", \"-c\"]"]);
    let spec = || {
        JobSpec::script(["read line || echo no input", "echo in the script", "exit 3"])
            .after_script(["echo in after_script"])
    };
    let cases = [
        (json!({ "name": printing.name }), 2),
        (json!({ "name": printing.name, "entrypoint": [""] }), 0),
        (json!({ "name": shell.name }), 0),
        (json!({ "name": BUSYBOX, "entrypoint": ["/bin/sh", "-c"] }), 0),
        (json!({ "name": printing.name, "entrypoint": ["sh", "/entry"] }), 2),
    ];
    for (image, times) in cases {
        let (job, trace) = rig.run(spec().key("image", image.clone()), State::Failed);
        assert_eq!(rig.gitlab.audit(job).exit_code, Some(3), "{image}: {trace}");
        assert_eq!(trace.matches("by the entrypoint\n").count(), times, "{image}: {trace}");
        for text in [" no input\n", " in the script\n", " in after_script\n"] {
            assert_eq!(trace.matches(text).count(), 1, "{text}: {image}: {trace}");
        }
        rig.nothing_is_left(seconds(20));
    }
}

#[test]
fn an_image_without_a_shell_is_told() {
    let rig = needed!(ContainerJobs::local(json!({}), |runner| runner));
    let image = Derived::scratch(&rig.docker);
    let (_, trace) = rig.run(JobSpec::script(["true"]).image(&image.name), State::Failed);
    assert!(trace.contains("has no shell"), "{trace}");
    let missing = json!({ "name": BUSYBOX, "entrypoint": ["/no/such/program"] });
    let (_, trace) = rig.run(JobSpec::script(["true"]).key("image", missing), State::Failed);
    assert!(trace.contains("/no/such/program"), "{trace}");
    rig.nothing_is_left(seconds(20));
}

#[test]
fn a_private_registry_is_logged_in_to() {
    let rig = needed!(ContainerJobs::local(json!({ "pull_policy": "always" }), |runner| runner));
    let Some(open) = Registry::start() else { return };
    let open_name = format!("{}/private", open.address);
    rig.docker.run(&["tag", BUSYBOX, &open_name]);
    rig.docker.run(&["push", &open_name]);
    rig.docker.forget(&open_name);
    let closed = open.with_password(&json!({}));
    let image = format!("{}/private", closed.address);
    let config = |password: &str| {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
        json!({ "auths": { closed.address.clone(): { "auth": auth } } }).to_string()
    };
    let credentials = |password: &str| {
        json!([{
            "type": "registry", "url": closed.address, "username": USER, "password": password,
        }])
    };
    let spec = || JobSpec::script(["echo it ran"]).image(&image);
    let good = [
        spec().variable("DOCKER_AUTH_CONFIG", &config(PASSWORD)),
        spec().key("credentials", credentials(PASSWORD)),
        // One that is refused does not hide the next.
        spec()
            .variable("DOCKER_AUTH_CONFIG", &config("wrong-password"))
            .key("credentials", credentials(PASSWORD)),
    ];
    for spec in good {
        let (_, trace) = rig.run(spec, State::Success);
        assert!(trace.contains("it ran") && !trace.contains(PASSWORD), "{trace}");
        rig.nothing_is_left(seconds(20));
        rig.docker.forget(&image);
    }
    let bad = [
        spec(),
        spec().variable("DOCKER_AUTH_CONFIG", &config("wrong-password")),
        spec().variable("DOCKER_AUTH_CONFIG", "no JSON at all"),
        spec().key("credentials", credentials("wrong-password")),
    ];
    for spec in bad {
        let trace = rig.fails(spec, "image_pull_failure");
        assert!(trace.contains(&image) && !trace.contains("wrong-password"), "{trace}");
        assert!(!trace.contains(&config("wrong-password")), "{trace}");
    }
    rig.nothing_is_left(seconds(20));
}
