//! A run in a directory of its own, and a client that writes requests by hand.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::coordinator::{
    pipeline,
    server::{Handle, Limits, Options, start},
    snapshot,
};

pub(super) const RUNNER: &str = "glrt-test";

pub(super) struct Rig {
    pub(super) handle: Handle,
    pub(super) address: SocketAddr,
    pub(super) root: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub(super) async fn rig(text: &str) -> Rig {
    rig_with(text, Limits { long_poll: Duration::from_millis(200), ..Limits::default() }).await
}

pub(super) async fn rig_with(text: &str, limits: Limits) -> Rig {
    let root = tempfile::tempdir().expect("a directory");
    let top = root.path().join("app");
    fs::create_dir(&top).expect("created");
    git_ok(&top, &["init", "--quiet", "--initial-branch=main"]);
    for n in 0..3 {
        fs::write(top.join("a.txt"), format!("{n}\n")).expect("written");
        git_ok(&top, &["add", "."]);
        git_ok(&top, &["commit", "--quiet", "-m", "commit"]);
    }
    fs::write(top.join("uncommitted.txt"), "yes\n").expect("written");
    let snapshot = snapshot::create(&top, &root.path().join("run")).await.expect("a snapshot");
    let pipeline = pipeline::compile(text, "f.yml", &snapshot.context, &[]).expect("compiles");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let (traces, artifacts) = (root.path().join("traces"), root.path().join("artifacts"));
    let options = Options { limits, ..Options::new(RUNNER, traces, artifacts) };
    let handle = start(listener, pipeline, &snapshot, options).expect("started");
    Rig { handle, address, root }
}

impl Rig {
    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        self.raw(&[text.as_bytes(), body].concat()).await
    }

    /// Sends bytes as they are and reads the answer to the end of the connection.
    pub(super) async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        // The server may answer and hang up before it has read everything.
        drop(stream.write_all(bytes).await);
        let mut text = Vec::new();
        let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut text)).await;
        drop(read.expect("an answer in time"));
        parse(&text)
    }

    /// Asks for a job: its payload, if there is one.
    pub(super) async fn request(&self) -> Option<Value> {
        let info = json!({ "features": { "cancel_gracefully": true } });
        let body = json!({ "token": RUNNER, "info": info }).to_string();
        let answer = self.send("POST", "/api/v4/jobs/request", &[], body.as_bytes()).await;
        assert!(!answer.header("x-gitlab-last-update").is_empty(), "{answer:?}");
        match answer.status {
            201 => Some(answer.json()),
            204 => None,
            _ => panic!("{answer:?}"),
        }
    }

    pub(super) async fn patch(&self, job: &Value, start: usize, text: &[u8]) -> Answer {
        let range = format!("{start}-{}", (start + text.len()).saturating_sub(1));
        self.patch_range(job, &range, text).await
    }

    pub(super) async fn patch_range(&self, job: &Value, range: &str, text: &[u8]) -> Answer {
        let path = format!("/api/v4/jobs/{}/trace?debug_trace=false", job["id"]);
        let headers = [("Content-Range", range), ("JOB-TOKEN", token(job))];
        self.send("PATCH", &path, &headers, text).await
    }

    pub(super) async fn put(&self, job: &Value, mut update: Value) -> Answer {
        update["token"] = job["token"].clone();
        let path = format!("/api/v4/jobs/{}", job["id"]);
        self.send("PUT", &path, &[], update.to_string().as_bytes()).await
    }

    pub(super) async fn upload(&self, job: &Value, name: &str, content: &[u8]) -> Answer {
        let head = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let body = [head.as_bytes(), content, b"\r\n--XX--\r\n"].concat();
        let path = format!(
            "/api/v4/jobs/{}/artifacts?artifact_format=zip&artifact_type=archive",
            job["id"]
        );
        let kind = ("Content-Type", "multipart/form-data; boundary=XX");
        self.send("POST", &path, &[kind, ("JOB-TOKEN", token(job))], &body).await
    }

    pub(super) async fn download(&self, id: &Value, token: &str) -> Answer {
        let path = format!("/api/v4/jobs/{id}/artifacts?direct_download=true");
        self.send("GET", &path, &[("JOB-TOKEN", token)], b"").await
    }

    /// How many files the directory of artifacts has.
    pub(super) fn artifact_files(&self) -> usize {
        fs::read_dir(self.path("artifacts")).expect("readable").count()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

pub(super) fn token(job: &Value) -> &str {
    job["token"].as_str().expect("a token")
}

pub(super) fn crc(text: &[u8]) -> String {
    format!("crc32:{:08x}", crc32fast::hash(text))
}

pub(super) fn git(directory: &Path, arguments: &[&str]) -> Output {
    Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .expect("git runs")
}

pub(super) fn git_ok(directory: &Path, arguments: &[&str]) -> String {
    let output = git(directory, arguments);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {words}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_string()
}

fn parse(text: &[u8]) -> Answer {
    let end = text.windows(4).position(|w| w == b"\r\n\r\n").map_or(text.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&text[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
        .collect();
    let mut body = text[end..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        body = unchunk(&body);
    }
    Answer { status, headers, body }
}

fn unchunk(mut text: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = text.windows(2).position(|w| w == b"\r\n") {
        let size = String::from_utf8_lossy(&text[..end]);
        let size = usize::from_str_radix(&size, 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        body.extend_from_slice(&text[end + 2..end + 2 + size]);
        text = &text[end + 4 + size..];
    }
    body
}
