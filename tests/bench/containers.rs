//! Jobs in containers, on instances that wait for them: how soon their scripts start beside
//! `docker run` on the same daemon, and what they cost the manager.

use std::time::{Duration, SystemTime};

use serde_json::json;
use support::manager::Setup;
use support::{Docker, GitLab, JobSpec, Manager, Runner, seconds, until};

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

/// Both kinds of jobs on one instance, each beside `docker run`; without and with containers
/// that are made ahead of their jobs.
pub(crate) fn measure(report: &mut Report) {
    let docker = match Docker::find() {
        Ok(docker) if docker.has(IMAGE) => docker,
        Ok(_) => return eprintln!("containers: there is no image {IMAGE}: run tests/setup"),
        Err(missing) => return eprintln!("containers: {missing}"),
    };
    let alone = JobSpec::script([format!("echo now=$({DATE})")]);
    for ahead in [false, true] {
        let gitlab = GitLab::start();
        let setup = setup(&docker, &gitlab, ahead);
        let mut rig = Rig { docker: &docker, phase: Phase::of(setup, gitlab, None), ahead };
        rig.phase.wait_for_instances(1);
        rig.compare("alone", &alone, report);
        rig.compare("network, service", &with_service(&alone), report);
    }
}

/// One manager with one instance.
struct Rig<'a> {
    docker: &'a Docker,
    phase: Phase,
    /// Containers are made ahead of their jobs.
    ahead: bool,
}

/// One local instance; the daemon sees its files where they are.
fn setup(docker: &Docker, gitlab: &GitLab, ahead: bool) -> Setup {
    let local = Runner::local(gitlab).plugin_config("isolation", "none").idle_count(1);
    let local = local.own("containers_ahead", ahead);
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

impl Rig<'_> {
    /// One job at a time, each after one `docker run`: from the moment the server hands the
    /// job out to the time that its script prints.
    fn compare(&mut self, kind: &str, job: &JobSpec, report: &mut Report) {
        for _ in 0..UNCOUNTED {
            by_docker(self.docker);
            self.by_manager(job);
        }
        let before = self.phase.cpu();
        let (mut runs, mut starts) = (Vec::new(), Vec::new());
        for _ in 0..JOBS {
            self.wait_until_made();
            runs.push(by_docker(self.docker));
            starts.push(self.by_manager(job));
        }
        #[expect(clippy::cast_precision_loss, reason = "dozens")]
        let cpu_per_job = (self.phase.cpu() - before) * 1e3 / JOBS as f64;
        let (runs, starts) = (Sample::new(runs), Sample::new(starts));
        let (kind, target) = match self.ahead {
            true => (format!("{kind}, made ahead"), 1.0),
            false => (kind.to_owned(), 1.3),
        };
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let (run, start) = (runs.quantile(quantile), starts.quantile(quantile));
            report.add(format!("docker run beside {kind}, {name}"), run, "ms", Target::None);
            report.add(format!("job in container {kind}, {name}"), start, "ms", Target::None);
        }
        let ratio = starts.quantile(0.5) / runs.quantile(0.5);
        let figure = format!("container {kind} / docker run, p50");
        report.add(figure, ratio, "x", Target::AtMost(target));
        report.add(format!("manager CPU, {kind}"), cpu_per_job, "ms/job", Target::AtMost(3.0));
    }

    /// `docker run` shall not be beside the making of a container.
    fn wait_until_made(&self) {
        if self.ahead {
            let waiting = ["ps", "-q", "--filter", "label=mayfly.ahead"];
            until("a container waits for its job", seconds(30), || {
                !self.docker.run(&waiting).is_empty()
            });
        }
    }

    fn by_manager(&mut self, job: &JobSpec) -> Duration {
        let phase = &mut self.phase;
        phase.gitlab.wait_for_requests(1, seconds(30));
        phase.anchor();
        let job = phase.gitlab.enqueue(job.clone());
        let audit = phase.gitlab.wait_for_all(&[job], seconds(60)).remove(0);
        let handed_out = audit.handed_out().expect("it ran");
        phase.script_time(job).saturating_duration_since(handed_out)
    }
}

fn by_docker(docker: &Docker) -> Duration {
    let begun = SystemTime::now();
    printed_after(begun, &docker.run(&["run", "--rm", IMAGE, "sh", "-c", DATE]))
}
