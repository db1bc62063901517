//! What tests and demos ask of a group's directory, whether a plugin runs or not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cloud::{Chore, Cloud, now_ms};
use crate::facts::Facts;
use crate::store::{KillOrder, Store};
use crate::{ledger, machine};

const USAGE: &str = "usage:
  fleeting-plugin-sim ledger DIR [--json] [--max-instances N]   what it all costs and cost
  fleeting-plugin-sim list DIR [--json]                         what there is
  fleeting-plugin-sim kill DIR ID... | --all                    end instances from outside
";
/// A plugin looks for orders several times a second; ending processes takes moments.
const KILL_LIMIT: Duration = Duration::from_secs(40);

/// Runs the command that the first argument names; `None` if it names none.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next()?;
    let arguments: Vec<String> = arguments.collect();
    let result = match command.as_str() {
        "ledger" => ledger(&arguments),
        "list" => list(&arguments),
        "kill" => kill(&arguments),
        "help" | "--help" => Ok(USAGE.to_owned()),
        _ => return None,
    };
    Some(match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    })
}

fn wrong() -> String {
    format!("wrong arguments\n{USAGE}")
}

/// The directory, and whether `--json` is among the rest, which is handed back.
fn directory(arguments: &[String]) -> Result<(PathBuf, bool, Vec<&str>), String> {
    let (directory, rest) = arguments.split_first().ok_or_else(wrong)?;
    let (flags, rest): (Vec<&str>, Vec<&str>) =
        rest.iter().map(String::as_str).partition(|argument| *argument == "--json");
    Ok((directory.into(), !flags.is_empty(), rest))
}

fn ledger(arguments: &[String]) -> Result<String, String> {
    let (directory, as_json, rest) = directory(arguments)?;
    let max_instances = match rest.as_slice() {
        [] => None,
        ["--max-instances", n] => Some(n.parse().map_err(|_| wrong())?),
        _ => return Err(wrong()),
    };
    let store = Store::existing(&directory)?;
    let sums = ledger::read(store.directory())?;
    let print = if as_json { ledger::print_json } else { ledger::print_text };
    Ok(print(&sums, max_instances, now_ms()))
}

fn list(arguments: &[String]) -> Result<String, String> {
    let (directory, as_json, rest) = directory(arguments)?;
    if !rest.is_empty() {
        return Err(wrong());
    }
    let store = Store::existing(&directory)?;
    let now_ms = now_ms();
    let mut text = String::new();
    for facts in store.all_facts()? {
        let stage = facts.stage(now_ms);
        let age_s = now_ms.saturating_sub(facts.created_ms) / 1000;
        let login = machine::login(&store.instance(&facts.id))?;
        let address = login.map(|login| login.address);
        text += &if as_json {
            let line = json!({
                "id": facts.id, "state": stage, "age_s": age_s, "address": address
            });
            format!("{line}\n")
        } else {
            let address = address.unwrap_or_default();
            format!("{:<12} {:<12} {age_s:>6} s  {address}\n", facts.id, stage.as_str())
        };
    }
    Ok(text)
}

fn kill(arguments: &[String]) -> Result<String, String> {
    let (directory, _, rest) = directory(arguments)?;
    let store = Store::existing(&directory)?;
    let all = store.all_facts()?;
    let victims: Vec<Facts> = match rest.as_slice() {
        [] => return Err(wrong()),
        ["--all"] => all,
        ids => {
            let known = |id: &&&str| !all.iter().any(|facts| facts.id == **id);
            if let Some(unknown) = ids.iter().find(known) {
                return Err(format!("there is no instance {unknown:?} in {}", directory.display()));
            }
            all.into_iter().filter(|facts| ids.contains(&facts.id.as_str())).collect()
        }
    };
    let at_ms = now_ms();
    for facts in &victims {
        store.order(&KillOrder { id: facts.id.clone(), at_ms })?;
    }
    carry_out(&store, &victims)?;
    Ok(victims.iter().map(|facts| format!("{} is dead\n", facts.id)).collect())
}

/// Waits until the plugin has done it, or does it in the place of one.
fn carry_out(store: &Store, victims: &[Facts]) -> Result<(), String> {
    let deadline = Instant::now() + KILL_LIMIT;
    let is_left = |facts: &Facts| {
        let now: Option<Facts> = crate::store::read(&facts_path(store, facts)).ok().flatten();
        // Its id may be another one's by now.
        now.is_some_and(|now| now.number == facts.number)
    };
    while victims.iter().any(is_left) {
        if let Some(lock) = store.try_lock()? {
            let mut cloud = Cloud::open(store.clone(), lock)?;
            for chore in cloud.advance(now_ms())? {
                // Booting is for a plugin.
                if let Chore::End { id, directory, process } = chore {
                    let ended = machine::end(&directory, Some(process));
                    cloud.ended(&id, ended.is_ok());
                    ended?;
                }
            }
            cloud.advance(now_ms())?;
        }
        if Instant::now() >= deadline {
            return Err(format!("not all of them have ended within {} s", KILL_LIMIT.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn facts_path(store: &Store, facts: &Facts) -> PathBuf {
    let path: &Path = &store.instance(&facts.id);
    path.join("facts.json")
}
