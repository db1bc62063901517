//! Making instances: everything is decided and written down here, then the keeper starts.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use instances::failed::{During as _, Failed};
use instances::processes::Identity;
use mayfly_plugin::Error;
use sshd::KeyPair;

use super::Group;
use crate::isolation::{Isolation, UidClaims, accounts_files, user_name};
use crate::record::{Account, Record, ServerSettings};
use crate::registry::InstanceDir;
use crate::roles;

/// The user of instances whose user has no other name.
const USER: &str = "mayfly";

impl Group {
    /// Starts up to `n` instances, as far as the group has room for them.
    pub(super) fn increase(self: &Arc<Self>, n: u32) -> Result<u32, Error> {
        // Held throughout: the room must not be given away twice.
        let mut state = self.state();
        let existing = self.registry.list()?.len();
        let limit = self.options.max_size;
        let room = limit.saturating_sub(u32::try_from(existing).unwrap_or(u32::MAX));
        if n > 0 && room == 0 {
            return Err(Error::new(format!(
                "the group is full: {existing} of max_size = {limit} instances exist"
            )));
        }
        for made in 0..n.min(room) {
            let instance = self.registry.free_instance();
            if let Err(failed) = self.create(&instance) {
                if instance.exists() {
                    self.start_deletion(&mut state, instance);
                }
                if made == 0 {
                    return Err(failed.into());
                }
                tracing::error!(asked = n, made, error = %failed, "cannot make more instances");
                return Ok(made);
            }
        }
        Ok(n.min(room))
    }

    fn create(&self, instance: &InstanceDir) -> Result<(), Failed> {
        let listener = listen(instance.id())?;
        let address = listener.local_addr().during("learn the address")?.to_string();
        let account = self.account(instance)?;
        let (record, host_key) = self.record(instance, address, account)?;
        let written = self.write(instance, &record, host_key);
        if written.is_err() && self.isolation == Isolation::Full {
            // The claim is void anyway once this process has ended.
            let _ = UidClaims::default().release(record.account.uid, instance.path());
        }
        written?;
        start_keeper(instance, &record, listener)
    }

    fn account(&self, instance: &InstanceDir) -> Result<Account, Failed> {
        let wanted = self.access.user_name().map(str::to_owned);
        let (user, uid, gid) = match self.isolation {
            Isolation::Full => {
                let uid = UidClaims::default().claim(instance.path())?;
                (wanted, uid, uid)
            }
            Isolation::User | Isolation::None => {
                let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
                (wanted.or_else(user_name), uid.as_raw(), gid.as_raw())
            }
        };
        let user = user.unwrap_or_else(|| USER.to_owned());
        Ok(Account { user, uid, gid, home: instance.home(), shell: shell() })
    }

    fn record(
        &self,
        instance: &InstanceDir,
        address: String,
        account: Account,
    ) -> Result<(Record, Keys), Failed> {
        let pair = || {
            KeyPair::generate(instance.id())
                .map_err(std::io::Error::other)
                .during("make a key pair")
        };
        let host = pair()?;
        let client = if self.access.makes_keys() { Some(pair()?) } else { None };
        let operator_key = self.access.operator_key.clone();
        let (client_key, client_line) = client.map(|pair| (pair.private, pair.public)).unzip();
        let trusted = client_line.into_iter().chain(operator_key.clone()).collect();
        let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = Record {
            id: instance.id().to_owned(),
            created_unix_ms: u64::try_from(age.as_millis()).unwrap_or_default(),
            isolation: self.isolation,
            address,
            account,
            hidden: self.hidden.clone(),
            lease_ms: u64::try_from(self.options.lease.as_millis()).unwrap_or(u64::MAX),
            client_key,
            operator_key,
        };
        Ok((record, Keys { host, trusted }))
    }

    fn write(&self, instance: &InstanceDir, record: &Record, keys: Keys) -> Result<(), Failed> {
        let server = ServerSettings {
            account: record.account.clone(),
            instance: record.id.clone(),
            host_key: keys.host.private,
            trusted_keys: keys.trusted,
        };
        let host_line = keys.host.public + "\n";
        let mut files = vec![("ssh_host_ed25519_key.pub", host_line.as_str())];
        let (passwd, group) = accounts_files(&record.account);
        if self.isolation != Isolation::None {
            files.extend([("passwd", passwd.as_str()), ("group", group.as_str())]);
        }
        self.registry.add(instance, record, &server, &files)
    }
}

struct Keys {
    host: KeyPair,
    /// The public keys that may log in.
    trusted: Vec<String>,
}

/// Listens on a loopback address that the instance's id gives: an address of its own
/// means that a client which pins host keys never meets another instance there, and that
/// a dial to a dead instance can never connect to itself. The kernel picks the port.
fn listen(id: &str) -> Result<TcpListener, Failed> {
    let digits = id.rsplit('-').next().and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let [a, b, c, d] = digits.unwrap_or_default().to_be_bytes();
    let own = Ipv4Addr::new(127, 64 | (a & 63), b, 1 + (c ^ d) % 254);
    TcpListener::bind((own, 0))
        // Some sandboxes have nothing but 127.0.0.1.
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .during(format!("listen on {own}"))
}

fn shell() -> PathBuf {
    let bash = Path::new("/bin/bash");
    if bash.exists() { bash.into() } else { "/bin/sh".into() }
}

fn start_keeper(
    instance: &InstanceDir,
    record: &Record,
    listener: TcpListener,
) -> Result<(), Failed> {
    let mut keeper = tokio::process::Command::from(roles::role_command(roles::INSTANCE))
        .arg(instance.path())
        .env_clear()
        .envs(record.account.environment(&record.id))
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(instance.open_log()?)
        .spawn()
        .during("start the keeper")?;
    let identity = keeper.id().and_then(|pid| Identity::of(pid.cast_signed()));
    let identity = identity
        .ok_or_else(|| std::io::Error::other("it ended at once"))
        .during("start the keeper")?;
    // The keeper outlives this process; until then somebody must collect it.
    tokio::spawn(async move { keeper.wait().await });
    instance.set_keeper(identity)
}
