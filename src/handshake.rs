//! The handshake: cookie, environment and the one line that a plugin prints.
//!
//! `CORE|APP|NETWORK|ADDRESS|PROTOCOL|CERTIFICATE`: both directions, pure.

/// Variable that tells a plugin that a host started it.
pub(crate) const COOKIE_NAME: &str = "FLEETING_INSTANCE_GROUP_PLUGIN";
/// Value of the cookie. It guards against running a plugin by hand, no more.
pub(crate) const COOKIE_VALUE: &str = "4c6410b1-cb78-4962-8c76-ab936d0ea908";
/// go-plugin's own protocol version.
const CORE_VERSION: &str = "1";
/// fleeting's protocol version, the same in all versions since 2023.
pub(crate) const APP_VERSION: &str = "0";

/// Where a plugin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Path of a unix socket.
    Unix(String),
    /// `host:port`. Our own plugins listen on sockets only.
    #[cfg_attr(not(any(feature = "host", test)), expect(dead_code, reason = "read by hosts"))]
    Tcp(String),
}

/// Why a handshake line is not one that this host can use.
#[cfg(any(feature = "host", test))]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Not a handshake line at all.
    #[error("the first line it printed is not a go-plugin handshake: {line}")]
    Junk {
        /// The line, escaped and cut.
        line: String,
    },
    /// Another major version of go-plugin.
    #[error("it speaks go-plugin core protocol {found}, this host speaks {CORE_VERSION}")]
    CoreVersion {
        /// What the plugin said.
        found: String,
    },
    /// Another plugin protocol, usually not a fleeting plugin at all.
    #[error("it speaks plugin protocol version {found}, fleeting's is {APP_VERSION}")]
    AppVersion {
        /// What the plugin said.
        found: String,
    },
    /// `netrpc`, or nothing.
    #[error("it offers {found:?}, this host speaks grpc only")]
    Rpc {
        /// What the plugin said.
        found: String,
    },
    /// Neither `unix` nor `tcp`.
    #[error("it listens on a {found:?} address, this host knows unix and tcp")]
    Network {
        /// What the plugin said.
        found: String,
    },
}

/// The line for a plugin that listens on `address`; ends with the empty certificate.
#[cfg(any(feature = "serve", test))]
pub(crate) fn render(address: &Address) -> String {
    let (network, address) = match address {
        Address::Unix(path) => ("unix", path),
        Address::Tcp(addr) => ("tcp", addr),
    };
    format!("{CORE_VERSION}|{APP_VERSION}|{network}|{address}|grpc|\n")
}

/// Reads the first line of a plugin. Fields beyond the fifth are ignored: without TLS
/// the certificate means nothing.
#[cfg(any(feature = "host", test))]
pub(crate) fn parse(line: &[u8]) -> Result<Address, HandshakeError> {
    let junk = || HandshakeError::Junk { line: escape(line) };
    let text = std::str::from_utf8(line).map_err(|_| junk())?.trim_end_matches(['\r', '\n']);
    let fields: Vec<&str> = text.split('|').collect();
    let [core, app, network, address, rest @ ..] = fields.as_slice() else {
        return Err(junk());
    };
    let is_number = |field: &str| !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
    if !is_number(core) || !is_number(app) {
        return Err(junk());
    }
    if *core != CORE_VERSION {
        return Err(HandshakeError::CoreVersion { found: (*core).into() });
    }
    if *app != APP_VERSION {
        return Err(HandshakeError::AppVersion { found: (*app).into() });
    }
    let rpc = rest.first().copied().unwrap_or("netrpc");
    if rpc != "grpc" {
        return Err(HandshakeError::Rpc { found: rpc.into() });
    }
    match *network {
        "unix" => Ok(Address::Unix((*address).into())),
        "tcp" => Ok(Address::Tcp((*address).into())),
        other => Err(HandshakeError::Network { found: other.into() }),
    }
}

/// Bytes as printable text of at most 120 characters.
#[cfg(any(feature = "host", test))]
pub(crate) fn escape(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 120;
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let dots = if bytes.len() > SHOWN_BYTES { "…" } else { "" };
    format!("\"{}{dots}\"", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_stock_plugins_are_read() {
        let unix = Ok(Address::Unix("/tmp/plugin544202341".into()));
        let long_certificate = format!("1|0|unix|/tmp/plugin544202341|grpc|{}\n", "x".repeat(792));
        let lines = [
            "1|0|unix|/tmp/plugin544202341|grpc|\n",
            "1|0|unix|/tmp/plugin544202341|grpc",
            "1|0|unix|/tmp/plugin544202341|grpc|\r\n",
            "1|0|unix|/tmp/plugin544202341|grpc||true\n",
            "1|0|unix|/tmp/plugin544202341|grpc||true|more\n",
            &long_certificate,
        ];
        for line in lines {
            assert_eq!(parse(line.as_bytes()), unix, "{line}");
        }
        assert_eq!(
            parse(b"1|0|tcp|127.0.0.1:10001|grpc|\n"),
            Ok(Address::Tcp("127.0.0.1:10001".into()))
        );
    }

    #[test]
    fn our_line_is_read_by_ourselves() {
        let address = Address::Unix("/run/x/plugin1".into());
        let line = render(&address);
        assert_eq!(line, "1|0|unix|/run/x/plugin1|grpc|\n");
        assert_eq!(parse(line.as_bytes()), Ok(address));
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let cases: [(&[u8], &str); 10] = [
            (b"", "not a go-plugin handshake"),
            (b"Starting up...\n", "not a go-plugin handshake"),
            (b"1|0|unix\n", "not a go-plugin handshake"),
            (b"\x1b[32m1|0|unix|/x|grpc|\n", "not a go-plugin handshake"),
            (b"\xff\xfe|0|unix|/x|grpc|\n", "\\xff\\xfe"),
            (b"2|0|unix|/x|grpc|\n", "core protocol 2"),
            (b"1|5|unix|/x|grpc|\n", "version 5"),
            (b"1|0|unix|/x|netrpc|\n", "netrpc"),
            (b"1|0|unix|/x\n", "netrpc"),
            (b"1|0|udp|1.2.3.4:1|grpc|\n", "udp"),
        ];
        for (line, expected) in cases {
            let error = parse(line).expect_err("must fail").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_long_line_is_cut() {
        let error = parse(&[b'x'; 5000]).expect_err("must fail").to_string();
        assert!(error.len() < 300, "{error}");
    }
}
