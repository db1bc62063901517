//! The kit for plugin authors: `mayfly plugin check` finds each planted fault by its name
//! and no other, and lets good plugins pass; what `mayfly plugin new` writes is good.

#[path = "go/dummy.rs"]
#[expect(dead_code, reason = "the other tests in Go use more of it")]
mod dummy;
#[path = "go/program.rs"]
#[expect(dead_code, reason = "the other tests in Go use more of it")]
mod program;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde_json::{Value, json};
use support::processes::{descendants, mentioning};
use support::wait::look_until;
use support::{binaries, seconds, until};
use tempfile::TempDir;

/// Checks that run at the same time: they wait more than they work.
const AT_ONCE: usize = 4;
const TOKEN: &str = "token-of-the-test-5b1c";

/// The name of each planted fault, and the one check that finds it.
const FAULTS: &[(&str, &str)] = &[
    ("serves-by-hand", "by-hand"),
    ("silent-by-hand", "by-hand"),
    ("no-version", "version-word"),
    ("banner", "handshake"),
    ("socket-elsewhere", "socket-place"),
    ("picky-versions", "version-sets"),
    ("outlives-parent", "parent-gone"),
    ("not-serving", "health"),
    ("dies-at-interrupt", "interrupt"),
    ("freezes-at-terminate", "terminate"),
    ("chatters", "stdout"),
    ("chatters-at-start", "stdout"),
    ("never-ends", "ends"),
    ("bad-status", "ends"),
    ("leaves-socket", "socket-removed"),
    ("leaves-file", "files-left"),
    ("leaves-process", "processes-left"),
    ("crashes-before-init", "before-init"),
    ("takes-broken-config", "broken-config"),
    ("refuses-without-words", "broken-config"),
    ("needs-more", "init"),
    ("no-id", "group-id"),
    ("no-size", "max-size"),
    ("no-version-in-init", "version"),
    ("crashes-at-second-init", "init-again"),
    ("small-messages", "large-message"),
    ("no-list", "update"),
    ("empty-id", "ids"),
    ("twice-listed", "ids"),
    ("odd-state", "states"),
    ("forgetful-list", "list-repeats"),
    ("makes-at-zero", "increase-zero"),
    ("increase-hangs", "increase-answers"),
    ("increase-fails", "increase-answers"),
    ("one-too-many", "increase-count"),
    ("tells-too-many", "increase-count"),
    ("makes-none", "increase-count"),
    ("never-boots", "boots"),
    ("no-connect-info", "connect-info"),
    ("no-connector", "connect-info"),
    ("no-address", "connect-address"),
    ("odd-protocol", "connect-protocol"),
    ("no-times", "connect-times"),
    ("times-in-seconds", "connect-times"),
    ("no-user", "connect-login"),
    ("bad-key", "connect-key"),
    ("expires-in-nanos", "connect-expires"),
    ("expired", "connect-expires"),
    ("connects-anybody", "connect-unknown"),
    ("unhealthy", "heartbeat"),
    ("anybody-is-healthy", "heartbeat-unknown"),
    ("one-call-at-a-time", "concurrent"),
    ("short-list-while-busy", "concurrent"),
    ("cannot-suspend", "suspend"),
    ("shutdown-fails", "shutdown"),
    ("shutdown-deletes", "restart"),
    ("only-in-memory", "restart"),
    ("saves-at-shutdown", "crash"),
    ("tells-no-deletion", "decrease-tells"),
    ("deletes-nothing", "decrease"),
    ("deletes-all", "decrease-others"),
    ("deletes-once", "decrease-again"),
    ("deletes-known-only", "decrease-unknown"),
    ("odd-log-line", "log-lines"),
    ("long-log-line", "log-lines"),
    ("logs-config", "secrets"),
    ("logs-password", "secrets"),
    ("secret-in-error", "secrets"),
    ("many-lines", "error-texts"),
];

/// A plugin under the check, in a directory of its own.
struct Bench {
    directory: TempDir,
    config: Value,
    plugin: PathBuf,
    arguments: Vec<&'static str>,
    boot_limit: u32,
    call_limit: u32,
}

struct Verdict {
    code: Option<i32>,
    document: Value,
    text: String,
}

impl Bench {
    fn new(plugin: PathBuf, config: impl FnOnce(&Path) -> Value) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(directory.path());
        Self { directory, config, plugin, arguments: Vec::new(), boot_limit: 30, call_limit: 30 }
    }

    /// The planted plugin with this fault.
    fn planted(fault: &str) -> Self {
        let program = binaries().path("fleeting-plugin-planted");
        let mut bench = Self::new(
            PathBuf::new(),
            |directory| json!({"state": directory.join("state"), "token": TOKEN}),
        );
        bench.plugin = bench.directory.path().join(fault);
        std::os::unix::fs::symlink(program, &bench.plugin).expect("a link");
        bench
    }

    fn command(&self) -> Command {
        let config = self.directory.path().join("config.json");
        std::fs::write(&config, self.config.to_string()).expect("written");
        let mut command = Command::new(binaries().mayfly());
        command.args(["plugin", "check", "--config"]);
        command
            .arg(config)
            .arg(format!("--boot-limit={}", self.boot_limit))
            .arg(format!("--call-limit={}", self.call_limit))
            .args(&self.arguments)
            .arg(&self.plugin)
            .stdin(Stdio::null());
        command
    }

    fn check(&self) -> Verdict {
        let output = self.command().arg("--json").output().expect("mayfly can be run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let document = serde_json::from_str(&text).unwrap_or_default();
        Verdict { code: output.status.code(), document, text: text + &log }
    }

    /// Whether all is over soon: what was killed takes a moment to be gone.
    fn nothing_runs(&self) -> bool {
        let name = self.directory.path().display().to_string();
        look_until(seconds(30), || mentioning(&name).is_empty().then_some(())).is_some()
    }

    /// What the made-up provider still has.
    fn instances(&self) -> usize {
        let state = std::fs::read_to_string(self.directory.path().join("state"));
        state.unwrap_or_default().lines().filter(|line| line.starts_with("i-")).count()
    }
}

impl Verdict {
    /// Ids of the checks that ended like this.
    fn all(&self, outcome: &str) -> Vec<&str> {
        let checks = self.document["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let such = checks.iter().filter(|check| check["outcome"] == outcome);
        such.filter_map(|check| check["id"].as_str()).collect()
    }

    fn assert_passed(&self) {
        assert_eq!((self.code, self.all("failed")), (Some(0), vec![]), "{}", self.text);
        assert_eq!(self.all("skipped"), [""; 0], "{}", self.text);
        assert_eq!(self.document["left"], Value::Null, "{}", self.text);
    }
}

#[test]
fn each_planted_fault_is_found_and_no_other() {
    let queue: Mutex<VecDeque<_>> = Mutex::new(FAULTS.iter().collect());
    let next = || queue.lock().expect("no panic").pop_front();
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((fault, check)) = next() {
                    if let Some(what) = wrongly_judged(fault, check) {
                        wrong.lock().expect("no panic").push(what);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn wrongly_judged(fault: &str, check: &str) -> Option<String> {
    let bench = Bench::planted(fault);
    let verdict = bench.check();
    let is_found = verdict.code == Some(1) && verdict.all("failed") == [check];
    let is_hidden = !verdict.text.contains(TOKEN);
    // Only what cannot be deleted stays, and is told.
    let stays = if fault == "deletes-nothing" { 2 } else { 0 };
    let is_clean = bench.instances() == stays && verdict.document["left"].is_null() == (stays == 0);
    let is_over = bench.nothing_runs();
    let is_right = is_found && is_hidden && is_clean && is_over;
    (!is_right).then(|| {
        format!(
            "{fault} must fail {check} alone: found {is_found}, hidden {is_hidden}, clean {is_clean}, \
             over {is_over}: {:?}\n{}",
            verdict.all("failed"),
            verdict.text
        )
    })
}

#[test]
fn plugins_without_a_fault_pass() {
    let planted = Bench::planted("faultless");
    let verdict = planted.check();
    verdict.assert_passed();
    let checks = [verdict.all("passed"), verdict.all("not_applicable")].concat();
    let is_proven = |check: &&str| FAULTS.iter().any(|(_, finds)| finds == check);
    let unproven: Vec<_> = checks.iter().filter(|check| !is_proven(check)).collect();
    assert!(unproven.is_empty() && !checks.is_empty(), "no fault is planted for {unproven:?}");
    assert_eq!(planted.instances(), 0);
    let sim = |directory: &Path| json!({"state_dir": directory.join("sim"), "boot": "1s"});
    Bench::new(binaries().plugin("sim"), sim).check().assert_passed();
    let local = |directory: &Path| json!({"root": directory.join("local"), "isolation": "none"});
    Bench::new(binaries().plugin("local"), local).check().assert_passed();
    let minimal = |directory: &Path| json!({"machines": ["127.0.0.1:1", "127.0.0.1:2"], "taken": directory.join("taken")});
    Bench::new(binaries().plugin("minimal"), minimal).check().assert_passed();
}

#[test]
fn read_only_makes_no_instance() {
    let mut bench = Bench::planted("faultless");
    bench.arguments.push("--read-only");
    let verdict = bench.check();
    assert_eq!((verdict.code, verdict.all("failed")), (Some(0), vec![]), "{}", verdict.text);
    assert!(verdict.all("skipped").contains(&"increase-answers"), "{}", verdict.text);
    // Nothing was ever written.
    assert!(!bench.directory.path().join("state").exists());
}

/// Instances that were there before are others'.
#[test]
fn instances_of_others_stay() {
    let bench = Bench::planted("faultless");
    let state = bench.directory.path().join("state");
    std::fs::write(&state, "next 7\ni-3 0 up\ni-6 0 up\n").expect("written");
    bench.check().assert_passed();
    let left = std::fs::read_to_string(&state).expect("it is there");
    assert_eq!(left, "next 9\ni-3 0 up\ni-6 0 up\n");
}

#[test]
fn stopped_in_the_middle_it_removes_what_it_made() {
    let mut bench = Bench::planted("never-boots");
    bench.boot_limit = 600;
    let mut check = bench.command();
    check.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = check.spawn().expect("mayfly can be run");
    until("an instance is made", seconds(120), || bench.instances() > 0);
    let pid = i32::try_from(child.id()).expect("a pid");
    assert!(!descendants(pid).is_empty(), "its plugin runs");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = text + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("It was stopped before its end"), "{text}");
    assert_eq!(bench.instances(), 0, "{text}");
    assert!(bench.nothing_runs());
}

#[test]
fn the_report_fits_a_terminal_and_says_what_to_change() {
    let bench = Bench::planted("no-address");
    let output = bench.command().output().expect("mayfly can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for part in ["FAILED  connect-address", "both addresses are empty", "Why: ", "Change: "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("51 passed, 1 failed, 0 skipped, 1 not applicable."), "{text}");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("Makes up to 2 instances"), "{log}");
}

#[test]
fn what_is_no_plugin_is_told_by_the_exit_code() {
    let mut bench = Bench::planted("faultless");
    bench.plugin = "/nowhere/plugin".into();
    assert_eq!(bench.check().code, Some(4));
    let bench = Bench { config: json!([1]), ..Bench::planted("faultless") };
    assert_eq!(bench.check().code, Some(3));
}

#[test]
fn a_new_plugin_builds_and_passes_the_check() {
    let directory = tempfile::tempdir().expect("a directory");
    let new = directory.path().join("fleeting-plugin-acme");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let mut write = Command::new(binaries().mayfly());
    write.args(["plugin", "new", "acme", "--path"]).arg(&new).arg("--library").arg(repository);
    let written = write.output().expect("mayfly can be run");
    assert_eq!(written.status.code(), Some(0), "{written:?}");
    // Versions that are there already, and what is built of them by now.
    std::fs::copy(repository.join("Cargo.lock"), new.join("Cargo.lock")).expect("copied");
    let test = std::env::current_exe().expect("a test knows its path");
    let target = test.ancestors().nth(3).expect("a test lies in a target directory");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--offline", "--config", r#"profile.dev.package."*".debug=false"#])
        .arg("--target-dir")
        .arg(target)
        .current_dir(&new)
        .env("MAYFLY", binaries().mayfly())
        .output()
        .expect("cargo can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = text + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("test it_passes_the_check ... ok"), "{text}");
    assert!(!text.contains("warning"), "{text}");

    let again = write.output().expect("mayfly can be run");
    assert_eq!(again.status.code(), Some(1), "{again:?}");
}

/// `docs/plugins/checks.md` lists what they fail.
#[test]
fn plugins_in_go_are_checked() {
    let failed: [&[&str]; 3] = [
        &["parent-gone", "restart", "decrease-unknown"],
        &["parent-gone"],
        &["version-word", "parent-gone"],
    ];
    for (dummy, failed) in dummy::ALL.into_iter().zip(failed) {
        let Some(plugin) = dummy.build() else { return };
        let mut bench = Bench::new(plugin, |_| json!({"ListenSSH": true}));
        // Its Init makes a large key.
        bench.call_limit = 300;
        // Instances of the old ones never run.
        if !dummy.has_heartbeat {
            bench.arguments.push("--read-only");
        }
        let verdict = bench.check();
        assert_eq!(
            (verdict.code, verdict.all("failed")),
            (Some(1), failed.to_vec()),
            "{}",
            verdict.text
        );
    }
}
