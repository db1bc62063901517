//! The rules of the repository that a compiler does not check.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a file may have without its tests.
const FILE_LINES: usize = 400;
/// Names that stand for nothing in particular; what they would hold belongs elsewhere.
const EMPTY_NAMES: [&str; 5] = ["utils", "common", "helpers", "core", "types"];

/// Who may use whom inside the manager: a row changes only together with ARCHITECTURE.md.
const MANAGER_IMPORTS: &[(&str, &[&str])] = &[
    ("config", &["secret"]),
    ("secret", &[]),
    ("trust", &[]),
    ("events", &[]),
    ("history", &[]),
    ("gitlab", &["config", "secret", "trust"]),
    ("install", &["secret", "trust"]),
    ("plugin", &["config", "install"]),
    ("conformance", &[]),
    ("connect", &["secret"]),
    ("state", &["connect"]),
    ("group", &["config", "connect", "history", "plugin", "state"]),
    ("console", &["group"]),
    ("coordinator", &[]),
    ("runner", &["config", "events", "gitlab", "group", "history", "job_run", "secret", "state"]),
    ("job_run", &["connect", "events", "gitlab", "group", "history", "runner", "secret", "state"]),
    ("telemetry", &["cli"]),
    ("shutdown", &[]),
];

/// Crates that must not know the others, by the line in their manifest.
const CRATE_IMPORTS: &[(&str, &[&str])] = &[
    ("Cargo.toml", &[]),
    ("scheduler/Cargo.toml", &[]),
    ("job/Cargo.toml", &[]),
    ("plugins/sshd/Cargo.toml", &[]),
    ("agent/Cargo.toml", &["job"]),
    ("plugins/instances/Cargo.toml", &["mayfly-plugin", "sshd"]),
    ("plugins/aws/Cargo.toml", &["instances", "mayfly-plugin", "sshd"]),
    ("plugins/docker/Cargo.toml", &["instances", "mayfly-plugin", "sshd"]),
    ("plugins/local/Cargo.toml", &["instances", "mayfly-plugin", "sshd"]),
    ("plugins/mayfly/Cargo.toml", &["mayfly-plugin"]),
    ("plugins/script/Cargo.toml", &["mayfly-plugin"]),
    ("plugins/sim/Cargo.toml", &["instances", "mayfly-plugin", "sshd"]),
    ("manager/Cargo.toml", &["job", "mayfly-plugin", "scheduler"]),
];

/// Pure files have no clock, no IO, no randomness, no async.
const PURE: [&str; 5] = [
    "scheduler/src",
    "job/src/compose",
    "job/src/trace",
    "job/src/sequence.rs",
    "job/src/variables.rs",
];
const IMPURE: [&str; 8] = [
    "tokio",
    "std::fs",
    "std::net",
    "std::process",
    "Instant::now",
    "SystemTime::now",
    "rand::",
    "async fn",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// Rust files below a folder of the repository, as relative paths.
fn rust_files(below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![root().join(below)];
    while let Some(path) = next.pop() {
        if path.is_file() {
            if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).expect("inside").to_owned());
            }
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("target") || name.starts_with('.') || name == "dist" {
            continue;
        }
        next.extend(fs::read_dir(path).expect("readable").flatten().map(|entry| entry.path()));
    }
    found.sort();
    found
}

fn text(file: &Path) -> String {
    fs::read_to_string(root().join(file)).expect("readable")
}

/// The file without its tests.
fn code(file: &Path) -> String {
    let text = text(file);
    let end = text.find("\n#[cfg(test)]\nmod tests").map_or(text.len(), |at| at + 1);
    text[..end].to_owned()
}

fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs")
}

fn report(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

#[test]
fn files_are_short_enough_to_be_read() {
    let mut faults = Vec::new();
    for file in rust_files("").iter().filter(|file| !is_test(file)) {
        let lines = code(file).lines().count();
        if lines > FILE_LINES {
            faults.push(format!("{}: {lines} lines", file.display()));
        }
    }
    report("a file has at most 400 lines without tests; is there a decision to pull out?", &faults);
}

#[test]
fn files_begin_with_their_purpose() {
    let is_inner = |file: &Path| file.ends_with("tests.rs");
    let without: Vec<String> = rust_files("")
        .iter()
        .filter(|file| !is_inner(file) && !text(file).starts_with("//!"))
        .map(|file| file.display().to_string())
        .collect();
    report("a file begins with `//!` and one sentence of purpose", &without);
}

#[test]
fn no_name_stands_for_anything_at_all() {
    let mut faults = Vec::new();
    for file in rust_files("") {
        for part in file.components() {
            let name = part.as_os_str().to_string_lossy();
            if EMPTY_NAMES.contains(&name.trim_end_matches(".rs")) {
                faults.push(file.display().to_string());
            }
        }
    }
    report("modules are named after what they hold", &faults);
}

#[test]
fn lints_are_expected_not_allowed() {
    let mut faults = Vec::new();
    // What tests share is not all used by each of them.
    for file in rust_files("").iter().filter(|file| !is_test(file)) {
        for (number, line) in text(file).lines().enumerate() {
            let line = line.trim_start();
            if line.starts_with("#[allow(") || line.starts_with("#![allow(") {
                faults.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    report("write #[expect(lint, reason = \"…\")], so that it goes when it is not needed", &faults);
}

#[test]
fn nothing_unfinished_is_left() {
    let marks = ["todo!", "unimplemented!", "FIXME", "XXX", "#[ignore"];
    let mut faults = Vec::new();
    for file in rust_files("").iter().filter(|file| !file.ends_with("tidy.rs")) {
        for (number, line) in text(file).lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                faults.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    report("finish it, or write it into an issue", &faults);
}

#[test]
fn pure_files_stay_pure() {
    let mut faults = Vec::new();
    for file in PURE.iter().flat_map(|folder| rust_files(folder)).filter(|file| !is_test(file)) {
        for (number, line) in code(&file).lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            if let Some(word) = IMPURE.iter().find(|word| !is_comment && line.contains(**word)) {
                faults.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    report("these files have no clock, no IO, no randomness, no async", &faults);
}

#[test]
fn modules_of_the_manager_use_only_whom_they_may() {
    let mut faults = Vec::new();
    for (module, allowed) in MANAGER_IMPORTS {
        let places = [format!("manager/src/{module}.rs"), format!("manager/src/{module}")];
        for file in
            places.iter().filter(|place| root().join(place).exists()).flat_map(|p| rust_files(p))
        {
            for (number, line) in text(&file).lines().enumerate() {
                for used in modules_in(line) {
                    if used != *module && !allowed.contains(&used.as_str()) {
                        faults.push(format!(
                            "{}:{}: {module} uses {used}",
                            file.display(),
                            number + 1
                        ));
                    }
                }
            }
        }
    }
    report("see the table in ARCHITECTURE.md", &faults);
}

/// Modules of the crate's root that a line names after `crate::`.
fn modules_in(line: &str) -> Vec<String> {
    let named = line.match_indices("crate::").filter_map(|(at, word)| {
        let before = line[..at].chars().next_back();
        let is_path = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$');
        let rest = &line[at + word.len()..];
        let name: String =
            rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        let is_module = rest[name.len()..].starts_with("::");
        (!is_path && is_module && !name.is_empty()).then_some(name)
    });
    named.collect()
}

#[test]
fn crates_use_only_whom_they_may() {
    let ours = ["agent", "instances", "job", "mayfly-plugin", "manager", "scheduler", "sshd"];
    let mut faults = Vec::new();
    for (manifest, allowed) in CRATE_IMPORTS {
        let text = text(Path::new(manifest));
        let dependencies = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for line in dependencies.lines() {
            let name = line.split([' ', '.', '=']).next().unwrap_or_default();
            if ours.contains(&name) && !allowed.contains(&name) {
                faults.push(format!("{manifest}: {name}"));
            }
        }
    }
    report("see the table in ARCHITECTURE.md", &faults);
}

#[test]
fn versions_of_dependencies_are_in_one_place() {
    let mut faults = Vec::new();
    for (manifest, _) in CRATE_IMPORTS.iter().filter(|(manifest, _)| *manifest != "Cargo.toml") {
        for line in text(Path::new(manifest)).lines() {
            let is_dependency =
                line.contains(" = \"") && line.chars().next().is_some_and(char::is_lowercase);
            let known = ["name", "description", "path", "version", "doc"];
            let name = line.split([' ', '.']).next().unwrap_or_default();
            if is_dependency && !known.contains(&name) {
                faults.push(format!("{manifest}: {line}"));
            }
        }
    }
    report("write versions into the root manifest", &faults);
}
