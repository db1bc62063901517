//! Against the real `git`: what a snapshot holds, and that it leaves the user's repository alone.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{capture::SnapshotError, *};

struct Sandbox {
    root: TempDir,
}

impl Sandbox {
    fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A repository with one commit that holds `a.txt` and `.gitignore`.
    fn repository(&self, name: &str) -> PathBuf {
        let top = self.path(name);
        fs::create_dir(&top).expect("created");
        git(&top, &["init", "--quiet", "--initial-branch=main"]);
        fs::write(top.join("a.txt"), "one\n").expect("written");
        fs::write(top.join(".gitignore"), "ignored\n").expect("written");
        commit(&top, "first");
        top
    }

    async fn snapshot(&self, top: &Path) -> Snapshot {
        create(top, &self.path("run")).await.expect("a snapshot")
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(["-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"])
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .output()
        .expect("git runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_string()
}

fn commit(top: &Path, message: &str) {
    git(top, &["add", "--all"]);
    git(top, &["commit", "--quiet", "--message", message]);
}

/// Everything about a repository that a snapshot must not change.
fn state(top: &Path) -> Vec<String> {
    let git_dir = PathBuf::from(git(top, &["rev-parse", "--absolute-git-dir"]));
    let index = fs::read(git_dir.join("index")).unwrap_or_default();
    let mut files = Vec::new();
    list(&PathBuf::from(git(top, &["rev-parse", "--absolute-git-dir"])), &mut files);
    files.sort();
    vec![
        git(top, &["status", "--porcelain", "--untracked-files=all"]),
        git(top, &["for-each-ref"]),
        git(top, &["count-objects", "--verbose"]),
        git(top, &["stash", "list"]),
        format!("{index:?}"),
        files.join("\n"),
    ]
}

fn list(directory: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        files.push(path.display().to_string());
        if path.is_dir() {
            list(&path, files);
        }
    }
}

fn files_of(snapshot: &Snapshot) -> Vec<String> {
    let sha = &snapshot.context.commit.sha;
    let names = git(&snapshot.git_dir, &["ls-tree", "-r", "--name-only", sha]);
    names.lines().map(str::to_string).collect()
}

fn content(snapshot: &Snapshot, file: &str) -> String {
    git(&snapshot.git_dir, &["show", &format!("{}:{file}", snapshot.context.commit.sha)])
}

#[tokio::test]
async fn uncommitted_work_is_in_it_and_nothing_is_touched() {
    let sandbox = Sandbox::new();
    let top = sandbox.repository("app");
    fs::write(top.join("b.txt"), "b\n").expect("written");
    fs::write(top.join("gone.txt"), "x\n").expect("written");
    commit(&top, "second");
    git(&top, &["tag", "--annotate", "v1", "--message", "tag"]);
    fs::write(top.join("a.txt"), "staged\n").expect("written");
    git(&top, &["add", "a.txt"]);
    fs::write(top.join("a.txt"), "not staged\n").expect("written");
    fs::write(top.join("new.txt"), "new\n").expect("written");
    fs::write(top.join("ignored"), "secret\n").expect("written");
    fs::remove_file(top.join("gone.txt")).expect("removed");
    symlink("a.txt", top.join("link")).expect("linked");
    let before = state(&top);
    let snapshot = sandbox.snapshot(&top.join(".")).await;
    assert_eq!(state(&top), before);
    assert_eq!(files_of(&snapshot), [".gitignore", "a.txt", "b.txt", "link", "new.txt"]);
    assert_eq!(content(&snapshot, "a.txt"), "not staged");
    assert!(snapshot.has_uncommitted_changes);
    let commit = &snapshot.context.commit;
    assert_eq!(commit.before_sha, git(&top, &["rev-parse", "HEAD"]));
    assert_eq!(commit.branch, "main");
    assert!(commit.message.starts_with("Working tree of main"), "{commit:?}");
    assert_eq!(git(&snapshot.git_dir, &["rev-parse", "refs/heads/main"]), commit.sha);
    assert_eq!(git(&snapshot.git_dir, &["describe"]), format!("v1-1-g{}", &commit.sha[..7]));
    git(&snapshot.git_dir, &["fsck", "--strict"]);
}

#[tokio::test]
async fn a_clean_tree_is_head_itself() {
    let sandbox = Sandbox::new();
    let top = sandbox.repository("app");
    git(&top, &["remote", "add", "origin", "git@gitlab.example:group/sub/app.git"]);
    git(&top, &["checkout", "--quiet", "-b", "feature/x"]);
    fs::write(top.join("a.txt"), "two\n").expect("written");
    commit(&top, "subject\n\nbody");
    let snapshot = sandbox.snapshot(&top).await;
    let context = &snapshot.context;
    assert!(!snapshot.has_uncommitted_changes);
    assert_eq!(context.commit.sha, git(&top, &["rev-parse", "HEAD"]));
    assert_eq!(context.commit.before_sha, git(&top, &["rev-parse", "HEAD^"]));
    assert_eq!(context.commit.branch, "feature/x");
    assert_eq!(context.commit.message, "subject\n\nbody");
    assert_eq!(context.commit.author, "Ada <ada@example.com>");
    assert_eq!(context.project.path, "group/sub/app");
    assert_eq!(context.project.default_branch, "main");
    git(&snapshot.git_dir, &["rev-parse", "--verify", "refs/heads/main"]);
}

#[tokio::test]
async fn a_repository_without_commits() {
    let sandbox = Sandbox::new();
    let top = sandbox.path("fresh repo");
    fs::create_dir(&top).expect("created");
    git(&top, &["init", "--quiet", "--initial-branch=trunk"]);
    let before = state(&top);
    let empty = create(&top, &sandbox.path("empty")).await.expect("a snapshot of nothing");
    assert_eq!(files_of(&empty), Vec::<String>::new());
    fs::write(top.join("a b.txt"), "x").expect("written");
    let snapshot = sandbox.snapshot(&top).await;
    assert_eq!(files_of(&snapshot), ["a b.txt"]);
    assert_eq!(snapshot.context.commit.before_sha, "0".repeat(40));
    assert_eq!(snapshot.context.commit.branch, "trunk");
    assert_eq!(snapshot.context.project.path, "local/fresh-repo");
    fs::remove_file(top.join("a b.txt")).expect("removed");
    assert_eq!(state(&top), before);
}

#[tokio::test]
async fn a_linked_worktree_a_subdirectory_and_a_detached_head() {
    let sandbox = Sandbox::new();
    let top = sandbox.repository("app");
    let linked = sandbox.path("linked");
    git(&top, &["worktree", "add", "--quiet", "--detach", &linked.display().to_string()]);
    fs::create_dir(linked.join("sub")).expect("created");
    fs::write(linked.join("sub/c.txt"), "c").expect("written");
    let before = state(&linked);
    let snapshot = sandbox.snapshot(&linked.join("sub")).await;
    assert_eq!(state(&linked), before);
    assert_eq!(files_of(&snapshot), [".gitignore", "a.txt", "sub/c.txt"]);
    assert_eq!(snapshot.context.commit.branch, "detached");
}

#[tokio::test]
async fn a_shallow_clone() {
    let sandbox = Sandbox::new();
    let origin = sandbox.repository("origin");
    for n in 0..5 {
        fs::write(origin.join("a.txt"), n.to_string()).expect("written");
        commit(&origin, "more");
    }
    let url = format!("file://{}", origin.display());
    git(sandbox.root.path(), &["clone", "--quiet", "--depth=2", &url, "shallow"]);
    let top = sandbox.path("shallow");
    fs::write(top.join("new"), "new").expect("written");
    let snapshot = sandbox.snapshot(&top).await;
    assert_eq!(git(&snapshot.git_dir, &["rev-list", "--count", "HEAD"]), "3");
    let bare = format!("file://{}", snapshot.git_dir.display());
    assert!(snapshot.is_shallow);
    for (name, depth) in [("one", "1"), ("twenty", "20"), ("all", "2147483647")] {
        let depth = format!("--depth={depth}");
        git(sandbox.root.path(), &["clone", "--quiet", &depth, &bare, name]);
        assert_eq!(fs::read_to_string(sandbox.path(name).join("new")).expect("there"), "new");
        git(&sandbox.path(name), &["log", "--oneline", "main"]);
    }
}

#[tokio::test]
async fn a_partial_clone_is_cut_to_one_commit() {
    let sandbox = Sandbox::new();
    let origin = sandbox.repository("origin");
    git(&origin, &["config", "uploadpack.allowFilter", "true"]);
    fs::write(origin.join("a.txt"), "two").expect("written");
    commit(&origin, "second");
    let url = format!("file://{}", origin.display());
    git(sandbox.root.path(), &["clone", "--quiet", "--filter=blob:none", &url, "partial"]);
    let snapshot = sandbox.snapshot(&sandbox.path("partial")).await;
    assert_eq!(git(&snapshot.git_dir, &["rev-list", "--count", "HEAD"]), "1");
    assert!(snapshot.notes[0].contains("partial clone"), "{:?}", snapshot.notes);
    let bare = format!("file://{}", snapshot.git_dir.display());
    git(sandbox.root.path(), &["clone", "--quiet", &bare, "clone"]);
}

#[tokio::test]
async fn a_snapshot_inside_the_tree_does_not_take_itself_in() {
    let sandbox = Sandbox::new();
    let top = sandbox.repository("app");
    fs::write(top.join("new"), "new").expect("written");
    let snapshot = create(&top, &top.join("tmp [x]/run")).await.expect("a snapshot");
    assert_eq!(files_of(&snapshot), [".gitignore", "a.txt", "new"]);
    fs::remove_dir_all(top.join("tmp [x]")).expect("removed");
    assert_eq!(git(&top, &["status", "--porcelain"]), "?? new");
}

/// An edit in the second of the commit, of the same length, is invisible to a careless look.
#[tokio::test]
async fn an_edit_right_after_a_commit_is_seen() {
    let sandbox = Sandbox::new();
    let top = sandbox.repository("app");
    fs::write(top.join("a.txt"), "two\n").expect("written");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let snapshot = sandbox.snapshot(&top).await;
    assert_eq!(content(&snapshot, "a.txt"), "two");
}

#[tokio::test]
async fn the_default_branch_comes_from_the_remote_if_need_be() {
    let sandbox = Sandbox::new();
    let origin = sandbox.repository("origin");
    let url = format!("file://{}", origin.display());
    git(sandbox.root.path(), &["clone", "--quiet", &url, "clone"]);
    let top = sandbox.path("clone");
    git(&top, &["checkout", "--quiet", "-b", "topic"]);
    git(&top, &["branch", "--quiet", "-D", "main"]);
    let snapshot = sandbox.snapshot(&top).await;
    let main = git(&origin, &["rev-parse", "main"]);
    assert_eq!(git(&snapshot.git_dir, &["rev-parse", "refs/heads/main"]), main);
    assert_eq!(snapshot.context.commit.branch, "topic");
    assert_eq!(snapshot.context.project.default_branch, "main");
}

#[tokio::test]
async fn variables_of_a_hook_do_not_mislead() {
    let sandbox = Sandbox::new();
    let top = sandbox.repository("app");
    let mut command = crate::coordinator::git::command(&top);
    command.args(["rev-parse", "--show-toplevel"]);
    let removed: Vec<_> =
        command.as_std().get_envs().filter(|(_, value)| value.is_none()).collect();
    for name in ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY"] {
        assert!(removed.iter().any(|(variable, _)| *variable == name), "{name}");
    }
}

#[tokio::test]
async fn submodules_stay_links() {
    let sandbox = Sandbox::new();
    let inner = sandbox.repository("inner");
    let top = sandbox.repository("app");
    git(&top, &["submodule", "--quiet", "add", &inner.display().to_string(), "inner"]);
    commit(&top, "with submodule");
    fs::write(top.join("inner/dirty.txt"), "x").expect("written");
    let before = state(&top);
    let snapshot = sandbox.snapshot(&top).await;
    assert_eq!(state(&top), before);
    assert!(!snapshot.has_uncommitted_changes, "a dirty submodule is the same link");
    assert!(snapshot.notes[0].starts_with("1 submodules"), "{:?}", snapshot.notes);
}

#[tokio::test]
async fn a_conflicted_index_and_an_intended_file() {
    let sandbox = Sandbox::new();
    let top = sandbox.repository("app");
    git(&top, &["checkout", "--quiet", "-b", "other"]);
    fs::write(top.join("a.txt"), "theirs\n").expect("written");
    commit(&top, "theirs");
    git(&top, &["checkout", "--quiet", "main"]);
    fs::write(top.join("a.txt"), "ours\n").expect("written");
    commit(&top, "ours");
    let merge = Command::new("git").arg("-C").arg(&top).args(["merge", "other"]).output();
    assert!(!merge.expect("git runs").status.success());
    fs::write(top.join("later.txt"), "later\n").expect("written");
    git(&top, &["add", "--intent-to-add", "later.txt"]);
    let before = state(&top);
    let snapshot = sandbox.snapshot(&top).await;
    assert_eq!(state(&top), before);
    assert!(content(&snapshot, "a.txt").contains("<<<<<<<"));
    assert_eq!(content(&snapshot, "later.txt"), "later");
}

#[tokio::test]
async fn hooks_and_signatures_are_not_triggered_filters_are() {
    let sandbox = Sandbox::new();
    let top = sandbox.repository("app");
    let hooks = top.join(".git/hooks");
    fs::create_dir_all(&hooks).expect("created");
    for hook in ["pre-commit", "post-index-change", "reference-transaction", "post-commit"] {
        let path = hooks.join(hook);
        fs::write(&path, format!("#!/bin/sh\ntouch {}/hooked\n", sandbox.root.path().display()))
            .expect("written");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("ok");
    }
    for (key, value) in [
        ("commit.gpgSign", "true"),
        ("gpg.program", "/nonexistent"),
        ("log.showSignature", "true"),
        ("core.splitIndex", "true"),
        ("filter.upper.clean", "tr a-z A-Z"),
    ] {
        git(&top, &["config", key, value]);
    }
    fs::write(top.join(".gitattributes"), "*.up filter=upper\n").expect("written");
    fs::write(top.join("x.up"), "loud\n").expect("written");
    let snapshot = sandbox.snapshot(&top).await;
    assert_eq!(content(&snapshot, "x.up"), "LOUD");
    assert!(!sandbox.path("hooked").exists());
}

#[tokio::test]
async fn odd_paths_and_sha256() {
    let sandbox = Sandbox::new();
    let top = sandbox.path("a:b \"c\"\nd");
    fs::create_dir(&top).expect("created");
    git(&top, &["init", "--quiet", "--object-format=sha256", "--initial-branch=main"]);
    fs::write(top.join("a.txt"), "x").expect("written");
    commit(&top, "first");
    let snapshot = sandbox.snapshot(&top).await;
    assert_eq!(snapshot.context.commit.sha.len(), 64);
    assert_eq!(content(&snapshot, "a.txt"), "x");
}

#[tokio::test]
async fn what_cannot_be_captured_says_so() {
    let sandbox = Sandbox::new();
    let nowhere = create(sandbox.root.path(), &sandbox.path("run")).await.expect_err("no repo");
    assert!(matches!(nowhere, SnapshotError::NoRepository { .. }), "{nowhere}");
    let bare = sandbox.path("bare.git");
    fs::create_dir(&bare).expect("created");
    git(&bare, &["init", "--quiet", "--bare"]);
    let error = create(&bare, &sandbox.path("run")).await.expect_err("bare");
    assert!(matches!(error, SnapshotError::NoWorkTree { .. }), "{error}");
    let top = sandbox.repository("app");
    fs::create_dir(top.join("nested")).expect("created");
    git(&top.join("nested"), &["init", "--quiet"]);
    let error = create(&top, &sandbox.path("run")).await.expect_err("no commit in nested");
    assert!(error.to_string().contains("nested"), "{error}");
    assert!(error.to_string().ends_with("commit in that repository, or ignore it"), "{error}");
    fs::remove_dir_all(top.join("nested")).expect("removed");
    let fifo = Command::new("mkfifo").arg(top.join("pipe")).status();
    assert!(fifo.expect("mkfifo runs").success());
    create(&top, &sandbox.path("run")).await.expect("a pipe that git does not know is no file");
}
