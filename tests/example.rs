//! The example plugin of the README works as it is: checked, and under `mayfly run`.

use std::process::Command;

use serde_json::json;
use support::{GitLab, JobSpec, Manager, Runner, Sshd, State, binaries, seconds, until};

const PLUGIN: &str = "fleeting-plugin-minimal";

#[test]
fn the_example_runs_jobs_and_gives_its_machine_back() {
    let Some(sshd) = Sshd::start() else { return };
    let machine = &sshd.machines()[0];
    let gitlab = GitLab::start();
    let cloud = tempfile::tempdir().expect("a directory");
    let taken = || std::fs::read_dir(cloud.path()).expect("the directory").count();
    let runner = Runner::new(&gitlab, binaries().path(PLUGIN))
        .plugin_config("machines", json!([machine.address]))
        .plugin_config("taken", cloud.path().display().to_string())
        .connector("username", machine.user())
        .connector("key_path", machine.key_path.display().to_string())
        .max_instances(1)
        .idle_time(seconds(1));
    let mut manager = Manager::start(runner);
    let jobs = gitlab.enqueue_many(2, &JobSpec::script(["echo on $(id -un)"]));
    gitlab.wait_for_all(&jobs, seconds(60));
    for job in jobs {
        let line = format!("on {}", machine.user());
        assert!(gitlab.trace(job).contains(&line), "{}", gitlab.trace(job));
    }
    until("the machine is given back", seconds(30), || taken() == 0);

    // Killed while idle: the next job finds it started again.
    manager.plugins().iter().for_each(support::processes::Process::kill);
    let job = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(job, State::Success, seconds(60));
    manager.interrupt();
    assert_eq!(manager.wait_for_exit(seconds(30)).code, Some(130));
}

#[test]
fn the_example_passes_the_check_and_says_what_it_is() {
    let cloud = tempfile::tempdir().expect("a directory");
    let config = cloud.path().join("config.json");
    let text = json!({"machines": ["127.0.0.1:1"], "taken": cloud.path().join("taken")});
    std::fs::write(&config, text.to_string()).expect("written");
    let plugin = binaries().path(PLUGIN);
    let run = |program: &std::path::Path, arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(program).args(arguments).output().expect("it can be run");
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text.into_owned())
    };
    let check = ["plugin", "check", "--create", "--config"].map(std::ffi::OsStr::new);
    let mut arguments = check.to_vec();
    arguments.extend([config.as_os_str(), plugin.as_os_str()]);
    let (code, text) = run(&binaries().mayfly(), &arguments);
    assert_eq!(code, Some(0), "{text}");

    let (code, text) = run(&plugin, &["version".as_ref()]);
    assert_eq!((code, text.trim_end().lines().count()), (Some(0), 7), "{text}");
    assert!(text.contains(PLUGIN), "{text}");
    let (code, text) = run(&plugin, &[]);
    assert_eq!((code, text.trim_end().lines().count()), (Some(1), 3), "{text}");
}
