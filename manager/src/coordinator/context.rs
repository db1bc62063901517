//! Pure. What a pipeline is about: the project, the commit, the person.
//!
//! These are the facts behind GitLab's predefined variables. The snapshot of a working tree
//! knows them all; a caller that only wants to check a file can take the defaults.

/// The one pipeline's id. The snapshot names a ref by it, as GitLab does.
pub(super) const PIPELINE_ID: u64 = 1;

/// The facts a pipeline is compiled and run with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    /// The project the file belongs to.
    pub(crate) project: Project,
    /// The commit that jobs check out.
    pub(crate) commit: Commit,
    /// Who started the pipeline.
    pub(crate) user: Person,
    /// Path of the pipeline file in the repository: `CI_CONFIG_PATH`.
    pub(crate) config_path: String,
    /// Where the scripts of its jobs run.
    pub(crate) executor: Executor,
}

/// Where scripts run. GitLab's server need not know; a run at a desk can say at once which
/// keywords would have no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Executor {
    /// On the instance itself: `image` and `services` are refused.
    #[default]
    Instance,
    /// In containers.
    Docker {
        /// Whether there is an image for jobs that name none.
        has_image: bool,
    },
}

/// A project: GitLab's `group/subgroup/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Project {
    /// Full path, at least two parts, each of `[A-Za-z0-9_.-]`.
    pub(crate) path: String,
    /// `CI_DEFAULT_BRANCH`.
    pub(crate) default_branch: String,
}

/// A commit as the predefined variables show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Full object id.
    pub(crate) sha: String,
    /// The commit before it on the branch; all zeros when there is none.
    pub(crate) before_sha: String,
    /// The branch's short name.
    pub(crate) branch: String,
    /// The whole message.
    pub(crate) message: String,
    /// `Name <address>`.
    pub(crate) author: String,
    /// Commit time, ISO 8601.
    pub(crate) timestamp: String,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// Account name: `GITLAB_USER_LOGIN`.
    pub(crate) login: String,
    /// Full name: `GITLAB_USER_NAME`.
    pub(crate) name: String,
    /// Mail address: `GITLAB_USER_EMAIL`.
    pub(crate) email: String,
}

impl Project {
    /// The last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(self.path.as_str(), |(_, name)| name)
    }

    /// The path without its last part.
    pub(crate) fn namespace(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The project's path out of a remote's address, whatever its form; `None` for a local
    /// path and for anything that does not have the shape of a project.
    pub(crate) fn path_of_remote(address: &str) -> Option<String> {
        let address = address.trim();
        let rest = if let Some((scheme, rest)) = address.split_once("://") {
            if scheme == "file" {
                return None;
            }
            rest.split_once('/')?.1
        } else {
            let (host, path) = address.split_once(':')?;
            if host.contains('/') {
                return None;
            }
            path
        };
        let path = rest.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let sound = |part: &str| !part.is_empty() && part != "." && part != "..";
        let parts: Vec<String> =
            path.split('/').filter(|part| sound(part)).map(path_part).collect();
        (parts.len() >= 2).then(|| parts.join("/"))
    }
}

/// `text` with every character that a project's path cannot have replaced by `-`.
pub(super) fn path_part(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let part: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let part = part.trim_matches(|c| c == '.' || c == '-');
    if part.is_empty() { "project".into() } else { part.into() }
}

impl Default for Context {
    fn default() -> Self {
        let zeros = "0".repeat(40);
        let (name, email) = ("Mayfly".to_string(), "mayfly@localhost".to_string());
        Self {
            project: Project { path: "local/project".into(), default_branch: "main".into() },
            commit: Commit {
                sha: zeros.clone(),
                before_sha: zeros,
                branch: "main".into(),
                message: String::new(),
                author: format!("{name} <{email}>"),
                timestamp: "1970-01-01T00:00:00Z".into(),
            },
            user: Person { login: "mayfly".into(), name, email },
            config_path: ".gitlab-ci.yml".into(),
            executor: Executor::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_path_of_remotes() {
        let table = [
            ("git@gitlab.com:group/sub/app.git", Some("group/sub/app")),
            ("https://user:secret@gitlab.example/group/app.git", Some("group/app")),
            ("ssh://git@host:2222/group/app/", Some("group/app")),
            ("https://gitlab.example/group/app with blank", Some("group/app-with-blank")),
            ("https://host/../../x/y", Some("x/y")),
            ("/srv/git/app.git", None),
            ("../app", None),
            ("./a:b/c", None),
            ("file:///srv/git/app.git", None),
            ("host:app", None),
        ];
        for (address, path) in table {
            assert_eq!(Project::path_of_remote(address).as_deref(), path, "{address}");
        }
    }
}
