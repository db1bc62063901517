//! A token server, as GitLab has one, and certificates, made with openssl.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::openssl;
use crate::registry::{PASSWORD, USER};
use crate::wire::Server;

/// Gives tokens to who knows the password.
pub(crate) struct Tokens {
    pub(crate) server: Server,
    directory: TempDir,
}

impl Tokens {
    /// `None` after saying what is missing.
    pub(crate) fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let make = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=tokens";
        openssl(&make.split(' ').collect::<Vec<_>>(), directory.path())?;
        let at = directory.path().to_owned();
        let server = Server::start(move |head| {
            let basic = STANDARD.encode(format!("{USER}:{PASSWORD}"));
            let refresh = "refresh_token=correct+horse";
            let is_known =
                head.contains(&basic) || head.starts_with("POST ") && head.contains(refresh);
            if !is_known {
                return ("401 Unauthorized", Vec::new(), Vec::new());
            }
            // No scope is a login.
            let scoped = head.contains("scope=");
            let access = match scoped {
                true => json!([{"type": "repository", "name": "g/x", "actions": ["pull"]}]),
                false => json!([]),
            };
            let token = token(&at, &access);
            ("200 OK", Vec::new(), json!({"token": token}).to_string().into_bytes())
        });
        Some(Self { server, directory })
    }

    /// The part of a registry's configuration.
    pub(crate) fn of_registry(&self) -> Value {
        json!({"token": {
            "realm": format!("http://{}/token", self.server.address), "service": "test",
            "issuer": "tests", "rootcertbundle": self.directory.path().join("cert.pem"),
        }})
    }
}

fn token(directory: &Path, access: &Value) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later");
    let now = now.as_secs();
    let pem = std::fs::read_to_string(directory.join("cert.pem")).expect("made");
    let certificate: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let claims = json!({
        "iss": "tests", "sub": USER, "aud": "test", "jti": "1",
        "iat": now - 60, "nbf": now - 60, "exp": now + 3600, "access": access,
    });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let file = tempfile::NamedTempFile::new_in(directory).expect("a file");
    std::fs::write(file.path(), &signed).expect("written");
    let name = file.path().display().to_string();
    let signature = format!("{name}.signature");
    let sign = ["dgst", "-sha256", "-sign", "key.pem", "-out", &signature, &name];
    openssl(&sign, directory).expect("it was there before");
    let signature = std::fs::read(signature).expect("made");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An authority, and a certificate of it for this machine with its key; `None` after
/// saying what is missing.
pub(crate) fn certificates(directory: &Path) -> Option<(PathBuf, PathBuf, PathBuf)> {
    std::fs::create_dir_all(directory).expect("made");
    std::fs::write(directory.join("extensions"), "subjectAltName=IP:127.0.0.1\n").expect("written");
    for line in [
        "req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.pem -days 2 -subj /CN=authority",
        "req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=registry",
        "x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out cert.pem -days 2 -extfile extensions",
    ] {
        openssl(&line.split(' ').collect::<Vec<_>>(), directory)?;
    }
    let at = |name: &str| directory.join(name);
    Some((at("ca.pem"), at("cert.pem"), at("key.pem")))
}
