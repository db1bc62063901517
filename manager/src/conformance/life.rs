//! Checks of an instance's life: beside other calls, suspended, across restarts.

use std::collections::BTreeSet;

use mayfly_plugin::host::{CallError, Probe};
use tokio::time::{Instant, sleep, timeout};

use super::Check;
use super::creation;
use super::exam::Exam;
use super::lab::{Group, LOOK, PATIENCE, SUSPENDED, living, state_of};

/// Lists that are asked for at once.
const AT_ONCE: usize = 8;
/// More than gRPC libraries take by default.
const LARGE_BYTES: usize = 8 << 20;
/// Lists that are compared.
const REPEATS: usize = 4;

/// Many calls at once, `more` new instances among them. Returns the new ones.
pub(super) async fn concurrent(
    exam: &mut Exam<'_, '_>,
    probe: &Probe,
    id: &str,
    more: u32,
) -> Result<Vec<String>, String> {
    match beside_each_other(exam, probe, id, more).await {
        Ok(new) => {
            exam.findings.pass(Check::Concurrent);
            Ok(new)
        }
        Err(what) => {
            exam.findings.fail(Check::Concurrent, what);
            Err("calls at the same time are not answered".into())
        }
    }
}

async fn beside_each_other(
    exam: &mut Exam<'_, '_>,
    probe: &Probe,
    id: &str,
    more: u32,
) -> Result<Vec<String>, String> {
    let limit = exam.lab.limit();
    let increase = async {
        if more == 0 {
            return Ok(0);
        }
        exam.lab.made.ask(more);
        probe.increase(more, limit).await
    };
    let list = || async { probe.update(limit).await.map(|listed| living(&listed)) };
    let lists =
        async { tokio::join!(list(), list(), list(), list(), list(), list(), list(), list()) };
    let connect = probe.connect_info(id, limit);
    let heartbeat = probe.heartbeat(id, limit);
    let (made, lists, connect, heartbeat) = tokio::join!(increase, lists, connect, heartbeat);
    let made = match made {
        Ok(made) => made,
        // Alone it would be refused, too: the provider has no more.
        Err(error @ CallError::Refused { .. }) => match probe.increase(more, limit).await {
            Err(CallError::Refused { .. }) => 0,
            _ => return Err(format!("beside other calls {error}, and not when it is alone")),
        },
        Err(error) => return Err(error.to_string()),
    };
    // What fails by itself is found there.
    match connect {
        Err(error) if !exam.findings.has_failed(Check::ConnectInfo) => {
            return Err(error.to_string());
        }
        _ => {}
    }
    match heartbeat {
        Err(CallError::Unsupported { .. }) | Ok(()) => {}
        Err(_) if exam.findings.has_failed(Check::Heartbeat) => {}
        Err(error) => return Err(error.to_string()),
    }
    let (a, b, c, d, e, f, g, h) = lists;
    let lists: [_; AT_ONCE] = [a, b, c, d, e, f, g, h];
    for listed in lists {
        let listed = listed.map_err(|error| error.to_string())?;
        if !listed.iter().any(|listed| listed == id) {
            return Err(format!("{id} is missing in one of {AT_ONCE} lists at the same time"));
        }
    }
    newly_made(exam, probe, id, made.min(more)).await
}

async fn newly_made(
    exam: &mut Exam<'_, '_>,
    probe: &Probe,
    first: &str,
    made: u32,
) -> Result<Vec<String>, String> {
    let deadline = Instant::now() + exam.lab.options.change_limit;
    loop {
        let listed = exam.lab.list(probe).await.map_err(|error| error.to_string())?;
        let mut new = exam.lab.made.newcomers(&living(&listed));
        new.retain(|id| id != first);
        if new.len() >= made as usize {
            for id in &new {
                creation::runs(exam, probe, id).await?;
            }
            return Ok(new);
        }
        if Instant::now() >= deadline {
            return Err(format!("Increase says that it made {made}, and {} came", new.len()));
        }
        sleep(LOOK).await;
    }
}

/// The same list, again and again.
pub(super) async fn list_repeats(exam: &mut Exam<'_, '_>, probe: &Probe) {
    let mut first: Option<BTreeSet<String>> = None;
    let mut result = Ok(());
    for _ in 0..REPEATS {
        let listed = match exam.lab.list(probe).await {
            Ok(listed) => living(&listed).into_iter().collect::<BTreeSet<_>>(),
            Err(error) => {
                result = Err(error.to_string());
                break;
            }
        };
        let before = first.get_or_insert_with(|| listed.clone());
        if let Some(id) = before.symmetric_difference(&listed).next() {
            result = Err(format!("{id} is in one list, and not in another"));
            break;
        }
    }
    exam.findings.judge(Check::ListRepeats, result);
}

/// Suspends and resumes, where the plugin says that it can.
pub(super) async fn suspend(exam: &mut Exam<'_, '_>, group: &Group, id: &str) {
    if !group.about.suspend_resume {
        exam.findings.not_applicable(&[Check::Suspend], "it does not say that it can suspend");
        return;
    }
    let result = suspend_and_resume(exam, &group.probe, id).await;
    exam.findings.judge(Check::Suspend, result);
}

async fn suspend_and_resume(
    exam: &mut Exam<'_, '_>,
    probe: &Probe,
    id: &str,
) -> Result<(), String> {
    let limit = exam.lab.limit();
    let ids = vec![id.to_owned()];
    let taken = |call: &str, answer: Result<mayfly_plugin::Partial, CallError>| {
        let answer = answer.map_err(|error| error.to_string())?;
        match (answer.error, answer.succeeded == ids) {
            (None, true) => Ok(()),
            (Some(error), _) => Err(format!("{call}: {error}")),
            (None, false) => Err(format!("{call} does not return {id}")),
        }
    };
    taken("Suspend", probe.suspend(ids.clone(), limit).await)?;
    let deadline = Instant::now() + exam.lab.options.change_limit;
    loop {
        let listed = exam.lab.list(probe).await.map_err(|error| error.to_string())?;
        if state_of(&listed, id) == Some(SUSPENDED) {
            break;
        }
        if Instant::now() >= deadline {
            return Err(format!("{id} does not come to be suspended"));
        }
        sleep(LOOK).await;
    }
    taken("Resume", probe.resume(ids.clone(), limit).await)?;
    creation::runs(exam, probe, id).await.map_err(|error| format!("after Resume: {error}"))
}

/// New processes must know what the ones before them made. Returns the last of them.
pub(super) async fn restarts(
    exam: &mut Exam<'_, '_>,
    instances: &[String],
) -> Result<Option<Group>, String> {
    let group = again(exam, Check::Restart, instances).await?;
    init_again(exam, &group).await;
    if exam.findings.has_failed(Check::InitAgain) {
        group.probe.kill();
        let _ = timeout(PATIENCE, group.probe.ended()).await;
        return Err("a second Init did harm".into());
    }
    group.probe.kill();
    let _ = timeout(PATIENCE, group.probe.ended()).await;
    drop(group);
    again(exam, Check::Crash, instances).await.map(Some)
}

async fn again(
    exam: &mut Exam<'_, '_>,
    check: Check,
    instances: &[String],
) -> Result<Group, String> {
    let refused = |exam: &mut Exam<'_, '_>, what: String| {
        exam.findings.fail(check, what);
        Err("it cannot go on after a restart".to_owned())
    };
    let started = match check {
        Check::Crash => with_large_message(exam).await,
        _ => exam.lab.group().await,
    };
    let group = match started {
        Ok(group) => group,
        Err(error) => return refused(exam, error),
    };
    let listed = match exam.lab.list(&group.probe).await {
        Ok(listed) => listed,
        Err(error) => return refused(exam, error.to_string()),
    };
    if instances.is_empty() {
        exam.findings.not_applicable(&[check], "there is no instance to look for");
        return Ok(group);
    }
    let now = living(&listed);
    if let Some(lost) = instances.iter().find(|id| !now.contains(id)) {
        exam.findings.fail(check, format!("{lost} is not listed any more"));
        return Err("instances do not outlive the process".into());
    }
    if exam.lab.options.create > 0 {
        let new = exam.lab.made.newcomers(&now);
        if let Some(id) = new.iter().find(|id| !instances.contains(id)) {
            exam.findings.fail(check, format!("{id} has come by itself"));
            return Err("instances come by themselves".into());
        }
    }
    exam.findings.pass(check);
    Ok(group)
}

/// Starts with the same configuration, made long by spaces, or without those.
async fn with_large_message(exam: &mut Exam<'_, '_>) -> Result<Group, String> {
    let mut config = exam.lab.options.config.clone();
    config.resize(config.len() + LARGE_BYTES, b' ');
    let check = Check::LargeMessage;
    let large = match exam.lab.group_with(&config).await {
        Ok(group) => {
            exam.findings.pass(check);
            return Ok(group);
        }
        Err(error) => error,
    };
    let group = exam.lab.group().await;
    if group.is_ok() {
        let mebibytes = LARGE_BYTES >> 20;
        exam.findings.fail(check, format!("with {mebibytes} MiB of spaces behind it: {large}"));
    }
    group
}

async fn init_again(exam: &mut Exam<'_, '_>, group: &Group) {
    let limit = exam.lab.limit();
    let probe = &group.probe;
    let answer = probe.init(&exam.lab.options.config, &exam.lab.settings, limit).await;
    let result = match answer {
        Err(error) if error.outcome_unknown() => Err(error.to_string()),
        _ => match probe.update(limit).await {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("after it {error}")),
        },
    };
    exam.findings.judge(Check::InitAgain, result);
}
