use serde_json::{Value, json};

use super::*;
use crate::compose::{Runner, compose};
use crate::payload::Job;
use crate::plan::{Action, Plan};

fn job(payload: Value) -> Job {
    let mut whole = json!({
        "id": 7, "token": "job-token", "job_info": { "project_id": 3 },
        "git_info": { "repo_url": "https://gitlab-ci-token:t@h/g/p.git", "sha": "0123456789", "ref": "main" },
        "variables": [
            { "key": "OPEN", "value": "o", "public": true },
            { "key": "SECRET", "value": "s" },
            { "key": "CERT", "value": "pem", "file": true, "public": true },
        ],
        "steps": [{ "name": "script", "script": ["true"] }],
    });
    for (key, value) in payload.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).expect("a payload")
}

fn plan(docker: Docker, payload: Value) -> Result<Plan, Outcome> {
    let runner = Runner { short_token: "short".into(), docker: Some(docker), ..Runner::default() };
    let instance = Instance {
        id: "i/1".into(),
        home: "/home/ci".into(),
        slot: 2,
        arch: "amd64".into(),
        via: "manager".into(),
        has_git: true,
    };
    compose(&job(payload), &runner, &instance)
}

fn containers(docker: Docker, payload: Value) -> Containers {
    plan(docker, payload).expect("a plan").containers.expect("containers")
}

fn body(container: Option<&Container>) -> Value {
    serde_json::from_str(&container.expect("a container").config).expect("JSON")
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn scripts_see_the_builds_directory_and_the_agent_sees_it_outside() {
    let docker = Docker { image: "debian".into(), ..Docker::default() };
    let plan = plan(docker, json!({})).expect("a plan");
    let containers = plan.containers.expect("containers");
    assert_eq!(
        (containers.inside.as_str(), containers.outside.as_str()),
        ("/builds", "/home/ci/builds/short/2")
    );
    assert_eq!(plan.project_dir, "/home/ci/builds/short/2/g/p");
    let script = |name: &str| {
        let stage = plan.stages.iter().find(|stage| stage.name == name).expect("a stage");
        match stage.action.clone() {
            Some(Action::Script(script)) => script,
            other => panic!("{name}: {other:?}"),
        }
    };
    let (sources, step) = (script("get_sources"), script("step_script"));
    assert!(
        sources.of_agent && sources.text.contains("/home/ci/builds/short/2/g/p"),
        "{}",
        sources.text
    );
    assert!(!step.of_agent && step.text.contains("'/builds/g/p'"), "{}", step.text);
    assert!(!step.text.contains("/home/ci"), "{}", step.text);
    assert_eq!(plan.stages[0].name, "prepare_executor");
}

#[test]
fn services_see_public_variables_only() {
    let docker = Docker { image: "debian".into(), ..Docker::default() };
    let service = json!({ "name": "redis", "variables": [{ "key": "OWN", "value": "$OPEN!" }] });
    let containers = containers(docker, json!({ "services": [service] }));
    let service = body(containers.services[0].container.as_ref());
    let env = words(&service["Env"]);
    assert!(env.contains(&"OPEN=o") && env.contains(&"OWN=o!"), "{env:?}");
    assert!(env.contains(&"CERT=/builds/g/p.tmp/CERT"), "{env:?}");
    assert!(!env.iter().any(|word| word.starts_with("SECRET")), "{env:?}");
    let build = body(containers.build.as_ref());
    assert!(words(&build["Env"]).contains(&"SECRET=s"));
}

#[test]
fn a_job_has_its_image_entrypoint_user_and_platform() {
    let docker = Docker { image: "debian".into(), ..Docker::default() };
    let image = json!({
        "name": "ruby:$OPEN", "entrypoint": ["/entry"],
        "executor_opts": { "docker": { "user": "1000", "platform": "linux/arm64" } },
    });
    let containers = containers(docker.clone(), json!({ "image": image }));
    let build = containers.build.as_ref().expect("a container");
    assert_eq!((build.image.as_str(), build.platform.as_str()), ("ruby:o", "linux/arm64"));
    let asked = body(Some(build));
    assert_eq!((asked["User"].as_str(), &asked["Entrypoint"]), (Some("1000"), &json!(["/entry"])));
    let strict =
        Docker { disable_entrypoint_overwrite: true, allowed_users: vec!["root".into()], ..docker };
    let refusal =
        plan(strict.clone(), json!({ "image": image })).expect_err("the user is not allowed");
    assert_eq!(refusal.reason(), FailureReason::RunnerConfigurationError);
    let image = json!({ "name": "ruby", "entrypoint": ["/entry"] });
    let containers = self::containers(strict, json!({ "image": image }));
    assert_eq!(body(containers.build.as_ref())["Entrypoint"], Value::Null);
}

#[test]
fn a_job_without_any_image_is_refused() {
    let refusal = plan(Docker::default(), json!({})).expect_err("no image");
    assert_eq!(refusal.reason(), FailureReason::RunnerConfigurationError);
}

#[test]
fn the_limit_of_services_counts_those_of_the_runner_too() {
    let own = Service { name: "redis".into(), ..Service::default() };
    let limited = |limit| Docker {
        image: "debian".into(),
        services: vec![own.clone()],
        services_limit: Some(limit),
        ..Docker::default()
    };
    let payload = json!({ "services": [{ "name": "postgres" }] });
    assert_eq!(containers(limited(2), payload.clone()).services.len(), 2);
    let refusal = plan(limited(1), payload).expect_err("two are more than one");
    assert_eq!(refusal.reason(), FailureReason::RunnerConfigurationError);
}

#[test]
fn volumes_are_bound_kept_or_pass() {
    let docker = Docker {
        image: "debian".into(),
        volumes: vec!["/cache".into(), "/srv/x:/x:ro".into(), "/srv/builds:/builds".into()],
        ..Docker::default()
    };
    let kept = containers(docker.clone(), json!({}));
    let binds = body(kept.build.as_ref())["HostConfig"]["Binds"].clone();
    let name = &kept.volumes[0];
    assert!(name.starts_with("mayfly-short-project-3-slot-2-cache-"), "{name}");
    assert_eq!(words(&binds), [&format!("{name}:/cache"), "/srv/x:/x:ro"]);
    assert_eq!(kept.outside, "/srv/builds");
    let mut own = docker.clone();
    own.volumes = vec!["/srv/${MAYFLY_INSTANCE}:/builds".into()];
    assert_eq!(containers(own, json!({})).outside, "/srv/i-1");
    let passing = containers(Docker { disable_cache: true, ..docker }, json!({}));
    assert_eq!(body(passing.build.as_ref())["Volumes"], json!({ "/cache": {} }));
    assert!(passing.volumes.is_empty());
}

#[test]
fn limits_and_devices_are_the_daemons_fields() {
    let build = HostOptions {
        memory: 1024,
        nano_cpus: 1_500_000_000,
        gpus: "all".into(),
        devices: vec![Device {
            outside: "/dev/kvm".into(),
            inside: "/dev/kvm".into(),
            permissions: "rw".into(),
        }],
        ulimits: [("nofile".to_owned(), (1, 2))].into(),
        ..HostOptions::default()
    };
    let docker = Docker {
        image: "debian".into(),
        privileged: true,
        allowed_privileged_images: vec!["good/*".into()],
        build,
        ..Docker::default()
    };
    let host = body(containers(docker.clone(), json!({})).build.as_ref())["HostConfig"].clone();
    assert_eq!((&host["Memory"], &host["NanoCpus"]), (&json!(1024), &json!(1_500_000_000)));
    assert_eq!(host["DeviceRequests"], json!([{ "Capabilities": [["gpu"]], "Count": -1 }]));
    assert_eq!(host["Devices"][0]["PathInContainer"], "/dev/kvm");
    assert_eq!(host["Ulimits"], json!([{ "Name": "nofile", "Soft": 1, "Hard": 2 }]));
    assert_eq!(host["Privileged"], json!(false));
    let good = containers(docker, json!({ "image": { "name": "good/one" } }));
    assert_eq!(body(good.build.as_ref())["HostConfig"]["Privileged"], json!(true));
}

#[test]
fn a_network_of_the_jobs_own_is_asked_for_by_the_flag() {
    let flag = json!({ "variables": [{ "key": "FF_NETWORK_PER_BUILD", "value": "1" }] });
    let docker = Docker { image: "debian".into(), network_mtu: 1400, ..Docker::default() };
    let network = containers(docker.clone(), flag.clone()).network;
    assert_eq!(network.map(|network| network.mtu), Some(1400));
    assert_eq!(containers(docker.clone(), json!({})).network, None);
    let fixed = Docker { network_mode: "host".into(), ..docker };
    assert_eq!(containers(fixed, flag).network, None);
}

#[test]
fn without_git_the_helper_image_fetches() {
    let docker =
        Docker { image: "debian".into(), helper_image: "helper".into(), ..Docker::default() };
    let runner = Runner { docker: Some(docker), ..Runner::default() };
    let instance = Instance { home: "/home/ci".into(), ..Instance::default() };
    let plan = compose(&job(json!({})), &runner, &instance).expect("a plan");
    let helper = plan.containers.expect("containers").helper.expect("a helper");
    assert_eq!(helper.image, "helper");
    let sources = plan.stages.iter().find(|stage| stage.name == "get_sources").expect("a stage");
    let Some(Action::Script(script)) = &sources.action else { panic!("{sources:?}") };
    assert!(
        script.text.contains("'/builds/g/p'") && !script.text.contains("/home/ci"),
        "{}",
        script.text
    );
}
