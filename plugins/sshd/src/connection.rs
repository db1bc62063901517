//! One client: who it is and which channels it has.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;

use russh::keys::PublicKey;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty, Sig};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::channel::{self, Running};
use crate::keys;
use crate::login_deadline::LoggedIn;
use crate::server::Server;

/// Variables that one channel may set.
const VARIABLES: usize = 32;
/// Length of a variable's value.
const VALUE_LIMIT_BYTES: usize = 4096;

pub(crate) struct Connection {
    server: Arc<Server>,
    logged_in: LoggedIn,
    places: Arc<Semaphore>,
    channels: BTreeMap<ChannelId, State>,
}

enum State {
    Open(Opened),
    Running(Running),
}

/// A channel on which no command runs yet.
struct Opened {
    write: ChannelWriteHalf<Msg>,
    environment: Vec<(String, String)>,
    place: OwnedSemaphorePermit,
}

impl Connection {
    pub(crate) fn new(server: Arc<Server>, logged_in: LoggedIn) -> Self {
        let places = Arc::new(Semaphore::new(server.max_channels));
        Self { server, logged_in, places, channels: BTreeMap::new() }
    }

    fn judge(&self, user: &str, key: &PublicKey) -> Auth {
        let known = user == self.server.user
            && keys::is_authorized(key, &self.server.trusted_keys, &self.server.authorized_keys);
        if known {
            return Auth::Accept;
        }
        // Without methods left russh would end the session: the next key may be the one.
        Auth::Reject {
            proceed_with_methods: Some((&[russh::MethodKind::PublicKey][..]).into()),
            partial_success: false,
        }
    }

    /// Runs a command, or a login shell without one.
    fn start(
        &mut self,
        id: ChannelId,
        command: Option<OsString>,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let opened = match self.channels.remove(&id) {
            Some(State::Open(opened)) => opened,
            Some(running @ State::Running(_)) => {
                self.channels.insert(id, running);
                return session.channel_failure(id);
            }
            None => return session.channel_failure(id),
        };
        let environment = &opened.environment;
        match channel::spawn(&self.server, environment, command) {
            Ok(child) => {
                session.channel_success(id)?;
                let running = Running::attend(child, opened.write, session.handle(), opened.place);
                self.channels.insert(id, State::Running(running));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "cannot start a command");
                self.channels.insert(id, State::Open(opened));
                session.channel_failure(id)
            }
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.judge(user, offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.judge(user, key.public_key))
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Self::Error> {
        self.logged_in.set();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        // Channels that this side closed are reported by nobody.
        self.channels.retain(|_, state| match state {
            State::Open(_) => true,
            State::Running(running) => !running.is_over(),
        });
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let id = channel.id();
        // Dropping the read half keeps russh from queueing what `data` takes: a full
        // queue would stop the whole connection.
        let (_, write) = channel.split();
        let opened = Opened { write, environment: Vec::new(), place };
        self.channels.insert(id, State::Open(opened));
        reply.accept().await;
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(State::Open(opened)) = self.channels.get_mut(&id)
            && opened.environment.len() < VARIABLES
            && is_allowed(name)
            && value.len() <= VALUE_LIMIT_BYTES
            && !value.contains('\0')
        {
            opened.environment.push((name.to_owned(), value.to_owned()));
            return session.channel_success(id);
        }
        session.channel_failure(id)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, Some(OsString::from_vec(command.to_vec())), session)
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, None, session)
    }

    async fn data(
        &mut self,
        id: ChannelId,
        bytes: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(State::Running(running)) = self.channels.get(&id) else {
            return Ok(());
        };
        if let Err(error) = running.push(bytes) {
            tracing::warn!(%error, "cannot keep a command's input, closing its channel");
            self.channels.remove(&id);
            session.close(id)?;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(State::Running(running)) = self.channels.get_mut(&id) {
            running.end_input();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(State::Running(running)) = self.channels.get(&id) {
            running.signal(&signal);
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}

/// Locale, terminal and time zone change how programs look, not what they do.
fn is_allowed(name: &str) -> bool {
    const NAMES: [&str; 4] = ["LANG", "TERM", "TZ", "COLORTERM"];
    NAMES.contains(&name)
        || name.strip_prefix("LC_").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn only_looks_may_be_set() {
        for name in ["LANG", "LC_ALL", "LC_MESSAGES", "TERM", "TZ"] {
            assert!(is_allowed(name), "{name}");
        }
        for name in ["LD_PRELOAD", "PATH", "BASH_ENV", "LC_", "LC_x=1", "lang", ""] {
            assert!(!is_allowed(name), "{name}");
        }
    }
}
