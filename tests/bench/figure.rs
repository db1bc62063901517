//! Figures: what was measured, its target, and how they are shown.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// Everything measured in one run.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
}

struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    target: Target,
}

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Nothing was set.
    None,
    AtMost(f64),
    AtLeast(f64),
}

impl Report {
    /// Adds a figure, and says it: a run takes minutes.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Target,
    ) {
        let figure = Figure { name: name.into(), value, unit, target };
        eprint!("{}", figure.line());
        self.figures.push(figure);
    }

    /// One line per figure, 80 columns.
    pub(crate) fn text(&self) -> String {
        self.figures.iter().map(Figure::line).collect()
    }

    pub(crate) fn json(&self) -> Value {
        let figures = self.figures.iter().map(|figure| {
            let (at_most, at_least) = match figure.target {
                Target::None => (None, None),
                Target::AtMost(limit) => (Some(limit), None),
                Target::AtLeast(limit) => (None, Some(limit)),
            };
            json!({
                "name": figure.name, "value": figure.value, "unit": figure.unit,
                "at_most": at_most, "at_least": at_least, "met": figure.target.met(figure.value),
            })
        });
        figures.collect()
    }
}

impl Figure {
    fn line(&self) -> String {
        let mut line = format!("{:<44} {:>9.2} {:<9}", self.name, self.value, self.unit);
        let word = if self.target.met(self.value) { "met" } else { "MISSED" };
        let _ = match self.target {
            Target::None => Ok(()),
            Target::AtMost(limit) => write!(line, "<= {limit:<6} {word}"),
            Target::AtLeast(limit) => write!(line, ">= {limit:<6} {word}"),
        };
        line.truncate(line.trim_end().len());
        line + "\n"
    }
}

impl Target {
    fn met(self, value: f64) -> bool {
        match self {
            Self::None => true,
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

/// Many durations of one kind.
pub(crate) struct Sample {
    sorted: Vec<Duration>,
}

impl Sample {
    pub(crate) fn new(mut durations: Vec<Duration>) -> Self {
        assert!(!durations.is_empty(), "nothing was measured");
        durations.sort();
        Self { sorted: durations }
    }

    /// Milliseconds that this share of all takes at most.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.sorted.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index within the sample"
        )]
        let index = (share * last as f64).ceil() as usize;
        self.sorted[index.min(last)].as_secs_f64() * 1e3
    }

    pub(crate) fn max(&self) -> f64 {
        self.quantile(1.0)
    }
}
