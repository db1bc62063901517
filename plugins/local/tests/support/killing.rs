//! A plugin that is killed in the middle of each of its calls, and what may not be left
//! then: machines, containers, processes, sockets, files.
//!
//! Each call is timed once. Then it is made again `MAYFLY_KILL_POINTS` times (4, unless it
//! is set; 20 is thorough), and the plugin killed by SIGKILL after a part of that time, each
//! time a later one: in the call, as a rule. The plugin is started again, everything is
//! deleted, and the rig looks at what is left.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mayfly_plugin::host::{CallError, Plugin, StartError};
use mayfly_plugin::{InstanceState, InstanceStatus};
use rustix::process::{Pid, Signal, kill_process};

use super::LIMIT;
use super::shared::{processes_with, until};

/// A plugin of a test, with all that it makes.
pub(crate) trait Killable {
    /// Starts the plugin.
    async fn begin(&self) -> Result<Plugin, StartError>;
    /// Text in the environment of the plugin and of nothing else but what it starts.
    fn marker(&self) -> String;
    /// File name of the plugin.
    fn binary(&self) -> &'static str;
    /// What is left of instances.
    async fn left(&self) -> Vec<String>;
}

/// A call, and what it takes until its effect is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Init,
    Update,
    Increase,
    ConnectInfo,
    Heartbeat,
    Suspend,
    Resume,
    Decrease,
    Shutdown,
}

const CALLS: [Call; 9] = [
    Call::Init,
    Call::Update,
    Call::Increase,
    Call::ConnectInfo,
    Call::Heartbeat,
    Call::Suspend,
    Call::Resume,
    Call::Decrease,
    Call::Shutdown,
];

/// Kills the plugin in each of its calls.
pub(crate) async fn nothing_is_left_after_kills(rig: &impl Killable) {
    for call in CALLS {
        let plugin = rig.begin().await.expect("started");
        let can_suspend = plugin.info().suspend_resume;
        if can_suspend || !matches!(call, Call::Suspend | Call::Resume) {
            in_one_call(rig, call, plugin).await;
        } else {
            end(rig, plugin, "at first").await;
        }
    }
}

/// A plugin that does not start leaves nothing, whatever it says.
pub(crate) async fn nothing_is_left_after_a_refusal(rig: &impl Killable) {
    assert!(rig.begin().await.is_err(), "it started");
    await_nothing(rig, "refused").await;
}

async fn in_one_call(rig: &impl Killable, call: Call, plugin: Plugin) {
    let (plugin, usual) = timed(rig, call, plugin).await;
    let mut plugin = Some(plugin);
    let points = points();
    for point in 0..points {
        let delay = usual.mul_f64((f64::from(point) + 0.5) / f64::from(points));
        let killed = match plugin.take() {
            Some(plugin) => plugin,
            None => {
                rig.begin().await.unwrap_or_else(|error| panic!("{call:?}, {delay:?}: {error}"))
            }
        };
        let socket = socket_directory(rig);
        if call == Call::Init {
            end(rig, killed, "before a kill").await;
            tokio::join!(async { drop(rig.begin().await) }, kill_after(rig, delay));
        } else {
            let id = prepare(call, &killed).await;
            // A call over which the plugin dies fails, or came before.
            let _ = tokio::join!(perform(call, &killed, &id), kill_after(rig, delay));
            killed.ended().await;
            drop(killed);
        }
        until(async || plugin_process(rig).is_none().then_some(())).await;
        assert!(!socket.is_some_and(|socket| socket.exists()), "{call:?}: a socket is left");
        if matches!(call, Call::Init | Call::Increase | Call::Decrease) {
            let again = rig.begin().await;
            let again = again.unwrap_or_else(|error| panic!("{call:?}, {delay:?}: {error}"));
            delete_all(&again).await;
            end(rig, again, &format!("{call:?}, killed after {delay:?}")).await;
        }
    }
    let last = rig.begin().await.expect("started");
    delete_all(&last).await;
    end(rig, last, &format!("{call:?}")).await;
}

fn points() -> u32 {
    let set = std::env::var("MAYFLY_KILL_POINTS").ok();
    set.map_or(4, |text| text.parse().expect("MAYFLY_KILL_POINTS is a number"))
}

/// Makes the call once, undisturbed; a plugin that runs, and how long it took.
async fn timed(rig: &impl Killable, call: Call, plugin: Plugin) -> (Plugin, Duration) {
    if call == Call::Init {
        end(rig, plugin, "at first").await;
        let begun = Instant::now();
        let plugin = rig.begin().await.expect("started");
        return (plugin, begun.elapsed());
    }
    let id = prepare(call, &plugin).await;
    let begun = Instant::now();
    perform(call, &plugin, &id).await.unwrap_or_else(|error| panic!("{call:?}: {error}"));
    let took = begun.elapsed();
    if call != Call::Shutdown {
        return (plugin, took);
    }
    drop(plugin);
    await_processes_gone(rig).await;
    (rig.begin().await.expect("started"), took)
}

/// What the call needs: an instance in the right state, whose id is returned.
async fn prepare(call: Call, plugin: &Plugin) -> String {
    let wanted = match call {
        Call::Init | Call::Increase => return String::new(),
        Call::Resume => InstanceState::Suspended,
        _ => InstanceState::Running,
    };
    let is_there = |one: &InstanceStatus| {
        matches!(one.state, InstanceState::Running | InstanceState::Suspended)
    };
    until(async || {
        // The first list after a kill may find what a killed call left half done.
        let listed = plugin.update(LIMIT).await.ok()?;
        if listed.iter().all(|one| one.state == InstanceState::Deleted) {
            plugin.increase(1, LIMIT).await.expect("made");
            return None;
        }
        let one = listed.into_iter().find(is_there)?;
        if one.state == wanted {
            return Some(one.id);
        }
        let ids = vec![one.id];
        let _ = match wanted {
            InstanceState::Suspended => plugin.suspend(ids, LIMIT).await,
            _ => plugin.resume(ids, LIMIT).await,
        };
        None
    })
    .await
}

/// Makes the call and waits for its effect.
async fn perform(call: Call, plugin: &Plugin, id: &str) -> Result<(), CallError> {
    let ids = vec![id.to_owned()];
    match call {
        Call::Init => Ok(()),
        Call::Update => plugin.update(LIMIT).await.map(drop),
        Call::Increase => {
            plugin.increase(1, LIMIT).await?;
            let runs = |state| state == InstanceState::Running;
            await_list(plugin, |listed| listed.iter().any(|one| runs(one.state))).await
        }
        Call::ConnectInfo => plugin.connect_info(id, LIMIT).await.map(drop),
        Call::Heartbeat => plugin.heartbeat(id, LIMIT).await,
        Call::Suspend => {
            plugin.suspend(ids, LIMIT).await?;
            await_list(plugin, |listed| state_of(listed, id) == Some(InstanceState::Suspended))
                .await
        }
        Call::Resume => {
            plugin.resume(ids, LIMIT).await?;
            await_list(plugin, |listed| state_of(listed, id) == Some(InstanceState::Running)).await
        }
        Call::Decrease => {
            plugin.decrease(ids, LIMIT).await?;
            let is_gone = |state| matches!(state, None | Some(InstanceState::Deleted));
            await_list(plugin, |listed| is_gone(state_of(listed, id))).await
        }
        Call::Shutdown => {
            plugin.stop(LIMIT).await;
            Ok(())
        }
    }
}

fn state_of(listed: &[InstanceStatus], id: &str) -> Option<InstanceState> {
    listed.iter().find(|one| one.id == id).map(|one| one.state)
}

/// Lists until it is so, or the plugin is gone.
async fn await_list(
    plugin: &Plugin,
    is_so: impl Fn(&[InstanceStatus]) -> bool,
) -> Result<(), CallError> {
    until(async || match plugin.update(LIMIT).await {
        Ok(listed) => is_so(&listed).then_some(Ok(())),
        Err(error) => Some(Err(error)),
    })
    .await
}

async fn kill_after(rig: &impl Killable, delay: Duration) {
    tokio::time::sleep(delay).await;
    if let Some(pid) = plugin_process(rig).and_then(Pid::from_raw) {
        // It may end by itself just now.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The plugin's own process: guards and other roles have arguments.
fn plugin_process(rig: &impl Killable) -> Option<i32> {
    let is_plugin = |pid: &i32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.strip_suffix('\0').is_some_and(|path| {
            !path.contains('\0') && path.rsplit('/').next() == Some(rig.binary())
        })
    };
    processes_with(&rig.marker()).into_iter().find(is_plugin)
}

/// The directory of the plugin's socket, which the guard gets as an argument.
fn socket_directory(rig: &impl Killable) -> Option<PathBuf> {
    processes_with(&rig.marker()).into_iter().find_map(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split('\0').skip_while(|word| *word != "plugin-guard");
        words.nth(1).map(PathBuf::from)
    })
}

/// Deletes what is listed until nothing is.
async fn delete_all(plugin: &Plugin) {
    until(async || {
        // A list right after a kill may fail.
        let mut listed = plugin.update(LIMIT).await.ok()?;
        listed.retain(|one| one.state != InstanceState::Deleted);
        if listed.is_empty() {
            return Some(());
        }
        let ids = listed.into_iter().map(|one| one.id).collect();
        let _ = plugin.decrease(ids, LIMIT).await;
        None
    })
    .await;
}

async fn end(rig: &impl Killable, plugin: Plugin, why: &str) {
    plugin.stop(LIMIT).await;
    drop(plugin);
    await_nothing(rig, why).await;
}

async fn await_processes_gone(rig: &impl Killable) {
    until(async || plugin_process(rig).is_none().then_some(())).await;
}

/// Waits until there is no process and nothing of an instance. Says what is left.
async fn await_nothing(rig: &impl Killable, why: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (processes, left) = (processes_with(&rig.marker()), rig.left().await);
        if processes.is_empty() && left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{why}: processes {processes:?} and {left:?} are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
