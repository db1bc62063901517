//! Makes the snapshot: an index of its own, a tree, a commit, and the refs that jobs fetch.

use std::{
    ffi::{OsStr, OsString},
    fs::Permissions,
    io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    fs::{self, File},
    io::AsyncWriteExt,
    process::Command,
};

use super::repository::Repository;
use crate::coordinator::{
    Context,
    context::{Commit, PIPELINE_ID, Person},
    git::{self, GitError},
};

/// Deadline of a command that only looks something up.
pub(super) const QUICK: Duration = Duration::from_secs(60);
/// Deadline of reading the whole work tree, filters included.
const SLOW: Duration = Duration::from_secs(15 * 60);

/// A captured working tree.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// The bare repository that jobs clone.
    pub(crate) git_dir: PathBuf,
    /// Project, commit and person; `config_path` is the caller's to set.
    pub(crate) context: Context,
    /// Whether the commit was made for this snapshot; otherwise it is the user's HEAD.
    pub(crate) has_uncommitted_changes: bool,
    /// Whether the history is cut off, because the user's clone is shallow.
    pub(crate) is_shallow: bool,
    /// What the user should know although it stops nothing.
    pub(crate) notes: Vec<String>,
}

/// Why no snapshot could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// No git program.
    #[error("git is not installed, or not in PATH: install it")]
    GitMissing,
    /// Not inside a repository.
    #[error("{} is not in a git repository: run `git init` there first", directory.display())]
    NoRepository {
        /// Where a repository was looked for.
        directory: PathBuf,
    },
    /// A bare repository, or the inside of a `.git`.
    #[error("{} has no working tree: run this in a checkout", directory.display())]
    NoWorkTree {
        /// Where a working tree was looked for.
        directory: PathBuf,
    },
    /// Files of the working tree that git could not take in.
    #[error("git cannot take in the working tree: {detail}; {hint}")]
    Unreadable {
        /// What git said.
        detail: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A git command failed or took too long.
    #[error("cannot {step}")]
    Git {
        /// What the command was for.
        step: &'static str,
        /// What came of it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the snapshot could not be written or read.
    #[error("cannot write the snapshot to {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SnapshotError {
    pub(super) fn git(step: &'static str) -> impl Fn(GitError) -> Self {
        move |error| match error {
            GitError::Missing => Self::GitMissing,
            error => Self::Git { step, source: Box::new(error) },
        }
    }

    fn unreadable(detail: String) -> Self {
        let hint = if detail.contains("does not have a commit checked out") {
            "commit in that repository, or ignore it"
        } else if detail.contains("No space left") {
            "make room on the disk"
        } else {
            "make the file readable, or ignore it"
        };
        Self::Unreadable { detail, hint }
    }

    fn io(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.into(), source }
    }
}

/// Captures the working tree that `directory` is in. The snapshot is made in `into`, which is
/// created if need be, belongs to this run alone, and must outlive it.
///
/// # Errors
/// See [`SnapshotError`]; `into` may be left with parts of a snapshot.
pub(crate) async fn create(directory: &Path, into: &Path) -> Result<Snapshot, SnapshotError> {
    let repository = Repository::find(directory).await?;
    fs::create_dir_all(into).await.map_err(SnapshotError::io(into))?;
    let into = fs::canonicalize(into).await.map_err(SnapshotError::io(into))?;
    let bare = init(&repository, &into).await?;
    let capture = Capture { repository: &repository, bare: &bare, index: into.join("index") };
    let tree = capture.tree().await?;
    let mut notes = capture.notes().await?;
    let head = capture.head_tree().await?;
    let (sha, before_sha, made) = match (&repository.head, head) {
        (Some(head), Some(head_tree)) if head_tree == tree && !repository.is_partial => {
            (head.clone(), capture.parent(head).await?, false)
        }
        (head, _) => (capture.commit(&tree).await?, head.clone(), true),
    };
    capture.refs(&sha).await?;
    // Only the copy of an index; a tree without files has none.
    drop(fs::remove_file(&capture.index).await);
    if repository.is_partial {
        capture.check_complete(&sha).await?;
        notes.push("this is a partial clone: jobs see one commit, without its history".into());
    }
    let zeros = "0".repeat(sha.len());
    let commit = capture.describe(sha, before_sha.unwrap_or(zeros)).await?;
    let context = Context {
        project: repository.project.clone(),
        commit,
        user: repository.user.clone(),
        ..Context::default()
    };
    let is_shallow = repository.shallow.is_some();
    Ok(Snapshot { git_dir: bare, context, has_uncommitted_changes: made, is_shallow, notes })
}

/// An empty bare repository that borrows the user's objects.
async fn init(repository: &Repository, into: &Path) -> Result<PathBuf, SnapshotError> {
    let bare = into.join("snapshot.git");
    fs::create_dir_all(&bare).await.map_err(SnapshotError::io(&bare))?;
    let private = Permissions::from_mode(0o700);
    fs::set_permissions(&bare, private).await.map_err(SnapshotError::io(&bare))?;
    let format = format!("--object-format={}", repository.object_format);
    let arguments = ["init", "--quiet", "--bare", "--template=", &format, "--initial-branch=main"];
    git::run(&bare, &arguments, QUICK).await.map_err(SnapshotError::git("make a repository"))?;
    let alternates = bare.join("objects/info/alternates");
    let info = bare.join("objects/info");
    fs::create_dir_all(&info).await.map_err(SnapshotError::io(&info))?;
    let line = [quoted_path(&repository.objects), b"\n".to_vec()].concat();
    fs::write(&alternates, line).await.map_err(SnapshotError::io(&alternates))?;
    if let Some(boundary) = &repository.shallow {
        let copy = bare.join("shallow");
        fs::copy(boundary, &copy).await.map_err(SnapshotError::io(&copy))?;
    }
    let config = bare.join("config");
    let mut text = fs::read(&config).await.map_err(SnapshotError::io(&config))?;
    text.extend_from_slice(b"[uploadpack]\n\tallowFilter = true\n[gc]\n\tauto = 0\n");
    fs::write(&config, text).await.map_err(SnapshotError::io(&config))?;
    Ok(bare)
}

struct Capture<'a> {
    repository: &'a Repository,
    bare: &'a Path,
    index: PathBuf,
}

impl Capture<'_> {
    /// A command in the user's work tree that writes objects and index to the snapshot.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = git::command(&self.repository.top);
        command
            .args(arguments)
            .env("GIT_OBJECT_DIRECTORY", self.bare.join("objects"))
            .env("GIT_INDEX_FILE", &self.index);
        command
    }

    /// The tree of all files that are not ignored. A copy of the user's index to start from
    /// means that only changed files are read.
    async fn tree(&self) -> Result<String, SnapshotError> {
        self.copy_index().await.map_err(SnapshotError::io(&self.index))?;
        let mut add = self.command(&["add", "--all", "--", "."]);
        // The snapshot may be made inside the working tree; it must not take itself in.
        if let Ok(inside) = self.bare.strip_prefix(&self.repository.top)
            && let Some(inside) = inside.parent().filter(|inside| *inside != Path::new(""))
        {
            let mut exclude = OsString::from(":(exclude,literal)");
            exclude.push(inside);
            add.arg(exclude);
        }
        git::output(add, None, SLOW).await.map_err(|error| match error {
            GitError::Failed(detail) => SnapshotError::unreadable(detail),
            error => SnapshotError::git("read the working tree")(error),
        })?;
        let tree = git::output(self.command(&["write-tree"]), None, SLOW).await;
        tree.map(git::line).map_err(SnapshotError::git("write the tree"))
    }

    /// The copy keeps the index's time: git looks closely at files that are as young as their
    /// index, because an edit within the same second does not show otherwise.
    async fn copy_index(&self) -> io::Result<()> {
        let mut index = match File::open(&self.repository.index).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let modified = index.metadata().await?.modified()?;
        let mut copy = File::create(&self.index).await?;
        tokio::io::copy(&mut index, &mut copy).await?;
        copy.flush().await?;
        copy.into_std().await.set_modified(modified)
    }

    async fn head_tree(&self) -> Result<Option<String>, SnapshotError> {
        let Some(head) = &self.repository.head else { return Ok(None) };
        let name = format!("{head}^{{tree}}");
        let tree = git::run(&self.repository.top, &["rev-parse", "--verify", &name], QUICK).await;
        tree.map(|tree| Some(git::line(tree))).map_err(SnapshotError::git("read HEAD"))
    }

    async fn parent(&self, commit: &str) -> Result<Option<String>, SnapshotError> {
        let name = format!("{commit}^1");
        let arguments = ["rev-parse", "--verify", "--quiet", &name];
        match git::run(&self.repository.top, &arguments, QUICK).await {
            Ok(output) => Ok(Some(git::line(output))),
            Err(GitError::Failed(_)) => Ok(None),
            Err(error) => Err(SnapshotError::git("read HEAD")(error)),
        }
    }

    /// A commit of `tree` on top of HEAD; without it in a partial clone, whose older objects
    /// may be absent.
    async fn commit(&self, tree: &str) -> Result<String, SnapshotError> {
        let head = self.repository.head.as_deref().filter(|_| !self.repository.is_partial);
        let base = self.repository.head.as_deref().unwrap_or("no commit yet");
        let message = format!(
            "Working tree of {}\n\nSnapshot with uncommitted changes, made by `mayfly exec`.\n\
             Base: {base}\n",
            self.repository.branch
        );
        let mut command = self.command(&["commit-tree", tree, "-F", "-"]);
        if let Some(head) = head {
            command.args(["-p", head]);
        }
        let Person { name, email, .. } = &self.repository.user;
        command.env("GIT_AUTHOR_NAME", name).env("GIT_COMMITTER_NAME", name);
        command.env("GIT_AUTHOR_EMAIL", email).env("GIT_COMMITTER_EMAIL", email);
        command.env_remove("GIT_AUTHOR_DATE").env_remove("GIT_COMMITTER_DATE");
        let commit = git::output(command, Some(message.as_bytes()), QUICK).await;
        commit.map(git::line).map_err(SnapshotError::git("write the commit"))
    }

    /// The branch, the pipeline's ref, the default branch and all tags.
    async fn refs(&self, sha: &str) -> Result<(), SnapshotError> {
        let step = SnapshotError::git("write the refs");
        let default = &self.repository.project.default_branch;
        let format = "%(objectname) %(refname)%(if)%(*objectname)%(then)%0a^%(*objectname)%(end)";
        let format = format!("--format={format}");
        let local = format!("refs/heads/{default}");
        let names = ["for-each-ref", "--sort=refname", &format, &local, "refs/tags"];
        let packed = git::run(&self.repository.top, &names, QUICK).await.map_err(&step)?;
        let file = self.bare.join("packed-refs");
        let head = b"# pack-refs with: peeled fully-peeled sorted \n".to_vec();
        fs::write(&file, [head, packed].concat()).await.map_err(SnapshotError::io(&file))?;
        let branch = format!("refs/heads/{}", self.repository.branch);
        self.default_branch(&branch).await?;
        let updates = format!("update {branch} {sha}\nupdate refs/pipelines/{PIPELINE_ID} {sha}\n");
        let mut update = git::command(self.bare);
        update.args(["update-ref", "--stdin"]);
        git::output(update, Some(updates.as_bytes()), QUICK).await.map_err(&step)?;
        let head = ["symbolic-ref", "HEAD", &branch];
        git::run(self.bare, &head, QUICK).await.map(drop).map_err(&step)
    }

    /// Gives jobs the default branch as the remote has it, when the user has none of their own.
    async fn default_branch(&self, branch: &str) -> Result<(), SnapshotError> {
        let name = &self.repository.project.default_branch;
        let local = format!("refs/heads/{name}");
        let remote = format!("refs/remotes/origin/{name}^{{commit}}");
        let known = ["rev-parse", "--verify", "--quiet", &local];
        let theirs = ["rev-parse", "--verify", "--quiet", &remote];
        if local == branch || git::run(&self.repository.top, &known, QUICK).await.is_ok() {
            return Ok(());
        }
        let Ok(sha) = git::run(&self.repository.top, &theirs, QUICK).await else { return Ok(()) };
        let update = ["update-ref", &local, &git::line(sha)];
        let updated = git::run(self.bare, &update, QUICK).await;
        updated.map(drop).map_err(SnapshotError::git("write the refs"))
    }

    async fn check_complete(&self, sha: &str) -> Result<(), SnapshotError> {
        let step = "take this partial clone: files outside the sparse checkout are missing";
        let walk = ["rev-list", "--objects", "--quiet", "--max-count=1", sha];
        git::run(self.bare, &walk, SLOW).await.map(drop).map_err(SnapshotError::git(step))
    }

    async fn notes(&self) -> Result<Vec<String>, SnapshotError> {
        let step = SnapshotError::git("list the files");
        let mut notes = Vec::new();
        let listed = git::output(self.command(&["ls-files", "--stage", "-z"]), None, SLOW).await;
        let listed = listed.map_err(&step)?;
        let links = listed.split(|byte| *byte == 0).filter(|line| line.starts_with(b"160000 "));
        let links = links.count();
        if links > 0 {
            notes.push(format!(
                "{links} submodules are not part of the snapshot: jobs fetch them from their \
                 remotes, with GIT_SUBMODULE_STRATEGY"
            ));
        }
        let attributes = fs::read(self.repository.top.join(".gitattributes")).await;
        if attributes.is_ok_and(|text| String::from_utf8_lossy(&text).contains("filter=lfs")) {
            notes.push("files in Git LFS are not served: jobs see their pointers".into());
        }
        Ok(notes)
    }

    async fn describe(&self, sha: String, before_sha: String) -> Result<Commit, SnapshotError> {
        let arguments = ["show", "--no-patch", "--format=%an <%ae>%x00%cI%x00%B", &sha, "--"];
        let shown = git::run(self.bare, &arguments, QUICK).await;
        let shown = shown.map(git::line).map_err(SnapshotError::git("read the commit"))?;
        let mut parts = shown.splitn(3, '\0').map(|part| part.trim_end().to_string());
        let (author, timestamp) = (parts.next(), parts.next());
        Ok(Commit {
            sha,
            before_sha,
            branch: self.repository.branch.clone(),
            message: parts.next().unwrap_or_default(),
            author: author.unwrap_or_default(),
            timestamp: timestamp.unwrap_or_default(),
        })
    }
}

/// The path as a line of `objects/info/alternates`: quoted like a C string where it must be.
fn quoted_path(path: &Path) -> Vec<u8> {
    let bytes = OsStr::as_bytes(path.as_os_str());
    if !bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return bytes.to_vec();
    }
    let mut quoted = vec![b'"'];
    for byte in bytes {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', *byte]),
            byte if byte.is_ascii_control() => {
                quoted.extend(format!("\\{byte:03o}").into_bytes());
            }
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'"');
    quoted
}
