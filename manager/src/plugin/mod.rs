//! Provider plugins: finding them, keeping them running, and the way between their words
//! and the fleet's.

mod discovery;
mod provider;

pub(crate) use discovery::{beside, find, on_path};
pub(crate) use provider::{Provider, ProviderError};
