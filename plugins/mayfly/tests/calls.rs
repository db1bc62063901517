//! Every call, each handed on to the provider whom it concerns.

mod support;

use mayfly_plugin::InstanceState;
use serde_json::json;
use support::*;

#[tokio::test]
async fn calls_reach_the_provider_of_each_instance() {
    let suspends = json!({"max_instances": 2, "config": {"suspend": "0s"}});
    let rig = Rig::two(suspends.clone(), suspends, json!({"name": "both"}));
    let plugin = rig.start().await;
    assert_eq!((plugin.info().id.as_str(), plugin.info().max_size), ("mayfly/both", 4));
    assert!(plugin.info().suspend_resume);
    assert_eq!(plugin.increase(3, LIMIT).await.expect("created"), 3);
    let ids = await_running(&plugin, 3).await;
    assert_eq!((of("first", &ids), of("second", &ids)), (2, 1), "{ids:?}");

    for id in &ids {
        plugin.heartbeat(id, LIMIT).await.expect("healthy");
        assert!(!plugin.connect_info(id, LIMIT).await.expect("known").internal_addr.is_empty());
    }
    let unhealthy = plugin.heartbeat("first/sim-99", LIMIT).await.expect_err("it is not there");
    assert!(unhealthy.to_string().contains("instance is unhealthy"), "{unhealthy}");
    for stranger in ["sim-1", "third/sim-1", "", "/"] {
        let refused = plugin.connect_info(stranger, LIMIT).await.expect_err("of nobody");
        assert!(refused.to_string().contains("begins with no provider"), "{refused}");
        assert!(plugin.heartbeat(stranger, LIMIT).await.is_err());
        let gone = plugin.decrease(vec![stranger.into()], LIMIT).await.expect("gone already");
        assert_eq!(gone, [stranger]);
    }

    let one_of_each = vec![ids[0].clone(), ids[2].clone()];
    let mut suspended = plugin.suspend(one_of_each.clone(), LIMIT).await.expect("an answer");
    suspended.succeeded.sort();
    assert_eq!((suspended.succeeded, suspended.error), (one_of_each.clone(), None));
    await_running(&plugin, 1).await;
    let mut resumed = plugin.resume(one_of_each.clone(), LIMIT).await.expect("an answer");
    resumed.succeeded.sort();
    assert_eq!(resumed.succeeded, one_of_each);
    await_running(&plugin, 3).await;

    let mut deleted = plugin.decrease(ids.clone(), LIMIT).await.expect("deleted");
    deleted.sort();
    assert_eq!(deleted, ids);
    await_running(&plugin, 0).await;
    plugin.stop(LIMIT).await;
    drop(plugin);
    rig.await_nothing().await;
}

#[tokio::test]
async fn an_instance_of_a_real_provider_is_logged_in_to() {
    let rig = Rig::new(&[("here", "local", json!({}))], json!({}));
    let plugin = rig.start().await;
    assert!(!plugin.info().suspend_resume);
    assert_eq!(plugin.increase(1, LIMIT).await.expect("created"), 1);
    let instances = await_running(&plugin, 1).await;
    let info = plugin.connect_info(&instances[0], LIMIT).await.expect("known");
    let client = Client::dial(&info).await.expect("login");
    assert_eq!(client.output("echo hello").await, "hello");
    plugin.decrease(instances, LIMIT).await.expect("deleted");
    // A plugin that ends before leaves the deletion to the next one.
    until(async || ids(&plugin).await.is_empty().then_some(())).await;
    plugin.stop(LIMIT).await;
    drop(plugin);
    rig.await_nothing().await;
}

#[tokio::test]
async fn a_configuration_that_is_wrong_is_refused_with_the_provider_s_name() {
    let mut rig = Rig::two(json!({}), json!({"config": {"boot": "soon"}}), json!({}));
    let refused = rig.refusal().await;
    assert!(refused.contains("provider second: ") && refused.contains("boot"), "{refused}");
    rig.config["providers"][1]["plugin"] = "no such?".into();
    let refused = rig.refusal().await;
    assert!(refused.contains("provider second: plugin \"no such?\""), "{refused}");
    rig.config["max_instance"] = 3.into();
    let refused = rig.refusal().await;
    assert!(refused.contains("unknown field `max_instance`"), "{refused}");
    rig.await_nothing().await;
}

/// What a provider does not list yet could be anything: a list without it would say that
/// its instances are gone.
#[tokio::test]
async fn there_is_no_list_before_every_provider_has_listed() {
    let fault = json!({"config": {"faults": [{"call": "list", "kind": "error", "nth": 1}]}});
    let rig = Rig::two(json!({}), fault, json!({}));
    let plugin = rig.start().await;
    let refused = plugin.update(LIMIT).await.expect_err("half a list").to_string();
    assert!(refused.contains("provider second has not listed its instances yet"), "{refused}");
    assert_eq!(ids(&plugin).await, Vec::<String>::new());
    // What a provider makes without a list before is asked for at once.
    assert_eq!(plugin.increase(1, LIMIT).await.expect("created"), 1);
    let state = plugin.update(LIMIT).await.expect("a list")[0].state;
    assert!(matches!(state, InstanceState::Creating | InstanceState::Running), "{state:?}");
}
