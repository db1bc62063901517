//! What a command on an instance came to.

use russh::client::Msg;
use russh::{Channel, ChannelMsg};

/// Most of a command's output that is kept.
const MAX_OUTPUT_BYTES: usize = 256 * 1024;

/// What a command came to.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    /// `None` if the connection was lost before the command's end.
    pub(crate) status: Option<u32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl CommandOutput {
    pub(crate) fn succeeded(&self) -> bool {
        self.status == Some(0)
    }

    /// What went wrong, in one line.
    pub(crate) fn complaint(&self) -> String {
        let status = match self.status {
            Some(status) => format!("exit status {status}"),
            None => "the connection was lost".into(),
        };
        match self.stderr.trim().lines().next_back() {
            Some(last) => format!("{status}: {last}"),
            None => status,
        }
    }
}

/// Reads a command's output to its end.
pub(super) async fn collect(channel: &mut Channel<Msg>) -> CommandOutput {
    let mut output = CommandOutput { status: None, stdout: Vec::new(), stderr: String::new() };
    let mut stderr = Vec::new();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } if output.stdout.len() < MAX_OUTPUT_BYTES => {
                output.stdout.extend_from_slice(&data);
            }
            ChannelMsg::ExtendedData { data, .. } if stderr.len() < MAX_OUTPUT_BYTES => {
                stderr.extend_from_slice(&data);
            }
            ChannelMsg::ExitStatus { exit_status } => output.status = Some(exit_status),
            ChannelMsg::ExitSignal { .. } => output.status = Some(255),
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    output.stderr = String::from_utf8_lossy(&stderr).into_owned();
    output
}
