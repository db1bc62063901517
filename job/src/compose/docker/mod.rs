//! From a job and `[runners.docker]` to the containers that it runs in. Pure.
//!
//! What the daemon is to make is decided here, as the bodies of its requests; what only the
//! instance knows (its directories, ids, links) the agent puts in.

mod body;
mod choice;
mod options;
mod volumes;

use std::collections::BTreeMap;

pub use options::{Device, Docker, HostOptions, PullPolicy, Service};

use super::{Context, Instance, millis};
use crate::ahead::prefix;
use crate::outcome::{FailureReason, Outcome};
use crate::payload::Image;
use crate::plan::{Container, Containers, Login, Network, Service as PlannedService};
use crate::variables::Variables;
use body::Body;
use volumes::Volumes;

/// GitLab's default of `builds_dir` for containers.
pub(super) const BUILDS_DIR: &str = "/builds";

/// The containers of a job, or the outcome that refuses them.
pub(super) fn containers(
    context: &Context<'_>,
    docker: &Docker,
    instance: &Instance,
    outside: &str,
) -> Result<Containers, Outcome> {
    let volumes = Volumes::of(context, docker, instance);
    let services = services(context, docker, &volumes)?;
    let own_network = context.flag("FF_NETWORK_PER_BUILD", false) && docker.network_mode.is_empty();
    let registries =
        context.job.credentials.iter().filter(|credentials| credentials.kind == "registry");
    let helper = (!instance.has_git && !docker.helper_image.is_empty()).then(|| Container {
        image: context.variables.expand(&docker.helper_image),
        pull_policies: wire(&policies(docker)),
        config: Body::helper(context, docker).json(),
        ..Container::default()
    });
    Ok(Containers {
        host: docker.host.clone(),
        prefix: prefix(&instance.id, &super::job_key(context.job, context.runner)),
        inside: context.place.builds_dir.clone(),
        outside: volumes.builds.clone().unwrap_or_else(|| outside.to_owned()),
        labels: labels(context, docker, instance),
        build: Some(build(context, docker, &volumes)?),
        services,
        network: own_network
            .then_some(Network { ipv6: docker.enable_ipv6, mtu: docker.network_mtu }),
        volumes: volumes.kept.clone(),
        auth_config: context.variables.get("DOCKER_AUTH_CONFIG").unwrap_or_default().to_owned(),
        logins: registries
            .map(|credentials| Login {
                registry: credentials.url.clone(),
                username: credentials.username.clone(),
                password: credentials.password.clone(),
            })
            .collect(),
        wait_for_services_ms: millis(docker.wait_for_services),
        service_logs: context.variables.is_on("CI_DEBUG_SERVICES"),
        helper,
    })
}

/// The outcome of a job that asks for what the runner's configuration does not allow.
fn refused(message: String) -> Outcome {
    Outcome::failure(FailureReason::RunnerConfigurationError, message)
}

/// The image that the job asks for, or the runner's.
pub(super) fn image_name(image: Option<&Image>, docker: &Docker, variables: &Variables) -> String {
    let own = image.map(|image| variables.expand(&image.name)).unwrap_or_default();
    if own.trim().is_empty() { variables.expand(&docker.image) } else { own.trim().to_owned() }
}

fn build(context: &Context<'_>, docker: &Docker, volumes: &Volumes) -> Result<Container, Outcome> {
    let none = Image::default();
    let image = context.job.image.as_ref().unwrap_or(&none);
    let name = image_name(Some(image), docker, context.variables);
    if name.is_empty() {
        return Err(refused(
            "the job names no image, and [runners.docker] has no `image` for such jobs".into(),
        ));
    }
    choice::allowed_image(docker, &name, context.variables)?;
    let user = choice::user(docker, image, &docker.user)?;
    let privileged =
        docker.privileged && choice::is_listed(&docker.allowed_privileged_images, &name);
    Ok(Container {
        platform: image.executor_opts.docker.platform.clone(),
        pull_policies: wire(&choice::pull_policies(docker, &image.pull_policy)?),
        config: Body::build(context, docker, volumes, (&name, &user, privileged)).json(),
        image: name,
    })
}

/// The runner's services, then the job's.
fn services(
    context: &Context<'_>,
    docker: &Docker,
    volumes: &Volumes,
) -> Result<Vec<PlannedService>, Outcome> {
    let asked = docker.services.len() + context.job.services.len();
    if let Some(limit) = docker.services_limit.filter(|limit| asked > *limit as usize) {
        return Err(refused(format!(
            "the job has {asked} services, the runner's own included, and this runner allows {limit} \
             (services_limit)"
        )));
    }
    let configured = docker.services.iter().map(configured);
    let all = configured.chain(context.job.services.iter().cloned());
    all.map(|image| service(context, docker, volumes, &image)).collect()
}

/// A service of the configuration, as a job would ask for it.
fn configured(service: &Service) -> Image {
    let variables = service.environment.iter().filter_map(|entry| {
        let (key, value) = entry.split_once('=')?;
        Some(crate::variables::plain(key, value))
    });
    Image {
        name: service.name.clone(),
        alias: service.aliases.join(" "),
        entrypoint: service.entrypoint.clone(),
        command: service.command.clone(),
        variables: variables.collect(),
        is_configured: true,
        ..Image::default()
    }
}

fn service(
    context: &Context<'_>,
    docker: &Docker,
    volumes: &Volumes,
    image: &Image,
) -> Result<PlannedService, Outcome> {
    let name = context.variables.expand(&image.name);
    if !image.is_configured {
        choice::allowed_service(docker, &name, context.variables)?;
    }
    let privileged = docker.services_privileged.unwrap_or(docker.privileged)
        && choice::is_listed(&docker.allowed_privileged_services, &name);
    let variables = choice::service_variables(context, image);
    let ports = variables.get("HEALTHCHECK_TCP_PORT").and_then(|port| port.trim().parse().ok());
    let user = choice::user(docker, image, "")?;
    let config = Body::service(docker, volumes, image, &variables, (&name, &user, privileged));
    Ok(PlannedService {
        container: Some(Container {
            platform: image.executor_opts.docker.platform.clone(),
            pull_policies: wire(&choice::pull_policies(docker, &image.pull_policy)?),
            config: config.json(),
            image: name.clone(),
        }),
        aliases: choice::aliases(&name, &context.variables.expand(&image.alias)),
        ports: ports.into_iter().collect(),
    })
}

/// `pull_policy`, GitLab's default included.
fn policies(docker: &Docker) -> Vec<PullPolicy> {
    match docker.pull_policies.as_slice() {
        [] => vec![PullPolicy::PullAlways],
        some => some.to_vec(),
    }
}

fn wire(policies: &[PullPolicy]) -> Vec<i32> {
    policies.iter().map(|policy| i32::from(*policy)).collect()
}

/// Ours, by which things are found and removed, and those that GitLab Runner sets: people's
/// scripts read them.
fn labels(context: &Context<'_>, docker: &Docker, instance: &Instance) -> BTreeMap<String, String> {
    const GITLAB: &str = "com.gitlab.gitlab-runner";
    let variable = |name| context.variables.get(name).unwrap_or_default().to_owned();
    let (job, runner) = (context.job, context.runner);
    let mut labels = docker.labels.clone();
    labels.extend([
        (format!("{GITLAB}.managed"), "true".to_owned()),
        (format!("{GITLAB}.job.id"), job.id.to_string()),
        (format!("{GITLAB}.job.sha"), job.git_info.sha.clone()),
        (format!("{GITLAB}.job.ref"), job.git_info.ref_name.clone()),
        (format!("{GITLAB}.project.id"), job.job_info.project_id.to_string()),
        (format!("{GITLAB}.pipeline.id"), variable("CI_PIPELINE_ID")),
        (format!("{GITLAB}.runner.id"), runner.short_token.clone()),
        ("mayfly.job".to_owned(), job.id.to_string()),
        ("mayfly.runner".to_owned(), runner.short_token.clone()),
        ("mayfly.instance".to_owned(), instance.id.clone()),
        ("mayfly.slot".to_owned(), instance.slot.to_string()),
    ]);
    labels
}

#[cfg(test)]
mod tests;
