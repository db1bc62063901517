//! The operator's way into a running manager: a socket in its state directory, one
//! question and one answer per connection, both a line of JSON. Whoever may read the state
//! may ask.

mod ask;
mod serve;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::group::{Group, GroupStatus, LoginInfo, NoLogin};

pub(crate) use ask::ask;
pub(crate) use serve::serve;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Question {
    /// How everything stands.
    Status,
    /// An instance shall get no more jobs, and go.
    Drain { instance: String },
    /// One that drains by an operator's wish shall stay.
    Keep { instance: String },
    /// It shall go at once; the jobs on it are stopped if that is said.
    Delete { instance: String, stop_jobs: bool },
    /// How to log in to it.
    Login { instance: String },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Status(Status),
    /// The instance is draining, with so many jobs on it.
    Draining {
        jobs: u32,
    },
    /// It gets jobs again.
    Kept,
    /// How to log in.
    Login(LoginInfo),
    /// It cannot be done, for this reason.
    Refused(String),
}

/// A running manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) up_s: f64,
    pub(crate) groups: Vec<GroupStatus>,
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("console.sock")
}

/// Answers from what the groups say.
pub(crate) fn answer(question: &Question, groups: &[Arc<Group>], up_s: f64) -> Answer {
    match question {
        Question::Status => Answer::Status(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            up_s,
            groups: groups.iter().map(|group| group.status()).collect(),
        }),
        Question::Drain { instance } => remove(groups, instance, false),
        Question::Keep { instance } => {
            match groups.iter().find_map(|group| group.keep_by_hand(instance)) {
                Some(Ok(())) => Answer::Kept,
                Some(Err(why)) => Answer::Refused(why),
                None => unknown(instance),
            }
        }
        Question::Delete { instance, stop_jobs } => {
            let jobs = groups.iter().find_map(|group| group.jobs_on(instance));
            match jobs {
                Some(jobs @ 1..) if !stop_jobs => Answer::Refused(format!(
                    "{instance} runs {jobs} jobs: `mayfly instance drain` lets them end, --stop-jobs stops them"
                )),
                _ => remove(groups, instance, true),
            }
        }
        Question::Login { instance } => {
            let mut answer = unknown(instance);
            for group in groups {
                match group.login(instance) {
                    Ok(login) => return Answer::Login(login),
                    Err(NoLogin::Unknown) => {}
                    Err(NoLogin::NotConnected) => {
                        answer = Answer::Refused(format!("{instance} is not connected"));
                    }
                }
            }
            answer
        }
    }
}

fn remove(groups: &[Arc<Group>], instance: &str, at_once: bool) -> Answer {
    match groups.iter().find_map(|group| group.remove_by_hand(instance, at_once)) {
        Some(jobs) => Answer::Draining { jobs },
        None => unknown(instance),
    }
}

fn unknown(instance: &str) -> Answer {
    Answer::Refused(format!("there is no instance {instance:?}; see `mayfly instance list`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_are_plain_json() {
        let cases = [
            (Question::Status, r#"{"ask":"status"}"#),
            (Question::Drain { instance: "i".into() }, r#"{"ask":"drain","instance":"i"}"#),
        ];
        for (question, text) in cases {
            assert_eq!(serde_json::to_string(&question).expect("JSON"), text);
            assert_eq!(serde_json::from_str::<Question>(text).expect("read"), question);
        }
        let answer = serde_json::to_string(&Answer::Draining { jobs: 2 }).expect("JSON");
        assert_eq!(answer, r#"{"draining":{"jobs":2}}"#);
    }
}
