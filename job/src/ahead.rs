//! What can be made before the job is there that needs it: the container and the network of
//! a job that is like the last one of its slot. Both sides of the wire ask here, so that
//! neither has to know how the other compares.

use serde_json::{Map, Value};

use crate::compose::is_name;
use crate::plan::{Container, Containers};

/// Labels that tell one job from another.
const OF_JOB: [&str; 5] = [
    "mayfly.job",
    "com.gitlab.gitlab-runner.job.id",
    "com.gitlab.gitlab-runner.job.sha",
    "com.gitlab.gitlab-runner.job.ref",
    "com.gitlab.gitlab-runner.pipeline.id",
];

/// On what is made ahead, also once a job has taken it: when it was made, in seconds since
/// 1970.
pub const LABEL: &str = "mayfly.ahead";

/// What of a job's containers does not depend on the job: equal for two jobs where one can
/// take what was made for the other. Holds no variable and no login.
///
/// `None` where nothing can be made ahead. Variables reach a script with the script; what
/// reads them as a container starts would miss them: an entrypoint, a runtime of its own, the
/// driver of a GPU, the shell itself. Links, and what is another container's, need that one.
pub fn shape(containers: &Containers) -> Option<Containers> {
    let build = containers.build.as_ref()?;
    let mut config: Map<String, Value> = serde_json::from_str(&build.config).ok()?;
    let host = config.get("HostConfig");
    let is_set = |key: &str| host.is_some_and(|host| host.get(key).is_some());
    let is_anothers = |key: &str| {
        let mode = host.and_then(|host| host.get(key)?.as_str());
        mode.is_some_and(|mode| mode.starts_with("container:"))
    };
    let reads_variables = config.contains_key("Entrypoint")
        || is_set("Runtime")
        || is_set("DeviceRequests")
        || config.get("Env").is_some_and(counts_at_the_start);
    let needs_links = containers.network.is_none() && !containers.services.is_empty();
    let needs_others = is_set("VolumesFrom")
        || is_set("Links")
        || is_anothers("NetworkMode")
        || is_anothers("IpcMode");
    if reads_variables || needs_links || needs_others {
        return None;
    }
    config.remove("Env");
    let mut labels = containers.labels.clone();
    labels.retain(|key, _| !OF_JOB.contains(&key.as_str()));
    let word = |key: &str| containers.labels.get(key).map_or("", String::as_str);
    Some(Containers {
        host: containers.host.clone(),
        inside: containers.inside.clone(),
        outside: containers.outside.clone(),
        prefix: format!("{}-ahead", prefix(word("mayfly.instance"), word("mayfly.slot"))),
        build: Some(Container {
            image: build.image.clone(),
            platform: build.platform.clone(),
            config: Value::Object(config).to_string(),
            ..Container::default()
        }),
        network: containers.network,
        volumes: containers.volumes.clone(),
        labels,
        ..Containers::default()
    })
}

/// Whether variables change how a shell, a program or a GPU's runtime starts, or have names
/// that no script can export.
fn counts_at_the_start(env: &Value) -> bool {
    let names = env.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut names = names.map(|entry| entry.split('=').next().unwrap_or(entry));
    names.any(|name| {
        matches!(name, "BASH_ENV" | "ENV" | "SHELLOPTS")
            || ["LD_", "NVIDIA_"].iter().any(|prefix| name.starts_with(prefix))
            || name.ends_with("_VISIBLE_DEVICES")
            || !is_name(name)
    })
}

/// Begins the names of what is made on an instance for something, unlike any other of the same
/// daemon, which several instances may use.
pub(crate) fn prefix(instance: &str, what: &str) -> String {
    format!("mayfly-{}-{what}", plain(instance))
}

/// An instance's id as part of a name or a path.
pub(crate) fn plain(instance: &str) -> String {
    instance.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::{Login, Network, Service};

    fn containers(config: Value) -> Containers {
        let labels = [("mayfly.job", "7"), ("mayfly.instance", "i/1"), ("mayfly.slot", "3")];
        Containers {
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            build: Some(Container {
                image: "busybox".into(),
                config: config.to_string(),
                ..Container::default()
            }),
            logins: vec![Login { password: "secret".into(), ..Login::default() }],
            auth_config: "secret".into(),
            prefix: "mayfly-i-1-token-7".into(),
            ..Containers::default()
        }
    }

    fn plain(env: &str) -> Value {
        json!({ "Image": "busybox", "Env": [env], "HostConfig": { "Privileged": false } })
    }

    #[test]
    fn two_jobs_that_differ_by_their_variables_have_one_shape_and_it_holds_no_secret() {
        let (one, mut other) = (containers(plain("A=secret")), containers(plain("B=2")));
        other.labels.insert("mayfly.job".into(), "8".into());
        other.prefix = "mayfly-i-1-token-8".into();
        let found = shape(&one);
        assert_eq!(found, shape(&other));
        let found = found.expect("it can be made ahead");
        assert_eq!(found.prefix, "mayfly-i-1-3-ahead");
        assert!(!format!("{found:?}").contains("secret"), "{found:?}");
    }

    #[test]
    fn what_matters_to_a_container_makes_another_shape() {
        let base = shape(&containers(plain("A=1")));
        let mut image = containers(plain("A=1"));
        image.build.as_mut().expect("it has one").image = "debian".into();
        let privileged = containers(json!({ "HostConfig": { "Privileged": true } }));
        let mut network = containers(plain("A=1"));
        network.network = Some(Network::default());
        let mut slot = containers(plain("A=1"));
        slot.labels.insert("mayfly.slot".into(), "4".into());
        for other in [image, privileged, network, slot] {
            let found = shape(&other);
            assert!(found.is_some() && found != base, "{other:?}");
        }
    }

    #[test]
    fn what_reads_variables_as_it_starts_is_not_made_ahead() {
        for config in [
            json!({ "Entrypoint": ["/init"], "HostConfig": {} }),
            json!({ "HostConfig": { "Runtime": "nvidia" } }),
            json!({ "HostConfig": { "DeviceRequests": [{}] } }),
            json!({ "HostConfig": { "VolumesFrom": ["data"] } }),
            json!({ "HostConfig": { "NetworkMode": "container:vpn" } }),
            json!({ "HostConfig": {}, "Env": ["A=1", "BASH_ENV=/etc/rc"] }),
            json!({ "HostConfig": {}, "Env": ["NVIDIA_VISIBLE_DEVICES=0"] }),
            json!({ "HostConfig": {}, "Env": ["spring.profiles=test"] }),
        ] {
            assert_eq!(shape(&containers(config.clone())), None, "{config}");
        }
    }

    #[test]
    fn services_need_a_network_of_the_jobs_own() {
        let mut linked = containers(plain("A=1"));
        linked.services = vec![Service::default()];
        assert_eq!(shape(&linked), None);
        linked.network = Some(Network::default());
        assert!(shape(&linked).is_some());
    }
}
