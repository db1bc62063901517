//! Pure. GitLab's human durations: `1h 30m`, `90 minutes`, `2 hours and 5 min`, `1:30:00`, `45`.
//!
//! The grammar is that of GitLab's chronic_duration (a month is 30 days, a week 7, a year
//! 365.25 days), except that a word it does not know is an error and not skipped over.

use std::time::Duration;

/// Units by name, in seconds.
const UNITS: &[(&[&str], f64)] = &[
    (&["seconds", "second", "secs", "sec", "s"], 1.0),
    (&["minutes", "minute", "mins", "min", "m"], 60.0),
    (&["hours", "hour", "hrs", "hr", "h"], 3600.0),
    (&["days", "day", "dy", "d"], 86_400.0),
    (&["weeks", "week", "wks", "wk", "w"], 7.0 * 86_400.0),
    (&["months", "month", "mos", "mo"], 30.0 * 86_400.0),
    (&["years", "year", "yrs", "yr", "y"], 31_557_600.0),
];
const JOINERS: &[&str] = &["and", "with", "plus"];
/// Longest duration that is taken for meant: GitLab's limit for a job is a month.
const LIMIT: Duration = Duration::from_secs(10 * 366 * 86_400);

/// The duration that `text` says, in whole seconds; `None` for nonsense and for zero.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let text = text.trim().to_ascii_lowercase();
    let seconds = if text.contains(':') { clock(&text)? } else { words(&text)? };
    let duration = Duration::try_from_secs_f64(seconds.round()).ok()?;
    (!duration.is_zero() && duration <= LIMIT).then_some(duration)
}

/// `3:41:59`: seconds last, then minutes, hours, days.
fn clock(text: &str) -> Option<f64> {
    let parts: Vec<&str> = text.split(':').map(str::trim).collect();
    let factors = [1.0, 60.0, 3600.0, 86_400.0];
    if parts.len() > factors.len() {
        return None;
    }
    let mut seconds = 0.0;
    for (part, factor) in parts.iter().rev().zip(factors) {
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        seconds += part.parse::<f64>().ok()? * factor;
    }
    Some(seconds)
}

fn words(text: &str) -> Option<f64> {
    let mut seconds = 0.0;
    let mut number: Option<f64> = None;
    let mut seen = false;
    for token in tokens(text) {
        if JOINERS.contains(&token) {
            continue;
        }
        if token.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            if number.is_some() {
                return None;
            }
            number = Some(token.parse().ok()?);
            continue;
        }
        let (_, factor) = UNITS.iter().find(|(names, _)| names.contains(&token))?;
        let first_unit_alone = (!seen).then_some(1.0);
        seconds += number.take().or(first_unit_alone)? * factor;
        seen = true;
    }
    match number {
        Some(rest) => Some(seconds + rest),
        None => seen.then_some(seconds),
    }
}

/// Splits at blanks, commas and between digits and letters.
fn tokens(text: &str) -> Vec<&str> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut tokens = Vec::new();
    for word in text.split(|c: char| c.is_whitespace() || c == ',') {
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let numeric = is_number(first);
            let end = rest.find(|c| is_number(c) != numeric).unwrap_or(rest.len());
            tokens.push(&rest[..end]);
            rest = &rest[end..];
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let table = [
            ("1h 30m", Some(5400)),
            ("1h30m", Some(5400)),
            ("90 minutes", Some(5400)),
            ("2 hours", Some(7200)),
            ("2 hours and 5 min", Some(7500)),
            ("3600", Some(3600)),
            ("1.5 hours", Some(5400)),
            ("1:30:00", Some(5400)),
            ("10:30", Some(630)),
            ("1 week", Some(604_800)),
            ("3 mos 4 days", Some(94 * 86_400)),
            ("day", Some(86_400)),
            ("1 Hour, 2 Mins", Some(3720)),
            ("0", None),
            ("", None),
            ("soon", None),
            ("1 fortnight", None),
            ("5 5 m", None),
            ("-1h", None),
            ("1:2:3:4:5", None),
            ("99999999999 years", None),
        ];
        for (text, seconds) in table {
            assert_eq!(parse(text).map(|duration| duration.as_secs()), seconds, "{text:?}");
        }
    }
}
