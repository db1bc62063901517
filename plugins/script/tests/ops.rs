//! A provider that is told one operation at a time: every call, every kind of failure.

mod support;

use std::time::Duration;

use mayfly_plugin::{ConnectorConfig, InstanceState, Protocol};
use serde_json::{Value, json};
use support::*;

#[tokio::test]
async fn every_operation_reaches_the_script_and_comes_back() {
    let rig = Rig::ops(json!({"name": "builders", "settings": {"image": "debian"}}));
    rig.on("init", r#"echo '{"id": "cloud/builders", "max_size": 7, "suspend": true}'"#)
        .on("create", r#"echo '{"created": ["i-1"]}'"#)
        .on("delete", r#"echo '{"deleted": ["i-1"]}'"#)
        .on("suspend", r#"echo '{"suspended": ["i-1"]}'"#)
        .on("resume", r#"echo '{"resumed": [], "error": "no memory"}'"#)
        .on("heartbeat", r#"echo '{"healthy": true}'"#)
        .on("connect", r#"echo '{"address": "10.0.0.9:2222", "user": "ci", "key": "KEY"}'"#)
        .lists(&["i-1", "i-2"]);
    let plugin = rig.start().await;
    assert_eq!((plugin.info().id.as_str(), plugin.info().max_size), ("cloud/builders", 7));
    assert!(plugin.info().suspend_resume);
    assert_eq!(plugin.increase(2, LIMIT).await.expect("created"), 2);
    assert_eq!(list(&plugin).await.len(), 2);
    let ids = || vec!["i-1".to_owned()];
    assert_eq!(plugin.decrease(ids(), LIMIT).await.expect("deleted"), ids());
    assert_eq!(plugin.suspend(ids(), LIMIT).await.expect("suspended").succeeded, ids());
    let resumed = plugin.resume(ids(), LIMIT).await.expect("an answer");
    assert_eq!((resumed.succeeded, resumed.error), (vec![], Some("no memory".into())));
    plugin.heartbeat("i-1", LIMIT).await.expect("healthy");
    let info = plugin.connect_info("i-1", LIMIT).await.expect("known");
    assert_eq!(
        (info.internal_addr.as_str(), &info.connector.key[..]),
        ("10.0.0.9:2222", &b"KEY"[..])
    );

    // One instance per call, each with a token of its own, and what was configured.
    let created = rig.asked("create");
    assert_eq!(created.len(), 2);
    assert_ne!(created[0]["tokens"], created[1]["tokens"]);
    for request in &created {
        assert_eq!((&request["count"], &request["group"]), (&json!(1), &json!("builders")));
        assert_eq!(request["settings"]["image"], "debian");
        assert_eq!(request["tokens"][0].as_str().map(str::len), Some(16));
    }
    assert_eq!(rig.arguments("create")[0], "create\n");
    assert_eq!(rig.asked("delete")[0]["instances"], json!(["i-1"]));
    for operation in
        ["init", "create", "list", "delete", "suspend", "resume", "heartbeat", "connect"]
    {
        let schema = schema::of(operation, "request");
        for request in rig.asked(operation) {
            schema::check(&schema, &request).unwrap_or_else(|why| panic!("{operation}: {why}"));
        }
    }
}

#[tokio::test]
async fn what_a_script_does_not_offer_is_done_without_it() {
    let rig = Rig::ops(json!({}));
    rig.lists(&["i-1"]);
    let plugin = rig.start().await;
    assert_eq!((plugin.info().id.as_str(), plugin.info().max_size), ("script/script", 100));
    assert!(!plugin.info().suspend_resume);
    for _ in 0..2 {
        plugin.heartbeat("i-1", LIMIT).await.expect("believed healthy");
        let info = plugin.connect_info("i-1", LIMIT).await.expect("the list says it");
        assert_eq!(
            (info.internal_addr.as_str(), info.connector.username.as_str()),
            ("10.0.0.1", "ci")
        );
    }
    assert_eq!((rig.asked("heartbeat").len(), rig.asked("connect").len()), (1, 1), "asked once");
    let unknown = plugin.connect_info("i-9", LIMIT).await.expect_err("unknown").to_string();
    assert!(unknown.contains("instance i-9 does not exist"), "{unknown}");
    let missing = plugin.increase(1, LIMIT).await.expect_err("must be offered").to_string();
    assert!(missing.contains("create: the script does not offer it"), "{missing}");
}

#[tokio::test]
async fn the_operators_settings_win_and_no_script_sees_their_secrets() {
    let mut rig = Rig::ops(json!({}));
    rig.settings.connector = ConnectorConfig {
        username: "operator".into(),
        password: "operators-own".into(),
        protocol: Some(Protocol::Ssh),
        timeout: Duration::from_secs(7),
        ..ConnectorConfig::default()
    };
    rig.lists(&["i-1"]).on("init", r#"echo "operators-own" >&2; echo '{}'"#);
    let plugin = rig.start().await;
    let connector = plugin.connect_info("i-1", LIMIT).await.expect("known").connector;
    assert_eq!(
        (connector.username.as_str(), connector.password.as_str()),
        ("operator", "operators-own")
    );
    assert_eq!(connector.timeout, Duration::from_secs(7));
    let request = rig.asked("init").remove(0);
    assert_eq!(request["connector"]["user"], "operator");
    assert_eq!(request["connector"]["has_credentials"], true);
    assert!(!request.to_string().contains("operators-own"), "{request}");
    assert!(
        rig.log().contains("[masked]") && !rig.log().contains("operators-own"),
        "{}",
        rig.log()
    );
}

#[tokio::test]
async fn some_of_those_asked_for_is_an_answer_not_an_error() {
    let rig = Rig::ops(json!({"batch": 4, "parallel": 1}));
    rig.on("create", r#"echo '{"created": ["a", "b"], "error": "quota of 2"}'"#)
        .on("delete", r#"echo '{"deleted": ["a", "stranger"], "error": "b is locked"}'"#);
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(6, LIMIT).await.expect("some"), 2);
    // After a refusal no more is tried.
    assert_eq!(rig.asked("create").len(), 1);
    assert_eq!(rig.asked("create")[0]["tokens"].as_array().map(Vec::len), Some(4));
    assert!(rig.log().contains("quota of 2"), "{}", rig.log());
    let ids = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(plugin.decrease(ids, LIMIT).await.expect("some"), ["a"]);
    // None of them is an error, in the script's words.
    rig.on("create", r#"echo '{"created": [], "error": "quota of 2"}'"#);
    let refused = plugin.increase(1, LIMIT).await.expect_err("none").to_string();
    assert!(refused.contains("create: quota of 2"), "{refused}");
    rig.on("create", r#"echo '{"created": ["a", "b", "c"]}'"#);
    assert_eq!(plugin.increase(1, LIMIT).await.expect("more"), 1, "never more than asked for");
}

#[tokio::test]
async fn each_failure_says_what_happened() {
    let rig = Rig::ops(json!({"timeouts": {"list": "2s"}}));
    let plugin = rig.start().await;
    let big = "head -c 1100000 /dev/zero | tr '\\0' x; sleep 100";
    for (lines, part) in [
        ("echo first >&2; echo no such image >&2; exit 3", "list: no such image"),
        ("exit 4", "list: exit status 4, and not a word on stderr"),
        ("kill -KILL $$", "list: signal 9 ended the script"),
        ("true", "nothing was printed on stdout"),
        ("echo pod/x created", "its answer is not understood"),
        (r#"echo '{"instances": []}'; echo done"#, "trailing characters"),
        (r#"echo '{"instances": [{"id": "a", "state": "up"}]}'"#, "instances[0]: state must be"),
        ("head -c 4000 /dev/urandom", "its answer is not understood"),
        (big, "killed: it printed more than 1024 KiB"),
        ("sleep 100", "killed after 2 s, its deadline"),
    ] {
        rig.on("list", lines);
        let refused = plugin.update(LIMIT).await.expect_err(lines).to_string();
        assert!(refused.contains(part) && !refused.contains('\n'), "{lines}: {refused}");
    }
    // It is as good as before.
    rig.lists(&["i-1"]);
    assert_eq!(list(&plugin).await.len(), 1);
    until(async || (rig.processes().len() == 2).then_some(())).await;
}

#[tokio::test]
async fn a_temporary_failure_is_tried_again_with_the_same_tokens() {
    let rig = Rig::ops(json!({}));
    let twice = r#"[ "$(ls "$directory"/asked/$operation.*.json | wc -l)" -ge 3 ] || { echo busy >&2; exit 75; }"#;
    rig.on("create", &format!("{twice}\necho '{{\"created\": [\"a\"]}}'"));
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(1, LIMIT).await.expect("the third attempt"), 1);
    let asked = rig.asked("create");
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|request| request["tokens"] == asked[0]["tokens"]));
    rig.on("list", "echo api is away >&2; exit 75");
    let refused = plugin.update(LIMIT).await.expect_err("given up").to_string();
    assert!(refused.contains("list: temporary failure: api is away"), "{refused}");
    // What cannot be told now is no reason to give an instance up.
    rig.on("heartbeat", "exit 75");
    plugin.heartbeat("a", LIMIT).await.expect("not told");
    rig.on("heartbeat", r#"echo '{"healthy": false, "reason": "no route"}'"#);
    let refused = plugin.heartbeat("a", LIMIT).await.expect_err("told").to_string();
    assert!(refused.contains("instance is unhealthy"), "{refused}");
    assert!(rig.log().contains("no route"), "{}", rig.log());
}

#[tokio::test]
async fn scripts_see_only_what_is_theirs() {
    let rig = Rig::ops(json!({
        "env": {"SITE": "north", "API_TOKEN": "token-from-config"}, "pass_env": ["HANDED_ON"],
    }));
    let rig = rig.env("HANDED_ON", "yes").env("HOSTS_OWN", "no").env("AWS_REGION", "eu");
    rig.on("list", "env >\"$directory/environment\"; pwd >\"$directory/here\"\n\
        echo \"token-from-config and listed-secret\" >&2\n\
        echo '{\"instances\": [{\"id\": \"a\", \"state\": \"running\", \"password\": \"listed-secret\"}]}'");
    let plugin = rig.start().await;
    list(&plugin).await;
    list(&plugin).await;
    let environment = std::fs::read_to_string(rig.path("environment")).expect("written");
    for line in ["SITE=north", "HANDED_ON=yes", "AWS_REGION=eu"] {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
    for name in ["HOSTS_OWN", "PLUGIN_", "MAYFLY_PLUGIN_COOKIE"] {
        assert!(!environment.lines().any(|line| line.starts_with(name)), "{environment}");
    }
    let here = std::fs::read_to_string(rig.path("here")).expect("written");
    assert_eq!(here.trim(), rig.path("").display().to_string().trim_end_matches('/'));
    let log = rig.log();
    assert!(log.contains("[masked] and listed-secret"), "not known before the first list: {log}");
    assert!(log.contains("[masked] and [masked]"), "{log}");
    assert!(!log.contains("token-from-config"), "{log}");
}

#[tokio::test]
async fn stderr_is_logged_line_by_line_and_not_without_end() {
    let rig = Rig::ops(json!({}));
    rig.on(
        "list",
        "i=0; while [ $i -lt 3000 ]; do echo \"line $i\"; i=$((i+1)); done >&2\n\
        head -c 200000 /dev/zero | tr '\\0' x >&2; echo >&2; echo last >&2; exit 1",
    );
    let plugin = rig.start().await;
    let refused = plugin.update(LIMIT).await.expect_err("refused").to_string();
    assert!(refused.contains("list: last"), "{refused}");
    let log =
        until(async || Some(rig.log()).filter(|log| log.contains("more than is shown"))).await;
    assert!(log.contains(r#""line":"line 42""#) && !log.contains("line 2999"), "{}", log.len());
    assert!(log.lines().all(|line| line.len() < 4096));
}

#[tokio::test]
async fn a_script_that_others_could_have_written_is_not_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::ops(json!({}));
    rig.lists(&["i-1"]);
    let open = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(rig.path("provider.sh"), mode).expect("set");
    };
    let plugin = rig.start().await;
    assert_eq!(list(&plugin).await.len(), 1);
    open(0o777);
    let refused = plugin.update(LIMIT).await.expect_err("refused").to_string();
    assert!(refused.contains("others may write to") && refused.contains("chmod go-w"), "{refused}");
    assert!(rig.refusal().await.contains("command = \"provider.sh\": others may write to"));
    open(0o644);
    assert!(rig.refusal().await.contains("it is not executable: run chmod +x"));
    std::fs::remove_file(rig.path("provider.sh")).expect("removed");
    assert!(rig.refusal().await.contains("cannot find it"));
    let misspelt = Rig::ops(json!({"comand": "x"}));
    assert!(misspelt.refusal().await.contains("unknown field `comand`"));
}

#[tokio::test]
async fn a_script_that_cannot_be_executed_says_so() {
    let rig = Rig::ops(json!({}));
    write_program(&rig.path("provider.sh"), "#!/no/such/interpreter\n");
    let refused = rig.refusal().await;
    assert!(refused.contains("init: cannot run") && refused.contains("No such file"), "{refused}");
}

#[tokio::test]
async fn states_are_those_of_the_protocol() {
    let rig = Rig::ops(json!({}));
    let plugin = rig.start().await;
    for (word, state) in [
        ("creating", InstanceState::Creating),
        ("running", InstanceState::Running),
        ("deleting", InstanceState::Deleting),
        ("deleted", InstanceState::Deleted),
        ("timeout", InstanceState::Timeout),
        ("suspending", InstanceState::Suspending),
        ("suspended", InstanceState::Suspended),
        ("resuming", InstanceState::Resuming),
    ] {
        let answer: Value = json!({"instances": [{"id": "a", "state": word}]});
        rig.on("list", &format!("echo '{answer}'"));
        assert_eq!(list(&plugin).await[0].state, state);
        schema::check(&schema::of("list", "response"), &answer).expect(word);
    }
}
