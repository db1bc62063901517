//! Provider plugins: keeping them running, and the way between their words and the fleet's.

mod provider;

pub(crate) use mayfly_plugin::host::{FindError, find};
pub(crate) use provider::{Provider, ProviderError};
