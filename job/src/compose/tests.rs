use std::path::Path;
use std::process::Command;

use super::*;
use crate::plan::When;

fn job(more: &str) -> Job {
    let text = format!(
        r#"{{"id": 42, "token": "job-token", "allow_git_fetch": true,
            "git_info": {{"repo_url": "https://gitlab-ci-token:job-token@git.example:8443/group/project.git",
                         "sha": "0123456789abcdef", "ref": "main", "depth": 20,
                         "refspecs": ["+refs/heads/main:refs/remotes/origin/main"]}},
            "features": {{"trace_sections": true}},
            "steps": [{{"name": "script", "script": ["echo hello"]}},
                      {{"name": "after_script", "script": ["echo bye"]}}]{more}}}"#
    );
    serde_json::from_str(&text).expect("a payload")
}

fn runner() -> Runner {
    Runner { short_token: "abc".into(), output_limit_bytes: 1000, ..Runner::default() }
}

fn instance() -> Instance {
    Instance {
        id: "i-1".into(),
        home: "/home/ci".into(),
        slot: 1,
        arch: "amd64".into(),
        via: "manager".into(),
        has_git: true,
    }
}

fn script<'a>(plan: &'a Plan, stage: &str) -> &'a str {
    let stage = plan.stages.iter().find(|s| s.name == stage).expect("the stage");
    match &stage.action {
        Some(Action::Script(script)) => &script.text,
        other => panic!("{other:?} is no script"),
    }
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.stages.iter().map(|stage| stage.name.as_str()).collect()
}

#[test]
fn stages_come_in_gitlabs_order_and_only_where_needed() {
    let plan = compose(&job(""), &runner(), &instance()).expect("a plan");
    let plain =
        ["prepare_script", "get_sources", "step_script", "after_script", "cleanup_file_variables"];
    assert_eq!(names(&plan), plain);

    let more = r#", "artifacts": [{"paths": ["out/$NAME"], "when": "always", "name": "$NAME"}],
        "variables": [{"key": "NAME", "value": "x"}],
        "dependencies": [{"id": 7, "token": "t7", "name": "build", "artifacts_file": {"filename": "a.zip"}},
                         {"id": 8, "token": "t8", "name": "lint", "artifacts_file": null}]"#;
    let plan = compose(&job(more), &runner(), &instance()).expect("a plan");
    let all = [
        "prepare_script",
        "get_sources",
        "download_artifacts",
        "step_script",
        "after_script",
        "upload_artifacts_on_success",
        "upload_artifacts_on_failure",
        "cleanup_file_variables",
    ];
    assert_eq!(names(&plan), all);
    assert_eq!(plan.stages[5].when(), When::OnSuccess);
    assert_eq!(plan.stages[6].when(), When::OnFailure);
    let Some(Action::Transfer(transfer)) = &plan.stages[5].action else { panic!("a transfer") };
    let Some(crate::plan::What::Upload(upload)) = &transfer.what else { panic!("an upload") };
    assert_eq!(
        (upload.archives[0].name.as_str(), upload.archives[0].paths[0].as_str()),
        ("x", "out/x")
    );
}

#[test]
fn directories_are_the_slots_own() {
    let plan = compose(&job(""), &runner(), &instance()).expect("a plan");
    assert_eq!(plan.project_dir, "/home/ci/builds/abc/1/group/project");
    assert_eq!(plan.temp_dir(), "/home/ci/builds/abc/1/group/project.tmp");
    assert_eq!(plan.job_key, "abc-42");
}

#[test]
fn no_secret_is_in_a_script_but_where_a_variable_holds_it() {
    let plan = compose(&job(""), &runner(), &instance()).expect("a plan");
    for stage in ["get_sources", "step_script"] {
        assert!(!script(&plan, stage).contains("job-token"), "{stage}");
    }
    let config = plan.files.iter().find(|file| file.name.ends_with(".conf")).expect("credentials");
    let text = String::from_utf8_lossy(&config.content);
    assert!(text.contains("[http \"https://git.example:8443/\"]"), "{text}");
    let masks = plan.trace.expect("options").masks;
    // base64 of gitlab-ci-token:job-token
    assert_eq!(masks, ["Z2l0bGFiLWNpLXRva2VuOmpvYi10b2tlbg==", "job-token"]);
}

#[test]
fn variables_reach_the_script_quoted_and_expanded() {
    let more = r#", "variables": [
        {"key": "A", "value": "it's $B"}, {"key": "B", "value": "b"},
        {"key": "F", "value": "content", "file": true}, {"key": "bad-name", "value": "x"},
        {"key": "P", "value": "$CI_PROJECT_DIR and $F"}]"#;
    let runner = Runner {
        environment: vec!["B=config".into(), "C=config".into(), "odd".into()],
        ..runner()
    };
    let plan = compose(&job(more), &runner, &instance()).expect("a plan");
    let text = script(&plan, "step_script");
    let tmp = "/home/ci/builds/abc/1/group/project.tmp";
    for line in [
        "export A='it'\\''s b'",
        "export B='b'",
        "export C='config'",
        &format!("export F='{tmp}/F'"),
        &format!("export P='/home/ci/builds/abc/1/group/project and {tmp}/F'"),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    assert!(!text.contains("bad-name"));
    assert_eq!(plan.files[0], File { name: "F".into(), content: b"content".to_vec() });
}

#[test]
fn strategies_without_git_need_no_script() {
    for strategy in ["none", "empty"] {
        let more = format!(r#", "variables": [{{"key": "GIT_STRATEGY", "value": "{strategy}"}}]"#);
        let plan = compose(&job(&more), &runner(), &instance()).expect("a plan");
        assert_eq!(plan.stages[1].action, None);
        assert!(plan.files.is_empty());
        let Some(Action::Prepare(prepare)) = &plan.stages[0].action else {
            panic!("a preparation")
        };
        assert_eq!(prepare.empty_project_dir, strategy == "empty");
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    for more in [r#", "run": "[{\"step\": \"x\"}]""#, r#", "secrets": {"DB": {"vault": {}}}"#] {
        let outcome = compose(&job(more), &runner(), &instance()).expect_err("refused");
        assert_eq!(outcome.reason(), FailureReason::RunnerConfigurationError);
    }
    for (path, enabled, inside) in [
        ("/home/ci/builds/x", true, true),
        ("/home/ci/builds/x", false, false),
        ("/home/ci/builds/../x", true, false),
        ("/etc", true, false),
    ] {
        let more = format!(r#", "variables": [{{"key": "GIT_CLONE_PATH", "value": "{path}"}}]"#);
        let runner = Runner { custom_build_dir: enabled, ..runner() };
        assert_eq!(compose(&job(&more), &runner, &instance()).is_ok(), inside, "{path}");
    }
}

#[test]
fn the_runners_flags_win_over_the_jobs() {
    let more = r#", "variables": [{"key": "FF_TIMESTAMPS", "value": "false"}]"#;
    let timestamps = |runner: &Runner, more: &str| {
        compose(&job(more), runner, &instance()).expect("a plan").trace.expect("options").timestamps
    };
    assert!(timestamps(&runner(), ""));
    assert!(!timestamps(&runner(), more));
    let flags = BTreeMap::from([("FF_TIMESTAMPS".to_owned(), true)]);
    assert!(timestamps(&Runner { feature_flags: flags, ..runner() }, more));
}

fn git(dir: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"])
        .args(words)
        .current_dir(dir)
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The script on a real repository: fetches, cleans what the last job left, takes no
/// hook or setting over from it.
#[test]
fn sources_are_fetched_by_the_instances_git() {
    let root = tempfile::tempdir().expect("a directory");
    let origin = root.path().join("origin.git");
    std::fs::create_dir(&origin).expect("made");
    git(&origin, &["init", "-q"]);
    std::fs::write(origin.join("file"), "one").expect("written");
    git(&origin, &["add", "."]);
    git(&origin, &["commit", "-qm", "one"]);
    let sha = git(&origin, &["rev-parse", "HEAD"]);

    let mut job = job("");
    job.git_info.repo_url = format!("file://{}", origin.display());
    job.git_info.sha = sha;
    let instance = Instance { home: root.path().display().to_string(), ..instance() };
    let plan = compose(&job, &runner(), &instance).expect("a plan");
    let project = Path::new(&plan.project_dir);

    for round in 0..3 {
        let output = Command::new("bash")
            .args(["-c", script(&plan, "get_sources")])
            .output()
            .expect("bash is installed");
        let shown = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "round {round}: {shown}");
        assert!(shown.contains("Checking out"), "{shown}");
        assert_eq!(shown.contains("Created fresh repository"), round == 0, "{shown}");
        assert_eq!(std::fs::read_to_string(project.join("file")).expect("checked out"), "one");
        assert!(!project.join("left").exists());
        std::fs::write(project.join("left"), "over").expect("written");
        std::fs::create_dir_all(project.join(".git/hooks")).expect("made");
        std::fs::write(project.join(".git/hooks/post-checkout"), "#!/bin/sh\nexit 1\n")
            .expect("written");
        git(project, &["config", "core.fsmonitor", "false"]);
        std::fs::write(project.join(".git/index.lock"), "").expect("written");
    }
}
