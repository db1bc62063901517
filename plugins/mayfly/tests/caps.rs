//! The most instances, and the most hours of a day.

mod support;

use std::os::unix::fs::MetadataExt as _;

use serde_json::json;
use support::*;

#[tokio::test]
async fn no_more_instances_than_allowed_over_all_providers() {
    logs();
    let rig = Rig::two(json!({"max_instances": 2}), json!({}), json!({"max_instances": 3}));
    let plugin = rig.start().await;
    assert_eq!(plugin.info().max_size, 3);
    let (a, b) = tokio::join!(plugin.increase(2, LIMIT), plugin.increase(2, LIMIT));
    assert_eq!(a.expect("some") + b.expect("some"), 3);
    let ids = await_running(&plugin, 3).await;
    assert_eq!((of("first", &ids), of("second", &ids)), (2, 1), "{ids:?}");
    let refused = plugin.increase(1, LIMIT).await.expect_err("full").to_string();
    assert!(refused.contains("max_instances = 3 binds: 3 exist or are asked for"), "{refused}");
    await_log("max_instances = 3 binds").await;
    plugin.decrease(vec![ids[0].clone()], LIMIT).await.expect("deleted");
    await_running(&plugin, 2).await;
    assert_eq!(plugin.increase(1, LIMIT).await.expect("room"), 1);
}

#[tokio::test]
async fn a_day_s_hours_are_counted_over_restarts() {
    logs();
    let mut rig = Rig::two(json!({}), json!({}), json!({"max_instance_hours_per_day": 0.001}));
    let file = rig.directory.path().join("kept/spent.json");
    rig.config["state_file"] = file.display().to_string().into();
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(2, LIMIT).await.expect("created"), 2);
    await_running(&plugin, 2).await;
    let is_spent = async |plugin: &mayfly_plugin::host::Plugin| {
        ids(plugin).await;
        let refused = plugin.increase(1, LIMIT).await.err()?.to_string();
        assert!(refused.contains("max_instance_hours_per_day = 0.001 binds"), "{refused}");
        Some(())
    };
    // 0.001 hours are 3.6 s, sooner the more there are. Midnight may come in between.
    until(async || is_spent(&plugin).await).await;
    await_log("max_instance_hours_per_day = 0.001 binds").await;
    let Err(second) = rig.try_start().await else { panic!("two plugins on one file") };
    assert!(second.to_string().contains("another plugin process uses"), "{second}");
    rig.kill_plugin(plugin).await;
    rig.await_nothing().await;
    assert_eq!(std::fs::metadata(&file).expect("written").mode() & 0o777, 0o600);
    let plugin = rig.start().await;
    until(async || is_spent(&plugin).await).await;
    drop(plugin);
    rig.await_nothing().await;
    std::fs::write(&file, "{").expect("spoilt");
    assert!(rig.refusal().await.contains("move it away to begin anew"));
}
