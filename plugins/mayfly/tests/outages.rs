//! Providers that are down when the plugin starts.

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use mayfly_plugin::host::Plugin;
use serde_json::{Value, json};
use support::*;

/// Two providers of which the first takes one instance, with one instance each; their ids.
/// The plugin is killed afterwards.
async fn one_of_each(rig: &Rig) -> Vec<String> {
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(2, LIMIT).await.expect("created"), 2);
    let ids = await_running(&plugin, 2).await;
    assert_eq!((of("first", &ids), of("second", &ids)), (1, 1), "{ids:?}");
    rig.kill_plugin(plugin).await;
    rig.await_nothing().await;
    ids
}

fn two(second: Value, more: Value) -> Rig {
    Rig::two(json!({"max_instances": 1, "config": {"suspend": "0s"}}), second, more)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

async fn why_none_is_made(plugin: &Plugin) -> String {
    plugin.increase(1, LIMIT).await.expect_err("none").to_string()
}

#[tokio::test]
async fn one_that_is_not_installed_takes_nobody_down_and_is_taken_up_later() {
    logs();
    let mut rig = two(json!({"max_instances": 2, "config": {"suspend": "0s"}}), json!({}));
    let binary = rig.without_binary(1);
    let plugin = rig.start().await;
    assert_eq!((plugin.info().max_size, plugin.info().suspend_resume), (3, false));
    await_log_line(&["WARN", "nothing is remembered of it", "second", &text(&binary)]).await;
    assert_eq!(ids(&plugin).await, Vec::<String>::new());
    assert_eq!(plugin.increase(2, LIMIT).await.expect("some"), 1);
    let before = await_running(&plugin, 1).await;
    assert_eq!(of("first", &before), 1);
    let refused = why_none_is_made(&plugin).await;
    assert!(refused.contains("second: plugin") && refused.contains("no such file"), "{refused}");

    install(&binary);
    until(async || {
        ids(&plugin).await;
        plugin.increase(1, LIMIT).await.ok()
    })
    .await;
    assert_eq!(of("second", &await_running(&plugin, 2).await), 1);
    plugin.stop(LIMIT).await;
    drop(plugin);
    rig.await_nothing().await;
}

#[tokio::test]
async fn without_a_state_file_its_instances_come_back_with_it() {
    let mut rig = two(json!({"max_instances": 1}), json!({}));
    let binary = rig.without_binary(1);
    install(&binary);
    let before = one_of_each(&rig).await;
    break_binary(&binary);
    let plugin = rig.start().await;
    let listed = ids(&plugin).await;
    assert_eq!((of("first", &listed), of("second", &listed)), (1, 0), "{listed:?}");
    let refused = why_none_is_made(&plugin).await;
    assert!(refused.contains("second: plugin") && refused.contains("status 3"), "{refused}");
    install(&binary);
    until(async || (ids(&plugin).await == before).then_some(())).await;
}

#[tokio::test]
async fn with_a_state_file_its_last_list_is_told_and_counts_until_it_is_back() {
    logs();
    let second = json!({"price_per_hour": 3600, "config": {"suspend": "0s", "max_size": 7}});
    let mut rig = two(second, json!({"max_instances": 2}));
    rig.config["providers"][0]["price_per_hour"] = 0.into();
    let (file, binary) = (rig.with_state_file(), rig.without_binary(1));
    install(&binary);
    let before = one_of_each(&rig).await;
    break_binary(&binary);
    // Over more than one restart, too.
    for _ in 0..2 {
        let plugin = rig.start().await;
        assert_eq!((plugin.info().max_size, plugin.info().suspend_resume), (2, true));
        await_log_line(&["WARN", "its instances are those of its last list", &text(&binary)]).await;
        assert_eq!(await_running(&plugin, 2).await, before);
        let refused = why_none_is_made(&plugin).await;
        assert!(refused.contains("max_instances = 2 binds: 2 exist"), "{refused}");
        rig.kill_plugin(plugin).await;
    }
    assert_eq!(std::fs::metadata(&file).expect("written").mode() & 0o777, 0o600);

    // What it said of itself before counts where no limit of it is written.
    rig.config["max_instances"] = Value::Null;
    // They cost all the time.
    rig.config["max_cost_per_day"] = 1.5.into();
    let plugin = rig.start().await;
    assert_eq!(plugin.info().max_size, 1 + 7);
    until(async || {
        assert_eq!(ids(&plugin).await, before);
        let refused = why_none_is_made(&plugin).await;
        refused.contains("max_cost_per_day = 1.5 binds").then_some(())
    })
    .await;
    plugin.heartbeat(&before[1], LIMIT).await.expect("nobody knows better");
    let gone = before[1].strip_prefix("second/").expect("of the second");
    sim(&["kill", &text(&rig.directory.path().join("second")), gone]);
    install(&binary);
    until(async || (ids(&plugin).await == before[..1]).then_some(())).await;
}

#[tokio::test]
async fn one_that_hangs_in_init_does_not_use_up_the_host_s_minute() {
    let fault = json!({"config": {"faults": [{"call": "init", "kind": "hang"}]}});
    let rig = two(fault, json!({}));
    let begun = Instant::now();
    let plugin = rig.start().await;
    assert_eq!(ids(&plugin).await, Vec::<String>::new());
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    assert_eq!(plugin.info().max_size, 1);
    assert_eq!(plugin.increase(2, LIMIT).await.expect("some"), 1);
    plugin.stop(LIMIT).await;
    drop(plugin);
    rig.await_nothing().await;
}

#[tokio::test]
async fn where_none_starts_each_is_named_with_its_words() {
    let mut rig = two(json!({"max_instances": 1}), json!({}));
    let (missing, broken) = (rig.without_binary(0), rig.without_binary(1));
    break_binary(&broken);
    let refused = rig.refusal().await;
    for part in [
        format!("provider first: plugin {:?}: there is no such file", text(&missing)),
        format!("; provider second: plugin {}: it exited with status 3", text(&broken)),
    ] {
        assert!(refused.contains(&part), "{refused}");
    }
    // Also where one is up that may have no instance.
    install(&missing);
    rig.config["providers"][0]["max_instances"] = 0.into();
    rig.config["providers"][1]["max_instances"] = Value::Null;
    let refused = rig.refusal().await;
    assert!(refused.contains("provider second: plugin"), "{refused}");
    rig.await_nothing().await;
}

#[tokio::test]
async fn a_configuration_that_was_accepted_once_is_not_what_is_wrong() {
    let mut rig = two(json!({}), json!({}));
    rig.with_state_file();
    let before = one_of_each(&rig).await;
    let place = rig.directory.path().join("second");
    let aside = rig.directory.path().join("aside");
    std::fs::rename(&place, &aside).expect("moved");
    std::fs::write(&place, "").expect("in the way");
    let plugin = rig.start().await;
    assert_eq!(ids(&plugin).await, before);
    let refused = why_none_is_made(&plugin).await;
    assert!(refused.contains("second: plugin") && refused.contains("Init failed"), "{refused}");
    std::fs::remove_file(&place).and_then(|()| std::fs::rename(&aside, &place)).expect("back");
    until(async || {
        assert_eq!(ids(&plugin).await, before);
        plugin.increase(1, LIMIT).await.ok()
    })
    .await;
    rig.kill_plugin(plugin).await;
    // Another one may be.
    rig.config["providers"][1]["config"]["boot"] = "soon".into();
    let refused = rig.refusal().await;
    assert!(refused.contains("provider second: ") && refused.contains("boot"), "{refused}");
    rig.await_nothing().await;
}

/// One that counts as having no instances was not heard to say so.
#[tokio::test]
async fn a_guess_is_not_remembered() {
    let fault = json!({"config": {"faults": [{"call": "list", "kind": "error", "nth": 1}]}});
    let mut rig = two(fault, json!({}));
    let (file, binary) = (rig.with_state_file(), rig.without_binary(1));
    let plugin = rig.start().await;
    assert_eq!(ids(&plugin).await, Vec::<String>::new());
    assert!(file.is_file());
    rig.kill_plugin(plugin).await;
    rig.await_nothing().await;
    install(&binary);
    let plugin = rig.start().await;
    let refused = plugin.update(LIMIT).await.expect_err("half a list").to_string();
    assert!(refused.contains("provider second has not listed its instances yet"), "{refused}");
    assert_eq!(ids(&plugin).await, Vec::<String>::new());
}
