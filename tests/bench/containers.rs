//! Jobs in containers, on instances that wait for them: how soon their scripts start beside
//! `docker run` on the same daemon, and what they cost the manager.

use std::time::{Duration, SystemTime};

use serde_json::json;
use support::manager::Setup;
use support::{Docker, GitLab, JobSpec, Manager, Runner, seconds};

use crate::figure::{Report, Sample, Target};
use crate::phase::{Phase, printed_after};

/// Without an entrypoint, so that the job's shell is up when its script comes, and with a
/// `date` that prints less than a second, unlike busybox's.
const IMAGE: &str = "mayfly-test/debian";
const SERVICE_IMAGE: &str = "mayfly-test/busybox";
const JOBS: usize = 50;
/// The first containers bring the image and programs into memory.
const UNCOUNTED: usize = 3;
const DATE: &str = "date +%s.%N";

/// Both kinds of jobs on one instance, each beside `docker run`.
pub(crate) fn measure(report: &mut Report) {
    let docker = match Docker::find() {
        Ok(docker) if docker.has(IMAGE) => docker,
        Ok(_) => return eprintln!("containers: there is no image {IMAGE}: run tests/setup"),
        Err(missing) => return eprintln!("containers: {missing}"),
    };
    let gitlab = GitLab::start();
    let mut phase = Phase::of(setup(&docker, &gitlab), gitlab, None);
    phase.wait_for_instances(1);
    let alone = JobSpec::script([format!("echo now=$({DATE})")]);
    compare("alone", &alone, &docker, &mut phase, report);
    compare("network, service", &with_service(&alone), &docker, &mut phase, report);
}

/// One local instance; the daemon sees its files where they are.
fn setup(docker: &Docker, gitlab: &GitLab) -> Setup {
    let local = Runner::local(gitlab).plugin_config("isolation", "none").idle_count(1);
    let runner = docker.in_containers(local.max_instances(1), IMAGE, json!({}));
    // The intervals that an operator has who sets none.
    let runner = runner
        .autoscaler("update_interval", "1m")
        .autoscaler("update_interval_when_expecting", "2s");
    Manager::setup().runner(runner)
}

/// The job in a network of its own with a web server, whose port is waited for.
fn with_service(job: &JobSpec) -> JobSpec {
    let service = json!({
        "name": SERVICE_IMAGE, "alias": "web", "command": ["httpd", "-f", "-p", "80"],
        "variables": [{ "key": "HEALTHCHECK_TCP_PORT", "value": "80" }],
    });
    job.clone()
        .variable("FF_NETWORK_PER_BUILD", "true")
        .payload(move |payload| payload["services"] = json!([service]))
}

/// One job at a time, each after one `docker run`: from the moment the server hands the job
/// out to the time that its script prints.
fn compare(kind: &str, job: &JobSpec, docker: &Docker, phase: &mut Phase, report: &mut Report) {
    for _ in 0..UNCOUNTED {
        by_docker(docker);
        by_manager(job, phase);
    }
    let before = phase.cpu();
    let (mut runs, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..JOBS {
        runs.push(by_docker(docker));
        starts.push(by_manager(job, phase));
    }
    #[expect(clippy::cast_precision_loss, reason = "dozens")]
    let cpu_per_job = (phase.cpu() - before) * 1e3 / JOBS as f64;
    let (runs, starts) = (Sample::new(runs), Sample::new(starts));
    report.add(format!("docker run beside {kind}, p50"), runs.quantile(0.5), "ms", Target::None);
    report.add(format!("docker run beside {kind}, p99"), runs.quantile(0.99), "ms", Target::None);
    report.add(format!("job in container {kind}, p50"), starts.quantile(0.5), "ms", Target::None);
    report.add(format!("job in container {kind}, p99"), starts.quantile(0.99), "ms", Target::None);
    let ratio = starts.quantile(0.5) / runs.quantile(0.5);
    report.add(format!("container {kind} / docker run, p50"), ratio, "x", Target::AtMost(1.3));
    report.add(format!("manager CPU, {kind}"), cpu_per_job, "ms/job", Target::AtMost(3.0));
}

fn by_manager(job: &JobSpec, phase: &mut Phase) -> Duration {
    phase.gitlab.wait_for_requests(1, seconds(30));
    phase.anchor();
    let job = phase.gitlab.enqueue(job.clone());
    let audit = phase.gitlab.wait_for_all(&[job], seconds(60)).remove(0);
    let handed_out = audit.handed_out().expect("it ran");
    phase.script_time(job).saturating_duration_since(handed_out)
}

fn by_docker(docker: &Docker) -> Duration {
    let begun = SystemTime::now();
    printed_after(begun, &docker.run(&["run", "--rm", IMAGE, "sh", "-c", DATE]))
}
