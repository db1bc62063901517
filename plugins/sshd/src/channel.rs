//! One command on one channel: its process, its three pipes, its end.
//!
//! Output is read only as fast as the client's window takes it, so a client that does
//! not read stops the command's writes and nothing else. Dropping [`Running`] closes the
//! pipes and leaves the command alone.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

use crate::input::{self, Input, Pending};
use crate::server::Server;
use crate::session;

/// Read from a command at once: one packet of the protocol.
const CHUNK_BYTES: usize = 32 * 1024;
/// SSH's number for stderr.
const STDERR: u32 = 1;
/// How long a command may take to read the rest of its input once its channel is gone.
const INPUT_GRACE: Duration = Duration::from_secs(5);

/// Starts `command` with the server's shell, or a login shell without one.
pub(crate) fn spawn(
    server: &Server,
    environment: &[(String, String)],
    command: Option<OsString>,
) -> io::Result<Child> {
    let shell = server.shell.file_name().unwrap_or(server.shell.as_os_str()).to_owned();
    let process = match command {
        Some(command) => {
            let mut process = session::command(&server.shell, shell);
            process.arg("-c").arg(command);
            process
        }
        None => {
            let mut login = OsString::from("-");
            login.push(shell);
            session::command(&server.shell, login)
        }
    };
    Command::from(process)
        .env_clear()
        .envs(server.environment.iter().map(|(name, value)| (name, value)))
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&server.home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// A command that runs, as its connection holds it.
pub(crate) struct Running {
    input: Option<Input>,
    signals: mpsc::UnboundedSender<Signal>,
    output: JoinHandle<()>,
    /// Resolves, on drop, for the task that feeds the command.
    _gone: oneshot::Sender<()>,
}

impl Running {
    /// Takes care of a started command in the background. `place` is given back once the
    /// channel is closed.
    pub(crate) fn attend(
        mut child: Child,
        write: ChannelWriteHalf<Msg>,
        handle: Handle,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let (input, pending) = input::queue();
        let (gone_sender, gone) = oneshot::channel();
        if let Some(stdin) = child.stdin.take() {
            tokio::spawn(feed(stdin, pending, gone));
        }
        let (signals, received) = mpsc::unbounded_channel();
        let output = tokio::spawn(async move {
            let status = run(&mut child, &write, received).await;
            // Where the connection is gone there is nobody to tell.
            let _ = report(status, &write, &handle).await;
            drop(place);
        });
        Self { input: Some(input), signals, output, _gone: gone_sender }
    }

    pub(crate) fn push(&self, bytes: &[u8]) -> io::Result<()> {
        self.input.as_ref().map_or(Ok(()), |input| input.push(bytes))
    }

    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    pub(crate) fn signal(&self, signal: &Sig) {
        if let Some(signal) = from_ssh(signal) {
            // The command may have ended.
            let _ = self.signals.send(signal);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.output.is_finished()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let output: AbortHandle = self.output.abort_handle();
        output.abort();
    }
}

/// Writes the client's data to the command until either has enough.
async fn feed(mut stdin: ChildStdin, mut pending: Pending, gone: oneshot::Receiver<()>) {
    let writing = async {
        while let Ok(Some(chunk)) = pending.next().await {
            if stdin.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = async {
            // An error means the same: the channel is gone.
            let _ = gone.await;
            tokio::time::sleep(INPUT_GRACE).await;
        } => {}
    }
}

/// Sends the command's output; resolves when it has ended and both pipes are closed, as
/// OpenSSH does it.
async fn run(
    child: &mut Child,
    write: &ChannelWriteHalf<Msg>,
    signals: mpsc::UnboundedReceiver<Signal>,
) -> io::Result<ExitStatus> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (_, _, status) = tokio::join!(
        pump(stdout, write, None),
        pump(stderr, write, Some(STDERR)),
        end(child, signals)
    );
    status
}

async fn pump(
    pipe: Option<impl AsyncRead + Unpin>,
    write: &ChannelWriteHalf<Msg>,
    stream: Option<u32>,
) {
    let Some(mut pipe) = pipe else {
        return;
    };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        match pipe.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let chunk = buffer.split().freeze();
        let sent = match stream {
            None => write.data_bytes(chunk).await,
            Some(stream) => write.extended_data_bytes(stream, chunk).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn end(
    child: &mut Child,
    mut signals: mpsc::UnboundedReceiver<Signal>,
) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            Some(signal) = signals.recv() => {
                let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
                if let Some(group) = group {
                    // Not reaped yet, so the id is still the command's.
                    let _ = kill_process_group(group, signal);
                }
            }
        }
    }
}

/// Ends the channel: `eof`, then the status, then `close`.
async fn report(
    status: io::Result<ExitStatus>,
    write: &ChannelWriteHalf<Msg>,
    handle: &Handle,
) -> Result<(), ()> {
    write.eof().await.map_err(drop)?;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => {
                write.exit_status(code.cast_unsigned()).await.map_err(drop)?;
            }
            (None, signal) => {
                let name = to_ssh(signal.unwrap_or_default());
                let dumped = status.core_dumped();
                let (message, language) = (String::new(), String::new());
                handle.exit_signal_request(write.id(), name, dumped, message, language).await?;
            }
        },
        Err(error) => tracing::warn!(%error, "cannot learn how a command ended"),
    }
    write.close().await.map_err(drop)
}

fn from_ssh(name: &Sig) -> Option<Signal> {
    match name {
        Sig::ABRT => Some(Signal::ABORT),
        Sig::ALRM => Some(Signal::ALARM),
        Sig::FPE => Some(Signal::FPE),
        Sig::HUP => Some(Signal::HUP),
        Sig::ILL => Some(Signal::ILL),
        Sig::INT => Some(Signal::INT),
        Sig::KILL => Some(Signal::KILL),
        Sig::PIPE => Some(Signal::PIPE),
        Sig::QUIT => Some(Signal::QUIT),
        Sig::SEGV => Some(Signal::SEGV),
        Sig::TERM => Some(Signal::TERM),
        Sig::USR1 => Some(Signal::USR1),
        Sig::Custom(_) => None,
    }
}

/// The name in RFC 4254, or one in its form for private names.
fn to_ssh(number: i32) -> Sig {
    const NAMED: [Sig; 12] = [
        Sig::ABRT,
        Sig::ALRM,
        Sig::FPE,
        Sig::HUP,
        Sig::ILL,
        Sig::INT,
        Sig::KILL,
        Sig::PIPE,
        Sig::QUIT,
        Sig::SEGV,
        Sig::TERM,
        Sig::USR1,
    ];
    NAMED
        .into_iter()
        .find(|name| from_ssh(name).is_some_and(|signal| signal.as_raw() == number))
        .unwrap_or_else(|| Sig::Custom(format!("{number}@mayfly")))
}
