//! `mayfly config plan`: what another configuration would change, and what that means for
//! the instances of a running manager. Changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Exit, load_config};
use crate::cli::ConfigFlags;
use crate::config::{Difference, Effect, differences};
use crate::console::{Answer, Question, ask};

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// The configuration that may come
    candidate: PathBuf,
    #[command(flatten)]
    config: ConfigFlags,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What would happen.
#[derive(Debug, Serialize)]
struct Outlook {
    differences: Vec<Difference>,
    /// Instances that would go, by entry; absent where no manager runs.
    instances: Option<BTreeMap<String, Going>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Going {
    idle: usize,
    /// They go after their jobs.
    busy: usize,
}

pub(crate) fn run(flags: &Flags) -> Exit {
    let Some(before) = load_config(&flags.config) else {
        return Exit::Config;
    };
    let candidate = ConfigFlags {
        config: Some(flags.candidate.clone()),
        state_dir: flags.config.state_dir.clone(),
    };
    let Some(after) = load_config(&candidate) else {
        return Exit::Config;
    };
    let differences = differences(&before, &after);
    let groups = match ask(&before.state_dir, &Question::Status) {
        Ok(Answer::Status(status)) => Some(status.groups),
        _ => None,
    };
    let instances = groups.map(|groups| {
        let goes = |name: &str| differences.iter().any(|one| one.makes_go(name));
        let groups = groups.into_iter().filter(|group| goes(&group.runner));
        groups
            .map(|group| {
                let busy = group.instances.iter().filter(|one| !one.used.is_empty()).count();
                (group.runner, Going { idle: group.instances.len() - busy, busy })
            })
            .collect()
    });
    let outlook = Outlook { differences, instances };
    if flags.json {
        println!("{}", serde_json::to_string(&outlook).unwrap_or_default());
    } else {
        print!("{}", outlook.text());
    }
    Exit::Success
}

impl Difference {
    /// Whether the instances of this entry would go.
    fn makes_go(&self, runner: &str) -> bool {
        let goes = matches!(self.effect, Effect::Rolling | Effect::Removed);
        goes && self.runner.as_deref() == Some(runner)
    }

    fn line(&self) -> String {
        let effect = self.effect.sentence();
        if self.key.is_empty() {
            return format!("  {effect}\n");
        }
        let change = if self.before == self.after {
            "changed".to_owned()
        } else {
            format!("{} -> {}", self.before, self.after)
        };
        format!("  {}: {change}\n    {effect}\n", self.key)
    }
}

impl Outlook {
    fn text(&self) -> String {
        if self.differences.is_empty() {
            return "nothing changes\n".into();
        }
        let mut text = String::new();
        let mut told = None;
        for one in &self.differences {
            if told != Some(&one.runner) {
                told = Some(&one.runner);
                let _ = match &one.runner {
                    Some(name) => writeln!(text, "runner {name:?}"),
                    None => writeln!(text, "manager"),
                };
            }
            text.push_str(&one.line());
        }
        for (runner, going) in self.instances.iter().flatten() {
            let Going { idle, busy } = going;
            let _ = writeln!(
                text,
                "of {runner:?} {idle} instances would go at once, {busy} after their jobs"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outlook_is_short() {
        let one = |runner: Option<&str>, key: &str, (before, after): (&str, &str), effect| {
            let runner = runner.map(str::to_owned);
            let (before, after) = (before.into(), after.into());
            Difference { runner, key: key.into(), before, after, effect }
        };
        let outlook = Outlook {
            differences: vec![
                one(None, "concurrent", ("1", "4"), Effect::Now),
                one(Some("a"), "autoscaler.plugin_config.image", ("set", "set"), Effect::Rolling),
                one(Some("b"), "", ("", ""), Effect::Removed),
            ],
            instances: Some([("a".to_owned(), Going { idle: 1, busy: 2 })].into()),
        };
        let expected = [
            "manager",
            "  concurrent: 1 -> 4",
            "    at once",
            "runner \"a\"",
            "  autoscaler.plugin_config.image: changed",
            "    other instances, those of before go as they get empty",
            "runner \"b\"",
            "  no more jobs, instances go as they get empty",
            "of \"a\" 1 instances would go at once, 2 after their jobs",
        ];
        assert_eq!(outlook.text().lines().collect::<Vec<_>>(), expected);
        let nothing = Outlook { differences: Vec::new(), instances: None };
        assert_eq!(nothing.text(), "nothing changes\n");
    }
}
