//! `mayfly exec`: a pipeline of a real repository on real local instances.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use support::{binaries, processes};

struct Repository(tempfile::TempDir);

impl Repository {
    /// A repository with one commit that holds this pipeline.
    fn with(pipeline: &str) -> Self {
        let repository = Self(tempfile::tempdir().expect("a directory"));
        fs::write(repository.path().join(".gitlab-ci.yml"), pipeline).expect("written");
        fs::write(repository.path().join("committed"), "committed\n").expect("written");
        for words in [
            vec!["init", "-q"],
            vec!["add", "."],
            vec!["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"],
        ] {
            let status = Command::new("git").args(&words).current_dir(repository.path()).status();
            assert!(status.expect("git is installed").success(), "{words:?}");
        }
        repository
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binaries().mayfly());
        command
            .arg("exec")
            .args(words)
            .current_dir(self.path())
            .env("XDG_STATE_HOME", self.path().with_extension("state"))
            .env("TMPDIR", "/tmp");
        command
    }

    fn exec(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).output().expect("mayfly runs"))
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.path().with_extension("state"));
    }
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A job of `--json` by its name.
fn job<'a>(json: &'a Value, name: &str) -> &'a Value {
    let jobs = json["jobs"].as_array().expect("jobs");
    jobs.iter().find(|job| job["name"] == name).expect("the job")
}

fn log(json: &Value, name: &str) -> String {
    let path = job(json, name)["log"].as_str().expect("a log").to_owned();
    fs::read_to_string(path).expect("readable")
}

#[test]
fn a_pipeline_passes_with_artifacts_needs_and_what_is_not_committed() {
    let repository = Repository::with(
        "stages: [build, test]\n\
         variables: {GREETING: hello}\n\
         default: {before_script: [echo before]}\n\
         build:\n  stage: build\n  script: [mkdir -p out, \"echo $GREETING > out/file\", cat uncommitted committed]\n  \
         artifacts: {paths: [out/]}\n\
         free:\n  stage: test\n  needs: []\n  script: [test ! -e out]\n\
         test:\n  stage: test\n  script: [cat out/file]\n  after_script: [\"echo after $CI_JOB_STATUS\"]\n\
         wobbly:\n  stage: test\n  script: [exit 4]\n  allow_failure: true\n",
    );
    fs::write(repository.path().join("uncommitted"), "not committed\n").expect("written");
    let ran = repository.exec(&["--json"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let json = ran.json();
    assert_eq!(json["outcome"], "success");
    let build = log(&json, "build");
    assert!(
        build.contains("not committed\ncommitted\n") && build.contains("\nbefore\n"),
        "{build}"
    );
    let test = log(&json, "test");
    assert!(test.contains("\nhello\n") && test.contains("after success"), "{test}");
    assert_eq!(job(&json, "wobbly")["exit_code"], 4);
    let stages = job(&json, "test")["timeline"]["stages"].as_array().expect("stages");
    assert!(stages.iter().any(|stage| stage["name"] == "download_artifacts"), "{stages:?}");
}

#[test]
fn a_failure_shows_the_end_of_its_log_and_where_the_time_went() {
    let repository = Repository::with(
        "first:\n  stage: build\n  script: [echo the last words, exit 3]\n\
         second:\n  script: [echo never]\n",
    );
    let ran = repository.exec(&[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for text in [
        "the last words",
        "exit code 3",
        "- second: skipped",
        "seconds",
        "pipeline failed",
        "logs: ",
    ] {
        assert!(ran.stdout.contains(text), "{text} in {}", ran.stdout);
    }
    let widest = ran.stdout.lines().filter(|line| !line.contains('\x1b') && !line.contains('/'));
    assert!(widest.clone().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
}

#[test]
fn jobs_named_on_the_command_line_bring_what_they_need() {
    let repository = Repository::with(
        "a: {script: [echo a]}\nb: {script: [echo b], needs: [a]}\nc: {script: [exit 1]}\n",
    );
    let ran = repository.exec(&["--json", "b"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let names: Vec<_> =
        ran.json()["jobs"].as_array().expect("jobs").iter().map(|j| j["name"].clone()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn an_interrupt_stops_jobs_and_leaves_nothing() {
    let marker = format!("9{:07}", std::process::id());
    let repository = Repository::with(&format!("long: {{script: [echo up, sleep {marker}]}}\n"));
    let child = repository
        .command(&[])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("mayfly runs");
    support::until("the job runs", Duration::from_secs(60), || {
        processes::mentioning(&marker).iter().any(|process| process.runs("sleep"))
    });
    let mayfly =
        processes::Process::read(i32::try_from(child.id()).expect("a pid")).expect("it runs");
    mayfly.signal(rustix::process::Signal::INT);
    let ran = Ran::of(child.wait_with_output().expect("it ends"));
    assert_eq!(ran.code, Some(130), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("long: canceled"), "{}", ran.stdout);
    support::until("no process is left", Duration::from_secs(5), || {
        processes::mentioning(&marker).is_empty()
    });
}

#[test]
fn an_ordinary_user_runs_pipelines_too() {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        support::skip!("becoming an ordinary user needs root");
    }
    let repository = Repository::with("a: {script: ['echo user $(id -u)']}\n");
    let state = repository.path().with_extension("state");
    fs::create_dir_all(&state).expect("made");
    for path in [repository.path(), &state] {
        let status = Command::new("chown").args(["-R", "65534:65534"]).arg(path).status();
        assert!(status.expect("chown is there").success());
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(binaries().mayfly())
        .args(["exec", "--json"])
        .current_dir(repository.path())
        .env("XDG_STATE_HOME", &state)
        .env("HOME", repository.path());
    let ran = Ran::of(command.output().expect("it runs"));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(log(&ran.json(), "a").contains("user 65534"), "{}", log(&ran.json(), "a"));
}

#[test]
fn broken_pipeline_files_say_what_is_wrong_where() {
    let cases = [
        ("a: {script: [echo hi\n", ".gitlab-ci.yml:"),
        ("", "the file is empty"),
        ("a: {scrpt: [x], script: [x]}\n", "did you mean `script`?"),
        ("a:\n  image: alpine\n  script: [x]\n", ".gitlab-ci.yml:2:3"),
        ("a: {stage: nope, script: [x]}\n", "unknown stage"),
        ("a: {script: 7}\n", ".gitlab-ci.yml:1:"),
        ("a: {script: [x], needs: [b]}\n", "b"),
        ("a: {script: [x], needs: [b]}\nb: {script: [x], needs: [a]}\n", ".gitlab-ci.yml:"),
        ("a: {script: [x], timeout: soon}\n", "timeout"),
        ("a: {script: []}\n", "script"),
        ("include: other.yml\na: {script: [x]}\n", "include"),
        ("a: {script: [x]}\na: {script: [y]}\n", ".gitlab-ci.yml:2:"),
        ("a: {extends: .b, script: [x]}\n", "extends"),
        ("variables: [1]\na: {script: [x]}\n", "variables"),
    ];
    for (pipeline, expected) in cases {
        let repository = Repository::with(pipeline);
        let ran = repository.exec(&[]);
        assert_eq!(ran.code, Some(3), "{pipeline}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{expected} in {}", ran.stderr);
        assert!(ran.stderr.contains("error:"), "{}", ran.stderr);
        let json = repository.exec(&["--json"]).json();
        assert_eq!(json["outcome"], "error");
        assert!(!json["errors"].as_array().expect("errors").is_empty());
    }
}

#[test]
fn surroundings_that_do_not_do_are_told() {
    let empty = tempfile::tempdir().expect("a directory");
    let run = |dir: &Path, words: &[&str]| {
        let mut command = Command::new(binaries().mayfly());
        Ran::of(command.arg("exec").args(words).current_dir(dir).output().expect("it runs"))
    };
    let outside = run(empty.path(), &[]);
    assert_eq!(outside.code, Some(5));
    assert!(outside.stderr.contains("is not in a git repository"), "{}", outside.stderr);
    let repository = Repository::with("a: {script: [x]}\n");
    let missing = run(repository.path(), &["none.yml"]);
    assert_eq!(missing.code, Some(3));
    assert!(missing.stderr.contains("none.yml"), "{}", missing.stderr);
    let unknown = run(repository.path(), &["b"]);
    assert_eq!(unknown.code, Some(3), "{}", unknown.stderr);
    assert!(unknown.stderr.contains('b'), "{}", unknown.stderr);
}
