//! What is known of the user's repository before anything is captured.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use super::capture::{QUICK, SnapshotError};
use crate::coordinator::{
    context::{Person, Project, path_part},
    git::{self, GitError},
};

/// Branch that a detached HEAD is shown as.
const DETACHED: &str = "detached";

/// The user's repository; only ever read.
pub(super) struct Repository {
    pub(super) top: PathBuf,
    pub(super) objects: PathBuf,
    pub(super) index: PathBuf,
    pub(super) object_format: String,
    /// The commit HEAD points to; `None` before the first one.
    pub(super) head: Option<String>,
    pub(super) branch: String,
    /// The file of a shallow clone's boundary, if it is one.
    pub(super) shallow: Option<PathBuf>,
    pub(super) is_partial: bool,
    pub(super) project: Project,
    pub(super) user: Person,
}

impl Repository {
    /// Looks at the repository whose work tree `directory` is in.
    pub(super) async fn find(directory: &Path) -> Result<Self, SnapshotError> {
        let top = match git::run(directory, &["rev-parse", "--show-toplevel"], QUICK).await {
            Ok(output) => path(output),
            Err(GitError::Failed(words)) if words.contains("not a git repository") => {
                return Err(SnapshotError::NoRepository { directory: directory.into() });
            }
            Err(GitError::Failed(words)) if words.contains("must be run in a work tree") => {
                return Err(SnapshotError::NoWorkTree { directory: directory.into() });
            }
            Err(error) => return Err(SnapshotError::git("find the repository")(error)),
        };
        let top = std::fs::canonicalize(&top).unwrap_or(top);
        let query = Query { top: &top };
        let branch = query.optional(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await?;
        let head = query.optional(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await?;
        let shallow = query.git_path("shallow").await?;
        let promisor =
            query.optional(&["config", "--get-regexp", r"^remote\..*\.promisor$"]).await?;
        let extension = query.optional(&["config", "extensions.partialClone"]).await?;
        Ok(Self {
            objects: query.git_path("objects").await?,
            index: query.git_path("index").await?,
            object_format: query.required(&["rev-parse", "--show-object-format"]).await?,
            head,
            branch: branch.unwrap_or_else(|| DETACHED.into()),
            shallow: shallow.is_file().then_some(shallow),
            is_partial: promisor.or(extension).is_some(),
            project: query.project().await?,
            user: query.user().await?,
            top,
        })
    }
}

struct Query<'a> {
    top: &'a Path,
}

impl Query<'_> {
    async fn required(&self, arguments: &[&str]) -> Result<String, SnapshotError> {
        let output = git::run(self.top, arguments, QUICK).await;
        output.map(git::line).map_err(SnapshotError::git("read the repository"))
    }

    /// The answer, or `None` when git answers by failing or with nothing.
    async fn optional(&self, arguments: &[&str]) -> Result<Option<String>, SnapshotError> {
        match git::run(self.top, arguments, QUICK).await {
            Ok(output) => Ok(Some(git::line(output)).filter(|line| !line.is_empty())),
            Err(GitError::Failed(_)) => Ok(None),
            Err(error) => Err(SnapshotError::git("read the repository")(error)),
        }
    }

    async fn git_path(&self, name: &str) -> Result<PathBuf, SnapshotError> {
        let output = git::run(self.top, &["rev-parse", "--git-path", name], QUICK).await;
        let relative = output.map(path).map_err(SnapshotError::git("read the repository"))?;
        Ok(self.top.join(relative))
    }

    async fn project(&self) -> Result<Project, SnapshotError> {
        let remote = self.optional(&["config", "remote.origin.url"]).await?;
        let name = self.top.file_name().map(|name| name.to_string_lossy().into_owned());
        let local = || format!("local/{}", path_part(name.as_deref().unwrap_or("project")));
        let path = remote.and_then(|remote| Project::path_of_remote(&remote)).unwrap_or_else(local);
        let tracked =
            self.optional(&["symbolic-ref", "--quiet", "refs/remotes/origin/HEAD"]).await?;
        let tracked =
            tracked.and_then(|name| name.strip_prefix("refs/remotes/origin/").map(str::to_string));
        let default_branch = match tracked {
            Some(branch) => branch,
            None => self.local_default_branch().await?,
        };
        Ok(Project { path, default_branch })
    }

    async fn local_default_branch(&self) -> Result<String, SnapshotError> {
        for branch in ["main", "master"] {
            let name = format!("refs/heads/{branch}");
            if self.optional(&["rev-parse", "--verify", "--quiet", &name]).await?.is_some() {
                return Ok(branch.into());
            }
        }
        let configured = self.optional(&["config", "init.defaultBranch"]).await?;
        Ok(configured.unwrap_or_else(|| "main".into()))
    }

    /// The user as git knows them; a stand-in when it does not, because none is needed.
    async fn user(&self) -> Result<Person, SnapshotError> {
        let identity =
            self.optional(&["-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT"]).await?;
        let known = identity.as_deref().and_then(|identity| {
            let (name, rest) = identity.split_once(" <")?;
            let (email, _) = rest.split_once('>')?;
            Some((name.to_string(), email.to_string()))
        });
        let (name, email) = known.unwrap_or(("Mayfly".into(), "mayfly@localhost".into()));
        let login = path_part(email.split('@').next().unwrap_or(&name));
        Ok(Person { login, name, email })
    }
}

/// A path as git prints it, without the line break at its end.
fn path(mut output: Vec<u8>) -> PathBuf {
    if output.last() == Some(&b'\n') {
        output.pop();
    }
    PathBuf::from(OsString::from_vec(output))
}
