//! Artifacts: an archive for each job, uploaded by it, downloaded by jobs that depend on it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tempfile::NamedTempFile;
use tokio::{fs::File, io::AsyncWriteExt, time::timeout};
use tokio_util::io::ReaderStream;

use super::{
    answer::{self, Refusal},
    multipart::{Multipart, MultipartError},
    state::{Server, id},
};

/// How long an upload may take.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(60 * 60);
/// Name of an archive that came without a usable one.
const DEFAULT_NAME: &str = "artifacts.zip";
/// Longest name that is kept, in characters.
const NAME_LIMIT: usize = 200;

/// An archive that was uploaded whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredArtifact {
    /// The name its runner gave it; never used as a path.
    pub(super) name: String,
    pub(super) size: u64,
    path: PathBuf,
}

#[derive(Deserialize)]
pub(super) struct UploadQuery {
    artifact_type: Option<String>,
}

/// POST /api/v4/jobs/:id/artifacts
pub(super) async fn upload(
    State(server): State<Arc<Server>>,
    Path(job_id): Path<u64>,
    Query(query): Query<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let job = server.live_job(job_id, &headers, None)?;
    if !matches!(query.artifact_type.as_deref(), None | Some("" | "archive")) {
        return Err(Refusal::BadRequest("only archives are kept"));
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let multipart = Multipart::new(content_type.unwrap_or_default(), body).map_err(malformed)?;
    let received = timeout(UPLOAD_DEADLINE, receive(&server, multipart)).await;
    let (file, name, size) = received.map_err(|_| Refusal::Timeout)??;
    if !server.ledger.is_live(job) {
        return Err(Refusal::Forbidden(Some(server.word(job))));
    }
    let path = server.options.artifact_directory.join(format!("{}.archive", id(job)));
    file.persist(&path).map_err(|error| internal(&error.error))?;
    server.ledger.store_artifact(job, StoredArtifact { name, size, path });
    server.ledger.hear(job);
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((StatusCode::CREATED, json, r#"{"message":"201 Created"}"#).into_response())
}

/// Writes the part `file` to a file that vanishes unless it is kept.
async fn receive(
    server: &Server,
    mut multipart: Multipart,
) -> Result<(NamedTempFile, String, u64), Refusal> {
    let mut received = None;
    while let Some(part) = multipart.next_part().await.map_err(malformed)? {
        if part.name == "file" && received.is_none() {
            let (file, size) = store(server, &mut multipart).await?;
            received = Some((file, sound_name(part.file_name.as_deref()), size));
        } else {
            skip(server, &mut multipart).await?;
        }
    }
    multipart.drain().await.map_err(malformed)?;
    received.ok_or(Refusal::BadRequest("there is no part named file"))
}

async fn store(
    server: &Server,
    multipart: &mut Multipart,
) -> Result<(NamedTempFile, u64), Refusal> {
    let directory = &server.options.artifact_directory;
    let kept = NamedTempFile::new_in(directory).map_err(|error| internal(&error))?;
    let mut file = kept.reopen().map(File::from_std).map_err(|error| internal(&error))?;
    let mut size = 0;
    while let Some(chunk) = multipart.chunk().await.map_err(malformed)? {
        size += chunk.len() as u64;
        if size > server.options.limits.artifact_size {
            return Err(Refusal::TooLarge);
        }
        file.write_all(&chunk).await.map_err(|error| internal(&error))?;
    }
    file.flush().await.map_err(|error| internal(&error))?;
    Ok((kept, size))
}

async fn skip(server: &Server, multipart: &mut Multipart) -> Result<(), Refusal> {
    let mut size = 0;
    while let Some(chunk) = multipart.chunk().await.map_err(malformed)? {
        size += chunk.len() as u64;
        if size > server.options.limits.artifact_size {
            return Err(Refusal::TooLarge);
        }
    }
    Ok(())
}

/// GET /api/v4/jobs/:id/artifacts
///
/// Allowed with the token of the job whose artifacts they are, and with that of a running job
/// that depends on it.
pub(super) async fn download(
    State(server): State<Arc<Server>>,
    Path(job_id): Path<u64>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let owner = server.job(job_id).ok_or(Refusal::NotFound)?;
    let depends = |job: &usize| {
        server.ledger.is_live(*job)
            && server.is_source(owner, *job)
            && answer::has_token(&headers, None, &server.files[*job].token)
    };
    if server.own_job(job_id, &headers, None).is_err()
        && !(0..server.files.len()).any(|job| depends(&job))
    {
        return Err(Refusal::Forbidden(None));
    }
    let artifact = server.ledger.record(owner).artifact.ok_or(Refusal::NotFound)?;
    let file = File::open(&artifact.path).await.map_err(|error| internal(&error))?;
    let size = file.metadata().await.map_err(|error| internal(&error))?.len();
    let disposition = format!("attachment; filename=\"{}\"", artifact.name);
    let mut response = Body::from_stream(ReaderStream::new(file)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    if let Ok(disposition) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// The last part of a path, of characters that are sound in a header.
fn sound_name(name: Option<&str>) -> String {
    let last = name.and_then(|name| name.rsplit(['/', '\\']).next()).unwrap_or_default();
    let is_sound = |c: &char| c.is_ascii_graphic() && !matches!(c, '"' | ';') || *c == ' ';
    let sound: String = last.chars().filter(is_sound).take(NAME_LIMIT).collect();
    let sound = sound.trim();
    if sound.is_empty() || sound.chars().all(|c| c == '.') {
        return DEFAULT_NAME.into();
    }
    sound.into()
}

fn malformed(error: MultipartError) -> Refusal {
    Refusal::BadRequest(match error {
        MultipartError::ContentType => "the body must be multipart/form-data",
        MultipartError::Malformed => "the body is not well formed",
        MultipartError::CutOff => "the body is cut off",
    })
}

fn internal(error: &std::io::Error) -> Refusal {
    tracing::error!(%error, "cannot store or read artifacts");
    Refusal::Internal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let table = [
            (Some("out.zip"), "out.zip"),
            (Some("../../etc/passwd"), "passwd"),
            (Some("c:\\x\\y.zip"), "y.zip"),
            (Some("a\"\r\nb.zip"), "ab.zip"),
            (Some(".."), DEFAULT_NAME),
            (Some("ü"), DEFAULT_NAME),
            (None, DEFAULT_NAME),
        ];
        for (name, sound) in table {
            assert_eq!(sound_name(name), sound, "{name:?}");
        }
    }
}
