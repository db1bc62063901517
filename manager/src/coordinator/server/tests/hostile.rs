//! Clients that do what none should; the server goes on.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::support::*;
use crate::coordinator::server::Limits;

#[tokio::test]
async fn malformed_requests() {
    let rig = rig("a: { script: [x] }").await;
    let huge_header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(500));
    for text in [
        "GARBAGE\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /api/v4/jobs/request HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /api/v4/jobs/request HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        "\0\0\0\0\r\n\r\n",
        &huge_header,
        &many_headers,
    ] {
        let answer = rig.raw(text.as_bytes()).await;
        assert!(matches!(answer.status, 0 | 400..=499 | 505), "{:?}", &text[..10.min(text.len())]);
    }
    for body in ["", "null", "[]", "{", "{\"token\":1}", "\u{1}", &"[".repeat(100_000)] {
        let answer = rig.send("POST", "/api/v4/jobs/request", &[], body.as_bytes()).await;
        assert!(matches!(answer.status, 400 | 403), "{answer:?}");
        assert!(answer.json()["message"].is_string());
    }
    for (method, path) in [
        ("GET", "/api/v4/jobs/request"),
        ("DELETE", "/api/v4/jobs/1"),
        ("PUT", "/api/v4/jobs/x"),
        ("PUT", "/api/v4/jobs/-1"),
        ("PUT", "/api/v4/jobs/99999999999999999999999"),
        ("GET", "/api/v4/projects"),
        ("POST", "/api/v4/runners"),
        ("GET", "/"),
        ("OPTIONS", "*"),
        ("GET", "/metrics"),
        ("PUT", "/api/v4/jobs/1%2f..%2f2"),
    ] {
        let status = rig.send(method, path, &[], b"{}").await.status;
        assert!(matches!(status, 400..=405), "{method} {path}: {status}");
    }
    assert!(rig.request().await.is_some(), "still serving");
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let rig = rig("a: { script: [x] }").await;
    let large = format!("{{\"token\":\"{}\"}}", "x".repeat(2 << 20));
    let answer = rig.send("POST", "/api/v4/jobs/request", &[], large.as_bytes()).await;
    assert!(matches!(answer.status, 413 | 0), "{}", answer.status);
    let job = rig.request().await.expect("a job");
    let answer = rig.patch(&job, 0, &vec![b'x'; 9 << 20]).await;
    assert!(matches!(answer.status, 413 | 0), "{}", answer.status);
    assert_eq!(rig.patch(&job, 0, b"fine").await.status, 202);
}

/// A patch whose sender goes away half way leaves the log as it was.
#[tokio::test]
async fn a_body_that_is_cut_off() {
    let rig = rig("a: { script: [x] }").await;
    let job = rig.request().await.expect("a job");
    rig.patch(&job, 0, b"one").await;
    for path in ["trace", "artifacts"] {
        let mut stream = TcpStream::connect(rig.address).await.expect("connected");
        let method = if path == "trace" { "PATCH" } else { "POST" };
        let head = format!(
            "{method} /api/v4/jobs/{}/{path} HTTP/1.1\r\nHost: x\r\nJOB-TOKEN: {}\r\n\
             Content-Type: multipart/form-data; boundary=XX\r\nContent-Range: 3-99\r\n\
             Content-Length: 97\r\n\r\n--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx",
            job["id"],
            token(&job)
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        drop(stream);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let next = rig.patch(&job, 3, b"two").await;
    assert_eq!((next.status, next.header("range")), (202, "0-6"));
    assert_eq!(rig.artifact_files(), 0);
}

/// Half-open connections use up the places; once they go, others are served.
#[tokio::test]
async fn too_many_connections_wait() {
    let limits =
        Limits { connections: 4, long_poll: Duration::from_millis(100), ..Limits::default() };
    let rig = rig_with("a: { script: [x] }", limits).await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(rig.address).await.expect("connected");
        stream.write_all(b"GET / HT").await.expect("sent");
        idle.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(timeout(Duration::from_millis(500), rig.request()).await.is_err());
    idle.clear();
    // The job went to the request that was given up if the server had not noticed yet.
    let answered = timeout(Duration::from_secs(5), rig.request()).await;
    assert!(answered.is_ok());
}

#[tokio::test]
async fn the_end_of_the_server_ends_stuck_connections() {
    let rig = rig("a: { script: [x] }").await;
    let mut stuck = TcpStream::connect(rig.address).await.expect("connected");
    stuck.write_all(b"POST /api/v4/jobs/request HTTP/1.1\r\nContent-Le").await.expect("sent");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let Rig { handle, root, .. } = rig;
    timeout(Duration::from_secs(15), handle.shutdown()).await.expect("in time");
    let mut text = Vec::new();
    let end = timeout(Duration::from_secs(5), stuck.read_to_end(&mut text)).await;
    assert!(end.is_ok(), "the connection is closed");
    drop(root);
}

#[tokio::test]
async fn what_is_not_utf8_or_negative_is_taken_as_it_comes() {
    let rig = rig("a: { script: [x] }").await;
    let job = rig.request().await.expect("a job");
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(rig.patch(&job, 0, &bytes).await.status, 202);
    let odd = json!({ "state": "failed", "exit_code": -1, "failure_reason": "x".repeat(5000) });
    assert_eq!(rig.put(&job, odd).await.status, 200);
    let status = &rig.handle.jobs()[0];
    assert_eq!(status.exit_code, Some(-1));
    assert_eq!(status.failure_reason.as_ref().map(String::len), Some(100));
}
