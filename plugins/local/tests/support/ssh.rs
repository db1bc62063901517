//! An SSH client that runs commands.

use std::sync::Arc;
use std::time::Duration;

use mayfly_plugin::ConnectInfo;
use russh::client::{Config, Handle, Handler, Msg};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Sig};

struct AnyHost;

impl Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// How a command ended and what it said.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: Option<u32>,
    pub(crate) signal: Option<String>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The order in which the end was told.
    pub(crate) order: Vec<&'static str>,
}

pub(crate) struct Client {
    handle: Handle<AnyHost>,
    socket: std::net::TcpStream,
}

impl Client {
    pub(crate) async fn dial(info: &ConnectInfo) -> Result<Self, String> {
        Self::connect(&info.internal_addr, &info.connector.username, own_key(info)?).await
    }

    pub(crate) async fn dial_with(
        address: &str,
        user: &str,
        key: PrivateKey,
    ) -> Result<Self, String> {
        Self::connect(address, user, key).await
    }

    async fn connect(address: &str, user: &str, key: PrivateKey) -> Result<Self, String> {
        let config = Config { nodelay: true, ..Config::default() };
        // Keeps a handle on the socket, to cut the connection without a goodbye.
        let stream = std::net::TcpStream::connect(address).map_err(|e| e.to_string())?;
        let socket = stream.try_clone().map_err(|e| e.to_string())?;
        stream.set_nonblocking(true).map_err(|e| e.to_string())?;
        let stream = tokio::net::TcpStream::from_std(stream).map_err(|e| e.to_string())?;
        let mut handle = russh::client::connect_stream(Arc::new(config), stream, AnyHost)
            .await
            .map_err(|e| e.to_string())?;
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        let result = handle.authenticate_publickey(user, key).await.map_err(|e| e.to_string())?;
        if result.success() { Ok(Self { handle, socket }) } else { Err("refused".into()) }
    }

    pub(crate) async fn open(&self) -> Result<Channel<Msg>, russh::Error> {
        self.handle.channel_open_session().await
    }

    /// Starts a command and leaves its channel open.
    pub(crate) async fn start(&self, command: &str) -> Channel<Msg> {
        let channel = self.open().await.expect("a channel");
        channel.exec(true, command).await.expect("sent");
        channel
    }

    /// Runs a command without input to its end.
    pub(crate) async fn exec(&self, command: &str) -> Ended {
        let channel = self.start(command).await;
        channel.eof().await.expect("sent");
        drain(channel).await
    }

    /// What a command that must succeed prints.
    pub(crate) async fn output(&self, command: &str) -> String {
        let ended = self.exec(command).await;
        assert_eq!(ended.status, Some(0), "{command}: {ended:?}");
        ended.stdout.trim().to_owned()
    }

    /// Asks for a forwarded connection.
    pub(crate) async fn open_tcp(&self) -> Result<Channel<Msg>, russh::Error> {
        self.handle.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await
    }

    /// Breaks the connection, as a network or a killed client does.
    pub(crate) fn cut(self) {
        self.socket.shutdown(std::net::Shutdown::Both).expect("cut");
    }
}

fn own_key(info: &ConnectInfo) -> Result<PrivateKey, String> {
    PrivateKey::from_openssh(&info.connector.key).map_err(|error| error.to_string())
}

/// Reads a channel to its end.
pub(crate) async fn drain(mut channel: Channel<Msg>) -> Ended {
    let mut ended = Ended::default();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Ok(message) = tokio::time::timeout(Duration::from_secs(30), channel.wait()).await {
        match message {
            Some(ChannelMsg::Data { data }) => stdout.extend_from_slice(&data),
            Some(ChannelMsg::ExtendedData { data, .. }) => stderr.extend_from_slice(&data),
            Some(ChannelMsg::Eof) => ended.order.push("eof"),
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                ended.order.push("status");
                ended.status = Some(exit_status);
            }
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                ended.order.push("signal");
                ended.signal = Some(signal(&signal_name));
            }
            Some(ChannelMsg::Close) => ended.order.push("close"),
            Some(ChannelMsg::Failure) => ended.order.push("failure"),
            Some(_) => {}
            None => {
                ended.stdout = String::from_utf8_lossy(&stdout).into_owned();
                ended.stderr = String::from_utf8_lossy(&stderr).into_owned();
                return ended;
            }
        }
    }
    panic!("the channel did not end: {ended:?}");
}

fn signal(name: &Sig) -> String {
    format!("{name:?}")
}
