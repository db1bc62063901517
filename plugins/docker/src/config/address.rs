//! Where the daemon is, and what its certificate is checked against.

use std::path::PathBuf;

use super::keys::Keys;

const DEFAULT: &str = "unix:///var/run/docker.sock";
const TLS_PORT: u16 = 2376;
const PLAIN_PORT: u16 = 2375;

/// Where the daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

/// The directory with `ca.pem`, and for the client `cert.pem` and `key.pem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificates(pub(crate) PathBuf);

/// What the defaults depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) docker_host: Option<String>,
    /// `DOCKER_CERT_PATH`, where `DOCKER_TLS_VERIFY` asks for it.
    pub(crate) docker_certificates: Option<PathBuf>,
    /// What tells this machine from others.
    pub(crate) machine: Option<String>,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn here() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let first_line = |path| {
            let text = std::fs::read_to_string(path).ok()?;
            Some(text.trim().to_owned()).filter(|line| !line.is_empty())
        };
        Self {
            docker_host: text("DOCKER_HOST"),
            docker_certificates: text("DOCKER_TLS_VERIFY")
                .and_then(|_| text("DOCKER_CERT_PATH"))
                .map(PathBuf::from),
            machine: first_line("/etc/machine-id")
                .or_else(|| first_line("/proc/sys/kernel/hostname")),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

pub(super) fn check(
    keys: &mut Keys,
    here: &Surroundings,
) -> Result<(Address, Option<Certificates>), String> {
    let written = keys.text("host")?;
    let certificates = keys.text("tls_certs")?.map(PathBuf::from);
    let (key, text, certificates) = match (written, &here.docker_host) {
        (Some(host), _) => ("host", host, certificates),
        (None, Some(host)) => {
            let certificates = certificates.or_else(|| here.docker_certificates.clone());
            ("DOCKER_HOST", host.clone(), certificates)
        }
        (None, None) => ("host", DEFAULT.to_owned(), certificates),
    };
    let address = parse(&text, certificates.is_some()).ok_or_else(|| {
        format!("{key} = {text:?}: must be \"unix:///path\" or \"tcp://name:port\"")
    })?;
    if matches!(address, Address::Unix(_)) && certificates.is_some() {
        return Err(format!("tls_certs: {key} = {text:?} is a unix socket, which has no TLS"));
    }
    Ok((address, certificates.map(Certificates)))
}

fn parse(text: &str, tls: bool) -> Option<Address> {
    if let Some(path) = text.strip_prefix("unix://") {
        return path.starts_with('/').then(|| Address::Unix(path.into()));
    }
    let rest = text.strip_prefix("tcp://")?.trim_end_matches('/');
    let (host, port) = match rest.strip_prefix('[') {
        Some(six) => {
            let (host, rest) = six.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if tls => TLS_PORT,
        None => PLAIN_PORT,
    };
    let fits = !host.is_empty() && !host.contains(['/', '@', '?', '#']);
    fits.then(|| Address::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_docker_s() {
        let tcp = |host: &str, port| Some(Address::Tcp { host: host.into(), port });
        assert_eq!(parse("unix:///run/x", false), Some(Address::Unix("/run/x".into())));
        assert_eq!(parse("tcp://build:2376", true), tcp("build", 2376));
        assert_eq!(parse("tcp://build", true), tcp("build", 2376));
        assert_eq!(parse("tcp://build/", false), tcp("build", 2375));
        assert_eq!(parse("tcp://[::1]:99", false), tcp("::1", 99));
        for wrong in ["", "unix://x", "tcp://", "tcp://a:b", "tcp://a:0", "ssh://a", "tcp://u@a"] {
            assert_eq!(parse(wrong, false), None, "{wrong}");
        }
        assert_eq!(tcp("::1", 99).expect("one").to_string(), "tcp://[::1]:99");
    }
}
