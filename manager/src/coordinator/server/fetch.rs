//! git over smart HTTP, for reading only: the snapshot at `/<project>.git`, to jobs under way.
//!
//! The two addresses are compared whole, so nothing of the file system can be reached by a
//! path. The work is `git upload-pack`'s; bodies are streamed through it both ways. The dumb
//! protocol and pushing are absent.

use std::{process::Stdio, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use flate2::write::GzDecoder;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin},
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};

use super::{
    answer::{self, Refusal},
    state::Server,
};
use crate::coordinator::git;

/// Name a job's token is used with.
const USER: &str = "gitlab-ci-token";
/// Largest request of a client, unpacked: a list of commits it has, some MiB at most.
const REQUEST_LIMIT: usize = 32 << 20;
/// How long a clone may wait for its turn.
const TURN_DEADLINE: Duration = Duration::from_secs(60);
/// How long one exchange may take.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(60 * 60);
/// Seconds after which `git` itself gives up on a client that does nothing.
const IDLE_SECONDS: u32 = 300;
/// Pieces of an answer that are read ahead of the client, of at most 64 KiB each.
const READ_AHEAD: usize = 4;
/// Longest part of git's own words that is logged, in bytes.
const WORDS_LIMIT: u64 = 2000;

/// Any address that is not of the runner API.
pub(super) async fn serve(
    State(server): State<Arc<Server>>,
    request: Request,
) -> Result<Response, Refusal> {
    let repository = format!("/{}.git/", server.pipeline.context.project.path);
    let path = request.uri().path().strip_prefix(&repository).ok_or(Refusal::NotFound)?;
    let is_advertisement = match path {
        "info/refs" => true,
        "git-upload-pack" => false,
        "git-receive-pack" => return Err(Refusal::Forbidden(None)),
        _ => return Err(Refusal::NotFound),
    };
    authorize(&server, request.headers())?;
    let method = if is_advertisement { Method::GET } else { Method::POST };
    if request.method() != method {
        return Err(Refusal::MethodNotAllowed);
    }
    if is_advertisement {
        match request.uri().query() {
            Some("service=git-upload-pack") => advertise(server, request.headers()).await,
            _ => Err(Refusal::Forbidden(None)),
        }
    } else {
        exchange(server, request).await
    }
}

fn authorize(server: &Server, headers: &HeaderMap) -> Result<(), Refusal> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, encoded) =
        header.and_then(|header| header.split_once(' ')).ok_or(Refusal::Unauthorized)?;
    let decoded = BASE64_STANDARD.decode(encoded.trim()).map_err(|_| Refusal::Unauthorized)?;
    let decoded = String::from_utf8(decoded).map_err(|_| Refusal::Unauthorized)?;
    let (user, token) = decoded.split_once(':').ok_or(Refusal::Unauthorized)?;
    let is_basic = scheme.eq_ignore_ascii_case("basic") && user == USER;
    let mut files = server.files.iter().enumerate();
    let is_live = files.any(|(job, job_files)| {
        answer::same_secret(token, &job_files.token) && server.ledger.is_live(job)
    });
    if is_basic && is_live { Ok(()) } else { Err(Refusal::Unauthorized) }
}

/// GET info/refs?service=git-upload-pack
async fn advertise(server: Arc<Server>, headers: &HeaderMap) -> Result<Response, Refusal> {
    let protocol = protocol(headers);
    // The service line belongs to the older protocols only, see git's http-backend.
    let is_v2 = protocol.is_some_and(|value| value.split(':').any(|part| part == "version=2"));
    let head: &[u8] = if is_v2 { b"" } else { b"001e# service=git-upload-pack\n0000" };
    let process = Process::start(&server, protocol, true).await?;
    let kind = "application/x-git-upload-pack-advertisement";
    Ok(answer(server, process, kind, Bytes::from_static(head), None))
}

/// POST git-upload-pack
async fn exchange(server: Arc<Server>, request: Request) -> Result<Response, Refusal> {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if text(header::CONTENT_TYPE) != "application/x-git-upload-pack-request" {
        return Err(Refusal::UnsupportedMediaType);
    }
    let is_packed = match text(header::CONTENT_ENCODING) {
        "" | "identity" => false,
        "gzip" | "x-gzip" => true,
        _ => return Err(Refusal::UnsupportedMediaType),
    };
    let process = Process::start(&server, protocol(headers), false).await?;
    let body = Input { body: request.into_body(), is_packed };
    let kind = "application/x-git-upload-pack-result";
    Ok(answer(server, process, kind, Bytes::new(), Some(body)))
}

/// The client's wish for a version of the protocol, if it is one that may go into a variable.
fn protocol(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("git-protocol")?.to_str().ok()?;
    let is_sound = value.len() <= 100
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b':' | b'.' | b'-'));
    is_sound.then_some(value)
}

struct Process {
    child: Child,
    _turn: OwnedSemaphorePermit,
}

impl Process {
    async fn start(
        server: &Server,
        protocol: Option<&str>,
        is_advertisement: bool,
    ) -> Result<Self, Refusal> {
        let turn = timeout(TURN_DEADLINE, Arc::clone(&server.clones).acquire_owned()).await;
        let turn = turn.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Busy)?;
        let mut command = git::command(&server.git_dir);
        command.args(["upload-pack", "--stateless-rpc", "--strict"]);
        command.arg(format!("--timeout={IDLE_SECONDS}"));
        if is_advertisement {
            command.arg("--advertise-refs");
        }
        if let Some(protocol) = protocol {
            command.env("GIT_PROTOCOL", protocol);
        }
        // Ctrl-C at the terminal is for the run to answer, not for a clone under way.
        command.arg(".").stdin(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(|error| {
            tracing::error!(%error, "cannot start git");
            Refusal::Internal
        })?;
        Ok(Self { child, _turn: turn })
    }
}

struct Input {
    body: Body,
    is_packed: bool,
}

/// Starts the exchange; its output is the answer. When the client goes away, so does git.
fn answer(
    server: Arc<Server>,
    process: Process,
    kind: &'static str,
    head: Bytes,
    input: Option<Input>,
) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(pump(server, process, head, input))).into_response()
}

fn pump(
    server: Arc<Server>,
    process: Process,
    head: Bytes,
    input: Option<Input>,
) -> impl Stream<Item = std::io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::spawn(async move {
        let exchanged = tokio::select! {
            exchanged = timeout(EXCHANGE_DEADLINE, run(&sender, process, head, input)) => exchanged,
            () = sender.closed() => return,
            () = server.stop.cancelled() => return,
        };
        if let Ok(Err(error)) = exchanged {
            tracing::warn!(%error, "a clone failed");
            drop(sender.send(Err(error)).await);
        }
    });
    ReceiverStream::new(receiver)
}

async fn run(
    sender: &mpsc::Sender<std::io::Result<Bytes>>,
    process: Process,
    head: Bytes,
    input: Option<Input>,
) -> std::io::Result<()> {
    let Process { mut child, _turn } = process;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    if !head.is_empty() {
        drop(sender.send(Ok(head)).await);
    }
    let feed = async {
        match (stdin, input) {
            (Some(stdin), Some(input)) => feed(stdin, input).await,
            _ => Ok(()),
        }
    };
    let copy = async {
        let Some(mut stdout) = stdout else { return Ok(()) };
        loop {
            let mut piece = bytes::BytesMut::with_capacity(64 << 10);
            if stdout.read_buf(&mut piece).await? == 0 {
                return Ok::<(), std::io::Error>(());
            }
            if sender.send(Ok(piece.freeze())).await.is_err() {
                return Ok(());
            }
        }
    };
    let listen = async {
        let mut words = Vec::new();
        if let Some(mut stderr) = stderr {
            drop((&mut stderr).take(WORDS_LIMIT).read_to_end(&mut words).await);
            drop(tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await);
        }
        String::from_utf8_lossy(&words).trim().to_string()
    };
    let (fed, copied, words) = tokio::join!(feed, copy, listen);
    let status = child.wait().await?;
    fed?;
    copied?;
    if status.success() {
        return Ok(());
    }
    Err(std::io::Error::other(format!("git upload-pack ended with {status}: {words}")))
}

/// Gives git the client's request, unpacked; a request that is too large is cut off.
async fn feed(mut stdin: ChildStdin, input: Input) -> std::io::Result<()> {
    let Input { mut body, is_packed } = input;
    let mut unpacker = GzDecoder::new(Vec::new());
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(std::io::Error::other)?;
        let Ok(bytes) = frame.into_data() else { continue };
        for piece in bytes.chunks(4 << 10) {
            let unpacked = if is_packed {
                std::io::Write::write_all(&mut unpacker, piece)?;
                std::mem::take(unpacker.get_mut())
            } else {
                piece.to_vec()
            };
            size += unpacked.len();
            if size > REQUEST_LIMIT {
                return Err(std::io::Error::other("the request is too large"));
            }
            if stdin.write_all(&unpacked).await.is_err() {
                return Ok(());
            }
        }
    }
    if is_packed {
        let rest = unpacker.finish()?;
        drop(stdin.write_all(&rest).await);
    }
    Ok(())
}
