//! Images: pulled by the job's policies, one after the other.

use std::time::Duration;

use hyper::StatusCode;
use job::outcome::{FailureReason, Outcome};
use job::plan::{Container, Containers, PullPolicy};
use serde_json::Value;

use super::daemon::{Ask, Daemon, Fault, escape, next, shown};
use super::{Job, Trouble, login, room, say, system_failure, warn};

/// How long an instance may be kept from its first job for the sake of images.
const AHEAD_LIMIT: Duration = Duration::from_secs(120);

/// What matters of an image.
pub(super) struct Image {
    /// Its id.
    pub(super) id: String,
    /// It has an entrypoint of its own.
    pub(super) has_entrypoint: bool,
    /// TCP ports that it exposes.
    pub(super) ports: Vec<u16>,
    /// A name with its digest, where it came from a registry.
    digest: Option<String>,
}

impl Image {
    fn of(inspected: &Value) -> Option<Self> {
        let config = &inspected["Config"];
        let ports = config["ExposedPorts"].as_object();
        let port = |key: &String| key.strip_suffix("/tcp").and_then(|port| port.parse().ok());
        let mut ports: Vec<u16> =
            ports.map(|ports| ports.keys().filter_map(port).collect()).unwrap_or_default();
        ports.sort_unstable();
        Some(Self {
            id: inspected["Id"].as_str()?.to_owned(),
            has_entrypoint: config["Entrypoint"].as_array().is_some_and(|list| !list.is_empty()),
            digest: inspected["RepoDigests"][0].as_str().map(str::to_owned),
            ports,
        })
    }
}

impl Job<'_> {
    /// The image of a container, pulled where its policies say so.
    pub(super) async fn image(&self, container: &Container) -> Result<Image, Trouble> {
        let policies: Vec<PullPolicy> = container.pull_policies().collect();
        let mut last = Fault::Broken("no pull policy is set".into());
        for (number, policy) in policies.iter().enumerate() {
            match self.image_by(container, *policy).await {
                Ok(image) => {
                    room::note_use(&image.id);
                    let digest = image.digest.as_deref().unwrap_or("no digest");
                    say(&format!(
                        "Using docker image {} for {} ({digest})",
                        image.id, container.image
                    ));
                    return Ok(image);
                }
                Err(fault @ (Fault::Unreachable(_) | Fault::Late(_))) => {
                    return Err(Trouble::Daemon("the image cannot be had", fault));
                }
                Err(fault) => {
                    warn(&format!(
                        "WARNING: Failed to pull image with policy \"{}\": {fault}",
                        policy.as_gitlab()
                    ));
                    if let Some(other) = policies.get(number + 1) {
                        say(&format!("Trying the next pull policy: \"{}\"", other.as_gitlab()));
                    }
                    last = fault;
                }
            }
        }
        let words: Vec<&str> = policies.iter().map(|policy| policy.as_gitlab()).collect();
        let (image, words) = (&container.image, words.join(", "));
        let message =
            format!("failed to pull image \"{image}\" with specified policies [{words}]: {last}");
        if is_out_of_room(&last.to_string()) {
            return Err(system_failure(format!("the instance has no space left: {message}")));
        }
        Err(Trouble::Outcome(Outcome::failure(FailureReason::ImagePullFailure, message)))
    }

    async fn image_by(&self, container: &Container, policy: PullPolicy) -> Result<Image, Fault> {
        if policy != PullPolicy::PullAlways {
            match self.inspect(&container.image).await {
                Err(fault)
                    if policy == PullPolicy::PullNever || !fault.is(StatusCode::NOT_FOUND) =>
                {
                    return Err(fault);
                }
                Ok(image) => return Ok(image),
                Err(_) => {}
            }
        }
        self.pull(container).await?;
        self.inspect(&container.image).await
    }

    pub(super) async fn inspect(&self, image: &str) -> Result<Image, Fault> {
        let path = format!("/images/{}/json", escape(image));
        let inspected = self.daemon.call(Ask::get(&path)).await?;
        Image::of(&inspected).ok_or_else(|| Fault::Broken(format!("{image} has no id")))
    }

    /// With each login for the registry until one does, or with none.
    async fn pull(&self, container: &Container) -> Result<(), Fault> {
        say(&format!("Pulling docker image {} ...", container.image));
        let logins = login::logins(self.containers, &container.image);
        let mut refused = None;
        for (login, source) in &logins {
            say(&format!("Authenticating with credentials from {source}"));
            match self.pull_as(container, Some(login)).await {
                Err(fault) if is_about_login(&fault) => refused = Some(fault),
                other => return other,
            }
        }
        match self.pull_as(container, None).await {
            Err(fault) if is_about_login(&fault) => Err(refused.unwrap_or(fault)),
            other => other,
        }
    }

    async fn pull_as(&self, container: &Container, login: Option<&str>) -> Result<(), Fault> {
        let (name, tag) = split(&container.image);
        let (name, tag, platform) = (escape(name), escape(tag), escape(&container.platform));
        let path = format!("/images/create?fromImage={name}&tag={tag}&platform={platform}");
        let mut body = self.daemon.stream(Ask::order(&path).logged_in(login)).await?;
        let mut line = Vec::new();
        // A pull goes on for as long as it takes: the job's own timeout ends it.
        while let Some(chunk) = next(&mut body).await? {
            for byte in chunk {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                failed(&line)?;
                line.clear();
            }
        }
        failed(&line)
    }
}

/// Pulls images that are not there, as long as there is time. One that cannot be had is the
/// business of the job that wants it.
pub(super) async fn pull_ahead(daemon: &Daemon, images: &[&str]) {
    let containers = Containers::default();
    let job = Job { daemon: daemon.clone(), containers: &containers, network: None };
    let pulls = async {
        for image in images {
            let container = Container {
                image: (*image).to_owned(),
                pull_policies: vec![PullPolicy::PullIfNotPresent.into()],
                ..Container::default()
            };
            let _ = job.image_by(&container, PullPolicy::PullIfNotPresent).await;
        }
    };
    let _ = tokio::time::timeout(AHEAD_LIMIT, pulls).await;
}

/// What a line of a pull's progress says of its failure.
fn failed(line: &[u8]) -> Result<(), Fault> {
    let value: Value = serde_json::from_slice(line).unwrap_or(Value::Null);
    match value["error"].as_str() {
        None => Ok(()),
        Some(error) => {
            Err(Fault::Refused { status: StatusCode::INTERNAL_SERVER_ERROR, message: shown(error) })
        }
    }
}

/// An image's name and its tag or digest.
fn split(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

fn is_about_login(fault: &Fault) -> bool {
    let text = fault.to_string().to_lowercase();
    ["unauthorized", "denied", "authentication required", "no basic auth"]
        .iter()
        .any(|word| text.contains(word))
}

/// Docker's words, and the kernel's.
pub(super) fn is_out_of_room(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("no space left on device") || text.contains("disk quota exceeded")
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn names_and_tags_are_told_apart() {
        let cases = [
            ("busybox", ("busybox", "latest")),
            ("busybox:1", ("busybox", "1")),
            ("h:5000/a", ("h:5000/a", "latest")),
            ("h:5000/a:2", ("h:5000/a", "2")),
            ("a@sha256:00", ("a", "sha256:00")),
            ("a:1@sha256:00", ("a:1", "sha256:00")),
        ];
        for (image, expected) in cases {
            assert_eq!(split(image), expected, "{image}");
        }
    }
}
