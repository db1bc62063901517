//! The small SSH server inside `local` and `docker` instances.
//!
//! Exec-only: public-key login of one user, commands and shells over three pipes, nothing
//! else. Deliberately absent: passwords, terminals, SFTP, forwarding of any kind.
//!
//! Two promises steer the code. A command lives on when its connection is lost; it sees
//! the end of its stdin and a closed stdout, as under OpenSSH. And no channel holds up
//! another one: output waits in the command's own pipe, input that a command does not
//! read goes to a bounded buffer and then to disk.
//!
//! A binary that runs this server must call [`run_session_if_asked`] first thing in `main`.

mod channel;
mod connection;
mod input;
mod keys;
mod login_deadline;
mod server;
mod session;

pub use keys::{KeyPair, public_half};
pub use server::{Error, Server};
pub use session::run_session_if_asked;
