//! The life of jobs: taken, logged, ended, canceled, lost; and their artifacts.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::support::*;
use crate::coordinator::{
    JobOutcome, JobState, PipelineOutcome,
    server::{Event, EventKind, Limits},
};

const TWO_STAGES: &str = "
build: { stage: build, script: [make], artifacts: { paths: [out] } }
test: { script: [make test], after_script: [echo bye] }
";

async fn drain(events: &mut tokio::sync::broadcast::Receiver<Event>) -> Vec<String> {
    let mut seen = Vec::new();
    while let Ok(Ok(event)) = timeout(Duration::from_millis(200), events.recv()).await {
        seen.push(match event.kind {
            EventKind::JobQueued { job } => format!("queued {job}"),
            EventKind::JobTaken { job } => format!("taken {job}"),
            EventKind::JobRunning { job } => format!("running {job}"),
            EventKind::TraceAppended { job, offset, len } => format!("log {job} {offset}+{len}"),
            EventKind::TraceReset { job } => format!("reset {job}"),
            EventKind::JobFinished { job, outcome, .. } => format!("finished {job} {outcome:?}"),
            EventKind::PipelineFinished { outcome } => format!("over {outcome:?}"),
        });
    }
    seen
}

#[tokio::test]
async fn a_whole_run() {
    let rig = rig(TWO_STAGES).await;
    let mut events = rig.handle.events();
    let build = rig.request().await.expect("a job");
    assert_eq!(build["job_info"]["name"], "build");
    assert_eq!(rig.request().await, None, "the other one waits");
    let first = rig.patch(&build, 0, b"hello ").await;
    assert_eq!((first.status, first.header("range")), (202, "0-6"));
    assert_eq!(first.header("job-status"), "running");
    assert_eq!(first.header("x-gitlab-trace-update-interval"), "1");
    assert_eq!(rig.patch_range(&build, "6-11", b"world").await.status, 202, "an old runner's end");
    let text = b"hello world";
    let output = json!({ "checksum": crc(text), "bytesize": text.len() });
    let end = rig.put(&build, json!({ "state": "success", "output": output })).await;
    assert_eq!((end.status, end.header("job-status")), (200, "running"));
    assert_eq!(rig.put(&build, json!({ "state": "success" })).await.status, 200, "repeated");
    let other = rig.put(&build, json!({ "state": "failed" })).await;
    assert_eq!((other.status, other.header("job-status")), (403, "success"));
    assert_eq!(rig.patch(&build, 11, b"x").await.status, 403);
    assert_eq!(fs::read(rig.handle.trace_path(0)).expect("a log"), text);
    let test = rig.request().await.expect("the next job");
    assert_eq!(test["steps"][1]["name"], "after_script");
    let failed = json!({ "state": "failed", "failure_reason": "script_failure", "exit_code": 3 });
    assert_eq!(rig.put(&test, failed).await.status, 200);
    let outcome = timeout(Duration::from_secs(5), rig.handle.finished()).await;
    assert_eq!(outcome.expect("in time"), PipelineOutcome::Failed);
    assert_eq!(
        drain(&mut events).await,
        [
            "queued 0",
            "taken 0",
            "running 0",
            "log 0 0+6",
            "log 0 6+5",
            "finished 0 Success",
            "queued 1",
            "taken 1",
            "running 1",
            "finished 1 Failed { allowed: false }",
            "over Failed",
        ]
    );
    let jobs = rig.handle.jobs();
    assert_eq!(
        (jobs[1].exit_code, jobs[1].failure_reason.as_deref()),
        (Some(3), Some("script_failure"))
    );
    let times = jobs[0].times;
    assert!(times.queued <= times.taken && times.taken <= times.first_byte);
    assert!(times.first_byte <= times.finished && times.finished.is_some());
    let event = serde_json::to_value(&jobs).expect("serialises");
    assert_eq!(event[0]["state"]["finished"], "success");
    rig.handle.shutdown().await;
}

#[tokio::test]
async fn held_requests_end_at_once_when_there_is_a_job() {
    let limits = Limits { long_poll: Duration::from_secs(15), ..Limits::default() };
    let rig = rig_with(TWO_STAGES, limits).await;
    let build = rig.request().await.expect("a job");
    let started = Instant::now();
    let end = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.put(&build, json!({ "state": "success" })).await
    };
    let (next, _) = tokio::join!(rig.request(), end);
    assert_eq!(next.expect("a job")["job_info"]["name"], "test");
    assert!(started.elapsed() < Duration::from_secs(5));
    let held = rig.request();
    let shutdown = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        rig.handle.server_stop();
    };
    let (none, ()) = tokio::join!(held, shutdown);
    assert_eq!(none, None, "the end of the server ends it too");
}

#[tokio::test]
async fn tokens_are_checked_everywhere() {
    let rig = rig(TWO_STAGES).await;
    for path in ["/api/v4/jobs/request", "/api/v4/runners/verify"] {
        for body in [r#"{"token":"wrong"}"#, "{}", r#"{"token":null}"#] {
            let answer = rig.send("POST", path, &[], body.as_bytes()).await;
            assert_eq!(answer.status, 403, "{path} {body}");
        }
    }
    let verified =
        rig.send("POST", "/api/v4/runners/verify", &[("PRIVATE-TOKEN", RUNNER)], b"{}").await;
    assert_eq!((verified.status, verified.json()["token"].as_str()), (200, Some(RUNNER)));
    let mut job = rig.request().await.expect("a job");
    let right = job["token"].clone();
    for wrong in [json!("x"), json!(RUNNER), json!("")] {
        job["token"] = wrong;
        assert_eq!(rig.patch(&job, 0, b"x").await.status, 403);
        assert_eq!(rig.put(&job, json!({ "state": "success" })).await.status, 403);
        assert_eq!(rig.upload(&job, "a.zip", b"x").await.status, 403);
        assert_eq!(rig.download(&job["id"], token(&job)).await.status, 403);
    }
    job["token"] = right;
    for id in [json!(0), json!(2), json!(99), json!(u64::MAX)] {
        let other = json!({ "id": id, "token": job["token"] });
        assert!(matches!(rig.patch(&other, 0, b"x").await.status, 403 | 404), "{id}");
    }
    assert_eq!(rig.patch(&job, 0, b"x").await.status, 202);
}

#[tokio::test]
async fn the_rules_of_the_log() {
    let limits = Limits { trace_size: 1000, ..Limits::default() };
    let rig = rig_with("a: { script: [x] }", limits).await;
    let job = rig.request().await.expect("a job");
    let gap = rig.patch(&job, 5, b"x").await;
    assert_eq!((gap.status, gap.header("range")), (416, "0-0"));
    assert_eq!(rig.patch(&job, 0, b"hello").await.status, 202);
    let repeated = rig.patch(&job, 0, b"hello").await;
    assert_eq!((repeated.status, repeated.header("range")), (202, "0-5"));
    let rewind = rig.patch(&job, 0, b"hell").await;
    assert_eq!((rewind.status, rewind.header("range")), (416, "0-5"));
    for range in ["", "x", "bytes 5-5/6", "5-99", "5", "18446744073709551615-18446744073709551615"]
    {
        let status = rig.patch_range(&job, range, b"y").await.status;
        assert!(matches!(status, 400 | 416), "{range:?} {status}");
    }
    let path = format!("/api/v4/jobs/{}/trace", job["id"]);
    let headers = [("JOB-TOKEN", token(&job))];
    assert_eq!(rig.send("PATCH", &path, &headers, b"y").await.status, 400, "no Content-Range");
    assert_eq!(fs::read(rig.handle.trace_path(0)).expect("a log"), b"hello");
    assert_eq!(rig.patch(&job, 5, &[b'x'; 996]).await.status, 403, "too long");
    assert_eq!(rig.handle.jobs()[0].failure_reason.as_deref(), Some("trace_size_exceeded"));
    assert_eq!(rig.handle.result(), Some(PipelineOutcome::Failed));
}

#[tokio::test]
async fn a_log_that_did_not_arrive_whole_is_sent_again() {
    let rig = rig("a: { script: [x] }").await;
    let mut events = rig.handle.events();
    let job = rig.request().await.expect("a job");
    rig.patch(&job, 0, b"damaged").await;
    let output = json!({ "checksum": crc(b"correct"), "bytesize": 7 });
    let end = json!({ "state": "success", "output": output });
    assert_eq!(rig.put(&job, end.clone()).await.status, 412);
    assert_eq!(rig.patch(&job, 0, b"correct").await.status, 202);
    assert_eq!(rig.put(&job, end).await.status, 200);
    assert_eq!(fs::read(rig.handle.trace_path(0)).expect("a log"), b"correct");
    assert!(drain(&mut events).await.contains(&"reset 0".to_string()));
}

#[tokio::test]
async fn a_log_that_never_fits_does_not_hold_the_job_for_ever() {
    let rig = rig("a: { script: [x] }").await;
    let job = rig.request().await.expect("a job");
    let end = json!({ "state": "success", "checksum": "crc32:00000001" });
    let mut statuses = Vec::new();
    for _ in 0..4 {
        rig.patch(&job, 0, b"text").await;
        statuses.push(rig.put(&job, end.clone()).await.status);
    }
    assert_eq!(statuses, [412, 412, 412, 200]);
}

#[tokio::test]
async fn canceling_asks_then_turns_away() {
    let rig =
        rig("a: { script: [x] }\nb: { script: [x] }\nc: { stage: deploy, script: [x] }").await;
    let asked = rig.request().await.expect("a job");
    let body = json!({ "token": RUNNER, "info": { "features": {} } }).to_string();
    let blunt = rig.send("POST", "/api/v4/jobs/request", &[], body.as_bytes()).await.json();
    rig.handle.cancel();
    let keep_alive = rig.put(&asked, json!({ "state": "running" })).await;
    assert_eq!((keep_alive.status, keep_alive.header("job-status")), (200, "canceling"));
    let last_words = rig.patch(&asked, 0, b"bye").await;
    assert_eq!((last_words.status, last_words.header("job-status")), (202, "canceling"));
    let turned_away = rig.patch(&blunt, 0, b"x").await;
    assert_eq!((turned_away.status, turned_away.header("job-status")), (403, "canceled"));
    assert_eq!(rig.handle.result(), None);
    let end = json!({ "state": "failed", "failure_reason": "job_canceled" });
    assert_eq!(rig.put(&asked, end).await.status, 200);
    assert_eq!(rig.handle.result(), Some(PipelineOutcome::Canceled));
    let states: Vec<_> = rig.handle.jobs().iter().map(|job| job.state).collect();
    assert_eq!(states, [JobState::Finished(JobOutcome::Canceled); 3]);
}

#[tokio::test]
async fn aborting_does_not_wait() {
    let rig = rig("a: { script: [x] }").await;
    let job = rig.request().await.expect("a job");
    rig.handle.cancel();
    assert_eq!(rig.handle.result(), None);
    rig.handle.abort();
    assert_eq!(rig.handle.result(), Some(PipelineOutcome::Canceled));
    assert_eq!(rig.put(&job, json!({ "state": "running" })).await.status, 403);
}

#[tokio::test]
async fn a_silent_runner_loses_its_job() {
    let limits = Limits { silence: Duration::from_millis(1500), ..Limits::default() };
    let rig = rig_with("a: { script: [x] }", limits).await;
    rig.request().await.expect("a job");
    let outcome = timeout(Duration::from_secs(10), rig.handle.finished()).await;
    assert_eq!(outcome.expect("in time"), PipelineOutcome::Failed);
    let reason = rig.handle.jobs()[0].failure_reason.clone();
    assert_eq!(reason.as_deref(), Some("stuck_or_timeout_failure"));
}

#[tokio::test]
async fn artifacts_reach_those_who_depend_on_them() {
    let text = "
build: { stage: build, script: [x], artifacts: { paths: [out] } }
other: { stage: build, script: [x] }
test: { script: [x] }
needy: { script: [x], needs: [build] }
picky: { script: [x], needs: [{ job: build, artifacts: false }] }
";
    let limits = Limits { artifact_size: 1 << 20, ..Limits::default() };
    let rig = rig_with(text, limits).await;
    let build = rig.request().await.expect("build");
    let other = rig.request().await.expect("other");
    assert_eq!(rig.download(&build["id"], token(&build)).await.status, 404, "nothing yet");
    assert_eq!(rig.upload(&build, "out.zip", &vec![7; (1 << 20) + 1]).await.status, 413);
    assert_eq!(rig.upload(&build, "../../out.zip", &vec![7; 1 << 20]).await.status, 201);
    assert_eq!(rig.upload(&build, "out.zip", b"PK and more").await.status, 201, "again");
    let path = format!("/api/v4/jobs/{}/artifacts?artifact_type=junit", build["id"]);
    let headers =
        [("JOB-TOKEN", token(&build)), ("Content-Type", "multipart/form-data; boundary=X")];
    assert_eq!(rig.send("POST", &path, &headers, b"").await.status, 400);
    let plain = [("JOB-TOKEN", token(&build)), ("Content-Type", "text/plain")];
    let path = format!("/api/v4/jobs/{}/artifacts", build["id"]);
    assert_eq!(rig.send("POST", &path, &plain, b"x").await.status, 400);
    for job in [&build, &other] {
        assert_eq!(rig.put(job, json!({ "state": "success" })).await.status, 200);
    }
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(rig.request().await.expect("a job"));
    }
    let named = |name: &str| -> &Value {
        jobs.iter().find(|job| job["job_info"]["name"] == name).expect("is there")
    };
    for name in ["test", "needy"] {
        let dependency = &named(name)["dependencies"][0];
        assert_eq!(dependency["name"], "build", "{name}");
        assert_eq!(dependency["artifacts_file"], json!({ "filename": "out.zip", "size": 11 }));
        let got = rig.download(&dependency["id"], token(dependency)).await;
        assert_eq!((got.status, got.body.as_slice()), (200, &b"PK and more"[..]));
        assert_eq!(got.header("content-length"), "11");
        let by_own = rig.download(&dependency["id"], token(named(name))).await;
        assert_eq!(by_own.status, 200);
    }
    assert_eq!(named("picky")["dependencies"], json!([]));
    assert_eq!(rig.download(&build["id"], token(named("picky"))).await.status, 403);
    assert_eq!(rig.upload(&build, "late.zip", b"x").await.status, 403, "the job is over");
    assert_eq!(rig.artifact_files(), 1, "nothing half done is left");
}

#[tokio::test]
async fn many_runners_at_once_get_each_job_once() {
    let text: String = (0..60).map(|n| format!("j{n}: {{ script: [x] }}\n")).collect();
    let rig = std::sync::Arc::new(rig(&text).await);
    let tasks: Vec<_> = (0..80)
        .map(|_| {
            let rig = std::sync::Arc::clone(&rig);
            tokio::spawn(async move {
                let job = rig.request().await?;
                let mut sent = 0;
                for piece in [&b"one\n"[..], b"two\n", b"three\n"] {
                    assert_eq!(rig.patch(&job, sent, piece).await.status, 202);
                    sent += piece.len();
                }
                let sum = crc(b"one\ntwo\nthree\n");
                let output = json!({ "checksum": sum, "bytesize": sent });
                let end = json!({ "state": "success", "output": output });
                assert_eq!(rig.put(&job, end).await.status, 200);
                job["id"].as_u64()
            })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.extend(task.await.expect("no panic"));
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=60).collect::<Vec<_>>());
    assert_eq!(rig.handle.result(), Some(PipelineOutcome::Success));
}
