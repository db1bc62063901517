//! Whose the job's files are. Under GitLab Runner root made them, and may change them in a
//! container. Where the agent is somebody else it gives them to root while scripts run, and
//! takes them back to fetch, upload and remove: by itself, as root, in a container of the
//! job's own image.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hyper::StatusCode;
use job::plan::Container;
use serde_json::{Value, json};
use walkdir::WalkDir;

use super::furnish::Ties;
use super::{Job, Trouble, system_failure};
use crate::Error;

/// The role in that container.
pub(crate) const OWN: &str = "own";
/// Where the agent is seen in it.
const AGENT: &str = "/.mayfly-agent";

/// Gives everything below a directory, and itself, to a user.
pub(crate) fn own(dir: &str, user: &str, group: &str) -> Result<ExitCode, Error> {
    let id = |text: &str| text.parse().map_err(|_| Error::new(format!("{text}: not a number")));
    let (user, group): (u32, u32) = (id(user)?, id(group)?);
    let mut failed = None;
    for entry in WalkDir::new(dir).follow_links(false) {
        let result = entry.map_err(std::io::Error::from).and_then(|entry| {
            let metadata = entry.metadata().map_err(std::io::Error::from)?;
            if metadata.uid() == user && metadata.gid() == group {
                return Ok(());
            }
            lchown(entry.path(), Some(user), Some(group))
        });
        if let Err(error) = result {
            failed.get_or_insert(error);
        }
    }
    match failed {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(Error::io("cannot change the owner of the job's files")(error)),
    }
}

impl Job<'_> {
    /// Before a script of the job.
    pub(super) async fn give_away(&self, build: &Value) -> Result<(), Trouble> {
        if rustix::process::geteuid().is_root() || self.given().exists() {
            return Ok(());
        }
        let written =
            fs::write(self.given(), build["Config"]["Image"].as_str().unwrap_or_default());
        written.map_err(|error| system_failure(format!("cannot note whose files are: {error}")))?;
        self.change_owner(0, 0).await
    }

    /// Before the agent works on the files.
    pub(super) async fn take_back(&self) -> Result<(), Trouble> {
        if !self.given().exists() {
            return Ok(());
        }
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        self.change_owner(user, group).await?;
        let _ = fs::remove_file(self.given());
        Ok(())
    }

    /// There while the files are not the agent's; names an image that is there.
    fn given(&self) -> PathBuf {
        PathBuf::from(format!("{}.given", self.containers.outside))
    }

    async fn change_owner(&self, user: u32, group: u32) -> Result<(), Trouble> {
        let failed =
            |error: std::io::Error| system_failure(format!("cannot change owners: {error}"));
        let given = fs::read_to_string(self.given()).map_err(failed)?;
        let agent = fs::read_link("/proc/self/exe").map_err(failed)?;
        let own = self.containers.build.as_ref().map_or("", |build| build.image.as_str());
        let mut made = self.make_owner(&given, &agent, (user, group)).await;
        // An earlier job's, which died: its image may be gone.
        if matches!(&made, Err(Trouble::Daemon(_, fault)) if fault.is(StatusCode::NOT_FOUND)) {
            made = self.make_owner(own, &agent, (user, group)).await;
        }
        made?;
        let name = self.name(OWN);
        let code = self.run_quietly(&name).await;
        let _ = self.remove(&name).await;
        match code? {
            0 => Ok(()),
            code => Err(system_failure(format!(
                "the owner of the job's files cannot be changed: exit code {code}"
            ))),
        }
    }

    /// The container that changes owners, in an image that is there.
    async fn make_owner(
        &self,
        image: &str,
        agent: &Path,
        (user, group): (u32, u32),
    ) -> Result<(), Trouble> {
        let config = json!({
            "Image": image,
            "User": "0:0",
            "Entrypoint": [AGENT],
            "Cmd": [OWN, self.containers.inside, user.to_string(), group.to_string()],
            "HostConfig": {
                "NetworkMode": "none",
                "Binds": [format!("{}:{AGENT}:ro", agent.display())],
            },
        });
        let container = Container { config: config.to_string(), ..Container::default() };
        self.make(OWN, &container, Ties::default()).await.map(drop)
    }
}
