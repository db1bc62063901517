//! Containers come, take logins, and go; they belong to one group and outlive plugins.

mod support;

use std::time::Instant;

use mayfly_plugin::InstanceState;
use serde_json::json;
use support::{
    Client, LIMIT, Rig, add, add_one, await_gone, await_log, in_state, info, list, login, logs,
    state_of, until,
};

#[tokio::test]
async fn a_container_takes_logins_and_goes_without_a_trace() {
    let Some(rig) = Rig::new(json!({})) else { return };
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    assert_eq!(rig.containers(), std::slice::from_ref(&id));
    plugin.heartbeat(&id, LIMIT).await.expect("healthy");
    let client = login(&plugin, &id).await;
    assert_eq!(
        client.output("id -u; pwd; echo $MAYFLY_INSTANCE $IMAGE; hostname").await,
        format!("0\n/root\n{id} busybox\n{id}")
    );
    // Orphans are collected.
    client.output("(sleep 0.1 &) ; sleep 0.5").await;
    let zombies = "grep -l 'State:.Z' /proc/[0-9]*/status | wc -l";
    assert_eq!(client.output(zombies).await, "0");

    assert_eq!(plugin.decrease(vec![id.clone()], LIMIT).await.expect("accepted"), vec![id.clone()]);
    assert_eq!(state_of(&plugin, &id).await, Some(InstanceState::Deleting));
    await_gone(&plugin, &id).await;
    assert_eq!(rig.containers(), Vec::<String>::new());
    // Gone already: accepted again.
    assert_eq!(plugin.decrease(vec![id.clone()], LIMIT).await.expect("accepted"), vec![id.clone()]);
    assert!(plugin.connect_info(&id, LIMIT).await.is_err());
}

#[tokio::test]
async fn what_is_configured_holds_inside() {
    let shared = tempfile::tempdir().expect("a directory");
    std::fs::write(shared.path().join("file"), "from outside").expect("written");
    let mount = format!("{}:/outside:ro", shared.path().display());
    let Some(rig) = Rig::new(json!({
        "user": "ci", "workdir": "/tmp", "env": {"GREETING": "hello"}, "labels": {"team": "a"},
        "mounts": [mount], "shm_size": "3m", "devices": ["/dev/null:/dev/nothing"],
        "command": ["sh", "-c", "echo beside > /tmp/beside; sleep 1000"],
    })) else {
        return;
    };
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    assert_eq!(info(&plugin, &id).await.connector.username, "ci");
    let client = login(&plugin, &id).await;
    assert_eq!(
        client.output("id -un; pwd; echo $HOME $USER $GREETING").await,
        "ci\n/tmp\n/home/ci ci hello"
    );
    assert_eq!(client.output("cat /outside/file; cat /tmp/beside").await, "from outsidebeside");
    assert_ne!(client.exec("touch /outside/x").await.status, Some(0));
    assert_eq!(client.output("df -k /dev/shm | tail -1 | awk '{print $2}'").await, "3072");
    client.output("test -c /dev/nothing").await;
    let label = rig.docker.run(&["inspect", "-f", "{{.Config.Labels.team}}", &id]);
    assert_eq!(label, "a");
}

#[tokio::test]
async fn a_volume_without_a_name_goes_with_its_container() {
    let Some(rig) = Rig::new(json!({})) else { return };
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    let format = "{{range .Mounts}}{{.Name}} {{.Destination}}{{end}}";
    let mounted = rig.docker.run(&["inspect", "-f", format, &id]);
    let (volume, place) = mounted.split_once(' ').expect("one volume");
    assert_eq!(place, "/volume");
    assert!(rig.docker.run(&["volume", "ls", "-q"]).contains(volume));
    plugin.decrease(vec![id.clone()], LIMIT).await.expect("accepted");
    await_gone(&plugin, &id).await;
    assert!(!rig.docker.run(&["volume", "ls", "-q"]).contains(volume));
}

#[tokio::test]
async fn limits_hold() {
    let limits = json!({"memory": "48m", "pids_limit": 40, "cpus": 0.5});
    let Some(rig) = Rig::new(limits) else { return };
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    let client = login(&plugin, &id).await;
    let greedy = client.exec("head -c 100000000 /dev/zero | tail -c 99000000 | wc -c").await;
    assert_ne!(greedy.stdout.trim(), "99000000", "{greedy:?}");
    let many = client.exec("for i in $(seq 60); do sleep 5 & done; wait").await;
    assert_ne!(many.status, Some(0), "{many:?}");
    let quota = "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    let client = login(&plugin, &id).await;
    assert!(client.output(quota).await.starts_with("50000"));
    plugin.heartbeat(&id, LIMIT).await.expect("the instance itself lives on");
}

#[tokio::test]
async fn instances_and_what_runs_in_them_outlive_a_killed_plugin() {
    let Some(rig) = Rig::new(json!({})) else { return };
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    let before = info(&plugin, &id).await;
    let client = login(&plugin, &id).await;
    let job = client.start("sleep 3; echo done").await;
    rig.kill_plugin(plugin).await;

    let plugin = rig.start().await;
    assert_eq!(state_of(&plugin, &id).await, Some(InstanceState::Running));
    assert_eq!(login(&plugin, &id).await.output("echo again").await, "again");
    assert!(Client::dial(&before).await.is_err(), "the key of the killed plugin ended with it");
    assert_eq!(support::drain(job).await.stdout, "done\n");
}

#[tokio::test]
async fn nothing_foreign_is_listed_or_touched() {
    let Some(rig) = Rig::new(json!({})) else { return };
    let Some(other) = Rig::new(json!({})) else { return };
    let Some(mut elsewhere) = Rig::new(json!({})) else { return };
    elsewhere.config["name"] = rig.config["name"].clone();
    elsewhere.config["owner"] = "another-machine".into();
    let (plugin, others, theirs) =
        (rig.start().await, other.start().await, elsewhere.start().await);
    let foreign = format!("foreign-{}", rig.name());
    rig.docker.run(&["run", "-d", "--name", &foreign, support::BUSYBOX, "sleep", "1000"]);
    let (own, second) = (add_one(&plugin).await, add_one(&others).await);
    let third = add_one(&theirs).await;

    let full = rig.docker.run(&["inspect", "-f", "{{.Id}}", &foreign]);
    let all =
        vec![foreign.clone(), full, second.clone(), third.clone(), "../x".into(), String::new()];
    assert_eq!(
        plugin.decrease(all.clone(), LIMIT).await.expect("accepted"),
        all,
        "gone, as far as it knows"
    );
    let partial = plugin.suspend(vec![foreign.clone(), second.clone()], LIMIT).await;
    assert!(partial.is_err() || partial.is_ok_and(|partial| partial.succeeded.is_empty()));
    assert!(plugin.connect_info(&second, LIMIT).await.is_err());
    assert_eq!(in_state(&plugin, InstanceState::Running).await, [own]);
    assert_eq!(list(&plugin).await.len(), 1);
    assert_eq!(in_state(&others, InstanceState::Running).await, [second]);
    assert_eq!(in_state(&theirs, InstanceState::Running).await, [third]);
    let running = rig.docker.run(&["inspect", "-f", "{{.State.Running}}", &foreign]);
    rig.docker.run(&["rm", "-f", &foreign]);
    assert_eq!(running, "true");
}

#[tokio::test]
async fn a_second_plugin_of_the_same_group_is_refused() {
    let Some(rig) = Rig::new(json!({})) else { return };
    let plugin = rig.start().await;
    let refused = rig.refusal().await;
    assert!(refused.contains("another plugin on this machine serves the group"), "{refused}");
    assert_eq!(list(&plugin).await, []);
}

#[tokio::test]
async fn suspended_instances_do_nothing_until_they_are_resumed() {
    let Some(rig) = Rig::new(json!({})) else { return };
    let plugin = rig.start().await;
    assert!(plugin.info().suspend_resume);
    let ids = add(&plugin, 2).await;
    let one = ids[0].clone();
    let client = login(&plugin, &one).await;
    client
        .output("(while :; do date +%s%N >> /tmp/ticks; sleep 0.05; done) >/dev/null 2>&1 &")
        .await;
    let suspended = plugin.suspend(ids.clone(), LIMIT).await.expect("suspended");
    assert_eq!((suspended.succeeded.len(), suspended.error), (2, None));
    assert_eq!(state_of(&plugin, &one).await, Some(InstanceState::Suspended));
    assert!(plugin.heartbeat(&one, LIMIT).await.is_err());
    let ticks = || rig.docker.run(&["cp", &format!("{one}:/tmp/ticks"), "-"]).lines().count();
    let before = ticks();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(ticks(), before);

    let partial =
        plugin.resume(vec![one.clone(), "mayfly-none".into()], LIMIT).await.expect("told");
    assert_eq!(partial.succeeded, std::slice::from_ref(&one));
    assert!(partial.error.is_some_and(|error| error.contains("mayfly-none does not exist")));
    assert_eq!(state_of(&plugin, &one).await, Some(InstanceState::Running));
    assert_eq!(client.output("echo same connection").await, "same connection");
    until(async || (ticks() > before).then_some(())).await;
    // A suspended one can be deleted as it is.
    plugin.decrease(ids.clone(), LIMIT).await.expect("accepted");
    await_gone(&plugin, &ids[1]).await;
    await_gone(&plugin, &one).await;
}

#[tokio::test]
async fn twenty_come_at_once_and_not_one_more() {
    let Some(rig) = Rig::new(json!({"max_size": 20})) else { return };
    let plugin = rig.start().await;
    let started = Instant::now();
    assert_eq!(plugin.increase(25, LIMIT).await.expect("accepted"), 20);
    let accepted = started.elapsed();
    assert_eq!(list(&plugin).await.len(), 20, "promised ones are listed at once");
    let full = plugin.increase(1, LIMIT).await.expect_err("full").to_string();
    assert!(full.contains("20 of max_size = 20"), "{full}");
    let ids = until(async || {
        let running = in_state(&plugin, InstanceState::Running).await;
        (running.len() == 20).then_some(running)
    })
    .await;
    println!("accepted after {accepted:?}, all run after {:?}", started.elapsed());
    assert_eq!(rig.containers().len(), 20);
    let started = Instant::now();
    plugin.decrease(ids, LIMIT).await.expect("accepted");
    until(async || rig.containers().is_empty().then_some(())).await;
    println!("all gone after {:?}", started.elapsed());
}

#[tokio::test]
async fn an_instance_that_dies_is_cleared_away_with_its_last_words() {
    logs();
    let Some(rig) = Rig::new(json!({"command": ["sh", "-c", "echo last-words-of-it; sleep 1000"]}))
    else {
        return;
    };
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    rig.docker.run(&["kill", &id]);
    await_gone(&plugin, &id).await;
    await_log("last-words-of-it").await;
    until(async || rig.containers().is_empty().then_some(())).await;
}

#[tokio::test]
async fn the_host_s_socket_is_inside_only_where_it_was_asked_for() {
    for (word, status) in [("none", Some(1)), ("host-socket", Some(0))] {
        let Some(rig) = Rig::new(json!({"docker": word})) else { return };
        let plugin = rig.start().await;
        let id = add_one(&plugin).await;
        let seen = login(&plugin, &id).await.exec("test -S /var/run/docker.sock").await;
        assert_eq!(seen.status, status, "{word}");
    }
}

#[tokio::test]
async fn networks_and_capabilities_are_the_ones_that_were_written() {
    let Some(mut rig) = Rig::new(json!({
        "user": "ci", "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"],
    })) else {
        return;
    };
    let networks = ["a", "b"].map(|letter| format!("{}-{letter}", rig.name()));
    for network in &networks {
        rig.docker.run(&["network", "create", network]);
    }
    rig.config["networks"] = json!(networks);
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    let client = login(&plugin, &id).await;
    assert_eq!(client.output("ls /sys/class/net | grep -c eth").await, "2");
    let capabilities = client.output("grep -E 'CapBnd|NoNewPrivs' /proc/self/status").await;
    assert_eq!(capabilities, "CapBnd:\t0000000000000000\nNoNewPrivs:\t1");
    plugin.decrease(vec![id.clone()], LIMIT).await.expect("accepted");
    await_gone(&plugin, &id).await;
    for network in &networks {
        rig.docker.run(&["network", "rm", network]);
    }
}
