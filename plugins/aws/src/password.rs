//! Windows passwords, which AWS hands out encrypted for the instances' key pair.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsa::{Pkcs1v15Encrypt, RsaPrivateKey};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::KeypairData;

/// Decrypts what `GetPasswordData` answered; an error holds none of it.
pub(crate) fn decrypt(key: &PrivateKey, data: &str) -> Result<String, String> {
    let KeypairData::Rsa(pair) = key.key_data() else {
        return Err("key_path is no RSA key: Windows encrypts for RSA key pairs only".into());
    };
    let key = RsaPrivateKey::try_from(pair);
    let key = key.map_err(|error| format!("key_path cannot be used: {error}"))?;
    let data = STANDARD.decode(data).map_err(|_| "AWS's answer is no base64")?;
    let other = "key_path is not the key of the instances' key pair";
    let password = key.decrypt(Pkcs1v15Encrypt, &data).map_err(|_| other)?;
    String::from_utf8(password).map_err(|_| other.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// What `openssl` makes of this, in a directory of its own; it writes a file.
    fn openssl(directory: &Path, arguments: &[&str]) {
        let done = Command::new("openssl").args(arguments).current_dir(directory).output();
        let done = done.expect("openssl is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn key(pem: &str) -> PrivateKey {
        russh::keys::decode_secret_key(pem, None).expect("a key")
    }

    /// Keys as AWS makes them, a password as Windows encrypts it.
    #[test]
    fn a_password_is_read_with_its_key_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        openssl(path, &["genrsa", "-traditional", "-out", "key", "2048"]);
        std::fs::write(path.join("plain"), "S3cret;pass").expect("written");
        let encrypt = ["pkeyutl", "-encrypt", "-inkey", "key", "-in", "plain", "-out", "data"];
        openssl(path, &encrypt);
        let pem = std::fs::read_to_string(path.join("key")).expect("a key");
        assert!(pem.starts_with("-----BEGIN RSA PRIVATE KEY-----"), "{pem}");
        let data = STANDARD.encode(std::fs::read(path.join("data")).expect("data"));

        assert_eq!(decrypt(&key(&pem), &data), Ok("S3cret;pass".into()));
        assert!(decrypt(&key(&pem), "?").is_err_and(|why| why.contains("base64")));
        assert!(decrypt(&key(&pem), "AAAA").is_err_and(|why| why.contains("key pair")));
        let other = sshd::KeyPair::generate("").expect("a key").private;
        assert!(decrypt(&key(&other), &data).is_err_and(|why| why.contains("RSA")));
    }
}
