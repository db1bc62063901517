//! Instances from their creation to their end, in every isolation this machine allows.

mod support;

use std::time::{Duration, Instant};

use mayfly_plugin::InstanceState;
use support::*;

#[test]
fn as_an_ordinary_user() {
    again_as_nobody("as_an_ordinary_user");
}

#[tokio::test]
async fn an_instance_is_made_used_and_deleted_without_a_trace() {
    for mode in MODES {
        let Some(rig) = Rig::new(mode).await else { continue };
        let (plugin, id) = rig.one().await;
        let client = login(&plugin, &id).await;
        assert_eq!(client.output("echo hello").await, "hello");
        let (daemon, child) = (unique_seconds(), unique_seconds());
        client.output(&format!("setsid nohup sleep {daemon} >/dev/null 2>&1 </dev/null &")).await;
        let forked = format!("(setsid sh -c 'sleep {child} & exec env -i sleep {child}' &) & exit");
        client.output(&format!("({forked}) >/dev/null 2>&1 </dev/null")).await;
        client.output("mkdir -p a/b && touch a/b/c && chmod 0 a/b && chmod 555 a").await;
        let running =
            async || (sleepers(daemon).len() == 1 && sleepers(child).len() == 2).then_some(());
        until(running).await;

        let deleted = plugin.decrease(vec![id.clone()], LIMIT).await.expect("decrease");
        assert_eq!(deleted, std::slice::from_ref(&id));
        let state = state_of(&plugin, &id).await;
        assert!(
            matches!(state, None | Some(InstanceState::Deleting | InstanceState::Deleted)),
            "{mode:?}: {state:?}"
        );
        await_gone(&plugin, &id).await;
        assert_eq!(processes_with(&id), Vec::<i32>::new(), "{mode:?}");
        assert_eq!([sleepers(daemon), sleepers(child)].concat(), Vec::<i32>::new(), "{mode:?}");
        assert!(!exists(&rig.instance_dir(&id)), "{mode:?}");
        assert_eq!(state_of(&plugin, &id).await, None, "{mode:?}: told once");
    }
}

#[tokio::test]
async fn processes_that_go_on_forking_are_deleted_too() {
    for mode in MODES {
        let Some(rig) = Rig::new(mode).await else { continue };
        let (plugin, id) = rig.one().await;
        let client = login(&plugin, &id).await;
        let job = unique_seconds();
        let restless = format!("while :; do (setsid sleep {job} &); sleep 0.01; done");
        for _ in 0..3 {
            client
                .output(&format!("(setsid bash -c '{restless}' &) >/dev/null 2>&1 </dev/null"))
                .await;
        }
        until(async || (sleepers(job).len() > 20).then_some(())).await;
        plugin.decrease(vec![id.clone()], LIMIT).await.expect("decrease");
        await_gone(&plugin, &id).await;
        assert_eq!(processes_with(&job.to_string()), Vec::<i32>::new(), "{mode:?}");
    }
}

/// A plugin may be killed between the start of a keeper and the note about it.
#[tokio::test]
async fn an_instance_without_a_known_keeper_is_found_and_deleted() {
    for mode in MODES {
        let Some(rig) = Rig::new(mode).await else { continue };
        let (plugin, id) = rig.one().await;
        let job = unique_seconds();
        let daemon = format!("setsid nohup sleep {job} >/dev/null 2>&1 </dev/null &");
        login(&plugin, &id).await.output(&daemon).await;
        kill(plugin_pid(&rig));
        plugin.ended().await;
        std::fs::remove_file(rig.instance_dir(&id).join("keeper")).expect("removed");
        let plugin = rig.start().await.expect("started again");
        assert_eq!(state_of(&plugin, &id).await, Some(InstanceState::Deleting), "{mode:?}");
        await_gone(&plugin, &id).await;
        assert_eq!([sleepers(job), processes_with(&id)].concat(), Vec::<i32>::new(), "{mode:?}");
    }
}

#[tokio::test]
async fn unknown_instances_are_gone_already_and_cannot_be_used() {
    let rig = Rig::new(Mode::None).await.expect("always possible");
    let plugin = rig.start().await.expect("started");
    for id in ["local-00000000", "other", "../../etc", ""] {
        let deleted = plugin.decrease(vec![id.into()], LIMIT).await.expect("success");
        assert_eq!(deleted, [id]);
        assert!(plugin.connect_info(id, LIMIT).await.is_err(), "{id}");
        assert!(plugin.heartbeat(id, LIMIT).await.is_err(), "{id}");
    }
    assert_eq!(update(&plugin).await, []);
}

#[tokio::test]
async fn instances_outlive_a_killed_plugin_and_the_next_one_finds_them() {
    for mode in MODES {
        let Some(rig) = Rig::new(mode).await else { continue };
        let (plugin, id) = rig.one().await;
        let job = unique_seconds();
        let client = login(&plugin, &id).await;
        let channel = client.start(&format!("exec sleep {job}")).await;
        until(async || (!sleepers(job).is_empty()).then_some(())).await;
        kill(plugin_pid(&rig));
        plugin.ended().await;
        // The host kills what is left of the plugin's process group.
        drop(plugin);

        let plugin = rig.start().await.expect("started again");
        assert_eq!(state_of(&plugin, &id).await, Some(InstanceState::Running), "{mode:?}");
        assert_eq!(sleepers(job).len(), 1, "{mode:?}");
        plugin.heartbeat(&id, LIMIT).await.expect("healthy");
        assert_eq!(client.output("echo same connection").await, "same connection");
        login(&plugin, &id).await.output("true").await;
        drop(channel);
        plugin.decrease(vec![id.clone()], LIMIT).await.expect("decrease");
        await_gone(&plugin, &id).await;
        assert_eq!(sleepers(job), Vec::<i32>::new(), "{mode:?}");
    }
}

#[tokio::test]
async fn a_deletion_goes_on_after_the_plugin_was_killed() {
    let rig = Rig::new(Mode::None).await.expect("always possible");
    let (plugin, id) = rig.one().await;
    std::fs::write(rig.instance_dir(&id).join("deleting"), "").expect("as a killed plugin left it");
    kill(plugin_pid(&rig));
    plugin.ended().await;
    drop(plugin);
    let plugin = rig.start().await.expect("started again");
    assert_eq!(state_of(&plugin, &id).await, Some(InstanceState::Deleting));
    await_gone(&plugin, &id).await;
    assert!(!exists(&rig.instance_dir(&id)));
}

/// Kills one of an instance's own processes; nothing of it may be left or listed.
async fn killed(rig: &Rig, which: fn(&Rig, &str) -> i32) {
    let (plugin, id) = rig.one().await;
    let job = unique_seconds();
    let daemon = format!("setsid nohup sleep {job} >/dev/null 2>&1 </dev/null &");
    login(&plugin, &id).await.output(&daemon).await;
    until(async || (!sleepers(job).is_empty()).then_some(())).await;
    kill(which(rig, &id));
    let not_running =
        async || (state_of(&plugin, &id).await != Some(InstanceState::Running)).then_some(());
    until(not_running).await;
    assert!(plugin.heartbeat(&id, LIMIT).await.is_err(), "{:?}", rig.mode);
    await_gone(&plugin, &id).await;
    assert_eq!(sleepers(job), Vec::<i32>::new(), "{:?}", rig.mode);
    assert_eq!(processes_with(&id), Vec::<i32>::new(), "{:?}", rig.mode);
    assert!(!exists(&rig.instance_dir(&id)), "{:?}", rig.mode);
}

#[tokio::test]
async fn a_killed_keeper_takes_the_instance_with_it() {
    for mode in MODES {
        let Some(rig) = Rig::new(mode).await else { continue };
        killed(&rig, keeper).await;
    }
}

#[tokio::test]
async fn a_killed_first_process_takes_the_instance_with_it() {
    for mode in MODES {
        let Some(rig) = Rig::new(mode).await else { continue };
        killed(&rig, |rig, id| children(keeper(rig, id))[0]).await;
    }
}

#[tokio::test]
async fn a_killed_ssh_server_takes_the_instance_with_it() {
    for mode in [Mode::Full, Mode::User] {
        let Some(rig) = Rig::new(mode).await else { continue };
        killed(&rig, |rig, id| children(children(keeper(rig, id))[0])[0]).await;
    }
}

#[tokio::test]
async fn the_group_never_exceeds_its_size() {
    let mut rig = Rig::new(Mode::None).await.expect("always possible");
    rig.max_size = 3;
    let plugin = rig.start().await.expect("started");
    assert_eq!(plugin.info().max_size, 3);
    let (a, b, c) = tokio::join!(
        plugin.increase(2, LIMIT),
        plugin.increase(2, LIMIT),
        plugin.increase(2, LIMIT)
    );
    let made: u32 = [&a, &b, &c].into_iter().flatten().sum();
    assert_eq!(made, 3, "{a:?} {b:?} {c:?}");
    let refused = plugin.increase(1, LIMIT).await.expect_err("full");
    assert!(refused.to_string().contains("max_size = 3"), "{refused}");
    assert_eq!(ids(&update(&plugin).await).len(), 3);
    assert_eq!(plugin.increase(0, LIMIT).await.expect("nothing asked"), 0);
}

#[tokio::test]
async fn an_instance_boots_as_long_as_it_is_told_to() {
    let mut rig = Rig::new(Mode::None).await.expect("always possible");
    rig.extra = r#", "boot_time": "700ms""#.into();
    let plugin = rig.start().await.expect("started");
    let start = Instant::now();
    rig.add(&plugin).await;
    assert!(start.elapsed() >= Duration::from_millis(650), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_forgotten_instance_ends_itself_but_not_its_job() {
    for mode in MODES {
        let Some(mut rig) = Rig::new(mode).await else { continue };
        rig.extra = r#", "lease": "1s""#.into();
        let (plugin, idle) = rig.one().await;
        let busy = rig.add(&plugin).await;
        let job = "setsid nohup sleep 4 >/dev/null 2>&1 </dev/null &";
        login(&plugin, &busy).await.output(job).await;
        // Updates renew the lease of both.
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(ids(&update(&plugin).await).len(), 2, "{mode:?}");
        }
        kill(plugin_pid(&rig));
        plugin.ended().await;
        let start = Instant::now();
        until(async || (!exists(&rig.instance_dir(&idle))).then_some(())).await;
        // The keeper removes the files, then ends.
        until(async || processes_with(&idle).is_empty().then_some(())).await;
        assert!(start.elapsed() < Duration::from_secs(3), "{mode:?}: {:?}", start.elapsed());
        assert!(exists(&rig.instance_dir(&busy)), "{mode:?}: its job runs");
        until(async || (!exists(&rig.instance_dir(&busy))).then_some(())).await;
        assert!(start.elapsed() > Duration::from_secs(2), "{mode:?}: {:?}", start.elapsed());
        until(async || processes_with(&busy).is_empty().then_some(())).await;
    }
}

/// A host that lists an instance no more cannot know whether it is gone for good: it must
/// be told, also where the end came while no plugin was there.
#[tokio::test]
async fn an_end_without_a_plugin_is_told_by_the_next() {
    for mode in MODES {
        let Some(rig) = Rig::new(mode).await else { continue };
        let (plugin, id) = rig.one().await;
        let first = children(keeper(&rig, &id));
        kill(plugin_pid(&rig));
        plugin.ended().await;
        first.iter().for_each(|pid| kill(*pid));
        let is_over = || exists(&rig.instance_dir(&id).join("deleting"));
        until(async || is_over().then_some(())).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let plugin = rig.start().await.expect("started again");
        assert_eq!(state_of(&plugin, &id).await, Some(InstanceState::Deleting), "{mode:?}");
        until(async || {
            let state = state_of(&plugin, &id).await;
            let is_going = matches!(state, Some(InstanceState::Deleting | InstanceState::Deleted));
            assert!(is_going, "{mode:?}: {state:?}");
            (state == Some(InstanceState::Deleted)).then_some(())
        })
        .await;
        assert!(!exists(&rig.instance_dir(&id)), "{mode:?}");
        assert_eq!(processes_with(&id), Vec::<i32>::new(), "{mode:?}");
    }
}

#[tokio::test]
async fn a_deletion_is_told_although_its_plugin_was_killed_after_it() {
    let rig = Rig::new(Mode::None).await.expect("always possible");
    let (plugin, id) = rig.one().await;
    kill(keeper(&rig, &id));
    until(async || {
        let state = state_of(&plugin, &id).await;
        let is_there = matches!(state, Some(InstanceState::Running | InstanceState::Deleting));
        assert!(is_there, "{state:?}");
        (state == Some(InstanceState::Deleting)).then_some(())
    })
    .await;
    until(async || (!exists(&rig.instance_dir(&id))).then_some(())).await;
    kill(plugin_pid(&rig));
    plugin.ended().await;
    let plugin = rig.start().await.expect("started again");
    assert_eq!(state_of(&plugin, &id).await, Some(InstanceState::Deleted));
    assert_eq!(state_of(&plugin, &id).await, None, "once is enough");
    let left = std::fs::read_dir(rig.root().join("local")).expect("the group").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name == "lock" || name == "lease"), "{left:?}");
}

#[tokio::test]
async fn one_group_has_one_plugin() {
    let rig = Rig::new(Mode::None).await.expect("always possible");
    let first = rig.start().await.expect("started");
    let Err(refused) = rig.start().await else { panic!("two plugins on one group") };
    assert!(refused.to_string().contains("another plugin process uses"), "{refused}");
    assert!(first.increase(1, LIMIT).await.is_ok(), "the first one is not disturbed");
}

#[tokio::test]
async fn bad_configuration_is_explained() {
    let mut rig = Rig::unchecked(Mode::None);
    rig.extra = r#", "lease": "soon""#.into();
    let Err(refused) = rig.start().await else { panic!("accepted") };
    assert!(refused.to_string().contains(r#"lease = "soon": must be a duration"#), "{refused}");
}

#[tokio::test]
async fn leftovers_of_a_killed_plugin_are_removed() {
    let rig = Rig::new(Mode::None).await.expect("always possible");
    let group = rig.root().join("local");
    std::fs::create_dir_all(group.join(".new-local-00000001/home")).expect("made");
    std::fs::create_dir_all(group.join("local-00000002")).expect("made");
    std::fs::create_dir_all(group.join("precious")).expect("made");
    let plugin = rig.start().await.expect("started");
    assert_eq!(state_of(&plugin, "local-00000002").await, Some(InstanceState::Deleting));
    await_gone(&plugin, "local-00000002").await;
    assert!(!exists(&group.join(".new-local-00000001")));
    assert!(!exists(&group.join("local-00000002")));
    assert!(exists(&group.join("precious")), "what is not ours is left alone");
}
