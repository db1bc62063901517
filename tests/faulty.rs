//! A plugin that cannot be used costs one clear error that names it and says what to do,
//! and leaves nothing behind.

use std::path::{Path, PathBuf};

use support::{GitLab, Manager, Runner, binaries};
use tempfile::TempDir;

/// Exit code of a plugin that cannot be used: docs/exit-codes.md.
const PLUGIN: i32 = 4;
/// Longer errors are not read.
const LONGEST_BYTES: usize = 4000;

/// Scripts, and what the error says of them: fault and remedy.
const SCRIPTS: &[(&str, &[&str])] = &[
    ("exit-0", &["exited with status 0 before its handshake", "see its stderr"]),
    ("exit-3", &["exited with status 3", "no credentials: set CLOUD_TOKEN"]),
    ("segfault", &["signal 11"]),
    ("junk", &["hello world", "is it a fleeting plugin"]),
    ("banner", &["acme 1.0 starting", "does it print nothing before its handshake"]),
    ("colour", &["\\x1b[32m1|0|unix", "does it print nothing before its handshake"]),
    ("binary", &["\\xff\\xfe|0|unix"]),
    ("few-fields", &["1|0|unix", "not a go-plugin handshake"]),
    ("core-2", &["go-plugin core protocol 2, this host speaks 1"]),
    ("app-5", &["plugin protocol version 5, fleeting's is 0"]),
    ("netrpc", &["netrpc", "grpc only"]),
    ("udp", &["udp", "unix and tcp"]),
    ("far-away", &["192.0.2.1:10000 is refused", "loopback only"]),
    ("no-socket", &["/none is refused", "No such file"]),
    ("stale-socket", &["/plugin is refused", "refused (os error 111)"]),
    ("megabyte", &["xxxx…", "not a go-plugin handshake"]),
    ("closed-stdout", &["closed its stdout without a handshake"]),
    ("kept-stdout", &["exited with status 0 before its handshake"]),
    ("stubborn", &["go away"]),
    ("noisy", &["\"done\"", "noise noise noise"]),
    ("other-host", &["a plugin of another program, not a fleeting plugin"]),
];

/// Names of the program that misbehaves after its handshake.
const SPEAKING: &[(&str, &[&str])] = &[
    ("crash", &["exited with status 101 in Init", "nil map", "check `plugin_config`"]),
    ("exit", &["exited with status 0 in Init"]),
    ("foreign-socket", &["elsewhere is refused: it is not in"]),
    ("web-server", &["Init"]),
];

/// Files that are no plugins at all.
const FILES: &[(&str, &[&str])] = &[
    ("not-executable", &["chmod +x"]),
    ("directory", &["correct `plugin`"]),
    ("missing", &["there is no such file", "correct `plugin`"]),
    ("empty", &["it is not a program", "install it again"]),
    ("text", &["it is not a program", "install it again"]),
    ("torn", &["it is not a program", "install it again"]),
    ("s390x", &["it is built for s390x, this machine is", "build"]),
    ("no-interpreter", &["/nowhere/python9", "install it"]),
];

#[test]
fn a_script_that_is_no_plugin() {
    all(SCRIPTS, script);
}

#[test]
fn a_plugin_that_misbehaves_after_its_handshake() {
    let names = links(SPEAKING.iter().map(|(name, _)| *name));
    all(SPEAKING, |name| names.path().join(name));
}

#[test]
fn a_file_that_is_no_plugin() {
    let files = files();
    all(FILES, |name| files.path().join(name));
}

/// What only a deadline can tell: a minute each.
#[test]
fn a_plugin_that_does_not_answer() {
    let names = links(["mute"]);
    let table: [(&str, &[&str]); 2] = [
        ("silent", &["no handshake within 60 s"]),
        ("mute", &["Init did not answer within 60 s", "provider's API reachable"]),
    ];
    all(&table, |name| if name == "mute" { names.path().join(name) } else { script(name) });
}

/// All cases, some at a time; every one that fails is named.
fn all(table: &[(&str, &[&str])], path: impl Fn(&str) -> PathBuf + Sync) {
    const AT_A_TIME: usize = 4;
    let mut failed = Vec::new();
    for some in table.chunks(AT_A_TIME) {
        std::thread::scope(|scope| {
            let check = |(name, says): &(&str, &[&str])| refused(name, &path(name), says);
            let start = |case| (case, scope.spawn(move || check(case)));
            let threads: Vec<_> = some.iter().map(start).collect();
            let cases = threads
                .into_iter()
                .filter_map(|(case, thread)| thread.join().err().map(|_| case.0));
            failed.extend(cases);
        });
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// `mayfly run` with this plugin ends at once, with one error that says all this.
fn refused(name: &str, plugin: &Path, says: &[&str]) {
    let gitlab = GitLab::start();
    let mut manager = Manager::start(Runner::new(&gitlab, plugin));
    let ended = manager.wait_for_exit(support::seconds(90));
    let log = &ended.log;
    assert_eq!(ended.code, Some(PLUGIN), "{name}: {log}");
    assert_eq!(log.matches("error:").count(), 1, "{name}: one error: {log}");
    let (_, error) = log.split_once("error:").expect("it is there");
    assert!(error.contains(&plugin.display().to_string()), "{name}: names the binary: {log}");
    for part in says {
        assert!(error.contains(part), "{name}: says {part:?}: {log}");
    }
    assert!(error.len() < LONGEST_BYTES, "{name}: {} bytes: {log}", error.len());
    manager.assert_nothing_left();
}

fn script(name: &str) -> PathBuf {
    let file = format!("{name}.sh");
    Path::new(env!("CARGO_MANIFEST_DIR")).join("faulty-plugins").join(file)
}

/// The speaking program under these names.
fn links<'a>(names: impl IntoIterator<Item = &'a str>) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let program = binaries().path("faulty-plugin");
    for name in names {
        std::os::unix::fs::symlink(&program, directory.path().join(name)).expect("a link");
    }
    directory
}

fn files() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, content: &[u8], mode: u32| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&path, mode).expect("its mode");
    };
    let machine: u8 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    std::fs::create_dir(directory.path().join("directory")).expect("a directory");
    write("not-executable", b"#!/bin/sh\n", 0o644);
    write("empty", b"", 0o755);
    write("text", b"a text without #!\n", 0o755);
    write("torn", &elf(machine, 1)[..30], 0o755);
    write("s390x", &elf(22, 2), 0o755);
    write("no-interpreter", b"#!/nowhere/python9 -u\n", 0o755);
    directory
}

/// The head of an ELF program of this machine and byte order (1 little, 2 big).
fn elf(machine: u8, order: u8) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, order, 1]);
    let number = if order == 1 { [machine, 0] } else { [0, machine] };
    bytes[16..18].copy_from_slice(if order == 1 { &[2, 0] } else { &[0, 2] });
    bytes[18..20].copy_from_slice(&number);
    bytes
}
