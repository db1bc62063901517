//! Instances from creation to end, and what of them survives the plugin.

mod support;

use std::time::{Duration, Instant};

use mayfly_plugin::InstanceState;
use serde_json::json;
use support::*;

#[tokio::test]
async fn an_instance_is_made_used_and_deleted_without_a_trace() {
    let rig = Rig::new(json!({"boot": "6s", "delete": "6s"}));
    let plugin = rig.start().await;
    let begun = Instant::now();
    assert_eq!(plugin.increase(1, LIMIT).await.expect("created"), 1);
    let listed = list(&plugin).await;
    assert_eq!(listed[0].state, InstanceState::Creating);
    let id = listed[0].id.clone();
    assert!(plugin.connect_info(&id, LIMIT).await.is_err(), "it has not booted");
    until(async || (running(&plugin).await == [id.clone()]).then_some(())).await;
    assert!(begun.elapsed() >= Duration::from_secs(6), "{:?}", begun.elapsed());
    plugin.heartbeat(&id, LIMIT).await.expect("healthy");

    let client = login(&plugin, &id).await;
    let home = rig.instance_dir(&id).join("home");
    assert_eq!(client.output("pwd").await, home.display().to_string());
    let (daemon, orphan) = (unique_seconds(), unique_seconds());
    client.output(&format!("setsid nohup sleep {daemon} >/dev/null 2>&1 </dev/null &")).await;
    let forked = format!("(setsid env -i sh -c 'sleep {orphan} & exec sleep {orphan}' &) & exit");
    client.output(&format!("({forked}) >/dev/null 2>&1 </dev/null")).await;
    client.output("mkdir -p a/b && touch a/b/c && chmod 0 a/b").await;
    until(async || (sleepers(daemon).len() + sleepers(orphan).len() == 3).then_some(())).await;

    let begun = Instant::now();
    plugin.decrease(vec![id.clone()], LIMIT).await.expect("deleted");
    assert_eq!(state_of(&plugin, &id).await, Some(InstanceState::Deleting));
    until(async || (state_of(&plugin, &id).await == Some(InstanceState::Deleted)).then_some(()))
        .await;
    assert!(begun.elapsed() >= Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!([sleepers(daemon), sleepers(orphan)].concat(), Vec::<i32>::new());
    rig.assert_nothing_left();
    let again = plugin.decrease(vec![id.clone()], LIMIT).await.expect("it counts as accepted");
    assert_eq!(again, [id]);
}

#[tokio::test]
async fn instances_and_their_timeline_survive_the_plugin() {
    let rig = Rig::new(json!({"boot": ["0s", "12s"]}));
    let plugin = rig.start().await;
    let old = add(&plugin, 1).await.remove(0);
    let job = unique_seconds();
    let daemon = format!("setsid nohup sleep {job} >/dev/null 2>&1 </dev/null &");
    login(&plugin, &old).await.output(&daemon).await;
    let begun = Instant::now();
    plugin.increase(1, LIMIT).await.expect("created");
    let address = plugin.connect_info(&old, LIMIT).await.expect("known").internal_addr;
    rig.kill_plugin(plugin).await;
    assert_eq!(rig.machines().len() + sleepers(job).len(), 3, "machine, job, and the job again");

    let plugin = rig.start().await;
    assert_eq!(list(&plugin).await.len(), 2);
    assert_eq!(running(&plugin).await, std::slice::from_ref(&old));
    let info = plugin.connect_info(&old, LIMIT).await.expect("known");
    assert_eq!(info.internal_addr, address);
    assert_eq!(login(&plugin, &old).await.output("echo hello").await, "hello");
    until(async || (running(&plugin).await.len() == 2).then_some(())).await;
    let booted = begun.elapsed();
    assert!(booted >= Duration::from_secs(12), "{booted:?}");
    let other = running(&plugin).await.into_iter().find(|id| *id != old).expect("another");
    login(&plugin, &other).await.output("true").await;

    // A deletion goes on, too.
    plugin.decrease(vec![old, other], LIMIT).await.expect("deleted");
    rig.kill_plugin(plugin).await;
    let plugin = rig.start().await;
    until(async || running(&plugin).await.is_empty().then_some(())).await;
    until(async || rig.machines().is_empty().then_some(())).await;
    until(async || (rig.ledger()["alive"] == 0).then_some(())).await;
    assert_eq!(sleepers(job), Vec::<i32>::new());
    rig.assert_nothing_left();
}

#[tokio::test]
async fn an_instance_that_dies_is_noticed_with_and_without_a_plugin() {
    let rig = Rig::new(json!({}));
    let plugin = rig.start().await;
    let ids = add(&plugin, 4).await;
    let job = unique_seconds();
    let daemon = format!("setsid nohup sleep {job} >/dev/null 2>&1 </dev/null &");
    login(&plugin, &ids[0]).await.output(&daemon).await;
    // By somebody's hand.
    let is_first = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.contains("instance") && line.contains(&ids[0]))
    };
    kill(rig.machines().into_iter().find(is_first).expect("it runs"));
    until(async || (running(&plugin).await == ids[1..]).then_some(())).await;
    until(async || sleepers(job).is_empty().then_some(())).await;
    assert!(plugin.heartbeat(&ids[0], LIMIT).await.is_err());
    // From outside, while the plugin runs.
    assert!(rig.ask("kill", &[&ids[1]]).contains("is dead"));
    assert_eq!(running(&plugin).await, ids[2..]);
    assert_eq!(state_of(&plugin, &ids[1]).await, Some(InstanceState::Deleted));
    // While none does.
    rig.kill_plugin(plugin).await;
    assert_eq!(rig.ask("list", &["--json"]).lines().count(), 2);
    assert!(rig.ask("list", &[]).contains("running"));
    rig.ask("kill", &["--all"]);
    rig.assert_nothing_left();
    let plugin = rig.start().await;
    assert!(running(&plugin).await.is_empty());
    let ledger = rig.ledger();
    assert_eq!((&ledger["alive"], &ledger["created"]), (&json!(0), &json!(4)));
    assert!(ledger["instances"].as_array().expect("rows").iter().all(|i| i["last"] == "killed"));
}

#[tokio::test]
async fn an_instance_whose_directory_is_gone_ends_itself() {
    let rig = Rig::new(json!({}));
    let plugin = rig.start().await;
    let id = add(&plugin, 1).await.remove(0);
    let job = unique_seconds();
    let daemon = format!("setsid nohup sleep {job} >/dev/null 2>&1 </dev/null &");
    login(&plugin, &id).await.output(&daemon).await;
    rig.kill_plugin(plugin).await;
    std::fs::remove_dir_all(rig.state_dir()).expect("removed");
    until(async || (rig.machines().is_empty() && sleepers(job).is_empty()).then_some(())).await;
}

#[tokio::test]
async fn an_instance_that_will_be_taken_away_is_told_so() {
    let fate = json!({"kind": "interrupt", "instances": [2], "after": "100ms", "notice": "15s"});
    let rig = Rig::new(json!({"fates": [fate]}));
    let plugin = rig.start().await;
    plugin.increase(2, LIMIT).await.expect("created");
    let told = until(async || in_state(&plugin, InstanceState::Deleting).await.pop()).await;
    assert_eq!(told, "sim-00002");
    let client = login(&plugin, &told).await;
    let notice = client.output("cat $MAYFLY_SIM_INSTANCE/interruption.json").await;
    assert!(notice.contains("taken_away_at_ms"), "{notice}");
    until(async || (state_of(&plugin, &told).await == Some(InstanceState::Deleted)).then_some(()))
        .await;
    assert_eq!(running(&plugin).await, ["sim-00001"]);
}

#[tokio::test]
async fn a_suspended_instance_keeps_its_disk_and_costs_nothing() {
    let rig = Rig::new(json!({"suspend": "100ms"}));
    let plugin = rig.start().await;
    assert!(plugin.info().suspend_resume);
    let id = add(&plugin, 1).await.remove(0);
    login(&plugin, &id).await.output("echo kept > file").await;
    let ids = || vec![id.clone()];
    assert_eq!(plugin.suspend(ids(), LIMIT).await.expect("accepted").succeeded, ids());
    let state = state_of(&plugin, &id).await;
    assert!(matches!(state, Some(InstanceState::Suspending | InstanceState::Suspended)));
    let is = async |state| (state_of(&plugin, &id).await == Some(state)).then_some(());
    until(async || is(InstanceState::Suspended).await).await;
    until(async || rig.machines().is_empty().then_some(())).await;
    let cost = || rig.ledger()["cost_s"].as_f64().expect("a number");
    let before = cost();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(cost() - before < 0.05, "{before} {}", cost());
    plugin.resume(ids(), LIMIT).await.expect("accepted");
    until(async || is(RUNNING).await).await;
    assert_eq!(login(&plugin, &id).await.output("cat file").await, "kept");
    plugin.suspend(ids(), LIMIT).await.expect("accepted");
    until(async || is(InstanceState::Suspended).await).await;
    delete_all(&plugin).await;
    rig.assert_nothing_left();
}

#[tokio::test]
async fn ten_thousand_instances_are_no_burden() {
    let rig = Rig::hollow(json!({"max_size": 10_000}));
    let plugin = rig.start().await;
    for _ in 0..10 {
        plugin.increase(1000, LIMIT).await.expect("created");
    }
    assert_eq!(running(&plugin).await.len(), 10_000);
    let mut times = Vec::new();
    for _ in 0..9 {
        let begun = Instant::now();
        assert_eq!(list(&plugin).await.len(), 10_000);
        times.push(begun.elapsed());
    }
    times.sort();
    println!("10,000 instances: median {:?}, longest {:?}", times[4], times[8]);
    rig.kill_plugin(plugin).await;
    let plugin = rig.start().await;
    assert_eq!(running(&plugin).await.len(), 10_000);
    let info = plugin.connect_info("sim-00007", LIMIT).await.expect("an address");
    assert!(std::net::TcpStream::connect(&info.internal_addr).is_err(), "nobody listens");
}

#[tokio::test]
async fn boot_times_repeat_themselves_by_their_seed() {
    let times = async |seed: u64| {
        let boot = json!({"min": "10s", "median": "20s", "p95": "60s"});
        let rig = Rig::hollow(json!({"boot": boot, "seed": seed, "delete": "1h"}));
        let plugin = rig.start().await;
        plugin.increase(3, LIMIT).await.expect("created");
        let boot_ms = |id: &str| {
            let text = std::fs::read(rig.instance_dir(id).join("facts.json")).expect("facts");
            let facts: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            facts["running_ms"].as_u64().expect("ms") - facts["created_ms"].as_u64().expect("ms")
        };
        ["sim-00001", "sim-00002", "sim-00003"].map(boot_ms)
    };
    let first = times(7).await;
    assert_eq!(first, times(7).await);
    assert_ne!(first, times(8).await);
    assert!(first.iter().all(|ms| *ms >= 10_000) && first[0] != first[1], "{first:?}");
}

#[tokio::test]
async fn one_group_has_one_plugin_and_a_misspelt_key_is_refused() {
    let mut rig = Rig::hollow(json!({}));
    let first = rig.start().await;
    let Err(refused) = rig.try_start().await else { panic!("two plugins on one group") };
    assert!(refused.to_string().contains("another plugin process uses"), "{refused}");
    assert_eq!(first.increase(1, LIMIT).await.expect("not disturbed"), 1);
    rig.config["bood"] = "1s".into();
    rig.config["state_dir"] = rig.directory.path().join("other").display().to_string().into();
    let Err(refused) = rig.try_start().await else { panic!("accepted") };
    assert!(refused.to_string().contains("unknown field `bood`"), "{refused}");
}

#[tokio::test]
async fn a_hundred_at_once_are_no_more_than_the_provider_has_room_for() {
    let rig = Rig::hollow(json!({"quota": 100, "boot": "50ms", "delete": "50ms"}));
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(120, LIMIT).await.expect("as far as it goes"), 100);
    until(async || (running(&plugin).await.len() == 100).then_some(())).await;
    assert!(plugin.increase(1, LIMIT).await.is_err());
    delete_all(&plugin).await;
    until(async || (rig.ledger()["alive"] == 0).then_some(())).await;
    assert_eq!(rig.ledger()["over_quota"], 0);
    rig.assert_nothing_left();
}
