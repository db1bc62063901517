//! Downloads the archives of earlier jobs and unpacks them into the project directory.

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::Path;

use job::plan::{Download, Source};
use ureq::Body;
use ureq::http::Response;

use super::extract;
use super::http::{Attempt, Http, is_temporary, retry};
use crate::Error;

pub(super) fn run(http: &Http, project_dir: &str, download: &Download) -> Result<(), Error> {
    for source in &download.sources {
        println!("Downloading artifacts for {} ({})...", source.job_name, source.job_id);
        one(http, Path::new(project_dir), source)?;
    }
    Ok(())
}

fn one(http: &Http, project: &Path, source: &Source) -> Result<(), Error> {
    let what = "Downloading artifacts from coordinator...";
    let mut first = true;
    let archive = retry(what, || {
        // Directly from the storage at first; through the server if that fails.
        let direct =
            if std::mem::take(&mut first) { "artifacts?direct_download=true" } else { "artifacts" };
        let reply = match fetch(http, source, direct) {
            Ok(reply) => reply,
            Err(error) => return Attempt::Again(error.to_string()),
        };
        let status = reply.status();
        match status.as_u16() {
            200 => match save(reply) {
                Ok(file) => {
                    println!("{what} ok id={} responseStatus={status}", source.job_id);
                    Attempt::Done(file)
                }
                Err(error) => Attempt::Again(error.to_string()),
            },
            401 | 403 => Attempt::Never(format!("{status}: the job's token is not accepted")),
            404 => Attempt::Never(format!("{status}: there is no archive (any more)")),
            code if is_temporary(code) || code == 307 || code == 302 => {
                Attempt::Again(status.to_string())
            }
            _ => Attempt::Never(status.to_string()),
        }
    })?;
    extract::zip(archive, project)
}

/// Follows one redirect to the storage, without the job's token.
fn fetch(http: &Http, source: &Source, what: &str) -> Result<Response<Body>, ureq::Error> {
    let reply = http.get(&http.url(source.job_id, what), Some(&source.job_token))?;
    let location = reply.headers().get("location").and_then(|value| value.to_str().ok());
    match location {
        Some(storage) if reply.status().is_redirection() => http.get(storage, None),
        _ => Ok(reply),
    }
}

/// A zip is read from its end, so it has to lie on disk; without a name, it goes with
/// this process.
fn save(mut reply: Response<Body>) -> io::Result<File> {
    let mut file = nameless_file()?;
    let mut body = reply.body_mut().as_reader();
    io::copy(&mut body, &mut file)?;
    file.rewind()?;
    Ok(file)
}

fn nameless_file() -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = std::env::temp_dir().join(format!(".mayfly-download-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
