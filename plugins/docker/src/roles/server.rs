//! The SSH server of a container, as the container's user.
//!
//! Its host key is made at its start: a container starts once.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use sshd::{KeyPair, Server};

use super::{Ended, InstanceSettings, PORT, settings};
use crate::archive::KEYS;

/// Channels per connection: eight agents and their siblings, several times over.
const MAX_CHANNELS: usize = 32;
/// Where images keep a shell.
const SHELLS: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/bin/sh"];
/// For images that tell no path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn run(argument: &str) -> Result<(), Ended> {
    let settings = settings(argument)?;
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let server = server(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Ended::Failed("start the async runtime", error))?;
    runtime.block_on(async {
        let listener =
            listen().await.map_err(|error| Ended::Failed("listen on port 20022", error))?;
        server
            .serve(listener, std::future::pending())
            .await
            .map_err(|error| Ended::Server(error.to_string()))
    })
}

/// Both families where the container has both.
async fn listen() -> std::io::Result<tokio::net::TcpListener> {
    let six = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
    match tokio::net::TcpListener::bind(six).await {
        Ok(listener) => Ok(listener),
        Err(_) => tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await,
    }
}

fn server(settings: InstanceSettings) -> Result<Server, Ended> {
    let shell =
        SHELLS.iter().map(PathBuf::from).find(|shell| shell.exists()).ok_or(Ended::Unusable(
            "the image has neither /bin/bash nor /bin/sh: jobs need a shell, use \
                         another image",
        ))?;
    let home = home();
    let start = settings.home.map_or_else(|| home.clone(), PathBuf::from);
    let mut environment: Vec<(String, String)> = std::env::vars().collect();
    let mut set_default = |name: &str, value: String| {
        if !environment.iter().any(|(known, _)| known == name) {
            environment.push((name.to_owned(), value));
        }
    };
    let user = passwd_field(0).unwrap_or_else(|| settings.user.clone());
    set_default("PATH", PATH.into());
    set_default("USER", user.clone());
    set_default("LOGNAME", user);
    set_default("SHELL", shell.display().to_string());
    set_default("LANG", "C.UTF-8".into());
    environment.retain(|(name, _)| name != "HOME");
    environment.push(("HOME".into(), home.display().to_string()));
    let keys = home.join(".ssh/authorized_keys");
    let host = KeyPair::generate("").map_err(|error| Ended::Server(error.to_string()))?;
    Ok(Server {
        host_key: host.private,
        user: settings.user,
        trusted_keys: Vec::new(),
        authorized_keys: vec![KEYS.into(), keys],
        environment,
        home: start,
        shell,
        max_channels: MAX_CHANNELS,
    })
}

/// The user's home, made if it can be. Docker says `/` for a user whom the image does not
/// know.
fn home() -> PathBuf {
    let told = std::env::var("HOME").ok();
    let usable = |path: &PathBuf| {
        // What cannot be made is not used.
        let _ = std::fs::create_dir_all(path);
        path.is_dir()
    };
    let candidates = told.into_iter().chain(passwd_field(5)).filter(|home| home != "/");
    let found = candidates.map(PathBuf::from).find(usable);
    found.unwrap_or_else(|| {
        let temporary = PathBuf::from("/tmp");
        if usable(&temporary) { temporary } else { "/".into() }
    })
}

/// A field of this user's line in the image's `/etc/passwd`.
fn passwd_field(index: usize) -> Option<String> {
    let own = rustix::process::geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').nth(2) == Some(own.as_str()))?;
    line.split(':').nth(index).filter(|field| !field.is_empty()).map(str::to_owned)
}
