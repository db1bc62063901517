//! Who the agent is on the instance, who the job is in its container, and whose the files
//! are in between.

use std::os::unix::fs::symlink;

use serde_json::{Map, json};
use support::sshd::Machine;
use support::{BUSYBOX, ContainerJobs, DEBIAN, Docker, JobSpec, Runner, Sshd, State, seconds};

use super::images::Derived;
use super::needed;

/// Instances of an OpenSSH server.
fn over_openssh(docker: Docker, sshd: &Sshd, keys: serde_json::Value) -> ContainerJobs {
    let gitlab = docker.gitlab();
    // The daemon is everybody's: what is an instance's is told by its name.
    let login = |machine: &Machine| {
        let login = json!({
            "user": machine.user(), "key_path": machine.key_path, "addr": machine.address,
        });
        (machine.user().to_owned(), login)
    };
    let instances: Map<_, _> = sshd.machines().iter().map(login).collect();
    let runner =
        Runner::openssh(&gitlab, sshd).max_instances(1).plugin_config("instances", instances);
    ContainerJobs::start(docker, gitlab, runner, keys)
}

#[test]
fn a_plain_user_in_the_group_of_the_socket_runs_jobs_of_root() {
    let docker = needed!(Docker::find());
    let Some(sshd) = Sshd::setup().group(docker.socket_group()).start() else { return };
    let rig = over_openssh(docker, &sshd, json!({}));
    let repository = rig.gitlab.repository("project");
    repository.commit(&[("file", "from the repository\n"), ("dir/file", "old\n")]);
    let script = [
        "echo I am $(id -u)",
        "cat file $SECRET",
        "echo new > dir/file",
        "umask 077; mkdir -p deep/er; echo made by root > deep/er/made",
        "ln -s /etc/passwd deep/link",
    ];
    let spec = JobSpec::script(script)
        .after_script(["cat deep/er/made"])
        .file("SECRET", "of a file\n")
        .git(&repository)
        .artifacts(["deep/er"]);
    let (first, trace) = rig.run(spec, State::Success);
    for text in ["I am 0", "from the repository", "of a file", "made by root"] {
        assert!(trace.contains(text), "{text}: {trace}");
    }
    assert_eq!(rig.gitlab.archives(first).len(), 1, "{trace}");

    // The next job of the project finds its sources as they are in the repository.
    let look = ["ls deep || echo clean", "cat dir/file", "find . -name made"];
    let (_, trace) = rig.run(JobSpec::script(look).git(&repository), State::Success);
    for text in ["clean\n", " old\n"] {
        assert!(trace.contains(text), "{text}: {trace}");
    }
    // And one that wants no sources finds what its artifacts brought.
    let (_, trace) = rig
        .run(JobSpec::script(["cat deep/er/made"]).git(&repository).needs(first), State::Success);
    assert!(trace.contains("made by root"), "{trace}");
    // With a clone, too, where everything that root made is removed.
    let dirty = ["umask 077; mkdir -p left/over; echo x > left/over/file"];
    rig.run(JobSpec::script(dirty).git(&repository), State::Success);
    let spec = JobSpec::script(["ls left || echo clean"]).git(&repository);
    let (_, trace) = rig.run(spec.variable("GIT_STRATEGY", "clone"), State::Success);
    assert!(trace.contains("clean\n"), "{trace}");
    rig.nothing_is_left(seconds(20));
    let home = sshd.machines()[0].home().display().to_string();
    let found = std::process::Command::new("find")
        .args([&home, "-name", "*.tmp", "-o", "-user", "root", "-name", "*.given"])
        .output()
        .expect("find");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "left in the home");
}

#[test]
fn files_of_root_are_taken_back_after_a_death_without_the_image_of_then() {
    let docker = needed!(Docker::find());
    let Some(sshd) = Sshd::setup().group(docker.socket_group()).start() else { return };
    let rig = over_openssh(docker, &sshd, json!({}));
    let repository = rig.gitlab.repository("project");
    repository.commit(&[("file", "old\n")]);
    let image = Derived::of(&rig.docker, BUSYBOX, "true", &["USER 1000"]);
    let script = ["umask 077; mkdir dir; echo new > file; echo x > dir/made", "echo in the image"];
    let spec = JobSpec::script(script).git(&repository).image(&image.name);
    rig.run(spec.clone().artifacts(["dir"]), State::Success);
    let dying = JobSpec::script(["umask 077; mkdir dir; echo be''gun", "sleep 1000"]);
    let job = rig.gitlab.enqueue(dying.git(&repository).image(&image.name));
    rig.gitlab.wait_for_trace(job, "begun", seconds(60));
    sshd.machines()[0].kill_all();
    rig.gitlab.wait_for_end(job, seconds(60));
    for name in rig.docker.of_jobs(&rig.manager) {
        rig.docker.run(&["rm", "-f", "-v", &name]);
    }
    rig.docker.run(&["rmi", &image.name]);
    let look = ["ls dir || echo clean", "cat file"];
    let (_, trace) = rig.run(JobSpec::script(look).git(&repository), State::Success);
    assert!(trace.contains("clean\n") && trace.contains(" old\n"), "{trace}");
    rig.nothing_is_left(seconds(20));
}

#[test]
fn a_user_who_may_not_use_the_socket_is_told() {
    let docker = needed!(Docker::find());
    let Some(sshd) = Sshd::start() else { return };
    let gitlab = docker.gitlab();
    let runner =
        docker.in_containers(Runner::openssh(&gitlab, &sshd).max_instances(1), BUSYBOX, json!({}));
    // What may pass while an instance comes up is told in detail only.
    let mut manager = docker.setup().runner(runner).log_level("debug").start();
    gitlab.enqueue(JobSpec::script(["true"]));
    let text = format!("user {} may not use ", sshd.machines()[0].user());
    let log = manager.wait_for_log(&text, seconds(60));
    assert!(log.contains("usermod -aG docker"), "{log}");
}

#[test]
fn an_image_of_another_user_than_root_works_on_its_sources() {
    let rig = needed!(ContainerJobs::local(json!({}), |runner| runner.max_instances(1)));
    let image = Derived::of(&rig.docker, BUSYBOX, "true", &["USER 1000"]);
    let repository = rig.gitlab.repository("project");
    repository.commit(&[("file", "old\n"), ("dir/deep/file", "old\n")]);
    let script = [
        "echo I am $(id -u)",
        "cat $SECRET",
        "echo new > file",
        "echo new > dir/deep/file",
        "echo made > dir/deep/made",
        "mkdir other",
    ];
    let spec = JobSpec::script(script)
        .after_script(["rm -r dir", "echo removed"])
        .file("SECRET", "of a file\n")
        .git(&repository)
        .artifacts(["dir/deep/made"])
        .image(&image.name);
    let without_after = JobSpec::script(script)
        .file("SECRET", "of a file\n")
        .git(&repository)
        .artifacts(["dir/deep/made"])
        .image(&image.name);
    for spec in [without_after, spec] {
        let (_, trace) = rig.run(spec, State::Success);
        for text in ["I am 1000", "of a file"] {
            assert!(trace.contains(text), "{text}: {trace}");
        }
    }
    // And files of that user go, whoever comes next.
    let (_, trace) =
        rig.run(JobSpec::script(["ls other || cat file"]).git(&repository), State::Success);
    assert!(trace.contains(" old\n"), "{trace}");
    rig.nothing_is_left(seconds(20));
}

#[test]
fn without_git_on_the_instance_sources_come_from_the_helper_image() {
    let docker = needed!(Docker::find());
    if !docker.has(DEBIAN) {
        support::skip!("no {DEBIAN}: run tests/setup");
    }
    let tools = tempfile::tempdir().expect("a directory");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(tools.path(), open).expect("its mode");
    for tool in std::fs::read_dir("/usr/bin").expect("programs").flatten() {
        if !tool.file_name().to_string_lossy().starts_with("git") {
            symlink(tool.path(), tools.path().join(tool.file_name())).expect("a link");
        }
    }
    let path = format!("SetEnv PATH={}", tools.path().display());
    let setup = Sshd::setup().group(docker.socket_group()).config(&path);
    let Some(sshd) = setup.start() else { return };
    let rig = over_openssh(docker, &sshd, json!({ "helper_image": DEBIAN }));
    let repository = rig.gitlab.repository("project");
    repository.commit(&[("file", "from the repository\n")]);
    for _ in 0..2 {
        let script = ["cat file", "ls made || echo clean", "echo made > made"];
        let spec = JobSpec::script(script).git(&repository).artifacts(["made"]);
        let (_, trace) = rig.run(spec, State::Success);
        for text in ["from the repository", "fetched in the helper image", "clean\n"] {
            assert!(trace.contains(text), "{text}: {trace}");
        }
    }
    rig.nothing_is_left(seconds(20));
}

#[test]
fn a_daemon_that_does_not_see_the_instance_s_files_is_told() {
    let docker = needed!(Docker::find());
    let gitlab = docker.gitlab();
    let mount = format!("{}:/var/run/docker.sock", docker.socket().display());
    let runner = docker.runner(&gitlab, BUSYBOX).plugin_config("mounts", vec![mount]);
    let rig = ContainerJobs::start(
        docker,
        gitlab,
        runner,
        json!({ "host": "unix:///var/run/docker.sock" }),
    );
    let trace = rig.fails(JobSpec::script(["true"]), "runner_system_failure");
    assert!(trace.contains("does not see the files of this instance"), "{trace}");
    rig.nothing_is_left(seconds(20));
}

#[test]
fn instances_that_are_containers_use_their_own_daemon_where_it_sees_their_files() {
    let docker = needed!(Docker::find());
    let gitlab = docker.gitlab();
    let shared = tempfile::tempdir().expect("a directory");
    let directory = shared.path().display().to_string();
    let socket = docker.socket().display();
    let mounts = [format!("{socket}:/var/run/docker.sock"), format!("{directory}:{directory}")];
    let runner = docker
        .runner(&gitlab, BUSYBOX)
        .plugin_config("mounts", mounts.to_vec())
        .max_instances(2)
        .capacity(1);
    let keys = json!({
        "host": "unix:///var/run/docker.sock",
        "volumes": [format!("{directory}/${{MAYFLY_INSTANCE}}:/builds")],
    });
    let rig = ContainerJobs::start(docker, gitlab, runner, keys);
    // At once, so that each instance has one; the slots have equal numbers.
    let script = ["echo $CI_JOB_ID > mine", "sleep 3", "echo it is $(cat mine)"];
    let jobs = [0; 2].map(|_| rig.gitlab.enqueue(JobSpec::script(script).artifacts(["mine"])));
    for audit in rig.gitlab.wait_for_all(&jobs, seconds(90)) {
        let trace = rig.gitlab.trace(audit.job);
        assert_eq!(audit.state, State::Success, "{trace}");
        assert!(trace.contains(&format!("it is {}", audit.job)), "{trace}");
    }
    let entries = std::fs::read_dir(shared.path()).expect("a directory").flatten();
    assert_eq!(entries.filter(|entry| entry.path().is_dir()).count(), 2);
    rig.nothing_is_left(seconds(20));
}
