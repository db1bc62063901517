//! Many containers at once: all of them come and go, and the daemon has no more to do at a
//! time than the plugin allows. `MAYFLY_DOCKER_MANY` says how many; 40, unless it is set.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mayfly_plugin::host::Plugin;
use mayfly_plugin::{InstanceState, InstanceStatus};
use serde_json::json;
use support::*;

/// The plugin's own limit, `AT_A_TIME` in `src/group/mod.rs`.
const AT_A_TIME: usize = 8;

#[tokio::test]
async fn as_many_as_are_asked_for_come_and_go_a_few_at_a_time() {
    let many = std::env::var("MAYFLY_DOCKER_MANY").ok();
    let many: u32 = many.map_or(40, |text| text.parse().expect("a number"));
    let Some(rig) = Rig::new(json!({"max_size": many})) else { return };
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(many + 1, LIMIT).await.expect("accepted"), many);
    let full = plugin.increase(1, LIMIT).await.expect_err("full").to_string();
    assert!(full.contains(&format!("max_size = {many}")), "{full}");
    let mut most = 0;
    progress(&plugin, |listed| {
        // Made and not started: the daemon is at it.
        let filter = format!("label=mayfly.group={}", rig.name());
        let created = ["ps", "-aq", "--filter", &filter, "--filter", "status=created"];
        most = most.max(rig.docker.run(&created).lines().count());
        let running = count(listed, InstanceState::Running);
        (running, running == many as usize)
    })
    .await;
    assert!(most <= AT_A_TIME, "{most} at a time");
    let ids: Vec<String> = list(&plugin).await.into_iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), many as usize);
    assert_eq!(
        rig.containers().into_iter().collect::<BTreeSet<_>>(),
        ids.iter().cloned().collect()
    );

    let mut deleted = plugin.decrease(ids.clone(), LIMIT).await.expect("accepted");
    deleted.sort();
    assert_eq!(deleted, ids);
    progress(&plugin, |_| {
        let left = rig.containers().len();
        (left, left == 0)
    })
    .await;
}

fn count(listed: &[InstanceStatus], state: InstanceState) -> usize {
    listed.iter().filter(|one| one.state == state).count()
}

/// Looks until it is done. Fails where nothing goes on any more, however long it takes.
async fn progress(plugin: &Plugin, mut look: impl FnMut(&[InstanceStatus]) -> (usize, bool)) {
    let (mut before, mut since) = (usize::MAX, Instant::now());
    loop {
        let (now, is_done) = look(&list(plugin).await);
        if is_done {
            return;
        }
        if now != before {
            (before, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < LIMIT * 2, "nothing goes on at {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
