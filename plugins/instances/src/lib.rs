//! What the providers that make instances themselves share: how one logs in to them, the
//! processes that they consist of, and the SSH server inside.

pub mod failed;
pub mod login;
pub mod processes;
mod server;

pub use server::{close_inherited, serve_ssh};
