//! Jobs, as their authors see them: on local instances and over OpenSSH alike.

use std::time::{Duration, Instant};

use serde_json::json;
use support::sshd::Keys;
use support::{Event, GitLab, JobSpec, Manager, Runner, Sshd, State, seconds};

/// The same test on every kind of instance.
fn everywhere(test: impl Fn(&GitLab, Runner)) {
    let gitlab = GitLab::start();
    test(&gitlab, Runner::local(&gitlab).idle_count(1));
    if let Some(sshd) = Sshd::setup().machines(2).start() {
        let gitlab = GitLab::start();
        test(&gitlab, Runner::openssh(&gitlab, &sshd).idle_count(1));
    }
}

/// A log without the time headers and colours.
fn plain(trace: &str) -> String {
    let without_header = |line: &str| {
        let is_stamped =
            line.len() > 32 && line.as_bytes()[10] == b'T' && line.as_bytes()[26] == b'Z';
        if is_stamped { line[32..].to_owned() } else { line.to_owned() }
    };
    trace.lines().map(|line| without_header(line) + "\n").collect()
}

#[test]
fn success_and_failure_are_told_with_their_exit_code() {
    everywhere(|gitlab, runner| {
        let _manager = Manager::start(runner);
        let good = gitlab.enqueue(JobSpec::script(["echo fine", "true"]));
        let after = JobSpec::script(["echo before", "exit 42", "echo never"])
            .after_script(["echo after: $CI_JOB_STATUS"]);
        let bad = gitlab.enqueue(after);
        gitlab.wait_for(good, State::Success, seconds(60));
        let audit = gitlab.wait_for(bad, State::Failed, seconds(60));
        assert_eq!(audit.exit_code, Some(42));
        assert_eq!(audit.failure_reason.as_deref(), Some("script_failure"));
        let trace = plain(&gitlab.trace(bad));
        assert!(trace.contains("\nbefore\n") && trace.contains("after: failed"), "{trace}");
        assert!(trace.contains("ERROR: Job failed: exit code 42"), "{trace}");
        assert!(!trace.contains("\nnever\n"), "{trace}");
        assert!(plain(&gitlab.trace(good)).contains("Job succeeded"));
    });
}

#[test]
fn a_job_that_takes_too_long_is_stopped_with_all_it_started() {
    everywhere(|gitlab, runner| {
        let _manager = Manager::start(runner);
        let marker = format!("7{:07}", std::process::id());
        let script = [format!("sleep {marker} & echo up; sleep {marker}")];
        let job = gitlab.enqueue(JobSpec::script(script).timeout(seconds(3)));
        let audit = gitlab.wait_for(job, State::Failed, seconds(30));
        assert_eq!(audit.failure_reason.as_deref(), Some("job_execution_timeout"));
        assert!(gitlab.trace(job).contains("execution took longer than"));
        support::wait::until("no process of the job is left", seconds(5), || {
            support::processes::mentioning(&marker).is_empty()
        });
    });
}

#[test]
fn a_cancel_is_noticed_within_an_interval_in_any_stage_even_when_silent() {
    everywhere(|gitlab, runner| {
        gitlab.set_update_interval(seconds(1));
        let _manager = Manager::start(runner);
        let silent = JobSpec::script(["sleep 600"]).after_script(["echo after: $CI_JOB_STATUS"]);
        // No server answers there, but connecting takes for ever.
        let fetching = JobSpec::script(["echo never"])
            .git_at("http://127.0.0.1:9/x.git", &"0".repeat(40), "main")
            .variable("GIT_STRATEGY", "clone")
            .payload(|payload| {
                payload["hooks"] = serde_json::json!([
                    {"name": "pre_get_sources_script", "script": ["sleep 600"]}
                ]);
            });
        for (spec, stage, after) in [(silent, "sleep 600", true), (fetching, "sleep 600", false)] {
            let job = gitlab.enqueue(spec);
            gitlab.wait_for_trace(job, stage, seconds(60));
            let asked = Instant::now();
            gitlab.cancel(job);
            let audit = gitlab.wait_for_end(job, seconds(20));
            assert!(asked.elapsed() < seconds(6), "{:?}", asked.elapsed());
            assert_eq!(audit.failure_reason.as_deref(), Some("job_canceled"), "{audit:?}");
            let trace = plain(&gitlab.trace(job));
            assert_eq!(trace.contains("after: canceled"), after, "{trace}");
        }
    });
}

#[test]
fn a_cancel_before_a_slot_is_there_ends_the_job() {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let runner = Runner::local(&gitlab).plugin_config("boot_time", "5s");
    let _manager = Manager::start(runner);
    let job = gitlab.enqueue(JobSpec::script(["echo never"]));
    gitlab.wait_for(job, State::Running, seconds(30));
    gitlab.cancel(job);
    let audit = gitlab.wait_for_end(job, seconds(30));
    assert!(audit.state != State::Success, "{audit:?}");
    assert!(!plain(&gitlab.trace(job)).contains("\nnever\n"));
}

#[test]
fn a_job_that_the_server_gave_up_is_stopped() {
    everywhere(|gitlab, runner| {
        gitlab.set_update_interval(seconds(1));
        let _manager = Manager::start(runner);
        let marker = format!("8{:07}", std::process::id());
        let job = gitlab.enqueue(JobSpec::script([format!("sleep {marker}")]));
        gitlab.wait_for_trace(job, &marker, seconds(60));
        gitlab.drop_job(job);
        support::wait::until("the job is stopped", seconds(15), || {
            support::processes::mentioning(&marker).is_empty()
        });
        // Its slot serves the next one.
        let next = gitlab.enqueue(JobSpec::script(["echo next"]));
        gitlab.wait_for(next, State::Success, seconds(30));
    });
}

#[test]
fn a_large_log_arrives_byte_for_byte_or_cut_as_gitlab_cuts_it() {
    let numbers: String = (1..=2_700_000).map(|n| format!("{n}\n")).collect();
    assert!(numbers.len() > 20_000_000);
    everywhere(|gitlab, runner| {
        gitlab.set_update_interval(seconds(1));
        let _manager = Manager::start(runner.set("output_limit", 65_536));
        let spec = JobSpec::script(["seq 1 2700000"]).variable("FF_TIMESTAMPS", "false");
        let job = gitlab.enqueue(spec);
        let audit = gitlab.wait_for(job, State::Success, seconds(120));
        assert!(gitlab.trace(job).contains(&numbers));
        assert_eq!(audit.count(|event| matches!(event, Event::LogDiffers)), 0);
    });
    everywhere(|gitlab, runner| {
        let _manager = Manager::start(runner);
        let job = gitlab.enqueue(JobSpec::script(["seq 1 2700000"]));
        gitlab.wait_for(job, State::Success, seconds(120));
        let trace = gitlab.trace(job);
        let limit = 4 << 20;
        assert!((limit..limit + 300).contains(&trace.len()), "{}", trace.len());
        assert!(trace.contains("Job's log exceeded limit of 4194304 bytes."));
    });
}

#[test]
fn masked_values_and_invalid_text_never_reach_the_server() {
    everywhere(|gitlab, runner| {
        let _manager = Manager::start(runner);
        let script = [
            "echo whole: $HIDDEN",
            "x=sesa; printf \"split: ${x}me-\"; sleep 0.3; printf 'open-please\\n'",
            "printf 'bytes: \\377\\376 caf\\303\\251\\n'",
            "echo $CI_JOB_TOKEN",
            "env | sort | head -200",
        ];
        let spec = JobSpec::script(script).masked("HIDDEN", "sesame-open-please");
        let job = gitlab.enqueue(spec);
        gitlab.wait_for(job, State::Success, seconds(60));
        let trace = plain(&gitlab.trace(job));
        for text in ["whole: [MASKED]\n", "split: [MASKED]\n", "bytes: \u{fffd}\u{fffd} café\n"] {
            assert!(trace.contains(text), "{text} in {trace}");
        }
        assert!(!trace.contains("sesame"), "{trace}");
        assert!(!trace.contains("jobtoken") && !trace.contains(gitlab.token()), "{trace}");
    });
}

#[test]
fn sources_are_cloned_then_fetched_and_artifacts_handed_on() {
    everywhere(|gitlab, runner| {
        let _manager = Manager::start(runner.max_instances(1));
        let repository = gitlab.repository("group/project");
        repository.commit(&[("file", "one"), ("sub/dir", "x")]);
        let build = JobSpec::script(["cat file", "mkdir -p out/deep", "echo made > out/deep/made"])
            .git(&repository)
            .artifacts(["out/"]);
        let first = gitlab.enqueue(build.clone());
        gitlab.wait_for(first, State::Success, seconds(60));
        repository.commit(&[("file", "two")]);
        let uses =
            JobSpec::script(["cat file out/deep/made", "git status --short", "test ! -e stray"])
                .git(&repository)
                .needs(first);
        let second = gitlab.enqueue(uses);
        gitlab.wait_for(second, State::Success, seconds(60));
        let trace = plain(&gitlab.trace(second));
        assert!(trace.contains("\ntwo") && trace.contains("made\n"), "{trace}");
        assert!(!trace.contains("Created fresh repository"), "{trace}");
        assert!(plain(&gitlab.trace(first)).contains("Created fresh repository"));
        assert_eq!(gitlab.archives(first).len(), 1);
    });
}

#[test]
fn private_submodules_reports_and_another_place_for_the_sources() {
    everywhere(|gitlab, runner| {
        let own_place = json!({"enabled": true});
        let _manager = Manager::start(runner.max_instances(1).set("custom_build_dir", own_place));
        let library = gitlab.repository("library");
        library.commit(&[("code", "from the library")]);
        let repository = gitlab.repository("project");
        repository.add_submodule("lib", "../library.git", &library);
        let report = json!({
            "name": "junit", "paths": ["*.xml"], "when": "always",
            "artifact_type": "junit", "artifact_format": "gzip",
        });
        let script = [
            "cat lib/code",
            "test \"$PWD\" = \"$CI_PROJECT_DIR\"",
            "test \"$PWD\" = \"$CI_BUILDS_DIR/elsewhere\"",
            "test \"$(cat $SECRET_FILE)\" = sesame",
            "echo '<a/>' > a.xml; echo '<b/>' > b.xml",
        ];
        let job = JobSpec::script(script)
            .git(&repository)
            .file("SECRET_FILE", "sesame")
            .variable("GIT_SUBMODULE_STRATEGY", "recursive")
            .variable("GIT_CLONE_PATH", "$CI_BUILDS_DIR/elsewhere")
            .artifacts_like(report);
        let job = gitlab.enqueue(job);
        gitlab.wait_for(job, State::Success, seconds(60));
        let trace = plain(&gitlab.trace(job));
        assert!(trace.contains("\nfrom the library"), "{trace}");
        // One gzip stream per file, or the server could not tell them apart.
        let archives = gitlab.archives(job);
        let streams = archives[0].content.windows(3).filter(|w| *w == [0x1f, 0x8b, 8]).count();
        assert_eq!(streams, 2);
    });
}

#[test]
fn infrastructure_never_looks_like_a_failed_test() {
    everywhere(|gitlab, runner| {
        let _manager = Manager::start(runner);
        let unreachable = JobSpec::script(["echo never"])
            .git_at("http://127.0.0.1:9/x.git", &"0".repeat(40), "main")
            .variable("GIT_STRATEGY", "clone");
        let job = gitlab.enqueue(unreachable);
        let audit = gitlab.wait_for(job, State::Failed, seconds(60));
        assert_eq!(audit.failure_reason.as_deref(), Some("runner_system_failure"));
        assert!(gitlab.trace(job).contains("get_sources: exit code"), "{}", gitlab.trace(job));
    });
}

#[test]
fn what_cannot_be_run_is_refused_with_its_reason() {
    let gitlab = GitLab::start();
    let _manager = Manager::start(Runner::local(&gitlab));
    let native = JobSpec::script(["echo x"])
        .payload(|payload| payload["run"] = "[{\"step\": \"./x\"}]".into());
    let job = gitlab.enqueue(native);
    let audit = gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(audit.failure_reason.as_deref(), Some("runner_configuration_error"));
    assert!(gitlab.trace(job).contains("native steps"), "{}", gitlab.trace(job));
}

#[test]
fn a_job_payload_that_cannot_be_read_is_given_back() {
    let gitlab = GitLab::start();
    let _manager = Manager::start(Runner::local(&gitlab));
    let odd = JobSpec::script(["echo x"]).payload(|payload| payload["steps"] = 7.into());
    let job = gitlab.enqueue(odd);
    let audit = gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(audit.failure_reason.as_deref(), Some("runner_system_failure"));
    let next = gitlab.enqueue(JobSpec::script(["echo next"]));
    gitlab.wait_for(next, State::Success, seconds(60));
}

#[test]
fn jobs_of_one_instance_have_slots_of_their_own() {
    let gitlab = GitLab::start();
    let runner = Runner::local(&gitlab).max_instances(1).capacity(3);
    let _manager = Manager::start(runner);
    let spec = JobSpec::script(["pwd", "echo slot $CI_CONCURRENT_ID", "sleep 1"]);
    let jobs = gitlab.enqueue_many(3, &spec);
    gitlab.wait_for_all(&jobs, Duration::from_secs(60));
    let mut slots: Vec<String> = jobs
        .iter()
        .map(|job| {
            let trace = plain(&gitlab.trace(*job));
            let line = trace.lines().find(|line| line.starts_with("slot ")).expect("a slot");
            line.to_owned()
        })
        .collect();
    slots.sort();
    assert_eq!(slots, ["slot 0", "slot 1", "slot 2"]);
}

/// AWS hands out RSA keys, and old images have no other host key.
#[test]
fn rsa_keys_do_as_well() {
    for keys in [Keys::Rsa, Keys::RsaPem] {
        let Some(sshd) = Sshd::setup().keys(keys).start() else { return };
        let gitlab = GitLab::start();
        let _manager = Manager::start(Runner::openssh(&gitlab, &sshd).max_instances(1));
        let job = gitlab.enqueue(JobSpec::script(["true"]));
        gitlab.wait_for(job, State::Success, seconds(60));
    }
}
