//! What a job may choose for its containers, and what it gets where it does not.

use globset::GlobBuilder;

use super::{Docker, PullPolicy, policies, refused};
use crate::compose::Context;
use crate::outcome::Outcome;
use crate::payload::{Image, Variable};
use crate::variables::Variables;

/// Without a list all are allowed; the runner's own image always is.
pub(super) fn allowed_image(
    docker: &Docker,
    name: &str,
    variables: &Variables,
) -> Result<(), Outcome> {
    if variables.expand(&docker.image) == name || is_listed(&docker.allowed_images, name) {
        return Ok(());
    }
    Err(not_listed("image", name, "allowed_images", &docker.allowed_images))
}

/// The same of services.
pub(super) fn allowed_service(
    docker: &Docker,
    name: &str,
    variables: &Variables,
) -> Result<(), Outcome> {
    let is_own = docker.services.iter().any(|service| variables.expand(&service.name) == name);
    if is_own || is_listed(&docker.allowed_services, name) {
        return Ok(());
    }
    Err(not_listed("service", name, "allowed_services", &docker.allowed_services))
}

fn not_listed(what: &str, name: &str, key: &str, list: &[String]) -> Outcome {
    refused(format!(
        "the {what} {name:?} is not allowed on this runner; {key}: {}",
        list.join(", ")
    ))
}

/// Whether a glob of the list matches; every name is on an empty one. Stars don't cross a
/// slash, double stars do, as in GitLab Runner.
pub(super) fn is_listed(list: &[String], name: &str) -> bool {
    let matches = |pattern: &String| {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        glob.map_or(pattern == name, |glob| glob.compile_matcher().is_match(name))
    };
    list.is_empty() || list.iter().any(matches)
}

/// The policies to try, one after the other.
pub(super) fn pull_policies(docker: &Docker, asked: &[String]) -> Result<Vec<PullPolicy>, Outcome> {
    let configured = policies(docker);
    let allowed = match docker.allowed_pull_policies.as_slice() {
        [] => &configured,
        some => some,
    };
    let chosen: Vec<PullPolicy> = if asked.is_empty() {
        configured.clone()
    } else {
        asked.iter().map(|word| named(word)).collect::<Result<_, _>>()?
    };
    if let Some(other) = chosen.iter().find(|policy| !allowed.contains(policy)) {
        let words: Vec<&str> = allowed.iter().map(|policy| policy.as_gitlab()).collect();
        return Err(refused(format!(
            "the pull policy {:?} is not allowed on this runner; allowed are: {}",
            other.as_gitlab(),
            words.join(", ")
        )));
    }
    Ok(chosen)
}

fn named(word: &str) -> Result<PullPolicy, Outcome> {
    PullPolicy::named(word).ok_or_else(|| refused(format!("{word:?} is no pull policy")))
}

/// The user that the job asks for, or else `default`; empty is the image's.
pub(super) fn user(docker: &Docker, image: &Image, default: &str) -> Result<String, Outcome> {
    let asked = &image.executor_opts.docker.user;
    if asked.is_empty() {
        return Ok(default.to_owned());
    }
    if docker.allowed_users.is_empty() || docker.allowed_users.contains(asked) {
        return Ok(asked.clone());
    }
    Err(refused(format!(
        "the user {asked:?} is not allowed on this runner; allowed_users: {}",
        docker.allowed_users.join(", ")
    )))
}

/// Names under which a service is reached: two made of its image's name, and its aliases.
pub(super) fn aliases(image: &str, alias: &str) -> Vec<String> {
    let name = without_version(image);
    let mut aliases = vec![name.replace('/', "__"), name.replace('/', "-")];
    let own = alias.split([' ', ',']).filter(|word| !word.is_empty());
    aliases.extend(own.map(str::to_owned));
    let mut known = std::collections::BTreeSet::new();
    aliases.retain(|alias| known.insert(alias.clone()));
    aliases
}

/// An image's name without port, tag and digest: `h:5000/a/b:1` is `h/a/b`.
fn without_version(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let parts: Vec<&str> =
        name.split('/').map(|part| part.split(':').next().unwrap_or(part)).collect();
    parts.join("/")
}

/// A service sees the job's public variables, those of files as their paths, and its own.
pub(super) fn service_variables(context: &Context<'_>, image: &Image) -> Variables {
    let set = |key: &str, value: String| Variable {
        key: key.to_owned(),
        value,
        raw: true,
        ..Variable::default()
    };
    let public = context.variables.iter().filter(|variable| variable.public);
    let public = public.map(|variable| match variable.file {
        true => set(&variable.key, format!("{}/{}", context.place.temp_dir, variable.key)),
        false => set(&variable.key, variable.value.clone()),
    });
    let own = image.variables.iter().map(|variable| match variable.raw {
        true => set(&variable.key, variable.value.clone()),
        false => set(&variable.key, context.variables.expand(&variable.value)),
    });
    Variables::resolve(public.chain(own), |_| String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_gitlabs() {
        let cases = [
            (vec![], "anything", true),
            (vec!["ruby:*"], "ruby:3.3", true),
            (vec!["ruby:*"], "h/ruby:3.3", false),
            (vec!["h:5000/*/*:*"], "h:5000/a/b:1", true),
            (vec!["h:5000/*/*:*"], "h:5000/a/b/c:1", false),
            (vec!["h/**"], "h/a/b/c:1", true),
            (vec!["[broken"], "[broken", true),
        ];
        for (list, name, expected) in cases {
            let list: Vec<String> = list.into_iter().map(str::to_owned).collect();
            assert_eq!(is_listed(&list, name), expected, "{list:?} {name}");
        }
    }

    #[test]
    fn services_are_reached_by_gitlabs_names() {
        let cases = [
            ("redis:7", "", vec!["redis"]),
            ("tutum/wordpress:latest", "", vec!["tutum__wordpress", "tutum-wordpress"]),
            ("h:5000/a/b@sha256:0", "db, cache", vec!["h__a__b", "h-a-b", "db", "cache"]),
            ("redis", "redis", vec!["redis"]),
        ];
        for (image, alias, expected) in cases {
            assert_eq!(aliases(image, alias), expected, "{image}");
        }
    }

    #[test]
    fn a_job_chooses_among_allowed_policies() {
        let mut docker = Docker {
            pull_policies: vec![PullPolicy::PullIfNotPresent],
            allowed_pull_policies: vec![PullPolicy::PullIfNotPresent, PullPolicy::PullNever],
            ..Docker::default()
        };
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(pull_policies(&docker, &[]), Ok(vec![PullPolicy::PullIfNotPresent]));
        assert_eq!(pull_policies(&docker, &words(&["never"])), Ok(vec![PullPolicy::PullNever]));
        assert!(pull_policies(&docker, &words(&["never", "always"])).is_err());
        assert!(pull_policies(&docker, &words(&["sometimes"])).is_err());
        docker.allowed_pull_policies.clear();
        assert!(pull_policies(&docker, &words(&["never"])).is_err());
    }
}
