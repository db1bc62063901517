//! Nothing of a script is left: at its deadline, when it ends, when the plugin is killed.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::*;

#[tokio::test]
async fn at_the_deadline_the_whole_group_ends() {
    let rig = Rig::ops(json!({"timeouts": {"delete": "500ms"}}));
    let seconds = unique_seconds();
    rig.on("delete", &format!("trap '' TERM HUP INT; sleep {seconds} & sleep {seconds}; wait"));
    let plugin = rig.start().await;
    let begun = Instant::now();
    let refused = plugin.decrease(vec!["a".into()], LIMIT).await.expect_err("too long").to_string();
    assert!(refused.contains("delete: killed after 0.5 s"), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    until(async || sleepers(seconds).is_empty().then_some(())).await;
    assert_eq!(rig.processes().len(), 2, "the plugin and the host's guard");
}

#[tokio::test]
async fn what_a_script_leaves_in_its_group_ends_with_it_and_what_left_stays() {
    let rig = Rig::ops(json!({}));
    let (left, detached) = (unique_seconds(), unique_seconds());
    // Both hold the script's outputs open.
    rig.on(
        "list",
        &format!(
            "sleep {left} & setsid sh -c \"touch '$kept.up'; exec sleep {detached}\" &\n\
         while [ ! -e \"$kept.up\" ]; do :; done\n\
         echo '{{\"instances\": []}}'"
        ),
    );
    let plugin = rig.start().await;
    let begun = Instant::now();
    assert!(list(&plugin).await.is_empty());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    until(async || sleepers(left).is_empty().then_some(())).await;
    until(async || (sleepers(detached).len() == 1).then_some(())).await;
    sleepers(detached).into_iter().for_each(kill);
}

#[tokio::test]
async fn a_plugin_that_is_killed_takes_its_scripts_with_it() {
    let rig = Rig::ops(json!({}));
    let seconds = unique_seconds();
    rig.on("create", &format!("trap '' TERM HUP INT; sleep {seconds} & sleep {seconds}"))
        .lists(&["i-1"]);
    let plugin = rig.start().await;
    {
        let creating = plugin.increase(3, Duration::from_secs(60));
        tokio::pin!(creating);
        let all_run = until(async || (sleepers(seconds).len() == 6).then_some(()));
        tokio::select! {
            result = &mut creating => panic!("it ended: {result:?}"),
            () = all_run => {}
        }
    }
    rig.kill_plugin(plugin).await;
    until(async || rig.processes().is_empty().then_some(())).await;
    assert_eq!(sleepers(seconds), Vec::<i32>::new());
    // The next one works.
    let plugin = rig.start().await;
    assert_eq!(list(&plugin).await.len(), 1);
}

#[tokio::test]
async fn a_host_that_stops_the_plugin_stops_its_scripts() {
    let rig = Rig::ops(json!({}));
    let seconds = unique_seconds();
    rig.on("list", &format!("sleep {seconds}"));
    let plugin = rig.start().await;
    let hasty = plugin.update(Duration::from_millis(500)).await;
    assert!(hasty.expect_err("no answer").outcome_unknown());
    assert_eq!(sleepers(seconds).len(), 1, "a script goes on when its host is in a hurry");
    plugin.stop(LIMIT).await;
    drop(plugin);
    until(async || rig.processes().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_guard_that_is_killed_costs_one_call() {
    let rig = Rig::ops(json!({}));
    let seconds = unique_seconds();
    rig.on("list", &format!("sleep {seconds}"));
    let plugin = rig.start().await;
    let killing =
        until(async || (!sleepers(seconds).is_empty()).then(|| processes_with("script-guard")));
    let (listed, guards) = tokio::join!(plugin.update(LIMIT), async {
        let guards = killing.await;
        let own = rig.processes();
        guards.iter().filter(|pid| own.contains(pid)).for_each(|pid| kill(*pid));
        guards.len()
    });
    let refused = listed.expect_err("no answer").to_string();
    assert!(guards > 0 && refused.contains("its guard was killed"), "{refused}");
    until(async || sleepers(seconds).is_empty().then_some(())).await;
    rig.lists(&["i-1"]);
    assert_eq!(list(&plugin).await.len(), 1);
}

#[tokio::test]
async fn no_more_scripts_run_than_may() {
    let rig = Rig::ops(json!({"parallel": 3}));
    // Each says how many run while it does.
    rig.on(
        "create",
        "touch \"$kept.running\"; sleep 0.2\n\
        ls \"$directory\"/asked/*.running | wc -l >\"$kept.count\"; rm \"$kept.running\"\n\
        echo '{\"created\": [\"a\"]}'",
    );
    rig.lists(&["i-1"]);
    let plugin = rig.start().await;
    let (created, listed) = tokio::join!(plugin.increase(9, LIMIT), plugin.update(LIMIT));
    assert_eq!((created.expect("created"), listed.expect("a list").len()), (9, 1));
    let counts: Vec<usize> = std::fs::read_dir(rig.path("asked"))
        .expect("readable")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".count"))
        .map(|entry| std::fs::read_to_string(entry.path()).expect("a count"))
        .map(|text| text.trim().parse().expect("a number"))
        .collect();
    assert_eq!(counts.len(), 9);
    assert!(counts.iter().all(|count| *count <= 3), "{counts:?}");
    assert!(counts.iter().any(|count| *count >= 2), "some at a time: {counts:?}");
}

#[tokio::test]
async fn who_waits_for_a_turn_in_vain_is_told_and_lists_never_wait() {
    let rig = Rig::ops(json!({"parallel": 1, "timeouts": {"create": "20s", "delete": "300ms"}}));
    rig.on("create", "sleep 1; echo '{\"created\": [\"a\"]}'").lists(&["a"]);
    let plugin = rig.start().await;
    let (created, (listed, deleted)) = tokio::join!(plugin.increase(1, LIMIT), async {
        until(async || (!rig.asked("create").is_empty()).then_some(())).await;
        let listed = plugin.update(LIMIT).await;
        (listed, plugin.decrease(vec!["a".into()], LIMIT).await)
    });
    assert_eq!(created.expect("created"), 1);
    assert_eq!(listed.expect("a list").len(), 1);
    let refused = deleted.expect_err("no turn").to_string();
    assert!(refused.contains("delete: no turn within 0.3 s: see parallel"), "{refused}");
}

#[tokio::test]
async fn a_request_that_nobody_reads_blocks_nobody() {
    let rig = Rig::ops(json!({"settings": {"long": "x".repeat(300_000)}}));
    write_program(
        &rig.path("provider.sh"),
        "#!/bin/sh\necho '{\"instances\": []}'\n[ $1 = list ]\n",
    );
    // `init` fails with the status of the last command.
    assert!(rig.refusal().await.contains("init: exit status 1"));
    write_program(
        &rig.path("provider.sh"),
        "#!/bin/sh\n[ $1 = init ] && exit 64\necho '{\"instances\": []}'\n",
    );
    let plugin = rig.start().await;
    assert!(list(&plugin).await.is_empty());
}
