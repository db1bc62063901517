//! The fake GitLab keeps GitLab's rules: what passes here passes there.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Endpoint, Event, Fault, GitLab, JobId, JobSpec, State, seconds};

/// What an HTTP call was answered.
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// A runner that says what a test wants, and believes what it is told.
struct Client<'a> {
    gitlab: &'a GitLab,
    last_update: String,
}

/// A job as the client got it.
struct Got {
    id: JobId,
    token: String,
    payload: Value,
}

impl<'a> Client<'a> {
    fn new(gitlab: &'a GitLab) -> Self {
        Self { gitlab, last_update: String::new() }
    }

    /// `None` if the connection ended without a whole answer.
    fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Reply> {
        let url = self.gitlab.url();
        let host = url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).expect("it listens");
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let reply = Reply { status, head, body: answer.split_off(end + 4) };
        let length = reply.header("content-length").and_then(|length| length.parse().ok());
        (length.unwrap_or(reply.body.len()) == reply.body.len()).then_some(reply)
    }

    fn api(&self, method: &str, path: &str, body: &Value) -> Reply {
        let path = format!("/api/v4/{path}");
        self.call(method, &path, &[], body.to_string().as_bytes()).expect("an answer")
    }

    fn ask(&mut self) -> Option<Got> {
        let token = self.gitlab.token();
        let body = json!({"token": token, "last_update": self.last_update});
        let reply = self.api("POST", "jobs/request", &body);
        self.last_update = reply.header("x-gitlab-last-update").expect("a version").to_owned();
        assert!(matches!(reply.status, 201 | 204), "{}", reply.status);
        (reply.status == 201).then(|| {
            let payload = reply.json();
            Got {
                id: JobId(payload["id"].as_u64().expect("an id")),
                token: payload["token"].as_str().expect("a token").into(),
                payload,
            }
        })
    }

    fn put(&self, job: &Got, state: &str, more: &Value) -> Reply {
        let mut body = json!({"token": job.token, "state": state});
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        self.api("PUT", &format!("jobs/{}", job.id), &body)
    }

    fn patch(&self, job: &Got, from: usize, bytes: &[u8]) -> Reply {
        let range = format!("{from}-{}", from + bytes.len() - 1);
        let headers = [("content-range", range.as_str()), ("job-token", &job.token)];
        let path = format!("/api/v4/jobs/{}/trace", job.id);
        self.call("PATCH", &path, &headers, bytes).expect("an answer")
    }
}

fn output(log: &[u8]) -> Value {
    let checksum = format!("crc32:{:08x}", crc32fast::hash(log));
    json!({"output": {"checksum": checksum, "bytesize": log.len()}})
}

#[test]
fn a_job_lives_as_at_gitlab() {
    let gitlab = GitLab::start();
    let mut client = Client::new(&gitlab);
    let spec = JobSpec::script(["echo hi"]).before(["echo first"]).after_script(["echo bye"]);
    let id = gitlab.enqueue(spec.masked("SECRET", "hunter22").timeout(seconds(77)));
    let job = client.ask().expect("a job");
    assert_eq!((job.id, gitlab.audit(id).state), (id, State::HandedOut));
    assert_eq!(job.payload["steps"][0]["script"], json!(["echo first", "echo hi"]));
    assert_eq!(job.payload["steps"][1]["when"], "always");
    assert_eq!(job.payload["runner_info"]["timeout"], 77);

    let acknowledged = client.put(&job, "running", &json!({}));
    assert_eq!((acknowledged.status, acknowledged.header("job-status")), (200, Some("running")));
    let patched = client.patch(&job, 0, b"hello\n");
    assert_eq!((patched.status, patched.header("range")), (202, Some("0-6")));
    assert_eq!(patched.header("x-gitlab-trace-update-interval"), Some("3"));
    assert_eq!(client.patch(&job, 6, b"world\n").header("range"), Some("0-12"));
    for (offset, why) in [(20, "a gap"), (3, "a rewind")] {
        let refused = client.patch(&job, offset, b"x");
        assert_eq!((refused.status, refused.header("range")), (416, Some("0-12")), "{why}");
    }
    let mut end = output(b"hello\nworld\n");
    end["failure_reason"] = "script_failure".into();
    end["exit_code"] = 3.into();
    assert_eq!(client.put(&job, "failed", &end).status, 200);

    let audit = gitlab.wait_for(id, State::Failed, seconds(1));
    assert_eq!(audit.failure_reason.as_deref(), Some("script_failure"));
    assert_eq!((audit.exit_code, gitlab.trace(id).as_str()), (Some(3), "hello\nworld\n"));
    assert!(audit.acknowledged() <= audit.first_byte() && audit.first_byte() <= audit.ended());
    let late = client.put(&job, "running", &json!({}));
    assert_eq!((late.status, late.header("job-status")), (403, Some("failed")));
}

#[test]
fn a_wrong_checksum_asks_for_the_whole_log() {
    let gitlab = GitLab::start();
    let id = gitlab.enqueue(JobSpec::script(["true"]));
    let mut client = Client::new(&gitlab);
    let job = client.ask().expect("a job");
    client.patch(&job, 0, b"log");
    gitlab.corrupt_trace(id);
    assert_eq!(client.put(&job, "success", &output(b"log")).status, 412);
    assert_eq!(client.patch(&job, 0, b"log").status, 202);
    assert_eq!(client.put(&job, "success", &output(b"log")).status, 200);
    let audit = gitlab.wait_for(id, State::Success, seconds(1));
    assert_eq!(audit.count(|event| *event == Event::LogDiffers), 1);
}

#[test]
fn a_request_is_held_until_a_job_comes() {
    let gitlab = GitLab::start();
    gitlab.set_hold(seconds(5));
    let mut client = Client::new(&gitlab);
    let begun = Instant::now();
    assert!(client.ask().is_none() && begun.elapsed() < seconds(1), "the first is not held");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.ask().map(|job| job.id));
        gitlab.wait_for_requests(1, seconds(5));
        let id = gitlab.enqueue(JobSpec::script(["true"]));
        assert_eq!(asking.join().expect("no panic"), Some(id));
    });
    assert!(begun.elapsed() < seconds(4));
    gitlab.set_hold(Duration::from_millis(50));
    assert!(client.ask().is_none());
}

#[test]
fn canceling_is_asked_for_and_dropping_is_told() {
    let gitlab = GitLab::start();
    gitlab.set_hold(Duration::from_millis(10));
    let mut client = Client::new(&gitlab);
    let (gentle, hard, queued) = (
        gitlab.enqueue(JobSpec::script(["sleep 9"])),
        gitlab.enqueue(JobSpec::script(["sleep 9"])),
        gitlab.enqueue(JobSpec::script(["sleep 9"])),
    );
    let (first, second) = (client.ask().expect("a job"), client.ask().expect("a job"));
    gitlab.cancel(queued);
    assert!(client.ask().is_none());
    gitlab.cancel(gentle);
    let reply = client.put(&first, "running", &json!({}));
    assert_eq!((reply.status, reply.header("job-status")), (200, Some("canceling")));
    client.put(&first, "failed", &json!({"failure_reason": "job_canceled"}));
    gitlab.wait_for(gentle, State::Canceled, seconds(1));
    gitlab.drop_job(hard);
    let reply = client.patch(&second, 0, b"x");
    assert_eq!((reply.status, reply.header("job-status")), (403, Some("canceled")));
    assert!(gitlab.audits().iter().all(|audit| audit.state == State::Canceled));
}

#[test]
fn a_job_handed_out_again_has_another_token() {
    let gitlab = GitLab::start();
    let id = gitlab.enqueue(JobSpec::script(["true"]));
    let mut client = Client::new(&gitlab);
    let first = client.ask().expect("a job");
    gitlab.requeue(id);
    assert_eq!(client.put(&first, "running", &json!({})).status, 403);
    let second = client.ask().expect("the job again");
    assert_eq!(client.put(&second, "running", &json!({})).status, 200);
    assert_eq!(client.put(&first, "success", &json!({})).status, 403);
    assert_eq!(gitlab.audit(id).count(|event| *event == Event::HandedOut), 2);
}

#[test]
fn faults_come_on_demand() {
    let gitlab = GitLab::start();
    let mut client = Client::new(&gitlab);
    let raw = |client: &Client<'_>| client.call("POST", "/api/v4/jobs/request", &[], b"{}");
    gitlab.fail_next(1, Endpoint::RequestJob, Fault::retry_after(429, "86400000"));
    let busy = raw(&client).expect("an answer");
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("86400000")));

    let lost = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.fail_next(1, Endpoint::RequestJob, Fault::LoseRequest);
    assert!(raw(&client).is_none() && gitlab.queued() == 1);
    gitlab.fail_next(1, Endpoint::RequestJob, Fault::LoseAnswer);
    assert!(raw(&client).is_none());
    assert_eq!(gitlab.audit(lost).state, State::HandedOut);
    gitlab.requeue(lost);
    gitlab.fail_next(1, Endpoint::RequestJob, Fault::CutAnswer);
    assert!(raw(&client).is_none());
    gitlab.requeue(lost);
    gitlab.fail_next(1, Endpoint::Any, Fault::SlowBody(Duration::from_micros(10)));
    let job = client.ask().expect("the job at last");

    gitlab.fail_next(2, Endpoint::Finish, Fault::not_yet(Duration::from_millis(200)));
    for _ in 0..2 {
        let not_yet = client.put(&job, "success", &json!({}));
        assert_eq!(not_yet.status, 202);
        assert_eq!(not_yet.header("x-gitlab-trace-update-interval"), Some("0.2"));
    }
    gitlab.fail_for(seconds(60), Endpoint::Trace, Fault::wrong_range(0));
    assert_eq!(client.patch(&job, 0, b"x").status, 416);
    gitlab.heal();
    assert_eq!(client.patch(&job, 0, b"x").status, 202);
    assert_eq!(client.put(&job, "success", &json!({})).status, 200);
    assert_eq!(gitlab.requests(Endpoint::Finish), 3);
}

#[test]
fn a_restart_keeps_the_jobs() {
    let gitlab = GitLab::start();
    let id = gitlab.enqueue(JobSpec::script(["true"]));
    let mut client = Client::new(&gitlab);
    let job = client.ask().expect("a job");
    client.patch(&job, 0, b"log");
    gitlab.stop();
    assert!(TcpStream::connect(gitlab.url().trim_start_matches("http://")).is_err());
    gitlab.start_again();
    assert_eq!(client.patch(&job, 3, b"!").header("range"), Some("0-4"));
    assert_eq!(gitlab.trace(id), "log!");
}

#[test]
fn archives_go_up_and_down() {
    let gitlab = GitLab::start();
    let first = gitlab.enqueue(JobSpec::script(["true"]).artifacts(["out"]));
    let second = gitlab.enqueue(JobSpec::script(["true"]).needs(first));
    let mut client = Client::new(&gitlab);
    let job = client.ask().expect("a job");
    let form = "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.zip\"\r\n\r\nPK\r\n--x--\r\n";
    let headers = [("content-type", "multipart/form-data; boundary=x"), ("job-token", &job.token)];
    let path = format!("/api/v4/jobs/{first}/artifacts?artifact_format=zip");
    assert_eq!(client.call("POST", &path, &headers, form.as_bytes()).expect("ok").status, 201);
    assert_eq!(gitlab.archives(first)[0].query, "artifact_format=zip");
    client.put(&job, "success", &json!({}));

    let needing = client.ask().expect("the second job");
    assert_eq!(needing.id, second);
    let dependency = &needing.payload["dependencies"][0];
    assert_eq!(dependency["artifacts_file"], json!({"filename": "a.zip", "size": 2}));
    let token = dependency["token"].as_str().expect("a token");
    let path = format!("/api/v4/jobs/{first}/artifacts?direct_download=true");
    let reply = client.call("GET", &path, &[("job-token", token)], b"").expect("an answer");
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"PK".as_slice()));
    let forbidden = client.call("GET", &path, &[("job-token", "other")], b"");
    assert_eq!(forbidden.expect("an answer").status, 403);
}

#[test]
fn a_repository_is_cloned_with_the_job_s_token() {
    let gitlab = GitLab::start();
    let repository = gitlab.repository("app");
    let head = repository.commit(&[("src/a.txt", "hello")]);
    gitlab.enqueue(JobSpec::script(["true"]).git(&repository));
    let job = Client::new(&gitlab).ask().expect("a job");
    assert_eq!(job.payload["git_info"]["sha"], head);
    let url = job.payload["git_info"]["repo_url"].as_str().expect("a URL");
    let there = tempfile::tempdir().expect("a directory");
    let clone = |url: &str, name: &str| {
        let to = there.path().join(name).display().to_string();
        let mut git = std::process::Command::new("git");
        let git = git.args(["clone", "-q", "--depth", "1", url, &to]);
        git.env("GIT_TERMINAL_PROMPT", "0").output().expect("git is there").status.success()
    };
    assert!(clone(url, "good"));
    let content = std::fs::read_to_string(there.path().join("good/src/a.txt")).expect("a file");
    assert_eq!(content, "hello");
    assert!(!clone(&url.replace("glcbt", "wrong"), "bad"));
}

#[test]
fn only_the_right_runner_gets_a_job_and_a_revoked_one_none() {
    let gitlab = GitLab::start();
    gitlab.enqueue(JobSpec::script(["true"]).for_runner("glrt-other"));
    let mut client = Client::new(&gitlab);
    assert!(client.ask().is_none());
    let other = json!({"token": "glrt-other"});
    assert_eq!(client.api("POST", "jobs/request", &other).status, 201);
    assert_eq!(client.api("POST", "runners/verify", &other).status, 200);
    gitlab.revoke("glrt-other");
    assert_eq!(client.api("POST", "jobs/request", &other).status, 403);
    assert_eq!(client.api("POST", "runners/verify", &other).status, 403);
}

/// It is used for benchmarks: it must not be what is measured.
#[test]
fn hundreds_of_jobs_a_second_are_no_burden() {
    const JOBS: usize = 1000;
    let gitlab = GitLab::start();
    gitlab.set_hold(Duration::from_millis(10));
    let jobs = gitlab.enqueue_many(JOBS, &JobSpec::script(["true"]));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::new(&gitlab);
                while let Some(job) = client.ask() {
                    client.put(&job, "running", &json!({}));
                    client.patch(&job, 0, b"log");
                    client.put(&job, "success", &output(b"log"));
                }
            });
        }
    });
    let took = begun.elapsed();
    gitlab.wait_for_all(&jobs, seconds(1));
    println!("{JOBS} jobs of 4 requests, each on a new connection: {took:?}");
    assert!(took < seconds(20), "{took:?}");
}
