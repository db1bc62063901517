//! The docker-autoscaler executor: scripts run in containers of the instance's own daemon,
//! and nothing of a job stays there.

use serde_json::{Value, json};
use support::{BUSYBOX, ContainerJobs, DEBIAN, JobSpec, Runner, State, seconds, skip, until};

macro_rules! rig {
    ($($argument:expr),*) => {
        match ContainerJobs::local($($argument),*) {
            Ok(rig) => rig,
            Err(missing) => skip!("{missing}"),
        }
    };
}

/// A service that serves a word by HTTP.
fn web(alias: &str) -> Value {
    let script = "mkdir /w; echo served > /w/index.html; echo serving; exec httpd -f -p 80 -h /w";
    json!({
        "name": BUSYBOX, "alias": alias, "command": ["sh", "-c", script],
        "variables": [{ "key": "HEALTHCHECK_TCP_PORT", "value": "80" }],
    })
}

#[test]
fn a_job_runs_in_its_image_with_its_sources_and_artifacts() {
    let rig = rig!(json!({}), |runner| runner);
    let repository = rig.gitlab.repository("project");
    repository.commit(&[("file", "from the repository\n")]);
    let script = [
        "cat file",
        "pwd",
        "busybox | head -1",
        "echo made > made",
        "cat $SECRET",
        "echo kept > /tmp/kept",
        "echo $CI_JOB_IMAGE",
    ];
    let spec = JobSpec::script(script)
        .after_script(["cat /tmp/kept", "echo $CI_JOB_STATUS"])
        .file("SECRET", "of a file\n")
        .git(&repository)
        .artifacts(["made"]);
    let (first, trace) = rig.run(spec, State::Success);
    let expected =
        ["from the repository", " /builds/", "BusyBox", "of a file", " kept", "success", BUSYBOX];
    for text in expected {
        assert!(trace.contains(text), "{text}: {trace}");
    }
    let (_, trace) =
        rig.run(JobSpec::script(["echo it is $(cat made)"]).needs(first), State::Success);
    assert!(trace.contains("it is made"), "{trace}");
    rig.nothing_is_left(seconds(10));
}

#[test]
fn exit_codes_are_the_scripts() {
    let rig = rig!(json!({}), |runner| runner);
    for code in [1, 7, 137, 143] {
        let (job, trace) = rig.run(JobSpec::script([format!("exit {code}")]), State::Failed);
        let audit = rig.gitlab.audit(job);
        assert_eq!(audit.exit_code, Some(code), "{trace}");
        assert_eq!(audit.failure_reason.as_deref(), Some("script_failure"), "{trace}");
    }
    rig.nothing_is_left(seconds(10));
}

#[test]
fn services_are_reached_by_their_aliases() {
    let rig = rig!(json!({}), |runner| runner);
    for per_build in ["false", "true"] {
        let spec =
            JobSpec::script(["wget -qO- http://web/", "wget -qO- http://mayfly-test__busybox/"])
                .variable("FF_NETWORK_PER_BUILD", per_build)
                .variable("CI_DEBUG_SERVICES", "true")
                .key("services", json!([web("web")]));
        let (_, trace) = rig.run(spec, State::Success);
        assert_eq!(trace.matches(" served").count(), 2, "{trace}");
        assert!(trace.contains("[service:web]"), "{trace}");
        assert!(!trace.contains("WARNING"), "{trace}");
        rig.nothing_is_left(seconds(10));
    }
}

#[test]
fn a_service_that_does_not_come_up_is_told_and_the_job_goes_on() {
    let rig = rig!(json!({ "wait_for_services_timeout": 2 }), |runner| runner);
    let dead = json!({
        "name": BUSYBOX, "alias": "dead", "command": ["sh", "-c", "echo no database here; exit 3"],
        "variables": [{ "key": "HEALTHCHECK_TCP_PORT", "value": "80" }],
    });
    let spec = JobSpec::script(["echo went on"]).key("services", json!([dead]));
    let (_, trace) = rig.run(spec, State::Success);
    for text in ["probably didn't start properly", "exit code 3", "no database here", "went on"] {
        assert!(trace.contains(text), "{text}: {trace}");
    }
    rig.nothing_is_left(seconds(10));
}

#[test]
fn an_image_that_cannot_be_had_is_an_image_pull_failure() {
    let rig = rig!(json!({ "pull_policy": ["always", "if-not-present"] }), |runner| runner);
    let spec = JobSpec::script(["true"]).key("image", json!({ "name": "127.0.0.1:1/no/image:1" }));
    let (job, trace) = rig.run(spec, State::Failed);
    let audit = rig.gitlab.audit(job);
    assert_eq!(audit.failure_reason.as_deref(), Some("image_pull_failure"), "{trace}");
    assert!(trace.contains("specified policies [always, if-not-present]"), "{trace}");
    rig.nothing_is_left(seconds(10));
}

#[test]
fn what_is_not_allowed_is_refused_before_anything_is_made() {
    let keys = json!({ "allowed_images": ["good/*"], "allowed_services": ["good/*"] });
    let rig = rig!(keys, |runner| runner);
    let image = JobSpec::script(["true"]).key("image", json!({ "name": "bad/image" }));
    let service = JobSpec::script(["true"]).key("services", json!([{ "name": "bad/service" }]));
    let policy = JobSpec::script(["true"])
        .key("image", json!({ "name": BUSYBOX, "pull_policy": ["always"] }));
    for (spec, word) in [(image, "bad/image"), (service, "bad/service"), (policy, "always")] {
        let (job, trace) = rig.run(spec, State::Failed);
        let reason = rig.gitlab.audit(job).failure_reason;
        assert_eq!(reason.as_deref(), Some("runner_configuration_error"), "{trace}");
        assert!(trace.contains(word), "{trace}");
    }
    rig.nothing_is_left(seconds(10));
}

#[test]
fn a_canceled_job_leaves_nothing_whatever_stage_it_is_in() {
    let rig = rig!(json!({ "wait_for_services_timeout": 30 }), |runner| runner);
    let silent = json!({
        "name": BUSYBOX, "alias": "silent", "command": ["sleep", "100"],
        "variables": [{ "key": "HEALTHCHECK_TCP_PORT", "value": "80" }],
    });
    let stages = [
        ("Waiting for services", JobSpec::script(["true"]).key("services", json!([silent]))),
        ("in the script", JobSpec::script(["echo in the scr''ipt", "sleep 100"])),
        (
            "in after_script",
            JobSpec::script(["false"]).after_script(["echo in after_scr''ipt", "sleep 3"]),
        ),
    ];
    for (text, spec) in stages {
        let job = rig.gitlab.enqueue(spec);
        rig.gitlab.wait_for_trace(job, text, seconds(60));
        rig.gitlab.cancel(job);
        rig.gitlab.wait_for_end(job, seconds(60));
        rig.nothing_is_left(seconds(10));
    }
}

#[test]
fn a_container_beyond_its_memory_is_named() {
    let rig = rig!(json!({ "memory": "16m", "memory_swap": "16m" }), |runner| runner);
    let (job, trace) = rig.run(JobSpec::script(["tail /dev/zero"]), State::Failed);
    let audit = rig.gitlab.audit(job);
    assert!(trace.contains("more memory than its limit of 16 MiB"), "{trace}");
    assert_eq!(audit.failure_reason.as_deref(), Some("script_failure"), "{trace}");
    rig.nothing_is_left(seconds(10));
}

#[test]
fn volumes_outlive_a_job_or_do_not() {
    let outside = tempfile::tempdir().expect("a directory");
    let volumes = json!(["/cache", format!("{}:/outside", outside.path().display())]);
    for (disable_cache, found) in [(false, "kept"), (true, "nothing")] {
        let keys = json!({ "volumes": volumes, "disable_cache": disable_cache });
        let rig = rig!(keys, |runner| runner.max_instances(1));
        let look = "cat /cache/file || echo nothing";
        rig.run(
            JobSpec::script(["echo kept > /cache/file", "echo out > /outside/file"]),
            State::Success,
        );
        let (_, trace) = rig.run(JobSpec::script([look, "cat /outside/file"]), State::Success);
        assert!(trace.contains(&format!(" {found}\n")) && trace.contains(" out\n"), "{trace}");
        rig.nothing_is_left(seconds(10));
    }
}

#[test]
fn a_job_in_a_container_outlives_its_manager() {
    let mut rig = rig!(json!({}), |runner| runner);
    let script = [
        "echo begun",
        "for n in 1 2 3 4 5 6; do echo line $n; sleep 1; done",
        "echo en''ded",
        "exit 5",
    ];
    let job = rig.gitlab.enqueue(JobSpec::script(script));
    rig.gitlab.wait_for_trace(job, "line 1", seconds(60));
    rig.manager.kill();
    rig.manager.restart();
    rig.gitlab.wait_for(job, State::Failed, seconds(60));
    let trace = rig.gitlab.trace(job);
    assert_eq!(rig.gitlab.audit(job).exit_code, Some(5), "{trace}");
    for text in ["line 1\n", "line 6\n", " ended\n"] {
        assert_eq!(trace.matches(text).count(), 1, "{text}: {trace}");
    }
    rig.nothing_is_left(seconds(10));
}

#[test]
fn a_job_is_rather_placed_where_its_image_is() {
    let rig = rig!(json!({}), |runner: Runner| runner.max_instances(2).idle_count(2));
    if !rig.docker.has(DEBIAN) {
        skip!("no image {DEBIAN}: run tests/setup");
    }
    let of = |image: &str, script: &str| {
        JobSpec::script([script]).key("image", json!({ "name": image }))
    };
    let instance = |trace: &str| {
        let place = trace.split("Instance ").nth(1).and_then(|rest| rest.split(' ').next());
        place.expect("the log names the instance").to_owned()
    };
    // The server hears of a job's end a moment before its slot is free.
    let all_are_free = || {
        until("two slots are free", seconds(30), || rig.manager.free_slots() == 2);
    };
    all_are_free();
    // At the same time, so that each has an instance of its own.
    let both = [of(BUSYBOX, "sleep 2"), of(DEBIAN, "sleep 2")].map(|spec| rig.gitlab.enqueue(spec));
    let [busybox, debian] = both.map(|job| {
        rig.gitlab.wait_for(job, State::Success, seconds(60));
        instance(&rig.gitlab.trace(job))
    });
    assert_ne!(busybox, debian);
    for _ in 0..3 {
        for (image, expected) in [(DEBIAN, &debian), (BUSYBOX, &busybox)] {
            all_are_free();
            let (_, trace) = rig.run(of(image, "true"), State::Success);
            assert_eq!(&instance(&trace), expected, "{image}: {trace}");
        }
    }
}
