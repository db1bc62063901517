//! Providers that fail, hang and die, and a plugin that does.

mod support;

use rustix::process::Signal;
use serde_json::json;
use support::*;

#[tokio::test]
async fn a_killed_provider_is_started_again_and_its_instances_stay_listed() {
    let rig = Rig::two(json!({"max_instances": 2}), json!({}), json!({}));
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(3, LIMIT).await.expect("created"), 3);
    let before = await_running(&plugin, 3).await;
    for _ in 0..3 {
        let killed = until(async || rig.process(Some("first"))).await;
        kill(killed);
        until(async || {
            // Whether it is down or up again.
            assert_eq!(ids(&plugin).await, before);
            rig.process(Some("first")).filter(|pid| *pid != killed)
        })
        .await;
    }
    until(async || {
        // One that dies meanwhile is asked again.
        let _ = plugin.decrease(before.clone(), LIMIT).await;
        ids(&plugin).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_the_first_provider_refuses_the_next_one_makes() {
    let fault = json!({"call": "create", "kind": "error", "reason": "capacity", "nth": 1});
    let first = json!({"config": {"faults": [fault]}});
    let rig = Rig::two(first, json!({}), json!({"cooldown": "1s"}));
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(2, LIMIT).await.expect("created"), 2);
    assert_eq!(of("second", &await_running(&plugin, 2).await), 2);
    // It is well again, and is asked again once it was left alone for long enough.
    let mut n = 2;
    until(async || {
        assert_eq!(plugin.increase(1, LIMIT).await.expect("created"), 1);
        n += 1;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        (of("first", &await_running(&plugin, n).await) > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_no_provider_makes_is_refused_with_all_their_reasons() {
    let fault = json!({"call": "create", "kind": "error", "reason": "capacity"});
    let first = json!({"config": {"faults": [fault]}});
    let rig = Rig::two(first, json!({"max_instances": 1}), json!({"cooldown": "10m"}));
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(3, LIMIT).await.expect("some"), 1);
    await_running(&plugin, 1).await;
    let refused = plugin.increase(1, LIMIT).await.expect_err("none").to_string();
    assert!(refused.contains("first: it is left alone for"), "{refused}");
    assert!(refused.contains("second: it is full: 1 of 1"), "{refused}");
}

#[tokio::test]
async fn a_provider_that_hangs_holds_nobody_up() {
    let rig = Rig::two(json!({}), json!({}), json!({"call_timeout": "10s"}));
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(1, LIMIT).await.expect("created"), 1);
    let before = await_running(&plugin, 1).await;
    assert_eq!(of("first", &before), 1);
    rig.signal("first", Signal::STOP);
    // Whether it makes one nobody knows: another provider must not be asked for the same.
    let refused = plugin.increase(1, LIMIT).await.expect_err("no answer").to_string();
    assert!(refused.contains("first: Increase: no answer within 10 s"), "{refused}");
    assert_eq!(ids(&plugin).await, before);
    plugin.heartbeat(&before[0], LIMIT).await.expect("nobody knows better");
    assert_eq!(plugin.increase(1, LIMIT).await.expect("by the other one"), 1);
    until(async || (of("second", &ids(&plugin).await) == 1).then_some(())).await;
    assert_eq!(of("first", &ids(&plugin).await), 1);

    // What was asked for comes when it goes on.
    rig.signal("first", Signal::CONT);
    until(async || (of("first", &ids(&plugin).await) == 2).then_some(())).await;
    // Also one that hangs ends with the plugin.
    rig.signal("first", Signal::STOP);
    plugin.stop(LIMIT).await;
    drop(plugin);
    rig.await_nothing().await;
}

#[tokio::test]
async fn a_killed_plugin_leaves_nothing_and_the_next_one_finds_the_instances() {
    let rig = Rig::two(json!({"max_instances": 1}), json!({}), json!({}));
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(2, LIMIT).await.expect("created"), 2);
    let before = await_running(&plugin, 2).await;
    rig.kill_plugin(plugin).await;
    rig.await_nothing().await;
    let plugin = rig.start().await;
    assert_eq!(ids(&plugin).await, before);
    assert_eq!(plugin.increase(1, LIMIT).await.expect("created"), 1);
    let now = await_running(&plugin, 3).await;
    assert_eq!((of("first", &now), of("second", &now)), (1, 2), "{now:?}");
}
