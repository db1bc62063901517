//! How long something takes: always the same, spread by a seed, or from a list in turn.

use std::time::Duration;

use serde_json::Value;

use crate::chance;

/// Nothing in the simulated cloud takes longer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// The 95th percentile of the standard normal distribution.
const Z_95: f64 = 1.644_853_6;

/// A scripted duration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wait {
    /// The same each time.
    Fixed(Duration),
    /// `min` and a lognormal rest, by its median and 95th percentile.
    Spread { min: Duration, median: Duration, p95: Duration },
    /// From a list, by the number of the instance. Never empty.
    Cycle(Vec<Duration>),
}

impl Wait {
    /// Reads what was written for `key`; an error is one line that names both.
    pub(crate) fn read(key: &str, value: Option<&Value>) -> Result<Self, String> {
        let Some(value) = value.filter(|value| !value.is_null()) else {
            return Ok(Self::Fixed(Duration::ZERO));
        };
        let wrong = || {
            format!(
                "{key} = {value}: must be a duration such as \"2s\", {{ fixed = … }}, \
                 {{ min = …, median = …, p95 = … }}, or a list of durations"
            )
        };
        match value {
            Value::Array(items) if !items.is_empty() => {
                let all: Option<Vec<Duration>> = items.iter().map(duration).collect();
                all.map(Self::Cycle).ok_or_else(wrong)
            }
            Value::Object(table) => {
                let field = |name: &str| table.get(name).and_then(duration);
                match (field("fixed"), field("min"), field("median"), field("p95")) {
                    (Some(fixed), None, None, None) if table.len() == 1 => Ok(Self::Fixed(fixed)),
                    (None, Some(min), Some(median), Some(p95))
                        if table.len() == 3 && min <= median && median <= p95 =>
                    {
                        Ok(Self::Spread { min, median, p95 })
                    }
                    _ => Err(wrong()),
                }
            }
            plain => duration(plain).map(Self::Fixed).ok_or_else(wrong),
        }
    }

    /// How long it takes for the instance of this number, the first being 1.
    pub(crate) fn of(&self, seed: u64, purpose: &str, number: u64) -> Duration {
        match self {
            Self::Fixed(fixed) => *fixed,
            Self::Cycle(list) => list[(number.saturating_sub(1) as usize) % list.len()],
            Self::Spread { min, median, p95 } => {
                let (rest, high) = ((*median - *min).as_secs_f64(), (*p95 - *min).as_secs_f64());
                if rest <= 0.0 {
                    return *median;
                }
                let sigma = (high / rest).ln() / Z_95;
                let rest = rest * (sigma * chance::normal(seed, purpose, number)).exp();
                *min + Duration::from_secs_f64(rest.min(LONGEST.as_secs_f64()))
            }
        }
    }
}

/// A duration as people write it: `2s`, `1m30s`, `250ms`.
pub(crate) fn duration(value: &Value) -> Option<Duration> {
    let Value::String(text) = value else {
        return None;
    };
    let signed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(signed).ok().filter(|duration| *duration <= LONGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Wait, String> {
        Wait::read("boot", Some(&value))
    }

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn all_ways_to_write_it() {
        assert_eq!(Wait::read("boot", None), Ok(Wait::Fixed(Duration::ZERO)));
        assert_eq!(read(json!("1m30s")), Ok(Wait::Fixed(seconds(90))));
        assert_eq!(read(json!("250ms")), Ok(Wait::Fixed(Duration::from_millis(250))));
        assert_eq!(read(json!({"fixed": "2s"})), Ok(Wait::Fixed(seconds(2))));
        assert_eq!(read(json!(["1s", "3s"])), Ok(Wait::Cycle(vec![seconds(1), seconds(3)])));
        for wrong in [
            json!(5),
            json!("soon"),
            json!("-1s"),
            json!([]),
            json!({"min": "1s", "median": "2s"}),
            json!({"min": "3s", "median": "2s", "p95": "9s"}),
            json!({"fixed": "1s", "median": "2s"}),
        ] {
            let refused = read(wrong.clone()).expect_err(&wrong.to_string());
            assert!(refused.contains("boot = ") && !refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn a_list_is_taken_in_turn() {
        let list = read(json!(["1s", "3s"])).expect("a list");
        let taken: Vec<u64> = (1..=4).map(|n| list.of(0, "boot", n).as_secs()).collect();
        assert_eq!(taken, [1, 3, 1, 3]);
    }

    #[test]
    fn a_spread_has_its_percentiles_and_repeats_itself() {
        let spread = read(json!({"min": "10s", "median": "20s", "p95": "60s"})).expect("a spread");
        let mut all: Vec<Duration> = (1..=4000).map(|n| spread.of(1, "boot", n)).collect();
        assert_eq!(all[7], spread.of(1, "boot", 8));
        assert_ne!(all[7], spread.of(2, "boot", 8));
        all.sort();
        assert!(all[0] >= seconds(10));
        assert!((seconds(19)..seconds(21)).contains(&all[2000]), "{:?}", all[2000]);
        assert!((seconds(52)..seconds(68)).contains(&all[3800]), "{:?}", all[3800]);
    }
}
