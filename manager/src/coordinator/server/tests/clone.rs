//! The real `git` against the server.

use std::fs;

use serde_json::{Value, json};

use super::support::*;

const ONE_JOB: &str = "a: { script: [x] }";

fn url(job: &Value) -> &str {
    job["git_info"]["repo_url"].as_str().expect("an address")
}

async fn run_git(rig: &Rig, arguments: &[&str]) -> std::process::Output {
    let root = rig.root.path().to_path_buf();
    let arguments: Vec<String> = arguments.iter().map(|text| text.to_string()).collect();
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        git(&root, &arguments)
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

fn words(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_clone_with_the_job_token() {
    let rig = rig(ONE_JOB).await;
    let job = rig.request().await.expect("a job");
    for version in ["0", "1", "2"] {
        let protocol = format!("protocol.version={version}");
        let target = format!("clone{version}");
        let output =
            run_git(&rig, &["-c", &protocol, "clone", "--quiet", url(&job), &target]).await;
        assert!(output.status.success(), "{}", words(&output));
        let clone = rig.path(&target);
        assert_eq!(fs::read_to_string(clone.join("uncommitted.txt")).expect("there"), "yes\n");
        assert_eq!(git_ok(&clone, &["rev-list", "--count", "HEAD"]), "4");
        assert_eq!(git_ok(&clone, &["rev-parse", "HEAD"]), job["git_info"]["sha"]);
    }
}

/// The commands that a runner gives for `GIT_STRATEGY: fetch`.
#[tokio::test]
async fn a_fetch_as_runners_do_it() {
    let rig = rig(ONE_JOB).await;
    let job = rig.request().await.expect("a job");
    let work = rig.path("work");
    git_ok(rig.root.path(), &["init", "--quiet", "work"]);
    git_ok(&work, &["remote", "add", "origin", url(&job)]);
    let info = &job["git_info"];
    let refspecs: Vec<&str> =
        info["refspecs"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for depth in [info["depth"].to_string(), "1".into(), "2".into()] {
        let mut fetch = vec!["-C", "work", "fetch", "origin", "--no-recurse-submodules"];
        fetch.extend(&refspecs);
        fetch.extend(["--depth", &depth, "--prune", "--quiet"]);
        let output = run_git(&rig, &fetch).await;
        assert!(output.status.success(), "{}", words(&output));
    }
    git_ok(&work, &["checkout", "--force", "--quiet", info["sha"].as_str().expect("a sha")]);
    assert!(work.join("uncommitted.txt").exists());
    assert_eq!(git_ok(&work, &["rev-list", "--count", "HEAD"]), "2");
}

/// A client with many commits of its own sends them packed: git does so above 1 KiB.
#[tokio::test]
async fn a_large_request_comes_packed() {
    let rig = rig(ONE_JOB).await;
    let job = rig.request().await.expect("a job");
    let work = rig.path("work");
    git_ok(rig.root.path(), &["init", "--quiet", "work"]);
    for n in 0..120 {
        git_ok(&work, &["commit", "--quiet", "--allow-empty", "-m", &n.to_string()]);
    }
    for version in ["0", "2"] {
        let protocol = format!("protocol.version={version}");
        let fetch = ["-C", "work", "-c", &protocol, "fetch", "--quiet", url(&job), "main"];
        let output = run_git(&rig, &fetch).await;
        assert!(output.status.success(), "{}", words(&output));
        let head = git_ok(&work, &["rev-parse", "FETCH_HEAD"]);
        assert_eq!(head, job["git_info"]["sha"]);
    }
}

#[tokio::test]
async fn without_a_live_token_nothing_is_served() {
    let rig = rig(ONE_JOB).await;
    let job = rig.request().await.expect("a job");
    let bare = format!("http://{}/local/app.git", rig.address);
    let wrong = bare.replace("//", "//gitlab-ci-token:wrong@");
    let runner = bare.replace("//", &format!("//gitlab-ci-token:{RUNNER}@"));
    let user = url(&job).replace("gitlab-ci-token:", "someone:");
    for address in [&bare, &wrong, &runner, &user] {
        let output = run_git(&rig, &["ls-remote", address]).await;
        assert!(!output.status.success(), "{address}");
    }
    let anonymous =
        rig.send("GET", "/local/app.git/info/refs?service=git-upload-pack", &[], b"").await;
    assert_eq!(anonymous.status, 401);
    assert!(anonymous.header("www-authenticate").starts_with("Basic"), "{anonymous:?}");
    let address = url(&job).to_string();
    assert!(run_git(&rig, &["ls-remote", &address]).await.status.success());
    rig.put(&job, json!({ "state": "success" })).await;
    let late = run_git(&rig, &["ls-remote", &address]).await;
    assert!(!late.status.success(), "the job is over");
}

#[tokio::test]
async fn only_reading_and_only_the_snapshot() {
    use base64::{Engine, prelude::BASE64_STANDARD};

    let rig = rig(ONE_JOB).await;
    let job = rig.request().await.expect("a job");
    let basic = BASE64_STANDARD.encode(format!("gitlab-ci-token:{}", token(&job)));
    let authorization = format!("Basic {basic}");
    let headers = [("Authorization", authorization.as_str())];
    let get = async |path: &str| rig.send("GET", path, &headers, b"").await.status;
    assert_eq!(get("/local/app.git/info/refs?service=git-upload-pack").await, 200);
    for path in [
        "/local/app.git/info/refs",
        "/local/app.git/info/refs?service=git-receive-pack",
        "/local/app.git/info/refs?service=git-upload-pack&x=1",
        "/local/app.git/git-receive-pack",
        "/local/app.git/HEAD",
        "/local/app.git/objects/info/alternates",
        "/local/app.git/../app.git/HEAD",
        "/local/app.git/%2e%2e/%2e%2e/etc/passwd",
        "/local/app.git/info/../config",
        "/local/app.git//info/refs?service=git-upload-pack",
        "/local/other.git/info/refs?service=git-upload-pack",
        "/../../../../etc/passwd",
        "/local/app.git%2finfo/refs?service=git-upload-pack",
        "/local/app.git/info/refs%00?service=git-upload-pack",
    ] {
        let status = get(path).await;
        assert!(matches!(status, 400 | 403 | 404), "{path}: {status}");
    }
    assert_eq!(rig.send("POST", "/local/app.git/git-upload-pack", &headers, b"").await.status, 415);
    let output =
        run_git(&rig, &["-C", "app", "push", "--quiet", url(&job), "HEAD:refs/heads/x"]).await;
    assert!(!output.status.success());
}

#[tokio::test]
async fn broken_requests_to_git_end() {
    use base64::{Engine, prelude::BASE64_STANDARD};

    let rig = rig(ONE_JOB).await;
    let job = rig.request().await.expect("a job");
    let basic = BASE64_STANDARD.encode(format!("gitlab-ci-token:{}", token(&job)));
    let authorization = format!("Basic {basic}");
    let kind = ("Content-Type", "application/x-git-upload-pack-request");
    let bodies: [(&[u8], &str); 5] = [
        (b"garbage", "identity"),
        (b"0000", "identity"),
        (b"not gzip", "gzip"),
        (b"", "gzip"),
        (b"ffff", "identity"),
    ];
    for (body, coding) in bodies {
        let headers =
            [("Authorization", authorization.as_str()), kind, ("Content-Encoding", coding)];
        let answer = rig.send("POST", "/local/app.git/git-upload-pack", &headers, body).await;
        assert_eq!(answer.status, 200, "the answer had begun; it is cut off");
    }
    let headers = [("Authorization", authorization.as_str()), kind, ("Content-Encoding", "br")];
    let answer = rig.send("POST", "/local/app.git/git-upload-pack", &headers, b"").await;
    assert_eq!(answer.status, 415);
    let bomb = {
        use std::io::Write;
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(&vec![b'0'; 64 << 20]).expect("in memory");
        packer.finish().expect("in memory")
    };
    let headers = [("Authorization", authorization.as_str()), kind, ("Content-Encoding", "gzip")];
    rig.send("POST", "/local/app.git/git-upload-pack", &headers, &bomb).await;
    assert!(run_git(&rig, &["ls-remote", url(&job)]).await.status.success(), "still serving");
}
