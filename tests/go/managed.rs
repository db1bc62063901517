//! Plugins in Go under the manager.

use std::net::TcpStream;
use std::time::Duration;

use support::{GitLab, JobSpec, Manager, Runner, State, seconds};

use super::dummy;

/// A manager with a free slot would have asked for a job by then.
const ASKED_FOR_JOBS: Duration = seconds(2);
/// Said by the dummy when its SSH server is there.
const LISTENING: &str = "ssh listening";

#[test]
fn plugins_of_every_age_are_started_and_ended() {
    for dummy in dummy::ALL {
        let Some(plugin) = dummy.build() else { return };
        let gitlab = GitLab::start();
        let mut manager = Manager::start(Runner::new(&gitlab, &plugin).idle_count(1));
        let log = manager.wait_for_log("asking for instances", seconds(60));
        assert!(log.contains(r#"group="dummy/dummy" version="dummy version""#), "{log}");
        assert_eq!(manager.plugins().len(), 1, "{:?}", manager.plugin_processes());
        manager.terminate();
        let ended = manager.wait_for_exit(seconds(60));
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(!ended.log.contains("failed to exit gracefully"), "{}", ended.log);
        manager.assert_nothing_left();
    }
}

#[test]
fn instances_without_an_address_are_deleted_and_get_no_job() {
    refused(false, true, "the plugin gives no address for the instance");
}

#[test]
fn instances_without_a_user_are_deleted_and_get_no_job() {
    refused(true, false, "there is no user to log in as");
}

/// The SSH server of the dummy has an RSA key, and one answer to every command.
#[test]
fn instances_without_a_shell_are_deleted_and_get_no_job() {
    refused(true, true, "hello world");
}

fn refused(has_address: bool, has_user: bool, why: &str) {
    let Some(plugin) = dummy::OF_2026.build() else { return };
    let gitlab = GitLab::start();
    let mut runner =
        Runner::new(&gitlab, &plugin).idle_count(1).plugin_config("ListenSSH", has_address);
    if has_user {
        runner = runner.connector("username", "ci").connector("password", "word");
    }
    let mut manager = Manager::start(runner);
    let log = manager.wait_for_log("instance cannot be prepared", seconds(60));
    let refused = log.lines().find(|line| line.contains("instance cannot be prepared"));
    assert!(refused.is_some_and(|line| line.contains(why)), "{log}");
    manager.wait_for_log("instance is gone", seconds(60));
    let job = gitlab.enqueue(JobSpec::script(["echo never"]));
    std::thread::sleep(ASKED_FOR_JOBS);
    assert_eq!(gitlab.audit(job).state, State::Queued);
    manager.terminate();
    let ended = manager.wait_for_exit(seconds(60));
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.log.contains("dummy shutdown called"), "{}", ended.log);
    manager.assert_nothing_left();
}

#[test]
fn a_plugin_that_crashes_is_started_again_and_its_panic_is_in_the_log() {
    let Some(plugin) = dummy::OF_2026.build() else { return };
    let gitlab = GitLab::start();
    let mut manager = Manager::start(Runner::new(&gitlab, plugin).plugin_config("ListenSSH", true));
    manager.wait_until_up();
    let first = manager.plugins();
    let log = manager.wait_for_log(LISTENING, seconds(60));
    let address = log.split_once("addr=").expect("an address").1;
    let end = address.find('"').expect("its end");
    // The server panics when a client does not go on.
    drop(TcpStream::connect(&address[..end]).expect("it listens"));
    let log = manager.wait_for_log("exited with status 2", seconds(60));
    let panic = log.lines().find(|line| line.contains("panic: "));
    assert!(panic.is_some_and(|line| line.contains("ERROR")), "{log}");
    let is_again = || manager.log().matches(LISTENING).count() == 2;
    support::until("the plugin is started again", seconds(60), is_again);
    assert_ne!(manager.plugins(), first);
    manager.terminate();
    assert_eq!(manager.wait_for_exit(seconds(60)).code, Some(0));
    manager.assert_nothing_left();
}
