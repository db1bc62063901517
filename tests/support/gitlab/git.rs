//! Git repositories over smart HTTP, by git's own `http-backend`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::io::AsyncWriteExt as _;

use super::shared::Shared;

/// A project's repository, empty at first.
#[derive(Clone, Debug)]
pub struct Repository {
    path: PathBuf,
    url: String,
}

impl Repository {
    /// Makes `group/NAME.git` with a branch `main`.
    pub(super) fn create(shared: &Shared, name: &str) -> Self {
        let path = shared.repositories.join(format!("group/{name}.git"));
        git(Path::new("/"), &["init", "-q", "--bare", "-b", "main", &path.display().to_string()]);
        // Runners fetch the very commit.
        git(&path, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
        let host = shared.url.trim_start_matches("http://");
        Self { path, url: format!("http://gitlab-ci-token:{{token}}@{host}/group/{name}.git") }
    }

    /// Adds one commit with these files to `main`; its hash.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        self.change(|work| {
            for (name, content) in files {
                let file = work.join(name);
                let folder = file.parent().expect("a file has a folder");
                std::fs::create_dir_all(folder).expect("a folder in the work tree");
                std::fs::write(file, content).expect("a file in the work tree");
            }
            git(work, &["add", "-A"]);
        })
    }

    /// Adds a commit with a submodule at `path`: the newest commit of another repository,
    /// under a URL that may be relative.
    pub fn add_submodule(&self, path: &str, url: &str, other: &Self) -> String {
        self.change(|work| {
            let modules = format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n");
            std::fs::write(work.join(".gitmodules"), modules).expect("a file in the work tree");
            git(work, &["add", "-A"]);
            let link = format!("160000,{},{path}", other.head());
            git(work, &["update-index", "--add", "--cacheinfo", &link]);
        })
    }

    fn change(&self, how: impl FnOnce(&Path)) -> String {
        let work = tempfile::tempdir().expect("a directory for the work tree");
        let bare = self.path.display().to_string();
        git(work.path(), &["clone", "-q", &bare, "."]);
        git(work.path(), &["checkout", "-q", "-B", "main"]);
        how(work.path());
        let who = ["-c", "user.name=Test", "-c", "user.email=test@localhost"];
        git(
            work.path(),
            &[&who[..], &["commit", "-q", "--allow-empty", "-m", "a commit"]].concat(),
        );
        git(work.path(), &["push", "-q", "origin", "main"]);
        self.head()
    }

    /// The newest commit of `main`.
    pub fn head(&self) -> String {
        git(&self.path, &["rev-parse", "refs/heads/main"])
    }

    /// Its URL, with `{token}` where the job's token belongs.
    pub fn url(&self) -> String {
        self.url.clone()
    }
}

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git").current_dir(dir).args(args).output().expect("git is there");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Serves fetches to whoever has the token of a running job.
pub(super) async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let is_known = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
        .and_then(decode_base64)
        .and_then(|login| login.split_once(':').map(|(_, token)| token.to_owned()))
        .is_some_and(|token| shared.jobs().has_token(&token));
    if !is_known {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"GitLab\"")];
        return (StatusCode::UNAUTHORIZED, ask).into_response();
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    match backend(&shared.repositories, &parts, body).await {
        Ok(response) => response,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn backend(
    root: &Path,
    request: &axum::http::request::Parts,
    body: Bytes,
) -> std::io::Result<Response> {
    let header = |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let is_post = request.method == Method::POST;
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        // Made by this user, served by this user.
        .envs([("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory")])
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("PATH_INFO", request.uri.path())
        .env("QUERY_STRING", request.uri.query().unwrap_or(""))
        .env("REQUEST_METHOD", if is_post { "POST" } else { "GET" })
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or_else(|| std::io::Error::other("no stdin"))?;
    let feed = async move { stdin.write_all(&body).await };
    let (_, output) = tokio::join!(feed, child.wait_with_output());
    Ok(from_cgi(&output?.stdout))
}

/// A CGI answer: headers, an empty line, the body.
fn from_cgi(output: &[u8]) -> Response {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(output.len());
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let body = output.get(end + 4..).unwrap_or_default().to_vec();
    let mut response = Response::new(Body::from(body));
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse().ok());
            *response.status_mut() = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        } else if let (Ok(name), Ok(value)) =
            (name.parse::<axum::http::HeaderName>(), value.parse())
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Standard base64 of text.
fn decode_base64(text: &str) -> Option<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte)?;
        bits = (bits << 6 | u32::try_from(value).ok()?) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_decoded() {
        let login = decode_base64("Z2l0bGFiLWNpLXRva2VuOmdsY2J0LTEtMQ==");
        assert_eq!(login.as_deref(), Some("gitlab-ci-token:glcbt-1-1"));
        assert_eq!(decode_base64("*"), None);
    }

    #[test]
    fn cgi_answers_are_read() {
        let response = from_cgi(b"Status: 404 Not Found\r\nExpires: x\r\n\r\nbody");
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(from_cgi(b"A: b\r\n\r\n").status(), StatusCode::OK);
    }
}
