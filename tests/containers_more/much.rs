//! Much at once, much output, long scripts, and values that want to be misread.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use support::{BUSYBOX, ContainerJobs, JobSpec, State, seconds};

use super::needed;

#[test]
fn fifty_jobs_at_once_succeed_and_leave_nothing() {
    let rig =
        needed!(ContainerJobs::local(json!({}), |runner| runner.capacity(10).max_instances(5)));
    let jobs = rig.gitlab.enqueue_many(50, &JobSpec::script(["echo done by $(hostname)"]));
    rig.gitlab.wait_for_all(&jobs, seconds(300));
    rig.nothing_is_left(seconds(20));
}

#[test]
fn much_output_and_binary_output_come_whole() {
    const MEGABYTES: usize = 50;
    let rig =
        needed!(ContainerJobs::local(json!({}), |runner| runner.set("output_limit", 200_000)));
    let script = [
        format!("yes $(printf %0127d 7) | head -c {}", MEGABYTES * 1024 * 1024),
        "echo the e''nd".to_owned(),
    ];
    let job = rig.gitlab.enqueue(JobSpec::script(script));
    rig.gitlab.wait_for(job, State::Success, seconds(200));
    let trace = rig.gitlab.trace_bytes(job);
    let lines = trace.split(|byte| *byte == b'\n');
    let whole = lines.filter(|line| line.ends_with(b"00000007")).count();
    assert_eq!(whole, MEGABYTES * 1024 * 1024 / 128);
    assert!(String::from_utf8_lossy(&trace[trace.len() - 2000..]).contains("the end"));

    let script = ["head -c 1000000 /dev/urandom; echo", "printf '\\0\\377\\n'; echo the e''nd"];
    let (_, trace) = rig.run(JobSpec::script(script), State::Success);
    assert!(trace.contains("the end"));
    rig.nothing_is_left(seconds(20));
}

#[test]
fn a_long_script_and_awkward_variables_arrive_as_they_are() {
    let rig = needed!(ContainerJobs::local(json!({}), |runner| runner));
    let mut long = String::new();
    for number in 0..20_000 {
        let _ = writeln!(long, "n={number}; : 'some text that makes a long line of it'");
    }
    assert!(long.len() > 1_000_000);
    let long = JobSpec::script([long, "echo \"counted $n\"".to_owned()]);
    let (_, trace) = rig.run(long, State::Success);
    assert!(trace.contains("counted 19999"), "{}", &trace[trace.len() - 1000..]);

    let value = "two\nlines, 'single' \"double\" `back` $HOME \\ %s é \t end\n";
    let spec = JobSpec::script([
        "printf %s \"$AWKWARD\" | base64 | tr -d '\\n'; echo",
        "base64 < $IN_FILE | tr -d '\\n'; echo",
        "echo 'it'\"'\"'s'",
    ])
    .variable_like(json!({ "key": "AWKWARD", "value": value, "public": true, "raw": true }))
    .file("IN_FILE", "'quoted' \"lines\"\n\n");
    let (_, trace) = rig.run(spec, State::Success);
    let expected =
        [STANDARD.encode(value), STANDARD.encode("'quoted' \"lines\"\n\n"), "it's".into()];
    for text in expected {
        assert!(trace.contains(&text), "{text}: {trace}");
    }
    rig.nothing_is_left(seconds(20));
}

#[test]
fn what_services_print_is_masked() {
    let rig = needed!(ContainerJobs::local(json!({}), |runner| runner));
    let secret = "s3cret-of-the-job";
    let script = "echo first $WORD; echo listening; sleep 2; \
                  for n in $(seq 1100); do printf 0123456789abcde; done; printf %s $WORD; \
                  for n in $(seq 2000); do printf 0123456789$WORD; done; echo; \
                  echo later $WORD; exec nc -l -p 80";
    let service = json!({
        "name": BUSYBOX, "alias": "talking", "command": ["sh", "-c", script],
        "variables": [{ "key": "WORD", "value": secret }],
    });
    // The service can be connected to once it has said all. Meanwhile the job talks, too.
    let talk = "for n in $(seq 200); do printf \"$n $SECRET \"; done; echo";
    let wait = format!("until echo | nc talking 80 2>/dev/null; do {talk}; sleep 0.01; done");
    let script = [wait.as_str(), "sleep 2"];
    let spec = JobSpec::script(script)
        .masked("SECRET", secret)
        .variable("CI_DEBUG_SERVICES", "true")
        .key("services", json!([service]));
    let (_, trace) = rig.run(spec, State::Success);
    for text in ["first [MASKED]", "later [MASKED]", "[service:talking]"] {
        assert!(trace.contains(text), "{text}: {trace}");
    }
    assert!(!trace.contains(secret), "{trace}");
    for part in [&secret[..8], &secret[8..]] {
        assert!(!trace.contains(part), "{part}: {trace}");
    }
    rig.nothing_is_left(seconds(20));
}
