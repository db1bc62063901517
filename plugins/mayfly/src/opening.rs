//! How the group begins: with all of its providers, or without those that are down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mayfly_plugin::Error;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::provider::Provider;
use crate::underneath::{FirstStart, START_LIMIT};

/// How long those that start keep those waiting that run. GitLab Runner gives `Init` and the
/// first `Update` a minute together, and a list may take 20 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for the first start of all. Those that are down are left for later if another one
/// is up; an error names those that are not up, with their words.
///
/// A configuration that is refused is a mistake, and an error, unless the same one was
/// accepted before: then the provider says no for another reason, such as an outage.
pub(crate) async fn await_providers(providers: &[Arc<Provider>]) -> Result<(), Error> {
    let mut starts = first_starts(providers).await;
    let (mut down, mut has_refusal) = (Vec::new(), false);
    for provider in providers {
        let why = match starts.remove(&provider.name) {
            Some(FirstStart::Up(plugin)) => {
                let group = &plugin.info().id;
                tracing::info!(provider = provider.name, group, "provider is up");
                continue;
            }
            Some(FirstStart::Refused(why)) => {
                has_refusal |= !provider.was_accepted();
                why
            }
            Some(FirstStart::Down(why)) => why,
            None => "its plugin is still starting".into(),
        };
        down.push((provider, why));
    }
    // Without room in those that are up the host would never ask for an instance.
    let is_useless = providers.iter().all(|provider| provider.size() == 0);
    if has_refusal || down.len() == providers.len() || (is_useless && !down.is_empty()) {
        let each = down.iter().map(|(provider, why)| format!("provider {}: {why}", provider.name));
        return Err(Error::new(each.collect::<Vec<_>>().join("; ")));
    }
    for (provider, why) in down {
        provider.begin_down(why);
    }
    Ok(())
}

/// How they started, by name. Those that take too long are missing.
async fn first_starts(providers: &[Arc<Provider>]) -> BTreeMap<String, FirstStart> {
    let mut starting = JoinSet::new();
    for provider in providers {
        let provider = Arc::clone(provider);
        starting.spawn(async move { (provider.name.clone(), provider.first_start().await) });
    }
    let begun = Instant::now();
    let mut starts = BTreeMap::new();
    let mut limit = START_LIMIT;
    while let Ok(Some(start)) = timeout_at(begun + limit, starting.join_next()).await {
        // One that panicked is missing.
        let Ok((name, start)) = start else { continue };
        if matches!(start, FirstStart::Up(_)) {
            limit = PATIENCE;
        }
        starts.insert(name, start);
    }
    starts
}
