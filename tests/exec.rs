//! `mayfly exec`: a pipeline of a real repository on real local instances, and in real
//! containers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use support::binaries;
use support::processes::{self, Process};

const BUSYBOX: &str = "mayfly-test/busybox";
const DEBIAN: &str = "mayfly-test/debian";

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

    /// The same by a user without rights, but for one group's.
    fn exec_as_nobody(&self, group: Option<u32>, words: &[&str]) -> Ran {
        let state = self.path().with_extension("state");
        fs::create_dir_all(&state).expect("made");
        for path in [self.path(), &state] {
            let status = Command::new("chown").args(["-R", "65534:65534"]).arg(path).status();
            assert!(status.expect("chown is there").success());
        }
        let mut command = Command::new("setpriv");
        match group {
            Some(group) => command.args(["--groups", &group.to_string()]),
            None => command.arg("--clear-groups"),
        };
        command
            .args(["--reuid", "65534", "--regid", "65534"])
            .arg(binaries().mayfly())
            .arg("exec")
            .args(words)
            .current_dir(self.path())
            .env("XDG_STATE_HOME", &state)
            .env("TMPDIR", &state)
            .env("HOME", self.path());
        Ran::of(command.output().expect("it runs"))
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

/// The daemon that `tests/setup` started.
struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    /// The daemon, if it has these images; or what is missing.
    fn with(images: &[&str]) -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
        let daemon = Self { socket: root.join("target/docker/docker.sock") };
        for image in images {
            let output = daemon.docker(&["image", "inspect", image]);
            if !output.is_ok_and(|output| output.status.success()) {
                return Err(format!("no Docker daemon with image {image}: run tests/setup"));
            }
        }
        Ok(daemon)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn docker(&self, words: &[&str]) -> std::io::Result<Output> {
        Command::new("docker").args(["-H", &self.host()]).args(words).output()
    }

    /// Ids of containers, whatever their state, and networks that jobs of the repository's
    /// last commit have there.
    fn made_for(&self, repository: &Repository) -> Vec<String> {
        let head = Command::new("git")
            .args(["rev-parse", "HEAD"])
            .current_dir(repository.path())
            .output()
            .expect("git runs");
        let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
        let filter = format!("label=com.gitlab.gitlab-runner.job.sha={head}");
        let mut ids = Vec::new();
        for list in [&["ps", "-a"][..], &["network", "ls"]] {
            let words = [list, &["-q", "--filter", &filter]].concat();
            let output = self.docker(&words).expect("docker runs");
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            ids.extend(text.lines().map(str::to_owned));
        }
        ids
    }
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
    let mayfly = Process::read(i32::try_from(child.id()).expect("a pid")).expect("it runs");
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
    let ran = repository.exec_as_nobody(None, &["--json"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(log(&ran.json(), "a").contains("user 65534"), "{}", log(&ran.json(), "a"));
}

#[test]
fn jobs_run_in_containers_with_services_and_artifacts() {
    let daemon = match Daemon::with(&[BUSYBOX]) {
        Ok(daemon) => daemon,
        Err(missing) => support::skip!("{missing}"),
    };
    let repository = Repository::with(
        "stages: [build, test]\n\
         default: {image: mayfly-test/busybox}\n\
         build:\n  stage: build\n  image: {name: $WHICH, pull_policy: never, docker: {user: ci}}\n  \
         variables: {WHICH: mayfly-test/busybox}\n  \
         script: ['echo \"in $IMAGE of user $(id -u)\" > made', 'echo \"is $CI_JOB_IMAGE\"']\n  \
         artifacts: {paths: [made]}\n\
         test:\n  stage: test\n  services:\n    - name: mayfly-test/busybox\n      alias: web other\n      \
         command: [sh, -c, 'mkdir /www; echo $WORD > /www/word; exec httpd -f -p 8080 -h /www']\n      \
         variables: {WORD: a word, HEALTHCHECK_TCP_PORT: 8080}\n  \
         script: [cat made, 'wget -q -O - http://web:8080/word', 'wget -q -O - http://other:8080/word']\n\
         fails:\n  stage: test\n  script: [exit 7]\n  allow_failure: true\n",
    );
    let host = daemon.host();
    let ran = repository.exec(&["--json", "--executor", "docker", "--docker-host", &host]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let json = ran.json();
    let build = log(&json, "build");
    assert!(build.contains("\nis mayfly-test/busybox\n"), "{build}");
    let test = log(&json, "test");
    assert!(test.contains("\nin busybox of user 1000\n"), "{test}");
    assert_eq!(test.matches("\na word\n").count(), 2, "{test}");
    assert_eq!(job(&json, "fails")["exit_code"], 7);
    assert_eq!(daemon.made_for(&repository), [""; 0]);
}

#[test]
fn jobs_without_an_image_get_that_of_the_command_line() {
    let daemon = match Daemon::with(&[BUSYBOX]) {
        Ok(daemon) => daemon,
        Err(missing) => support::skip!("{missing}"),
    };
    let repository = Repository::with("a: {script: ['echo \"in $IMAGE\"']}\n");
    let mut command = repository.command(&["--json", "--executor", "docker", "--image", BUSYBOX]);
    let ran = Ran::of(command.env("DOCKER_HOST", daemon.host()).output().expect("mayfly runs"));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(log(&ran.json(), "a").contains("\nin busybox\n"));
}

/// How a run ends: its name, what is done to it, and its exit code.
type End<'a> = (&'a str, &'a dyn Fn(&Path, &Process), i32);

#[test]
fn an_interrupt_and_the_death_of_an_agent_leave_no_container() {
    let daemon = match Daemon::with(&[BUSYBOX]) {
        Ok(daemon) => daemon,
        Err(missing) => support::skip!("{missing}"),
    };
    let agent_dies = |directory: &Path, _: &Process| {
        let directory = directory.display().to_string();
        let agents = processes::mentioning(&directory);
        let agent = agents.iter().find(|process| process.args.iter().any(|arg| arg == "job"));
        agent.expect("the job's agent").kill();
    };
    let interrupt = |_: &Path, mayfly: &Process| mayfly.signal(rustix::process::Signal::INT);
    let ends: [End<'_>; 2] = [("interrupt", &interrupt, 130), ("the agent dies", &agent_dies, 1)];
    for (end, act, code) in ends {
        let repository = Repository::with(&format!(
            "# {end} {}\nlong:\n  image: {BUSYBOX}\n  \
             services: [{{name: {BUSYBOX}, command: [sleep, '600']}}]\n  \
             variables: {{FF_NETWORK_PER_BUILD: 1}}\n  script: [sleep 600]\n",
            std::process::id()
        ));
        let directory = tempfile::tempdir().expect("a directory");
        let child = repository
            .command(&["--executor", "docker", "--docker-host", &daemon.host()])
            .env("TMPDIR", directory.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("mayfly runs");
        // Job, service, network.
        support::until("the job runs", Duration::from_secs(60), || {
            daemon.made_for(&repository).len() == 3
        });
        let mayfly = Process::read(i32::try_from(child.id()).expect("a pid")).expect("it runs");
        act(directory.path(), &mayfly);
        let ran = Ran::of(child.wait_with_output().expect("it ends"));
        assert_eq!(ran.code, Some(code), "{end}: {}{}", ran.stdout, ran.stderr);
        assert_eq!(daemon.made_for(&repository), [""; 0], "{end}: {}", ran.stderr);
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 0, "{end}");
    }
}

/// Files that root makes in a container are removed, uploaded and fetched into by the user.
#[test]
fn an_ordinary_user_of_docker_owns_what_containers_make() {
    let daemon = match Daemon::with(&[DEBIAN]) {
        Ok(daemon) if rustix::process::geteuid().is_root() => daemon,
        Ok(_) => support::skip!("becoming an ordinary user needs root"),
        Err(missing) => support::skip!("{missing}"),
    };
    let group = fs::metadata(&daemon.socket).expect("a socket").gid();
    let repository = Repository::with(&format!(
        "default: {{image: {DEBIAN}}}\n\
         a: {{script: ['mkdir -m 700 d', 'echo \"user $(id -u)\" > d/f'], artifacts: {{paths: [d]}}}}\n\
         b: {{script: [cat d/f], needs: [a]}}\n"
    ));
    let host = daemon.host();
    let words = ["--json", "-n", "1", "--executor", "docker", "--docker-host", &host];
    let ran = repository.exec_as_nobody(Some(group), &words);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(log(&ran.json(), "b").contains("\nuser 0\n"), "{}", log(&ran.json(), "b"));
    let left = fs::read_dir(repository.path().with_extension("state")).expect("readable");
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["mayfly"], "only logs are left");
}

#[test]
fn containers_that_cannot_be_had_are_told_before_a_job_starts() {
    let image = Repository::with("a: {image: x, script: [x]}\n");
    let none = Repository::with("a: {script: [x]}\n");
    let docker = ["--executor", "docker", "--docker-host"];
    let directory = tempfile::tempdir().expect("a directory");
    let host = |name: &str| format!("unix://{}/{name}", directory.path().display());
    let (dead, missing) = (host("dead.sock"), host("missing.sock"));
    drop(UnixListener::bind(directory.path().join("dead.sock")).expect("bound"));
    let cases: &[(&Repository, &[&str], i32, &str)] = &[
        (&image, &[docker[0], docker[1], docker[2], &missing], 4, "no Docker daemon listens at"),
        (&image, &[docker[0], docker[1], docker[2], &dead], 4, "although its socket is there"),
        (&image, &[docker[0], docker[1], docker[2], "tcp://h:1"], 2, "unix:///PATH"),
        (&image, &[], 3, "`--executor docker`"),
        (&image, &["--image", "x"], 2, "--executor docker: add it"),
        (&image, &["--executor", "docker", "--isolation", "full"], 2, "leave --isolation out"),
        (&none, &[docker[0], docker[1], docker[2], &dead], 3, "names no image"),
    ];
    for (repository, words, code, expected) in cases {
        let ran = repository.exec(words);
        assert_eq!(ran.code, Some(*code), "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{expected} in {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{words:?}");
    }
    let mut command = image.command(&["--executor", "docker"]);
    let ran = Ran::of(command.env("DOCKER_HOST", "ssh://h").output().expect("mayfly runs"));
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert!(ran.stderr.contains("DOCKER_HOST is \"ssh://h\""), "{}", ran.stderr);
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
