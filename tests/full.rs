//! A state directory without room: no job begins that could not be written down, running
//! ones go on, and with room again everything goes on.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Endpoint, GitLab, JobSpec, Manager, Runner, State, seconds, skip};

/// A small file system in place of a directory; it goes with this value.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"])
            .arg(at)
            .output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a file");
        for size in [4096, 1] {
            let piece = vec![0; size];
            while ballast.write_all(&piece).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("removed");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_state_directory_stops_new_jobs_and_costs_the_running_ones_nothing() {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let runner = Runner::local(&gitlab).max_instances(2).capacity(2).idle_count(2);
    let mut manager = Manager::start(runner);
    manager.wait_until_up();
    manager.kill();
    let Some(small) = Small::mount(manager.state_dir()) else {
        skip!("mounting a small tmpfs needs root");
    };
    manager.restart();
    manager.wait_until_up();
    let script = "for n in $(seq 1 150); do echo line-$n-; sleep 0.1; done";
    let long = JobSpec::script([script, "exit 23"]).variable("FF_TIMESTAMPS", "false");
    let running = gitlab.enqueue(long);
    gitlab.wait_for_trace(running, "line-5-", seconds(60));

    small.fill();
    // What is written down of a job holds the words that its server knows; with so many of
    // them the file must grow.
    let known = ["script_failure", "runner_system_failure"].map(str::to_owned);
    let words: Vec<String> =
        known.into_iter().chain((0..4000).map(|n| format!("word_{n}"))).collect();
    let spec = JobSpec::script(["exit 5"]).feature("failure_reasons", words);
    let late = gitlab.enqueue_many(20, &spec);
    let ended = manager.wait_for_exit(seconds(60));
    assert_eq!(ended.code, Some(5), "{}", ended.log);
    assert!(ended.log.contains("no more jobs are taken"), "{}", ended.log);
    // Somebody starts it again and again; it asks for no job.
    let asked = gitlab.requests(Endpoint::RequestJob);
    manager.restart();
    let ended = manager.wait_for_exit(seconds(60));
    assert_eq!(ended.code, Some(5), "{}", ended.log);
    assert_eq!(gitlab.requests(Endpoint::RequestJob), asked, "{}", ended.log);
    assert!(!gitlab.audit(running).state.is_final(), "{}", gitlab.audit(running));

    small.make_room();
    manager.restart();
    let audit = gitlab.wait_for(running, State::Failed, seconds(60));
    assert_eq!(
        (audit.exit_code, audit.failure_reason.as_deref()),
        (Some(23), Some("script_failure"))
    );
    let trace = gitlab.trace(running);
    let lines: String = (1..=150).map(|n| format!("line-{n}-\n")).collect();
    assert!(trace.contains(&lines), "{trace}");
    let mut refused = 0;
    for job in late {
        // On its way when the manager ended, and never acknowledged: GitLab hands it out again.
        if gitlab.audit(job).state == State::HandedOut {
            gitlab.requeue(job);
        }
        let audit = gitlab.wait_for(job, State::Failed, seconds(60));
        match audit.failure_reason.as_deref() {
            Some("script_failure") => assert_eq!(audit.exit_code, Some(5)),
            // Taken before anyone knew, not begun, and said so.
            Some("runner_system_failure") => refused += 1,
            other => panic!("{other:?}: {audit}"),
        }
    }
    assert!(refused <= 4, "{refused} jobs were taken that could not begin");
}
