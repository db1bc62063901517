//! Durations as Go writes them, since GitLab's configuration does.

use std::time::Duration;

/// Reads a duration such as `1m30s`, `1.5h` or `250ms`. Negative ones, numbers without a
/// unit and what does not fit are `None`; `0` needs no unit.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..number_end].parse().ok()?;
        rest = &rest[number_end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        nanos += number * nanos_per(&rest[..unit_end])?;
        rest = &rest[unit_end..];
    }
    // Go's own limit, 292 years, keeps additions to a clock from overflowing.
    (nanos <= i64::MAX as f64).then(|| Duration::from_nanos(nanos.round() as u64))
}

fn nanos_per(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1.0),
        "us" | "µs" | "μs" => Some(1e3),
        "ms" => Some(1e6),
        "s" => Some(1e9),
        "m" => Some(60e9),
        "h" => Some(3600e9),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use std::time::Duration;

    #[test]
    fn reads_what_go_writes() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("1s", 1_000),
            ("1m30s", 90_000),
            ("1h0m0s", 3_600_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("1500us", 1),
            ("2s500ms", 2_500),
            ("+3s", 3_000),
            (".5s", 500),
        ] {
            let read = parse(text).expect(text);
            assert_eq!(read.as_millis(), millis, "{text}");
        }
        assert_eq!(parse("1500µs"), Some(Duration::from_micros(1500)));
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "-1s", "5", "5 s", "s", "1d", "1m30", "..s", "1s ", "9999999999h", "+"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
