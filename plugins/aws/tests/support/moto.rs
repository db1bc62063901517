//! One moto server for a test process: AWS's calls, answered on this machine.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Starts the server and ends it when its stdin does, which is when this process ends.
const SCRIPT: &str = r#"
"$0" -m moto.server -H 127.0.0.1 -p 0 </dev/null 2>&1 &
server=$!
cat >/dev/null
kill "$server"
"#;

/// Where it listens; `None`, with the reason printed, where it is not installed. With `CI`
/// set, that is a failure.
pub(crate) fn address() -> Option<&'static str> {
    static ADDRESS: OnceLock<Option<String>> = OnceLock::new();
    ADDRESS.get_or_init(start).as_deref()
}

fn start() -> Option<String> {
    static STDIN: Mutex<Option<ChildStdin>> = Mutex::new(None);
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/moto/bin/python");
    if !python.exists() {
        let missing = format!("no {}: run tests/setup", python.display());
        assert!(std::env::var_os("CI").is_none(), "skipped in CI: {missing}");
        println!("skipped: {missing}");
        return None;
    }
    let mut child = Command::new("sh")
        .args(["-c", SCRIPT])
        .arg(python)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh runs");
    *STDIN.lock().expect("not poisoned") = child.stdin.take();
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut said = String::new();
    let address = loop {
        let line = lines.next().unwrap_or_else(|| panic!("moto ended: {said}")).expect("text");
        if let Some((_, address)) = line.split_once("Running on ") {
            break address.split_whitespace().next().expect("a word").to_owned();
        }
        said = said + &line + "\n";
    };
    // It must not block on its log.
    std::thread::spawn(move || {
        lines.for_each(drop);
        child.wait()
    });
    Some(address)
}
