//! The most instances, and the most hours and money of a day.

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use mayfly_plugin::host::Plugin;
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
    let file = rig.with_state_file();
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(2, LIMIT).await.expect("created"), 2);
    await_running(&plugin, 2).await;
    let is_spent = async |plugin: &Plugin| {
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

/// Why no instance is made, once none is.
async fn await_cap(plugin: &Plugin) -> String {
    until(async || {
        ids(plugin).await;
        plugin.increase(1, LIMIT).await.err().map(|error| error.to_string())
    })
    .await
}

fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

#[tokio::test]
async fn a_day_s_money_is_counted_at_the_prices_of_its_time() {
    logs();
    // 3600 an hour are 1 a second.
    let dear = json!({"max_instances": 1, "price_per_hour": 3600});
    let free = json!({"price_per_hour": 0});
    let more = json!({"max_cost_per_day": 2.5, "max_instance_hours_per_day": 100});
    let mut rig = Rig::two(dear, free, more);
    rig.with_state_file();
    let day = || since_1970().as_secs() / (24 * 60 * 60);
    let begun = day();
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(2, LIMIT).await.expect("created"), 2);
    await_running(&plugin, 2).await;
    let refused = await_cap(&plugin).await;
    assert!(refused.contains("max_cost_per_day = 2.5 binds: "), "{refused}");
    assert!(refused.contains("second 0.00) since midnight UTC"), "{refused}");
    assert!(!refused.contains("hours_per_day"), "{refused}");
    await_log("max_cost_per_day = 2.5 binds").await;
    plugin.decrease(ids(&plugin).await, LIMIT).await.expect("deleted");
    await_running(&plugin, 0).await;
    rig.kill_plugin(plugin).await;

    // What was spent is not made cheaper by a price of later.
    rig.config["providers"][0]["price_per_hour"] = 0.into();
    let plugin = rig.start().await;
    ids(&plugin).await;
    let refused = plugin.increase(1, LIMIT).await;
    if day() != begun {
        return;
    }
    assert!(refused.expect_err("spent").to_string().contains("max_cost_per_day = 2.5 binds"));
    rig.kill_plugin(plugin).await;
    rig.config["max_cost_per_day"] = 1_000_000.into();
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(1, LIMIT).await.expect("created"), 1);
    rig.kill_plugin(plugin).await;

    // Both caps may bind, and both are named.
    rig.config["max_cost_per_day"] = 0.1.into();
    rig.config["max_instance_hours_per_day"] = 0.0001.into();
    let plugin = rig.start().await;
    let refused = await_cap(&plugin).await;
    for key in ["max_cost_per_day = 0.1 binds", "max_instance_hours_per_day = 0.0001 binds"] {
        assert!(refused.contains(key), "{refused}");
    }
}

#[tokio::test]
async fn a_file_of_before_there_were_prices_is_read() {
    let priced = json!({"price_per_hour": 1});
    let mut rig = Rig::two(priced.clone(), priced, json!({"max_instance_hours_per_day": 50}));
    let file = rig.with_state_file();
    std::fs::create_dir(file.parent().expect("a directory")).expect("made");
    let spent_ms = 50 * 60 * 60 * 1000;
    let books =
        json!({"at_ms": since_1970().as_millis() as u64, "instances": 0, "spent_ms": spent_ms});
    let old = json!({"version": 1, "books": books}).to_string();
    std::fs::write(&file, &old).expect("written");
    let plugin = rig.start().await;
    ids(&plugin).await;
    let refused = plugin.increase(1, LIMIT).await.expect_err("spent").to_string();
    assert!(refused.contains("binds: 50.00 hours are spent"), "{refused}");
    rig.kill_plugin(plugin).await;

    // These hours had no price.
    rig.config["max_cost_per_day"] = 1.into();
    rig.config["max_instance_hours_per_day"] = 1000.into();
    std::fs::write(&file, old).expect("written");
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(1, LIMIT).await.expect("created"), 1);
}
