//! A set of minutes, written as five cron fields. Not a trigger: a minute is inside or
//! outside.
//!
//! GitLab's semantics: all five fields must match, day and weekday too; `/n` selects
//! values divisible by n, wherever the range begins; names in any case; 7 is Sunday.
//! Unlike GitLab's, a range that goes backwards (`22-2`, `fri-mon`) wraps around instead
//! of matching everything.

use jiff::civil::{DateTime, Weekday};

/// What is wrong with a period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// Not five fields.
    #[error("a period has five fields (minute, hour, day, month, weekday), this one has {0}")]
    Fields(usize),
    /// A field that cannot be read.
    #[error("{field} {text:?}: {why}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it says.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A set of minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
}

struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day", first: 1, last: 31, names: &[] },
    Field { name: "month", first: 1, last: 12, names: &MONTHS },
    Field { name: "weekday", first: 0, last: 7, names: &WEEKDAYS },
];

impl Period {
    /// Reads five fields, such as `* 8-17 * * mon-fri`.
    pub fn parse(text: &str) -> Result<Self, PeriodError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(PeriodError::Fields(fields.len()));
        };
        let mut weekdays = FIELDS[4].parse(weekday)?;
        if weekdays & (1 << 7) != 0 {
            weekdays |= 1;
        }
        Ok(Self {
            minutes: FIELDS[0].parse(minute)?,
            hours: FIELDS[1].parse(hour)?,
            days: FIELDS[2].parse(day)?,
            months: FIELDS[3].parse(month)?,
            weekdays,
        })
    }

    /// Whether the minute of this local time is inside.
    pub fn contains(&self, local: DateTime) -> bool {
        let has = |set: u64, value: i8| set & (1 << value) != 0;
        has(self.minutes, local.minute())
            && has(self.hours, local.hour())
            && has(self.days, local.day())
            && has(self.months, local.month())
            && has(self.weekdays, weekday_number(local.weekday()))
    }

    /// Whether every minute is inside.
    pub fn is_always(&self) -> bool {
        Self::parse("* * * * *").is_ok_and(|always| {
            let days = |period: &Self| period.weekdays & 0x7f;
            (self.minutes, self.hours, self.days, self.months, days(self))
                == (always.minutes, always.hours, always.days, always.months, days(&always))
        })
    }
}

fn weekday_number(weekday: Weekday) -> i8 {
    weekday.to_sunday_zero_offset()
}

impl Field {
    fn parse(&self, text: &str) -> Result<u64, PeriodError> {
        let mut set = 0;
        for part in text.split(',') {
            set |= self.part(part).map_err(|why| PeriodError::Field {
                field: self.name,
                text: text.to_owned(),
                why,
            })?;
        }
        Ok(set)
    }

    /// `*`, `a`, `a-b`, each with an optional `/n`.
    fn part(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, self.step(step)?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.last),
            Some((from, to)) => (self.value(from)?, self.value(to)?),
            None => {
                let value = self.value(range)?;
                (value, value)
            }
        };
        let inside = |value: u32| {
            if from <= to { (from..=to).contains(&value) } else { value >= from || value <= to }
        };
        let values = (self.first..=self.last).filter(|value| inside(*value) && value % step == 0);
        Ok(values.fold(0, |set, value| set | 1 << value))
    }

    fn step(&self, text: &str) -> Result<u32, String> {
        match text.parse::<u32>() {
            Ok(0) => Err("step cannot be zero".into()),
            Ok(step) if step <= self.last => Ok(step),
            Ok(step) => Err(format!("step {step} exceeds maximum: {}", self.last)),
            Err(_) => Err(format!("step {text:?} is not a number")),
        }
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        if let Some(at) = self.names.iter().position(|name| *name == lower) {
            return Ok(self.first + u32::try_from(at).unwrap_or_default());
        }
        match text.parse::<u32>() {
            Ok(value) if value < self.first => {
                Err(format!("{value} is below minimum: {}", self.first))
            }
            Ok(value) if value > self.last => {
                Err(format!("{value} exceeds maximum: {}", self.last))
            }
            Ok(value) => Ok(value),
            Err(_) => Err(format!("{text:?} is not a number or name")),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn hits(period: &str, of: &str) -> String {
        let period = Period::parse(period).expect("a period");
        let start = date(2026, 11, 22).at(0, 0, 0, 0);
        let hits: Vec<String> = match of {
            "minutes" => (0..60)
                .filter(|n| period.contains(start.with().minute(*n).build().expect("a minute")))
                .map(|n| n.to_string())
                .collect(),
            "hours" => (0..24)
                .filter(|n| period.contains(start.with().hour(*n).build().expect("an hour")))
                .map(|n| n.to_string())
                .collect(),
            // 2026-11-22 is a Sunday.
            _ => (0..7)
                .filter(|n| period.contains(date(2026, 11, 22 + n).at(0, 0, 0, 0)))
                .map(|n| n.to_string())
                .collect(),
        };
        hits.join(" ")
    }

    #[test]
    fn fields_are_sets_of_values() {
        let cases = [
            ("* 8-11 * * *", "hours", "8 9 10 11"),
            ("* 1,3,5-6 * * *", "hours", "1 3 5 6"),
            ("* 22-2 * * *", "hours", "0 1 2 22 23"),
            ("*/20 * * * *", "minutes", "0 20 40"),
            ("5-20/10 * * * *", "minutes", "10 20"),
            ("5/10 * * * *", "minutes", ""),
            ("* * * * mon-FRI", "days", "1 2 3 4 5"),
            ("* * * * fri-mon", "days", "0 1 5 6"),
            ("* * * * 7", "days", "0"),
            ("* * * * 0", "days", "0"),
            ("* * * * 1-7", "days", "0 1 2 3 4 5 6"),
            // Day and weekday must both match.
            ("* * 24 * tue", "days", "2"),
            ("* * 24 * wed", "days", ""),
            ("* * * nov *", "days", "0 1 2 3 4 5 6"),
            ("* * * 12 *", "days", ""),
        ];
        for (period, of, expected) in cases {
            assert_eq!(hits(period, of), expected, "{period}");
        }
    }

    #[test]
    fn faults_say_which_field_and_why() {
        let cases = [
            ("* * * *", "this one has 4"),
            ("", "this one has 0"),
            ("60 * * * *", "minute \"60\": 60 exceeds maximum: 59"),
            ("* * 0 * *", "day \"0\": 0 is below minimum: 1"),
            ("*/0 * * * *", "step cannot be zero"),
            ("*/99 * * * *", "step 99 exceeds maximum: 59"),
            ("* x * * *", "\"x\" is not a number or name"),
            ("* 1- * * *", "is not a number or name"),
            ("* * * * funday", "weekday"),
        ];
        for (period, expected) in cases {
            let error = Period::parse(period).expect_err(period).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn always_is_recognised() {
        for (period, always) in
            [("* * * * *", true), ("0-59 0-23 * 1-12 0-6", true), ("* 1 * * *", false)]
        {
            assert_eq!(Period::parse(period).expect("a period").is_always(), always, "{period}");
        }
    }
}
