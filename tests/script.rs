//! A provider that is a script, under `mayfly run`: real jobs on instances that a few
//! lines of shell hand out.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use support::{GitLab, JobSpec, Manager, Runner, Sshd, State, binaries, seconds, until};
use tempfile::TempDir;

/// Hands out the machines of the file `machines`; `taken` has a file for each that is.
/// With one argument it is of mode `ops`, with four it is told a number.
const PROVIDER: &str = r#"#!/bin/sh
set -eu
cd "${0%/*}"
request=$(cat)
# Calls come at the same time.
exec 9>lock
flock 9
listed() { printf '%s' "$request" | sed -n "s/.*\"$1\":\[\([^]]*\)\].*/\1/p" | tr -d '"' | tr , ' '; }
take() {
    while read -r machine; do
        ! grep -qxF "$machine" taken/* 2>/dev/null || continue
        printf '%s\n' "$machine" >"taken/$1"
        return 0
    done <machines
    echo "all machines are taken" >&2
    return 1
}
[ ! -f broken ] || { cat broken >&2; exit 1; }
echo "$@" >>calls
if [ $# -eq 4 ]; then
    n=0
    while [ "$(ls taken | wc -l)" -lt "$2" ]; do n=$((n + 1)); take "i-$$-$n"; done
    for id in $(listed delete); do rm -f "taken/$id"; done
    exit
fi
case $1 in
create)
    for token in $(listed tokens); do take "i-$token"; done
    echo "{\"created\": [\"i-$token\"]}"
    ;;
delete)
    ids=
    for id in $(listed instances); do rm -f "taken/$id"; ids="$ids,\"$id\""; done
    echo "{\"deleted\": [${ids#,}]}"
    ;;
list)
    entries=
    for file in taken/*; do
        [ -f "$file" ] || continue
        read -r address user key <"$file"
        entries="$entries,{\"id\":\"${file#taken/}\",\"state\":\"running\",\"address\":\"$address\",\"user\":\"$user\",\"key_path\":\"$key\"}"
    done
    echo "{\"instances\": [${entries#,}]}"
    ;;
*) exit 64 ;;
esac
"#;

/// The provider's directory, and the machines it hands out.
struct Provider {
    directory: TempDir,
    sshd: Sshd,
}

impl Provider {
    fn start(machines: u8) -> Option<Self> {
        let sshd = Sshd::setup().machines(machines).start()?;
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("taken")).expect("made");
        let line = |machine: &support::sshd::Machine| {
            format!("{} {} {}\n", machine.address, machine.user(), machine.key_path.display())
        };
        let lines: String = sshd.machines().iter().map(line).collect();
        std::fs::write(at("machines"), lines).expect("written");
        std::fs::write(at("provider.sh"), PROVIDER).expect("written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(at("provider.sh"), mode).expect("set");
        Some(Self { directory, sshd })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn program(&self) -> String {
        self.path("provider.sh").display().to_string()
    }

    fn taken(&self) -> usize {
        std::fs::read_dir(self.path("taken")).expect("readable").count()
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.path("calls")).unwrap_or_default()
    }

    fn ops(&self, gitlab: &GitLab) -> Runner {
        Runner::new(gitlab, binaries().plugin("script"))
            .plugin_config("mode", "ops")
            .plugin_config("command", self.program())
    }

    fn count(&self, gitlab: &GitLab) -> Runner {
        Runner::new(gitlab, binaries().plugin("script"))
            .plugin_config("mode", "count")
            .plugin_config("name", "builders")
            .plugin_config("scale", self.program())
            .plugin_config("list", self.program())
            .plugin_config("state_file", self.path("told.json").display().to_string())
    }
}

#[test]
fn jobs_run_on_what_a_script_makes_and_all_is_given_back() {
    let Some(provider) = Provider::start(2) else { return };
    let gitlab = GitLab::start();
    let runner = provider.ops(&gitlab).max_instances(2).idle_time(seconds(1));
    let mut manager = Manager::start(runner);
    let jobs = gitlab.enqueue_many(4, &JobSpec::script(["echo on $(id -un)"]));
    for audit in gitlab.wait_for_all(&jobs, seconds(60)) {
        assert_eq!(audit.state, State::Success, "{}", gitlab.trace(audit.job));
        let trace = gitlab.trace(audit.job);
        let users = provider.sshd.machines().iter().map(|machine| machine.user());
        assert!(users.into_iter().any(|user| trace.contains(&format!("on {user}"))), "{trace}");
    }
    until("all machines are given back", seconds(30), || provider.taken() == 0);

    // Killed while idle: the next job finds it started again.
    manager.plugins().iter().for_each(support::processes::Process::kill);
    let job = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(job, State::Success, seconds(60));
    manager.interrupt();
    assert_eq!(manager.wait_for_exit(seconds(30)).code, Some(130));
}

#[test]
fn a_script_that_fails_costs_a_job_only_time_and_its_words_are_in_the_log() {
    let Some(provider) = Provider::start(1) else { return };
    let gitlab = GitLab::start();
    let mut manager = Manager::start(provider.ops(&gitlab).max_instances(1));
    manager.wait_until_up();
    std::fs::write(provider.path("broken"), "the hypervisor is on fire\n").expect("written");
    let job = gitlab.enqueue(JobSpec::script(["true"]));
    manager.wait_for_log("the hypervisor is on fire", seconds(30));
    std::fs::remove_file(provider.path("broken")).expect("removed");
    gitlab.wait_for(job, State::Success, seconds(60));
}

/// The host deletes the idle instance; the provider, which is told a number and the ids,
/// does not touch the one with the job.
#[test]
fn a_provider_that_is_told_a_number_keeps_the_instance_with_the_job() {
    let Some(provider) = Provider::start(2) else { return };
    let gitlab = GitLab::start();
    let runner = provider.count(&gitlab).max_instances(2).idle_time(seconds(1));
    let mut manager = Manager::start(runner);
    let long = gitlab.enqueue(JobSpec::script(["echo ready", "sleep 6"]));
    let short = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for_trace(long, "ready", seconds(60));
    gitlab.wait_for(short, State::Success, seconds(60));
    until("the idle one is given back", seconds(30), || provider.calls().contains("scalein"));
    until("one is left", seconds(10), || provider.taken() == 1);
    assert_eq!(gitlab.wait_for(long, State::Success, seconds(30)).state, State::Success);
    until("the other one too", seconds(30), || provider.taken() == 0);
    let calls = provider.calls();
    let told: Vec<&str> = calls.lines().filter(|line| line.starts_with("builders ")).collect();
    assert!(told.iter().all(|line| !line.starts_with("builders 3")), "{calls}");
    let last = told.last().copied().unwrap_or_default();
    assert!(last.starts_with("builders 0 ") && last.ends_with(" scalein"), "{calls}");
    manager.interrupt();
    manager.wait_for_exit(seconds(30));
}

/// A create hangs when the manager is killed.
#[test]
fn a_manager_that_is_killed_leaves_no_script_behind() {
    let Some(provider) = Provider::start(1) else { return };
    let gitlab = GitLab::start();
    let hanging = PROVIDER.replace("create)\n", "create)\n    [ -f go ] || sleep 1000\n");
    std::fs::write(provider.path("provider.sh"), hanging).expect("written");
    // The next manager counts what was asked for, and may create another one.
    let mut manager = Manager::start(provider.ops(&gitlab).max_instances(2));
    let job = gitlab.enqueue(JobSpec::script(["true"]));
    let scripts = || support::processes::mentioning(&provider.program()).len();
    until("a create hangs", seconds(30), || provider.calls().contains("create"));
    assert!(scripts() >= 2, "the guard and the script");
    manager.kill();
    manager.assert_nothing_left();
    until("the script is gone, too", seconds(5), || scripts() == 0);
    std::fs::write(provider.path("go"), "").expect("written");
    manager.restart();
    // A job that had no instance yet is the server's again.
    gitlab.wait_for(job, State::Failed, seconds(30));
    let next = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(next, State::Success, seconds(60));
}

#[test]
fn it_passes_the_check() {
    let Some(provider) = Provider::start(1) else { return };
    let check = |config: serde_json::Value| {
        let path = provider.path("config.json");
        std::fs::write(&path, config.to_string()).expect("written");
        let output = Command::new(binaries().mayfly())
            .args(["plugin", "check", "--create", "--config"])
            .args([path.as_path(), Path::new(&binaries().plugin("script"))])
            .output()
            .expect("it can be run");
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert_eq!(provider.taken(), 0, "{text}");
    };
    check(json!({"mode": "ops", "command": provider.program()}));
    check(json!({
        "mode": "count", "scale": provider.program(), "list": provider.program(),
        "state_file": provider.path("told.json"),
    }));
}
