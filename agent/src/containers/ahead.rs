//! What the next job of a slot will likely run in, made before the job is there and held by a
//! process that waits: its stdin ends with the job's first work, or with nothing. Then, or
//! after half an hour, what it made goes.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use job::ahead::LABEL;
use job::plan::{Container, Containers};
use prost::Message as _;
use rustix::stdio::stdin;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::clear::{CONTAINERS, NETWORKS, list, remove, remove_network};
use super::daemon::{Ask, Daemon};
use super::furnish::BUILD;
use super::{Job, Trouble, While as _, system_failure};
use crate::Error;

/// Longest that a container waits for its job.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// What waits for so long is nobody's: its process was killed.
const ABANDONED: Duration = Duration::from_secs(35 * 60);

/// Made for a job that is not there yet.
pub(super) struct Ahead {
    shape: Containers,
    daemon: Daemon,
    /// Ids: others may take the names.
    container: String,
    image: String,
    /// The network's name and id.
    network: Option<(String, String)>,
    /// The builds directory that the container sees.
    outside: Option<(u64, u64)>,
}

/// Makes what the first message on stdin describes, and does the work that follows.
pub(crate) fn run() -> Result<ExitCode, Error> {
    super::runtime()?.block_on(async {
        let (ahead, bytes) = hold().await.map_err(Error::io("cannot read the work"))?;
        match super::read_work(&bytes) {
            Ok((containers, work)) => super::do_work(&containers, work, ahead).await,
            Err(error) => {
                if let Some(ahead) = ahead {
                    ahead.remove().await;
                }
                // Nothing came: there is no job.
                if bytes.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(error) }
            }
        }
    })
}

/// Waits with what could be made for work, which is empty where none came.
async fn hold() -> std::io::Result<(Option<Ahead>, Vec<u8>)> {
    let input = StdUnixStream::from(rustix::io::dup(stdin())?);
    input.set_nonblocking(true)?;
    let mut input = UnixStream::from_std(input)?;
    let length = input.read_u32().await?;
    let mut frame = Vec::new();
    (&mut input).take(length.into()).read_to_end(&mut frame).await?;
    // Whoever needs what cannot be made now makes it, and says why not.
    let mut ahead = match Containers::decode(frame.as_slice()) {
        Ok(shape) => Ahead::make(shape).await.ok(),
        Err(_) => None,
    };
    let mut bytes = Vec::new();
    if !comes_within(LONGEST, &mut input, &mut bytes).await
        && let Some(ahead) = ahead.take()
    {
        ahead.remove().await;
    }
    input.read_to_end(&mut bytes).await?;
    Ok((ahead, bytes))
}

/// Whether something comes, or the end, within a time.
async fn comes_within(limit: Duration, input: &mut UnixStream, bytes: &mut Vec<u8>) -> bool {
    timeout(limit, input.read_buf(bytes)).await.is_ok()
}

impl Ahead {
    /// Makes the network and the container, which runs: its shell waits for a script. The
    /// image must be there. On a slot that holds something already this would not be the
    /// only one at work, and nothing is touched.
    async fn make(shape: Containers) -> Result<Self, Trouble> {
        let mut labelled = shape.clone();
        labelled.labels.insert(LABEL.into(), since_1970().as_secs().to_string());
        let job = Job::of(&labelled)?;
        if !job.is_slot_clear().await.during("the slot cannot be looked at")? {
            return Err(system_failure("something is left on the slot"));
        }
        let build = labelled.build.clone().unwrap_or_default();
        let image = job.inspect(&build.image).await.during("the image is not there")?;
        if image.has_entrypoint {
            return Err(system_failure("an entrypoint waits for the sources"));
        }
        let failed = |error| system_failure(format!("there is no builds directory: {error}"));
        job.make_outside().map_err(failed)?;
        job.make_volumes().await?;
        let network = job.network.clone().zip(job.make_network().await?);
        let mut ahead = Self {
            daemon: job.daemon.clone(),
            container: job.name(BUILD),
            image: String::new(),
            network,
            outside: identity(&shape.outside),
            shape,
        };
        match ahead.make_container(&job, &build).await {
            Ok(()) => Ok(ahead),
            Err(trouble) => {
                ahead.remove().await;
                Err(trouble)
            }
        }
    }

    async fn make_container(&mut self, job: &Job<'_>, build: &Container) -> Result<(), Trouble> {
        self.container = job.make(BUILD, build, job.ties()).await?;
        let made = job.container(&self.container).await?.unwrap_or_default();
        made["Image"].as_str().unwrap_or_default().clone_into(&mut self.image);
        job.start(&self.container).await
    }

    /// Whether a job can take it, as far as that is known without the image.
    pub(super) fn fits(&self, containers: &Containers) -> bool {
        job::ahead::shape(containers).as_ref() == Some(&self.shape)
            && identity(&containers.outside) == self.outside
    }

    /// Whether the container is of this image.
    pub(super) fn is_of(&self, image: &str) -> bool {
        self.image == image
    }

    /// The network's name, if there is one.
    pub(super) fn network(&self) -> Option<String> {
        self.network.as_ref().map(|(name, _)| name.clone())
    }

    /// Gives the container a job's name for it, if everything is there still.
    pub(super) async fn is_taken_as(&self, name: &str) -> bool {
        if let Some((_, id)) = &self.network
            && self.daemon.call(Ask::get(&format!("/networks/{id}"))).await.is_err()
        {
            return false;
        }
        let path = format!("/containers/{}/rename?name={name}", self.container);
        self.daemon.call(Ask::order(&path)).await.is_ok()
    }

    pub(super) async fn remove_container(&self) {
        let _ = remove(&self.daemon, &self.container).await;
    }

    pub(super) async fn remove(&self) {
        self.remove_container().await;
        if let Some((_, id)) = &self.network {
            let _ = remove_network(&self.daemon, id).await;
        }
    }
}

/// Which directory is at a path: another one may get the same name.
fn identity(path: &str) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Removes what waits for jobs, on any instance of this daemon, although nobody holds it any
/// more. What a job has taken has the job's name, or holds its containers. What cannot be
/// removed is of no matter to this instance.
pub(super) async fn remove_abandoned(daemon: &Daemon) {
    let (now, labelled) = (since_1970(), json!({ "label": [LABEL] }));
    for item in list(daemon, CONTAINERS, &labelled).await.unwrap_or_default() {
        let waits = item["Names"][0].as_str().is_some_and(|name| name.ends_with("-ahead-build"));
        if let (true, Some(id)) = (waits && is_old(&item, now), item["Id"].as_str()) {
            let _ = remove(daemon, id).await;
        }
    }
    for item in list(daemon, NETWORKS, &labelled).await.unwrap_or_default() {
        let Some(id) = item["Id"].as_str().filter(|_| is_old(&item, now)) else { continue };
        // Between its scripts all containers of a job stand still, and it is in use.
        let inside = list(daemon, CONTAINERS, &json!({ "network": [id] })).await;
        if inside.is_ok_and(|inside| inside.is_empty()) {
            let _ = remove_network(daemon, id).await;
        }
    }
}

/// Whether the time that its label tells is too long ago.
fn is_old(item: &Value, now: Duration) -> bool {
    let made = item["Labels"][LABEL].as_str().and_then(|seconds| seconds.parse().ok());
    made.is_some_and(|made| Duration::from_secs(made) + ABANDONED < now)
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn only_what_is_older_than_anyone_waits_is_abandoned() {
        let now = Duration::from_secs(1_000_000);
        let made =
            |age: Duration| json!({ "Labels": { LABEL: (now - age).as_secs().to_string() } });
        assert!(is_old(&made(ABANDONED + Duration::from_secs(1)), now));
        assert!(!is_old(&made(LONGEST), now));
        assert!(!is_old(&json!({ "Labels": { LABEL: "true" } }), now));
    }

    #[tokio::test]
    async fn silence_after_the_first_message_is_noticed() {
        let limit = Duration::from_millis(50);
        for (more, comes) in [(None, false), (Some(b"work".as_slice()), true)] {
            let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
            // As the agent writes it: all at once.
            ours.write_all(b"\0\0\0\x05shape").await.expect("written");
            assert_eq!(theirs.read_u32().await.expect("a length"), 5);
            theirs.read_exact(&mut [0; 5]).await.expect("a shape");
            if let Some(more) = more {
                ours.write_all(more).await.expect("written");
            }
            let mut bytes = Vec::new();
            assert_eq!(comes_within(limit, &mut theirs, &mut bytes).await, comes);
            assert_eq!(bytes, more.unwrap_or_default());
            drop(ours);
            assert!(comes_within(limit, &mut theirs, &mut bytes).await, "an end is one");
        }
    }
}
