//! The real agent over pipes, as a manager drives it over SSH.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use job::compose::{Instance, Runner, compose};
use job::outcome::FailureReason;
use job::payload::Job;
use job::wire::{
    Attach, Cancel, Credit, Done, Finished, Frames, FromAgent, Go, ToAgent, encode, from_agent,
    to_agent,
};

/// A job with these scripts and no sources.
fn job(id: u64, script: &[&str], more: serde_json::Value) -> Job {
    let mut payload = serde_json::json!({
        "id": id, "token": "job-token", "runner_info": {"timeout": 60},
        "variables": [
            {"key": "GIT_STRATEGY", "value": "none"},
            {"key": "FF_TIMESTAMPS", "value": "false"},
            {"key": "HIDDEN", "value": "sesame-open", "masked": true},
        ],
        "steps": [{"name": "script", "script": script}],
    });
    let serde_json::Value::Object(more) = more else { panic!("an object") };
    for (key, value) in more {
        let known = &mut payload[&key];
        match (known.as_array_mut(), value) {
            (Some(known), serde_json::Value::Array(more)) => known.extend(more),
            (_, value) => *known = value,
        }
    }
    serde_json::from_value(payload).expect("a payload")
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn base(&self) -> PathBuf {
        self.0.path().join("base")
    }

    fn start(&self, args: &[&str]) -> Agent {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mayfly-agent"))
            .args(args)
            .env("HOME", self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
        Agent { child, stdin, stdout, frames: Frames::default(), log: Vec::new(), from: 0 }
    }

    fn wait_for_plan(&self, slot: u32) -> Agent {
        let base = self.base();
        let slot = slot.to_string();
        let mut agent =
            self.start(&["job", "--base", &base.display().to_string(), "--slot", &slot]);
        assert!(matches!(agent.next(), Some(from_agent::Message::Ready(_))));
        agent
    }

    fn attach(&self, job: &Job, from: u64) -> Agent {
        let base = self.base().display().to_string();
        let key = job::compose::job_key(job, &runner());
        let mut agent = self.start(&["attach", "--base", &base, "--job", &key]);
        agent.from = from;
        agent.say(to_agent::Message::Attach(Attach { from, ..Attach::default() }));
        agent.allow_all();
        agent
    }

    fn run(&self, job: &Job) -> (String, Finished) {
        let mut agent = self.wait_for_plan(0);
        agent.go(job, self.0.path());
        agent.allow_all();
        let finished = agent.finished();
        (agent.text(), finished)
    }

    fn job_dir(&self, job: &Job) -> PathBuf {
        self.base().join("jobs").join(job::compose::job_key(job, &runner()))
    }
}

fn runner() -> Runner {
    Runner { short_token: "abc".into(), output_limit_bytes: 4 << 20, ..Runner::default() }
}

struct Agent {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    frames: Frames,
    log: Vec<u8>,
    from: u64,
}

impl Agent {
    fn say(&mut self, message: to_agent::Message) {
        let frame = encode(&ToAgent::from(message));
        self.stdin.as_mut().expect("open").write_all(&frame).expect("the agent listens");
    }

    fn allow_all(&mut self) {
        self.say(to_agent::Message::Credit(Credit { until: u64::MAX }));
    }

    fn plan(&mut self, job: &Job, home: &Path) {
        self.plan_for(job, home, &runner());
    }

    fn plan_for(&mut self, job: &Job, home: &Path, runner: &Runner) {
        let instance = Instance {
            id: "i-1".into(),
            home: home.display().to_string(),
            slot: 0,
            arch: "amd64".into(),
            via: "test".into(),
            has_git: true,
        };
        let mut plan = compose(job, runner, &instance).expect("a plan");
        plan.protocol = 1;
        self.say(to_agent::Message::Plan(plan));
    }

    fn go(&mut self, job: &Job, home: &Path) {
        self.plan(job, home);
        assert!(matches!(self.next(), Some(from_agent::Message::Armed(_))));
        self.say(to_agent::Message::Go(Go {}));
    }

    fn next(&mut self) -> Option<from_agent::Message> {
        let mut buffer = [0; 64 * 1024];
        loop {
            if let Some(message) = self.frames.take::<FromAgent>().expect("frames") {
                return message.message;
            }
            match self.stdout.read(&mut buffer).expect("readable") {
                0 => return None,
                read => self.frames.push(&buffer[..read]),
            }
        }
    }

    /// Takes log frames until `stop` says so, or the end comes.
    fn listen(&mut self, stop: impl Fn(&Self) -> bool) -> Option<from_agent::Message> {
        while !stop(self) {
            match self.next() {
                Some(from_agent::Message::Log(log)) => {
                    assert_eq!(log.offset, self.from + self.log.len() as u64);
                    self.log.extend(log.data);
                }
                Some(from_agent::Message::Progress(_)) => {}
                other => return other,
            }
        }
        None
    }

    fn until_log_has(&mut self, text: &str) {
        self.listen(|agent| agent.text().contains(text));
        assert!(self.text().contains(text), "{}", self.text());
    }

    fn finished(&mut self) -> Finished {
        let finished = match self.listen(|_| false) {
            Some(from_agent::Message::Finished(finished)) => finished,
            other => panic!("{other:?} after {}", self.text()),
        };
        let end = self.listen(|agent| agent.from + agent.log.len() as u64 >= finished.log_bytes);
        assert!(end.is_none(), "{end:?} after {}", self.text());
        finished
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }

    /// Cuts the connection as a network does, and leaves the process alone.
    fn cut(mut self) -> Child {
        self.stdin = None;
        self.child
    }
}

fn outcome_of(finished: &Finished) -> (bool, FailureReason, Option<i32>) {
    let outcome = finished.outcome.clone().expect("an outcome");
    (outcome.success, outcome.reason(), outcome.exit_code)
}

fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Processes whose command line has this word.
fn running(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("procfs");
    let has = |entry: std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(word)
    };
    entries.flatten().filter_map(|entry| has(entry).then_some(())).count()
}

#[test]
fn a_job_runs_its_stages_and_says_how_it_ended() {
    let home = Home::new();
    let after = serde_json::json!({"steps": [{"name": "after_script", "script": ["echo status=$CI_JOB_STATUS"]}]});
    let (log, finished) = home.run(&job(1, &["echo hello $HIDDEN", "pwd"], after));
    assert_eq!(outcome_of(&finished), (true, FailureReason::UnknownFailure, None), "{log}");
    for text in [
        "hello [MASKED]",
        &format!("{}/builds/abc/0/project-0\n", home.0.path().display()),
        "Executing \"step_script\" stage of the job script",
        "Skipping Git repository setup",
        "status=success",
        "Job succeeded",
    ] {
        assert!(log.contains(text), "{text} in {log}");
    }
    assert!(!log.contains("sesame"), "{log}");
    assert_eq!(
        (finished.log_bytes, finished.log_crc32),
        (log.len() as u64, crc32fast::hash(log.as_bytes()))
    );
    let stages: Vec<_> = finished.timeline.iter().map(|stage| stage.stage.as_str()).collect();
    let expected =
        ["prepare_script", "get_sources", "step_script", "after_script", "cleanup_file_variables"];
    assert_eq!(stages, expected);
}

#[test]
fn a_failure_has_its_exit_code_and_after_script_still_runs() {
    let home = Home::new();
    let after = serde_json::json!({"steps": [{"name": "after_script", "script": ["echo status=$CI_JOB_STATUS"]}]});
    let (log, finished) = home.run(&job(1, &["echo before", "(exit 7)", "echo never"], after));
    assert_eq!(outcome_of(&finished), (false, FailureReason::ScriptFailure, Some(7)));
    assert!(
        log.contains("status=failed") && log.contains("ERROR: Job failed: exit code 7"),
        "{log}"
    );
    assert!(!log.contains("\nnever"), "{log}");
}

#[test]
fn scripts_get_file_variables_and_hand_on_variables() {
    let home = Home::new();
    let more = serde_json::json!({
        "variables": [{"key": "CONF", "value": "line one\nit's two", "file": true}],
        "steps": [{"name": "after_script", "script": ["echo handed=$HANDED"]}],
    });
    let script =
        ["cat \"$CONF\"", "stat -c %a \"$CONF\"", "echo HANDED=on >> \"$GITLAB_ENV\"", "cat"];
    let (log, finished) = home.run(&job(1, &script, more));
    assert!(finished.outcome.expect("an outcome").success, "{log}");
    assert!(
        log.contains("line one\nit's two") && log.contains("\n600\n") && log.contains("handed=on"),
        "{log}"
    );
    assert!(!home.0.path().join("builds/abc/0/project-0.tmp").exists());
}

#[test]
fn a_job_outlives_its_connection_and_is_joined_at_any_byte() {
    let home = Home::new();
    let script = ["for n in $(seq 1 30); do echo line $n; sleep 0.03; done"];
    let job = job(1, &script, serde_json::json!({}));
    let mut agent = home.wait_for_plan(0);
    agent.go(&job, home.0.path());
    agent.allow_all();
    agent.until_log_has("line 3");
    let mut seen = agent.log.clone();
    let mut first = agent.cut();

    for _ in 0..3 {
        let mut joined = home.attach(&job, seen.len() as u64);
        joined.listen(|agent| !agent.log.is_empty());
        seen.extend(&joined.log);
        joined.cut().kill().expect("killed");
    }
    let mut last = home.attach(&job, seen.len() as u64);
    let finished = last.finished();
    seen.extend(&last.log);
    let log = String::from_utf8_lossy(&seen).into_owned();
    for n in 1..=30 {
        assert_eq!(log.matches(&format!("line {n}\n")).count(), 1, "{log}");
    }
    assert!(finished.outcome.expect("an outcome").success);
    assert_eq!(finished.log_crc32, crc32fast::hash(&seen));
    last.say(to_agent::Message::Done(Done {}));
    eventually("the job's directory is removed", || !home.job_dir(&job).exists());
    assert!(first.wait().expect("ended").success());
}

#[test]
fn a_result_waits_on_disk_for_a_manager() {
    let home = Home::new();
    let job = job(1, &["echo alone; (exit 3)"], serde_json::json!({}));
    let mut agent = home.wait_for_plan(0);
    agent.go(&job, home.0.path());
    agent.cut().wait().expect("ended by itself");

    let mut joined = home.attach(&job, 0);
    let finished = joined.finished();
    assert_eq!(outcome_of(&finished), (false, FailureReason::ScriptFailure, Some(3)));
    assert!(joined.text().contains("alone"));
    assert_eq!(finished.log_crc32, crc32fast::hash(&joined.log));
    joined.say(to_agent::Message::Done(Done {}));
    eventually("the job's directory is removed", || !home.job_dir(&job).exists());
}

#[test]
fn a_killed_agent_leaves_no_script_and_no_verdict() {
    let home = Home::new();
    let marker = format!("4{:07}", std::process::id());
    let script = format!("sleep {marker} & echo up; sleep {marker}");
    let job = job(1, &[&script], serde_json::json!({}));
    let mut agent = home.wait_for_plan(0);
    agent.go(&job, home.0.path());
    agent.allow_all();
    agent.until_log_has("\nup\n");
    eventually("the script's processes run", || running(&marker) > 1);
    agent.child.kill().expect("killed");
    agent.child.wait().expect("reaped");
    assert!(running(&marker) > 0);

    let mut joined = home.attach(&job, 0);
    let end = joined.listen(|_| false);
    assert!(matches!(end, Some(from_agent::Message::Lost(_))), "{end:?}");
    assert!(joined.text().contains("\nup\n"));
    eventually("no process of the job is left", || running(&marker) == 0);
}

#[test]
fn a_cancel_stops_the_script_and_still_runs_after_script() {
    let home = Home::new();
    let after = serde_json::json!({"steps": [{"name": "after_script", "script": ["echo status=$CI_JOB_STATUS"]}]});
    let job = job(1, &["echo up", "sleep 1000"], after);
    let mut agent = home.wait_for_plan(0);
    agent.go(&job, home.0.path());
    agent.allow_all();
    agent.until_log_has("\nup\n");
    let begun = Instant::now();
    agent.say(to_agent::Message::Cancel(Cancel {}));
    let finished = agent.finished();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(outcome_of(&finished), (false, FailureReason::JobCanceled, None));
    assert!(agent.text().contains("status=canceled"), "{}", agent.text());
}

#[test]
fn a_script_that_ignores_sigterm_is_killed_with_all_it_started() {
    let home = Home::new();
    let marker = format!("5{:07}", std::process::id());
    let script =
        format!("trap '' TERM; setsid nohup sleep {marker} & echo up; while :; do sleep 0.1; done");
    let job = job(1, &[&script], serde_json::json!({"runner_info": {"timeout": 1}}));
    let mut agent = home.wait_for_plan(0);
    agent.go(&job, home.0.path());
    agent.allow_all();
    let finished = agent.finished();
    assert_eq!(outcome_of(&finished).1, FailureReason::JobExecutionTimeout, "{}", agent.text());
    assert!(agent.text().contains("execution took longer than 1s seconds"), "{}", agent.text());
    eventually("no process of the job is left", || running(&marker) == 0);
}

#[test]
fn background_processes_live_until_the_end_of_the_job() {
    let home = Home::new();
    let marker = format!("6{:07}", std::process::id());
    let after = serde_json::json!({"steps": [{"name": "after_script", "script": [format!("pgrep -f 'sleep {marker}' >/dev/null && echo lives")]}]});
    let (log, finished) = home.run(&job(1, &[&format!("sleep {marker} &"), "echo up"], after));
    assert!(finished.outcome.expect("an outcome").success, "{log}");
    assert!(log.contains("\nlives\n"), "{log}");
    eventually("no process of the job is left", || running(&marker) == 0);
}

#[test]
fn the_log_is_sent_only_as_far_as_it_was_allowed() {
    let home = Home::new();
    let job = job(1, &["head -c 300000 /dev/zero | tr '\\0' x"], serde_json::json!({}));
    let mut agent = home.wait_for_plan(0);
    agent.go(&job, home.0.path());
    agent.say(to_agent::Message::Credit(Credit { until: 1000 }));
    agent.listen(|agent| agent.log.len() >= 1000);
    assert_eq!(agent.log.len(), 1000);
    // The job goes on without anyone reading.
    eventually("the job ends", || {
        std::fs::metadata(home.job_dir(&job).join("result")).is_ok_and(|m| m.len() > 0)
    });
    agent.allow_all();
    let finished = agent.finished();
    assert_eq!(finished.log_crc32, crc32fast::hash(&agent.log));
    assert!(agent.log.len() > 300_000);
}

#[test]
fn twenty_megabytes_are_kept_byte_for_byte_or_cut_as_gitlab_cuts() {
    let script = ["seq 1 2700000"];
    let expected: String = (1..=2_700_000).map(|n| format!("{n}\n")).collect();
    assert!(expected.len() > 20_000_000);
    for limit in [64 << 20, 4 << 20] {
        let home = Home::new();
        let job = job(1, &script, serde_json::json!({}));
        let mut agent = home.wait_for_plan(0);
        agent.plan_for(&job, home.0.path(), &Runner { output_limit_bytes: limit, ..runner() });
        assert!(matches!(agent.next(), Some(from_agent::Message::Armed(_))));
        agent.say(to_agent::Message::Go(Go {}));
        agent.allow_all();
        let finished = agent.finished();
        assert!(finished.outcome.expect("an outcome").success);
        assert_eq!(finished.log_crc32, crc32fast::hash(&agent.log));
        let text = agent.text();
        if limit > expected.len() as u64 {
            assert!(text.contains(&expected));
        } else {
            assert!(
                text.contains("exceeded limit of 4194304 bytes"),
                "{}",
                &text[text.len() - 300..]
            );
            assert!(text.len() < 4_194_304 + 300);
        }
    }
}

#[test]
fn a_newcomer_takes_the_slot_of_an_agent_that_only_waits() {
    let home = Home::new();
    let old = home.wait_for_plan(0);
    let mut new = home.wait_for_plan(0);
    let mut old = old.cut();
    old.wait().expect("made room");

    let job = job(1, &["echo up", "sleep 2"], serde_json::json!({}));
    new.go(&job, home.0.path());
    new.allow_all();
    new.until_log_has("\nup\n");
    let base = home.base().display().to_string();
    let mut third = home.start(&["job", "--base", &base, "--slot", "0"]);
    match third.next() {
        Some(from_agent::Message::Refused(refused)) => {
            assert!(refused.message.contains("abc-1"), "{}", refused.message);
        }
        other => panic!("{other:?}"),
    }
    assert!(new.finished().outcome.expect("an outcome").success);
}

#[test]
fn the_same_job_never_runs_twice() {
    let home = Home::new();
    let job = job(1, &["echo up", "sleep 1"], serde_json::json!({}));
    let mut agent = home.wait_for_plan(0);
    agent.go(&job, home.0.path());
    agent.allow_all();
    agent.until_log_has("\nup\n");
    let mut other = home.wait_for_plan(1);
    other.plan(&job, home.0.path());
    match other.next() {
        Some(from_agent::Message::Refused(refused)) => assert!(refused.already_running),
        other => panic!("{other:?}"),
    }
    agent.finished();
}

#[test]
fn a_plan_without_go_leaves_nothing() {
    let home = Home::new();
    let job = job(1, &["touch ran"], serde_json::json!({}));
    let mut agent = home.wait_for_plan(0);
    agent.plan(&job, home.0.path());
    assert!(matches!(agent.next(), Some(from_agent::Message::Armed(_))));
    assert!(home.job_dir(&job).exists());
    agent.cut().wait().expect("ended");
    assert!(!home.job_dir(&job).exists());
    assert!(!home.0.path().join("builds").exists());
}

#[test]
fn a_full_disk_still_ends_with_a_true_result() {
    let home = Home::new();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"])
        .arg(home.0.path())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("skipped: mounting a small tmpfs needs root");
        return;
    }
    let script = [
        "dd if=/dev/zero of=filler bs=64k 2>/dev/null || echo full",
        "head -c 1000000 /dev/zero | tr '\\0' x",
        "(exit 9)",
    ];
    let job = job(1, &script, serde_json::json!({}));
    let mut agent = home.wait_for_plan(0);
    agent.go(&job, home.0.path());
    agent.cut().wait().expect("ended");
    let mut joined = home.attach(&job, 0);
    let finished = joined.finished();
    let log = joined.text();
    drop(joined);
    Command::new("umount").arg("-l").arg(home.0.path()).status().expect("unmounted");
    assert_eq!(outcome_of(&finished), (false, FailureReason::ScriptFailure, Some(9)));
    assert!(log.contains("\nfull\n") && log.len() > 1_000_000, "{} bytes", log.len());
}
