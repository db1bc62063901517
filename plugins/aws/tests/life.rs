//! Instances of Auto Scaling groups come, take logins and go, one by one.

mod support;

use std::process::Command;

use mayfly_plugin::{InstanceState, Protocol};
use serde_json::json;
use support::logs::{await_log, logs};
use support::proxy::Fault;
use support::{
    KEY_ID, LIMIT, REGION, Rig, SECRET, TOKEN, add, assert_in_policy, list, running, state_of,
    until,
};

#[tokio::test]
async fn gitlab_s_keys_are_enough_and_an_instance_goes_with_its_place() {
    let Some(mut rig) = Rig::new(json!({})).await else { return };
    logs();
    let name = rig.groups().remove(0);
    let (config, credentials) =
        (rig.directory.path().join("config"), rig.directory.path().join("credentials"));
    let endpoint = &rig.endpoint;
    let profile = format!("[profile ci]\nregion = {REGION}\nendpoint_url = {endpoint}\n");
    std::fs::write(&config, profile).expect("written");
    let keys = format!(
        "[ci]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n\
         aws_session_token = {TOKEN}\n"
    );
    std::fs::write(&credentials, keys).expect("written");
    rig.config = json!({
        "name": name, "profile": "ci", "config_file": config, "credentials_file": credentials,
    });
    rig.environment.clear();
    let plugin = rig.start().await;
    assert_eq!(plugin.info().id, format!("aws/{REGION}/{name}"));
    assert_eq!(plugin.info().max_size, 5);
    assert!(!plugin.info().suspend_resume);

    let ids = add(&plugin, 2).await;
    let info = plugin.connect_info(&ids[0], LIMIT).await.expect("connect info");
    let connector = &info.connector;
    assert_eq!((connector.username.as_str(), connector.os.as_str()), ("ec2-user", "linux"));
    assert_eq!((connector.arch.as_str(), connector.protocol), ("amd64", Some(Protocol::Ssh)));
    assert!(connector.key.starts_with(b"-----BEGIN OPENSSH PRIVATE KEY-----"));
    assert!(info.expires.is_some() && !info.internal_addr.is_empty());
    assert_eq!(rig.proxy.count("SendSSHPublicKey", "ssh-ed25519 "), 1);
    plugin.heartbeat(&ids[0], LIMIT).await.expect("healthy");

    let gone = vec![ids[0].clone()];
    let twice = vec![ids[0].clone(), ids[0].clone()];
    assert_eq!(plugin.decrease(twice, LIMIT).await.expect("accepted"), gone);
    until(async || (running(&plugin).await == [ids[1].clone()]).then_some(())).await;
    assert_eq!(rig.size(&name).await, (1, 1));
    assert!(plugin.heartbeat(&ids[0], LIMIT).await.is_err(), "it is gone");
    // Again, and one that never was.
    let never = "i-0123456789abcdef0".to_owned();
    let both = vec![ids[0].clone(), never];
    assert_eq!(plugin.decrease(both.clone(), LIMIT).await.expect("accepted"), both);
    assert_eq!(rig.size(&name).await, (1, 1));
    let logged = logs().lock().expect("logs").clone();
    for secret in [SECRET, TOKEN, "PRIVATE KEY"] {
        assert!(!logged.contains(secret), "{secret} in {logged}");
    }
    // This process has clients of AWS's of its own, which say much.
    let is_plugins = |line: &&str| line.contains("plugin=\"fleeting-plugin-aws\"");
    let mut told = logged.lines().filter(is_plugins);
    let drowned = told.any(|line| line.contains("AWS_USE_FIPS_ENDPOINT"));
    assert!(!drowned, "traces of AWS's SDK drown the rest");
    assert_in_policy(&rig);
}

#[tokio::test]
async fn quick_wishes_add_up_and_end_at_the_maximum() {
    let Some(rig) = Rig::with_groups(&[3], json!({})).await else { return };
    let plugin = rig.start().await;
    let (one, two) = tokio::join!(plugin.increase(1, LIMIT), plugin.increase(1, LIMIT));
    assert_eq!((one.expect("accepted"), two.expect("accepted")), (1, 1));
    assert_eq!(plugin.increase(5, LIMIT).await.expect("a part"), 1);
    until(async || (running(&plugin).await.len() == 3).then_some(())).await;
    let error = plugin.increase(1, LIMIT).await.expect_err("it is full").to_string();
    assert!(error.contains("3 of at most 3"), "{error}");
}

#[tokio::test]
async fn groups_are_filled_in_their_order() {
    let Some(rig) = Rig::with_groups(&[2, 3], json!({})).await else { return };
    let plugin = rig.start().await;
    assert_eq!(plugin.info().max_size, 5);
    let groups = rig.groups();
    add(&plugin, 1).await;
    assert_eq!((rig.size(&groups[0]).await, rig.size(&groups[1]).await), ((1, 1), (0, 0)));
    let ids = add(&plugin, 3).await;
    assert_eq!((rig.size(&groups[0]).await, rig.size(&groups[1]).await), ((2, 2), (2, 2)));
    assert_eq!(plugin.decrease(ids.clone(), LIMIT).await.expect("accepted"), ids);
    until(async || list(&plugin).await.is_empty().then_some(())).await;
    assert_eq!((rig.size(&groups[0]).await, rig.size(&groups[1]).await), ((0, 0), (0, 0)));
}

#[tokio::test]
async fn an_instance_beyond_its_group_s_wish_leaves_no_place() {
    let Some(rig) = Rig::new(json!({})).await else { return };
    let name = rig.groups().remove(0);
    let plugin = rig.start().await;
    let ids = add(&plugin, 3).await;
    drop(plugin);
    // Instances that are protected stay.
    let lower = rig.autoscaling.set_desired_capacity().auto_scaling_group_name(&name);
    lower.desired_capacity(1).send().await.expect("set");
    let plugin = rig.start().await;
    assert_eq!(running(&plugin).await, ids);
    assert_eq!(plugin.decrease(ids.clone(), LIMIT).await.expect("accepted"), ids);
    until(async || list(&plugin).await.is_empty().then_some(())).await;
    assert_eq!(rig.size(&name).await, (0, 0));
}

#[tokio::test]
async fn a_role_is_assumed_for_all_calls() {
    let role = "arn:aws:iam::123456789012:role/ci";
    let Some(rig) = Rig::new(json!({"role_arn": role, "external_id": "x-7"})).await else { return };
    let plugin = rig.start().await;
    add(&plugin, 1).await;
    assert_eq!(rig.proxy.count("AssumeRole", "ExternalId=x-7"), 1);
    assert!(rig.proxy.count("AssumeRole", "RoleSessionName=mayfly") == 1);
}

#[tokio::test]
async fn nothing_foreign_is_listed_or_touched() {
    let Some(rig) = Rig::new(json!({})).await else { return };
    let Some(other) = Rig::new(json!({})).await else { return };
    let (plugin, theirs) = (rig.start().await, other.start().await);
    let foreign = add(&theirs, 1).await;
    assert_eq!(list(&plugin).await, []);
    assert_eq!(
        plugin.decrease(foreign.clone(), LIMIT).await.expect("gone, as far as it knows"),
        foreign
    );
    assert!(plugin.connect_info(&foreign[0], LIMIT).await.is_err());
    assert_eq!(rig.proxy.count("TerminateInstanceInAutoScalingGroup", ""), 0);
    assert_eq!(running(&theirs).await, foreign);
}

#[tokio::test]
async fn settings_that_endanger_jobs_are_told_or_repaired() {
    let Some(mut rig) = Rig::new(json!({})).await else { return };
    let name = rig.groups().remove(0);
    let spoil = rig.autoscaling.update_auto_scaling_group().auto_scaling_group_name(&name);
    let spoil = spoil.min_size(1).new_instances_protected_from_scale_in(false);
    let spoil = spoil.availability_zones("us-east-1a").availability_zones("us-east-1b");
    spoil.send().await.expect("changed");
    let suspend = rig.autoscaling.suspend_processes().auto_scaling_group_name(&name);
    suspend.scaling_processes("Launch").send().await.expect("suspended");
    let refusal = rig.refusal().await;
    assert!(
        refusal.contains("Launch is suspended") && refusal.contains("repair = true"),
        "{refusal}"
    );

    rig.config["repair"] = true.into();
    let _plugin = rig.start().await;
    let group = rig.group(&name).await;
    assert_eq!(
        (group.min_size(), group.new_instances_protected_from_scale_in()),
        (Some(0), Some(true))
    );
    let suspended: Vec<_> =
        group.suspended_processes().iter().filter_map(|one| one.process_name()).collect();
    assert_eq!(suspended, ["AZRebalance"]);
    assert!(group.instances().iter().all(|one| one.protected_from_scale_in() == Some(true)));
    assert_in_policy(&rig);
}

#[tokio::test]
async fn settings_that_are_not_repaired_are_logged_with_a_command() {
    let Some(rig) = Rig::new(json!({})).await else { return };
    logs();
    let name = rig.groups().remove(0);
    let spoil = rig.autoscaling.update_auto_scaling_group().auto_scaling_group_name(&name);
    spoil.new_instances_protected_from_scale_in(false).send().await.expect("changed");
    let _plugin = rig.start().await;
    await_log(&format!("--auto-scaling-group-name {name} --min-size 0")).await;
    assert_eq!(rig.group(&name).await.new_instances_protected_from_scale_in(), Some(false));
}

#[tokio::test]
async fn a_group_that_does_not_exist_is_named() {
    let Some(mut rig) = Rig::new(json!({})).await else { return };
    rig.config["groups"] = json!(["nowhere"]);
    let refusal = rig.refusal().await;
    assert!(refusal.contains("\"nowhere\" in us-east-1"), "{refusal}");
}

#[tokio::test]
async fn a_suspended_instance_is_stopped_and_comes_back() {
    let Some(rig) = Rig::new(json!({"suspend": "stop"})).await else { return };
    let name = rig.groups().remove(0);
    let plugin = rig.start().await;
    assert!(plugin.info().suspend_resume);
    let ids = add(&plugin, 2).await;
    let one = ids[0].clone();
    let partial = plugin.suspend(vec![one.clone()], LIMIT).await.expect("accepted");
    assert_eq!(partial.succeeded, std::slice::from_ref(&one));
    until(async || (state_of(&plugin, &one).await == Some(InstanceState::Suspended)).then_some(()))
        .await;
    assert_eq!(rig.power(&one).await, "stopped");
    assert_eq!(running(&plugin).await, [ids[1].clone()]);
    assert_eq!(rig.group(&name).await.desired_capacity(), Some(1));

    // What is wanted outlives the plugin.
    drop(plugin);
    let plugin = rig.start().await;
    assert_eq!(state_of(&plugin, &one).await, Some(InstanceState::Suspended));
    let foreign = "i-0123456789abcdef0".to_owned();
    let partial = plugin.resume(vec![one.clone(), foreign.clone()], LIMIT).await.expect("a part");
    assert_eq!(partial.succeeded, std::slice::from_ref(&one));
    assert!(partial.error.is_some_and(|error| error.contains(&foreign)));
    until(async || (running(&plugin).await == ids).then_some(())).await;
    assert_eq!(
        (rig.power(&one).await, rig.group(&name).await.desired_capacity()),
        ("running".into(), Some(2))
    );

    // One that is suspended has no place to give back.
    plugin.suspend(vec![one.clone()], LIMIT).await.expect("accepted");
    until(async || (state_of(&plugin, &one).await == Some(InstanceState::Suspended)).then_some(()))
        .await;
    plugin.decrease(vec![one.clone()], LIMIT).await.expect("accepted");
    until(async || (list(&plugin).await.len() == 1).then_some(())).await;
    assert_eq!(rig.size(&name).await, (1, 1));
    assert_in_policy(&rig);
}

#[tokio::test]
async fn a_group_has_one_owner() {
    let Some(mut rig) = Rig::new(json!({"owner": "first"})).await else { return };
    let plugin = rig.start().await;
    drop(plugin);
    for other in [json!("second"), json!("")] {
        rig.config["owner"] = other;
        let refusal = rig.refusal().await;
        assert!(refusal.contains("is driven by \"first\" until"), "{refusal}");
    }
    rig.config["owner"] = "first".into();
    rig.start().await;
    assert_in_policy(&rig);
}

#[tokio::test]
async fn an_instance_under_notice_gets_no_further_job() {
    let Some(mut rig) = Rig::new(json!({})).await else { return };
    let queue =
        rig.queue.create_queue().queue_name(&rig.groups()[0]).send().await.expect("a queue");
    let queue = queue.queue_url().expect("a URL").to_owned();
    rig.config["queue_url"] = queue.clone().into();
    let plugin = rig.start().await;
    let ids = add(&plugin, 2).await;
    let event = json!({
        "detail-type": "EC2 Spot Instance Interruption Warning",
        "detail": {"instance-id": ids[0], "instance-action": "terminate"},
    });
    let send = rig.queue.send_message().queue_url(&queue).message_body(event.to_string());
    send.send().await.expect("sent");
    until(async || plugin.heartbeat(&ids[0], LIMIT).await.is_err().then_some(())).await;
    plugin.heartbeat(&ids[1], LIMIT).await.expect("healthy");
    assert_eq!(running(&plugin).await, ids, "its job may go on");
    assert_in_policy(&rig);
}

#[tokio::test]
async fn static_credentials_are_handed_on() {
    let Some(mut rig) = Rig::new(json!({})).await else { return };
    rig.settings.connector.use_static_credentials = true;
    rig.settings.connector.username = "ci".into();
    rig.settings.connector.password = "theirs".into();
    let plugin = rig.start().await;
    let ids = add(&plugin, 1).await;
    let info = plugin.connect_info(&ids[0], LIMIT).await.expect("connect info");
    assert_eq!(
        (info.connector.username.as_str(), info.connector.password.as_str()),
        ("ci", "theirs")
    );
    assert_eq!((info.expires, info.connector.key.len()), (None, 0));
    assert_eq!(rig.proxy.count("SendSSHPublicKey", ""), 0);
}

#[tokio::test]
async fn a_windows_password_is_decrypted() {
    let Some(mut rig) = Rig::new(json!({})).await else { return };
    let path = rig.directory.path().to_owned();
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        let done = command.args(arguments.split(' ')).current_dir(&path).output();
        let done = done.expect("openssl is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    openssl("genrsa -traditional -out key 2048");
    std::fs::write(path.join("plain"), "S3cret;pass").expect("written");
    openssl("pkeyutl -encrypt -inkey key -in plain -out data");
    openssl("base64 -A -in data -out text");
    let answer = |data: &str| {
        let xml = format!(
            "<GetPasswordDataResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <passwordData>{data}</passwordData></GetPasswordDataResponse>"
        );
        Fault::Answer(200, xml)
    };
    rig.settings.connector.os = "windows".into();
    rig.settings.connector.key = std::fs::read(path.join("key")).expect("a key");
    let plugin = rig.start().await;
    let ids = add(&plugin, 1).await;
    rig.proxy.fail("GetPasswordData", "", 1, answer(""));
    let error = plugin.connect_info(&ids[0], LIMIT).await.expect_err("not yet").to_string();
    assert!(error.contains("no password yet"), "{error}");
    let data = std::fs::read_to_string(path.join("text")).expect("data");
    rig.proxy.fail("GetPasswordData", "", 1, answer(&data));
    let info = plugin.connect_info(&ids[0], LIMIT).await.expect("connect info");
    assert_eq!(
        (info.connector.username.as_str(), info.connector.protocol),
        ("Administrator", Some(Protocol::WinRm))
    );
    assert_eq!(info.connector.password, "S3cret;pass");
    assert_in_policy(&rig);
}
