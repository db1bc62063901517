//! Plugins in Go under our host side: every call, and every way to end.

use std::net::TcpStream;
use std::time::Duration;

use mayfly_plugin::host::{CallError, StartCause, Supervised};
use mayfly_plugin::{ConnectInfo, InstanceState, InstanceStatus, Partial};
use serde_json::json;
use support::seconds;

use super::dummy::{self, Dummy};
use super::hosted::{Hosted, settings};
use super::program::PANICKING;

/// Deadline of a call that is answered in milliseconds.
const LIMIT: Duration = seconds(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_2026_does_every_call() {
    every_call(dummy::OF_2026).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_2025_does_every_call() {
    every_call(dummy::OF_2025).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_2023_does_every_call() {
    every_call(dummy::OF_2023).await;
}

async fn every_call(dummy: Dummy) {
    let Some(binary) = dummy.build() else { return };
    let hosted = Hosted::new(binary);
    let plugin = hosted.start(dummy.config).await.expect("Init");
    let socket_directory = hosted.socket_directory();
    let info = plugin.info();
    assert_eq!((info.id.as_str(), info.max_size), ("dummy/dummy", 7));
    assert_eq!(info.version, "dummy version");
    assert_eq!(info.suspend_resume, dummy.suspends);

    let list = async || plugin.update(LIMIT).await.expect("Update");
    let states = async || list().await.iter().map(|i| i.state).collect::<Vec<_>>();
    assert_eq!(list().await, []);
    assert_eq!(plugin.increase(2, LIMIT).await.expect("Increase"), 2);
    assert_eq!(states().await, [dummy.made, dummy.made]);
    let ids: Vec<String> = list().await.into_iter().map(|i| i.id).collect();

    let mut connector = settings().connector;
    (dummy.alter)(&mut connector);
    let expected = ConnectInfo::new(connector).internal(dummy.address).external(dummy.address);
    assert_eq!(plugin.connect_info(&ids[0], LIMIT).await.expect("ConnectInfo"), expected);
    let refused = plugin.connect_info("absent", LIMIT).await;
    assert_eq!(refusal(refused), "instance absent does not exist");

    plugin.heartbeat(&ids[0], LIMIT).await.expect("healthy");
    let unhealthy = plugin.heartbeat("absent", LIMIT).await;
    assert_eq!(unhealthy.is_err(), dummy.has_heartbeat, "{unhealthy:?}");

    // An id that it does not know is left out, without an error.
    let asked = vec![ids[0].clone(), "absent".into()];
    let suspend = plugin.suspend(asked.clone(), LIMIT).await;
    let suspended = list().await;
    let resume = plugin.resume(asked, LIMIT).await;
    let resumed = list().await;
    let changes =
        [(suspend, suspended, InstanceState::Suspended), (resume, resumed, InstanceState::Running)];
    for (answer, listed, state) in changes {
        if dummy.suspends {
            let done = Partial { succeeded: vec![ids[0].clone()], error: None };
            assert_eq!(answer.expect("Suspend, Resume"), done);
            assert!(listed.contains(&InstanceStatus::new(&ids[0], state)), "{listed:?}");
        } else {
            assert!(matches!(answer, Err(CallError::Unsupported { .. })), "{answer:?}");
        }
    }

    let deleted = plugin.decrease(ids.clone(), LIMIT).await.expect("Decrease");
    assert_eq!(deleted, ids);
    // Each list moves it on by one state.
    list().await;
    assert_eq!(states().await, [dummy.deleted, dummy.deleted]);
    let refused = plugin.decrease(vec!["absent".into()], LIMIT).await;
    assert_eq!(refusal(refused), r#"instance ("absent") not found"#);

    plugin.stop(LIMIT).await;
    assert_eq!(plugin.ended().await, "exited with status 0");
    drop(plugin);
    hosted.assert_nothing_runs();
    assert!(!socket_directory.exists());
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, CallError>) -> String {
    match answer {
        Err(CallError::Refused { message, .. }) => message,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_of_eight_mebibytes_arrives() {
    for dummy in dummy::ALL {
        let Some(binary) = dummy.build() else { return };
        let hosted = Hosted::new(binary);
        let config = json!({"MaxSize": 9, "Padding": "x".repeat(8 << 20)});
        let plugin = hosted.start(&config.to_string()).await.expect("Init");
        assert_eq!(plugin.info().max_size, 9);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_configuration_is_told_in_the_plugin_s_words() {
    let Some(binary) = dummy::OF_2026.build() else { return };
    let hosted = Hosted::new(binary);
    let error = hosted.start(r#"{"MaxSize": "seven"}"#).await.err().expect("no start");
    let StartCause::Init { message } = &error.cause else { panic!("{error}") };
    assert!(message.contains("cannot unmarshal string into Go struct field"), "{message}");
    hosted.assert_nothing_runs();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_init_is_told_with_its_text() {
    let Some(binary) = PANICKING.build() else { return };
    let hosted = Hosted::new(binary);
    let error = hosted.start("{}").await.err().expect("no start").to_string();
    assert!(error.contains("exited with status 2 in Init"), "{error}");
    assert!(error.contains("panic: assignment to entry in nil map"), "{error}");
    hosted.assert_nothing_runs();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_plugin_is_noticed() {
    for dummy in dummy::ALL {
        let Some(binary) = dummy.build() else { return };
        let hosted = Hosted::new(binary);
        let plugin = hosted.start(dummy.config).await.expect("Init");
        let process = hosted.process();
        // It hangs in a call when it is killed.
        process.stop();
        let kill = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            process.kill();
        };
        // Gone is not silence: it is noticed before the deadline.
        let ((), answer, how) = tokio::join!(kill, plugin.update(LIMIT), plugin.ended());
        assert!(matches!(answer, Err(CallError::Gone { .. })), "{answer:?}");
        assert_eq!(how, "was ended by signal 9 (KILL)");
        let later = plugin.update(LIMIT).await;
        assert!(matches!(later, Err(CallError::Gone { .. })), "{later:?}");
        hosted.assert_nothing_runs();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervised_plugin_is_back_after_a_kill() {
    let Some(binary) = dummy::OF_2026.build() else { return };
    let hosted = Hosted::new(binary);
    let config = dummy::OF_2026.config.into();
    let supervised = Supervised::start(hosted.launch(), config, settings());
    let first = supervised.plugin("Increase", LIMIT).await.expect("it is up");
    first.increase(1, LIMIT).await.expect("Increase");
    let killed = hosted.process();
    killed.kill();
    first.ended().await;
    // What answers now was initialized again, and the dummy keeps nothing.
    let listed = loop {
        let plugin = supervised.plugin("Update", LIMIT).await.expect("it is up again");
        if let Ok(listed) = plugin.update(LIMIT).await {
            break listed;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(listed, []);
    assert_ne!(hosted.process().pid, killed.pid);
    supervised.stop(LIMIT).await;
    hosted.assert_nothing_runs();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_crashes_is_noticed_with_its_exit_status() {
    for dummy in [dummy::OF_2026, dummy::OF_2025] {
        let Some(binary) = dummy.build() else { return };
        let hosted = Hosted::new(binary);
        let plugin = hosted.start(r#"{"ListenSSH": true}"#).await.expect("Init");
        plugin.increase(1, LIMIT).await.expect("Increase");
        let id = plugin.update(LIMIT).await.expect("Update").remove(0).id;
        let info = plugin.connect_info(&id, LIMIT).await.expect("ConnectInfo");
        // The dummy's SSH server panics when a client does not go on.
        drop(TcpStream::connect(&info.internal_addr).expect("it listens"));
        assert_eq!(plugin.ended().await, "exited with status 2");
        let answer = plugin.update(LIMIT).await;
        assert!(matches!(answer, Err(CallError::Gone { .. })), "{answer:?}");
        hosted.assert_nothing_runs();
    }
}
