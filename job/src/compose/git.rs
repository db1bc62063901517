//! The get_sources stage: a script that clones or fetches with the instance's git.
//!
//! Credentials are in no URL, hence in no process list: an `http.extraHeader` in a 0600
//! file that the repository's config includes. It ends with the job.

use super::Context;
use super::shell::{Shell, quote};
use crate::plan::{Action, File, Role, Script, Stage};
use crate::trace::colour::{BOLD_GREEN, RESET};

/// The file with the credentials, included from the repository's config.
const EXTERNAL_CONFIG: &str = ".gitlab-runner.ext.conf";
/// Files of an interrupted git that would stop the next one.
const LEFTOVERS: &str = "rm -f .git/index.lock .git/shallow.lock .git/HEAD.lock .git/config.lock .git/hooks/post-checkout\n\
                         find .git/refs -name '*.lock' -type f -exec rm -f {} +";

#[derive(PartialEq, Eq)]
enum Strategy {
    Clone,
    Fetch,
    None,
    Empty,
    Unknown(String),
}

impl Strategy {
    fn of(context: &Context<'_>) -> Self {
        match context.variables.get("GIT_STRATEGY").unwrap_or_default() {
            "clone" => Self::Clone,
            "fetch" => Self::Fetch,
            "none" => Self::None,
            "empty" => Self::Empty,
            "" if context.job.allow_git_fetch => Self::Fetch,
            "" => Self::Clone,
            other => Self::Unknown(other.to_owned()),
        }
    }

    fn is_git(&self) -> bool {
        matches!(self, Self::Clone | Self::Fetch)
    }
}

/// The stage; without a script where there is nothing to fetch.
pub(super) fn stage(context: &Context<'_>) -> Stage {
    let strategy = Strategy::of(context);
    let green = |text: &str| format!("{BOLD_GREEN}{text}{RESET}\n");
    let mut notes = String::new();
    let action = match &strategy {
        Strategy::None | Strategy::Empty => {
            notes = [
                "Skipping Git repository setup",
                "Skipping Git checkout",
                "Skipping Git submodules setup",
            ]
            .map(green)
            .concat();
            None
        }
        Strategy::Unknown(word) => {
            let mut shell = Shell::new();
            shell.command(&["printf", "%s\\n", &format!("unknown GIT_STRATEGY: {word}")]);
            shell.line("exit 1");
            Some(shell)
        }
        Strategy::Clone | Strategy::Fetch => Some(script(context, &strategy)),
    };
    let action =
        action.map(|shell| Action::Script(Script { text: shell.finish(), of_agent: true }));
    let title = "Getting source from Git repository";
    let mut stage = Stage::new("get_sources", title, Role::Sources, action);
    stage.attempts = context.attempts("GET_SOURCES_ATTEMPTS");
    stage.notes = notes;
    stage
}

/// The credentials file; none where nothing is fetched or the URL has no password.
pub(super) fn credentials(context: &Context<'_>) -> Option<File> {
    if !Strategy::of(context).is_git() {
        return None;
    }
    let remote = Remote::of(context);
    let basic = remote.basic.as_ref()?;
    let content =
        format!("[http \"{}/\"]\n\textraHeader = Authorization: Basic {basic}\n", remote.origin);
    Some(File { name: EXTERNAL_CONFIG.into(), content: content.into_bytes() })
}

/// Forms of the credentials that must not be seen.
pub(super) fn secrets(context: &Context<'_>) -> Vec<String> {
    let remote = Remote::of(context);
    remote.basic.into_iter().chain(remote.password).collect()
}

/// The repository's address, its secrets apart.
struct Remote {
    /// Scheme, host and port.
    origin: String,
    /// The whole URL without credentials.
    url: String,
    /// User and password for the header, in base64.
    basic: Option<String>,
    password: Option<String>,
}

impl Remote {
    fn of(context: &Context<'_>) -> Self {
        let full = &context.job.git_info.repo_url;
        let Some((scheme, rest)) = full.split_once("://") else {
            return Self { origin: String::new(), url: full.clone(), basic: None, password: None };
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let clone_url = context.runner.clone_url.trim_end_matches('/');
        let (origin, path) = if clone_url.is_empty() {
            (format!("{scheme}://{host}"), path.to_owned())
        } else {
            join_clone_url(clone_url, path)
        };
        let user = user.filter(|_| origin.starts_with("http"));
        Self {
            url: format!("{origin}/{path}"),
            basic: user.map(|user| base64(user.as_bytes())),
            password: user
                .and_then(|user| user.split_once(':'))
                .map(|(_, password)| password.into()),
            origin,
        }
    }
}

/// `clone_url` may have a path of its own, before the project's.
fn join_clone_url(clone_url: &str, path: &str) -> (String, String) {
    let after_scheme = clone_url.find("://").map_or(0, |at| at + 3);
    match clone_url[after_scheme..].split_once('/') {
        Some((host, prefix)) => {
            (format!("{}{host}", &clone_url[..after_scheme]), format!("{prefix}/{path}"))
        }
        None => (clone_url.to_owned(), path.to_owned()),
    }
}

fn script(context: &Context<'_>, strategy: &Strategy) -> Shell {
    let git = &context.job.git_info;
    let project_dir = &context.place.project_dir;
    let remote = Remote::of(context);
    let mut shell = Shell::new();
    if context.runner.docker.is_some() {
        // Whoever the container's user is may change what is there, as under GitLab Runner.
        shell.line("umask 0000");
    }
    shell.export("GIT_TERMINAL_PROMPT", "0");
    hook(context, &mut shell, "pre_get_sources_script");
    match git.depth {
        0 => shell.notice("Fetching changes..."),
        depth => shell.notice(&format!("Fetching changes with git depth set to {depth}...")),
    }
    if *strategy == Strategy::Clone {
        shell.command(&["rm", "-r", "-f", project_dir]);
    }
    shell.command(&["mkdir", "-p", project_dir]);
    shell.change_dir(project_dir);
    let mut init = vec!["git", "-c", "init.defaultBranch=none", "init", "-q"];
    let object_format = format!("--object-format={}", git.repo_object_format);
    if !matches!(git.repo_object_format.as_str(), "" | "sha1") {
        init.push(&object_format);
    }
    shell.line("if [ ! -d .git ]; then");
    shell.command(&init);
    shell.notice("Created fresh repository.");
    shell.line("fi");
    // A job before this one may have left hooks and settings that run here.
    shell.line("rm -r -f .git/config .git/hooks");
    shell.line(LEFTOVERS);
    shell.command(&init);
    configure(context, &mut shell, &remote);
    fetch(context, &mut shell);
    checkout(context, &mut shell);
    submodules(context, &mut shell, &remote);
    hook(context, &mut shell, "post_get_sources_script");
    shell
}

fn configure(context: &Context<'_>, shell: &mut Shell, remote: &Remote) {
    let settings = [
        ("remote.origin.url", remote.url.as_str()),
        ("fetch.recurseSubmodules", "false"),
        ("credential.interactive", "never"),
        ("gc.autoDetach", "false"),
    ];
    for (name, value) in settings {
        shell.command(&["git", "config", name, value]);
    }
    if remote.basic.is_some() {
        // Relative to `.git`: a container sees the same files elsewhere.
        let temp_dir = context.place.temp_dir.rsplit('/').next().unwrap_or_default();
        let path = format!("../../{temp_dir}/{EXTERNAL_CONFIG}");
        shell.command(&["git", "config", "include.path", &path]);
    }
}

fn external_config(context: &Context<'_>) -> String {
    format!("{}/{EXTERNAL_CONFIG}", context.place.temp_dir)
}

fn fetch(context: &Context<'_>, shell: &mut Shell) {
    let git = &context.job.git_info;
    let agent = format!("http.userAgent={}", context.runner.server.user_agent);
    let mut words = vec!["git".to_owned(), "-c".into(), agent, "fetch".into(), "origin".into()];
    words.push("--no-recurse-submodules".into());
    words.extend(git.refspecs.iter().cloned());
    if git.depth > 0 {
        words.extend(["--depth".into(), git.depth.to_string()]);
    }
    words.extend(flags(context, "GIT_FETCH_EXTRA_FLAGS", "--prune --quiet"));
    let mut quoted: String = words.iter().map(|word| quote(word) + " ").collect();
    if git.depth == 0 {
        quoted.push_str("$(if [ -f .git/shallow ]; then printf %s --unshallow; fi)");
    }
    shell.line(&quoted);
}

fn checkout(context: &Context<'_>, shell: &mut Shell) {
    if context.variables.get("GIT_CHECKOUT") == Some("false") {
        return shell.notice("Skipping Git checkout");
    }
    let git = &context.job.git_info;
    let short = git.sha.get(..8).unwrap_or(&git.sha);
    shell.notice(&format!("Checking out {short} as detached HEAD (ref is {})...", git.ref_name));
    shell.command(&["git", "-c", "submodule.recurse=false", "checkout", "-f", "-q", &git.sha]);
    let clean = flags(context, "GIT_CLEAN_FLAGS", "-ffdx");
    if !clean.is_empty() {
        let words = ["git", "clean"].into_iter().chain(clean.iter().map(String::as_str));
        shell.command(&words.collect::<Vec<_>>());
    }
    if !context.variables.is_on("GIT_LFS_SKIP_SMUDGE") {
        shell.line("if git lfs version >/dev/null 2>&1; then git lfs pull; fi");
    }
}

fn submodules(context: &Context<'_>, shell: &mut Shell, remote: &Remote) {
    let recursive = match context.variables.get("GIT_SUBMODULE_STRATEGY").unwrap_or_default() {
        "normal" => false,
        "recursive" => true,
        _ => return shell.notice("Skipping Git submodules setup"),
    };
    let suffix = if recursive { " recursively" } else { "" };
    shell.notice(&format!("Updating/initializing submodules{suffix}..."));
    let depth = context.variables.get("GIT_SUBMODULE_DEPTH").filter(|text| !text.is_empty());
    let depth = depth.map_or_else(|| context.job.git_info.depth.to_string(), str::to_owned);
    let mut update = vec!["git".to_owned()];
    // Submodules don't read the settings of the repository that they are in.
    if remote.basic.is_some() {
        update.extend(["-c".into(), format!("include.path={}", external_config(context))]);
    }
    update.extend(["submodule", "update", "--init"].map(str::to_owned));
    if recursive {
        update.push("--recursive".into());
    }
    if depth != "0" {
        update.extend(["--depth".into(), depth]);
    }
    update.extend(flags(context, "GIT_SUBMODULE_UPDATE_FLAGS", ""));
    let paths = flags(context, "GIT_SUBMODULE_PATHS", "");
    if !paths.is_empty() {
        update.push("--".into());
        update.extend(paths);
    }
    let mut sync = vec!["git", "submodule", "sync"];
    if recursive {
        sync.push("--recursive");
    }
    shell.command(&["git", "submodule", "init"]);
    shell.command(&sync);
    let update: Vec<String> = update.iter().map(|word| quote(word)).collect();
    let update = update.join(" ");
    shell.line(&format!(
        "{update} || {{ printf '%s\\n' 'Updating submodules failed. Retrying...'; {update}; }}"
    ));
    shell.notice("Updated submodules");
}

/// Words of a variable; its default where it is unset; nothing where it is `none`.
fn flags(context: &Context<'_>, name: &str, default: &str) -> Vec<String> {
    match context.variables.get(name).unwrap_or(default) {
        "none" => Vec::new(),
        text => text.split_whitespace().map(str::to_owned).collect(),
    }
}

/// The runner's hook and the job's, in GitLab Runner's order.
fn hook(context: &Context<'_>, shell: &mut Shell, name: &str) {
    let (configured, before) = match name {
        "pre_get_sources_script" => (&context.runner.pre_get_sources_script, true),
        _ => (&context.runner.post_get_sources_script, false),
    };
    if before {
        shell.hook(configured);
    }
    for hook in context.job.hooks.iter().filter(|hook| hook.name == name) {
        shell.commands(&hook.script);
    }
    if !before {
        shell.hook(configured);
    }
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = (u32::from(chunk[0]) << 16)
            | (u32::from(chunk.get(1).copied().unwrap_or(0)) << 8)
            | u32::from(chunk.get(2).copied().unwrap_or(0));
        for place in 0..4 {
            if place <= chunk.len() {
                let six = (group >> (18 - 6 * place)) & 63;
                out.push(char::from(ALPHABET[six as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_standard() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_clone_url_may_have_a_path() {
        let joined = join_clone_url("https://cache:8443/git", "g/p.git");
        assert_eq!(joined, ("https://cache:8443".into(), "git/g/p.git".into()));
        assert_eq!(join_clone_url("http://h", "g/p.git"), ("http://h".into(), "g/p.git".into()));
    }
}
