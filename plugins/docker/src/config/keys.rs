//! Reading the table key by key, so that every complaint can name key and value, and what
//! is left over in the end was not known.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// Rounding a processor's share to Docker's unit must not give zero.
const CPUS: RangeInclusive<f64> = 0.01..=4096.0;

/// The table, from which known keys are taken.
pub(super) struct Keys {
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Keys {
    pub(super) fn new(table: Map<String, Value>) -> Self {
        Self { left: table, known: Vec::new() }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.left.remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{key} = {other}: must be a string")),
        }
    }

    /// Like `text`, but a complaint does not show the value.
    pub(super) fn secret(&mut self, key: &'static str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{key}: must be a string")),
        }
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool, String> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(format!("{key} = {other}: must be true or false")),
        }
    }

    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, String> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let number = value.as_u64().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            format!("{key} = {value}: must be a number from {} to {}", range.start(), range.end())
        })
    }

    pub(super) fn list(&mut self, key: &'static str) -> Result<Vec<String>, String> {
        let Some(value) = self.take(key) else {
            return Ok(Vec::new());
        };
        serde_json::from_value(value.clone())
            .map_err(|_| format!("{key} = {value}: must be a list of strings"))
    }

    pub(super) fn table(&mut self, key: &'static str) -> Result<BTreeMap<String, String>, String> {
        let Some(value) = self.take(key) else {
            return Ok(BTreeMap::new());
        };
        let table: BTreeMap<String, String> = serde_json::from_value(value)
            // Values may be secrets.
            .map_err(|_| format!("{key}: must be a table of strings"))?;
        match table.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            Some(name) => Err(format!("{key}: {name:?} is no name")),
            None => Ok(table),
        }
    }

    /// A share of processors, in billionths.
    pub(super) fn cpus(&mut self, key: &'static str) -> Result<Option<u64>, String> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let number = match &value {
            Value::String(text) => text.parse().ok(),
            value => value.as_f64(),
        };
        match number.filter(|number| CPUS.contains(number)) {
            Some(number) => Ok(Some((number * 1e9).round() as u64)),
            None => Err(format!("{key} = {value}: must be a number of processors such as 1.5")),
        }
    }

    /// Bytes as a whole number, or with a unit as Docker writes it: `512m`, `2g`.
    pub(super) fn bytes(&mut self, key: &'static str) -> Result<Option<u64>, String> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let bytes = match &value {
            Value::String(text) => parse_bytes(text),
            value => value.as_u64(),
        };
        match bytes.filter(|bytes| (1..=i64::MAX.cast_unsigned()).contains(bytes)) {
            Some(bytes) => Ok(Some(bytes)),
            None => {
                Err(format!("{key} = {value}: must be a size such as \"512m\" or \"2g\", or bytes"))
            }
        }
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                let mut known = self.known;
                known.sort_unstable();
                Err(format!(
                    "unknown key {unknown:?} in plugin_config; known are {}",
                    known.join(", ")
                ))
            }
        }
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let plain = lower.trim_end_matches("ib").trim_end_matches('b');
    let digits = plain.trim_end_matches(['k', 'm', 'g', 't']);
    let shift = match &plain[digits.len()..] {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("5", Some(5)),
            ("5b", Some(5)),
            ("2k", Some(2048)),
            ("512M", Some(512 << 20)),
            ("2g", Some(2 << 30)),
            ("2GiB", Some(2 << 30)),
            ("1mb", Some(1 << 20)),
            ("", None),
            ("m", None),
            ("1mm", None),
            ("1.5g", None),
            ("-1", None),
            ("99999999999t", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }
}
