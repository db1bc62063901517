//! Pure. What an unquoted scalar means: the rules of Ruby's Psych, which GitLab reads with.
//!
//! They are those of YAML 1.1: `yes` is a boolean, `010` is eight, `22:22` is a base-60
//! number. A file must mean here what it will mean in GitLab, surprises included.

/// A scalar's meaning.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Date,
    Text,
}

/// What the plain (unquoted, untagged) scalar `text` means.
pub(super) fn resolve(text: &str) -> Scalar {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "" | "~" | "null" => return Scalar::Null,
        "yes" | "true" | "on" => return Scalar::Bool(true),
        "no" | "false" | "off" => return Scalar::Bool(false),
        ".inf" | "+.inf" => return Scalar::Float(f64::INFINITY),
        "-.inf" => return Scalar::Float(f64::NEG_INFINITY),
        ".nan" => return Scalar::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Scalar::Text;
    }
    integer(text)
        .or_else(|| base_60(text))
        .map(Scalar::Integer)
        .or_else(|| float(text).map(Scalar::Float))
        .or_else(|| is_date(text).then_some(Scalar::Date))
        .unwrap_or(Scalar::Text)
}

/// The text of a float as Ruby prints it: `1.1`, `2.0`, `1.0e+20`.
pub(super) fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let point = if mantissa.contains('.') { "" } else { ".0" };
        let (sign, digits) = exponent.strip_prefix('-').map_or(("+", exponent), |d| ("-", d));
        return format!("{mantissa}{point}e{sign}{digits:0>2}");
    }
    format!("{value:?}")
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = signed(text);
    let separators = |c: char| c != '_';
    let parse = |digits: &str, radix| {
        let clean: String = digits.chars().filter(|c| separators(*c)).collect();
        i128::from_str_radix(&clean, radix).ok().filter(|_| !clean.starts_with(['+', '-']))
    };
    let value = if let Some(binary) = digits.strip_prefix("0b") {
        parse(binary, 2)
    } else if let Some(hexadecimal) = digits.strip_prefix("0x") {
        parse(hexadecimal, 16)
    } else if let Some(octal) = digits.strip_prefix('0').filter(|rest| !rest.is_empty()) {
        parse(octal.strip_prefix('o').unwrap_or(octal), 8)
    } else if digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '_' | ','))
    {
        parse(&digits.replace(',', ""), 10)
    } else {
        None
    };
    value.map(|value| sign * value)
}

fn base_60(text: &str) -> Option<i128> {
    let (sign, digits) = signed(text);
    let parts: Vec<&str> = digits.split(':').collect();
    if !(2..=3).contains(&parts.len()) {
        return None;
    }
    let mut total: i128 = 0;
    for (index, part) in parts.iter().enumerate() {
        let clean: String = part.chars().filter(|c| *c != '_').collect();
        let digits_only = !clean.is_empty() && clean.bytes().all(|b| b.is_ascii_digit());
        let value: i128 = clean.parse().ok().filter(|_| digits_only)?;
        if index > 0 && (value > 59 || part.len() > 2) {
            return None;
        }
        total = total.checked_mul(60)?.checked_add(value)?;
    }
    Some(sign * total)
}

fn float(text: &str) -> Option<f64> {
    let (_, unsigned) = signed(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(index) => (&unsigned[..index], Some(&unsigned[index + 1..])),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let whole_is_number = whole.is_empty()
        || whole.starts_with(|c: char| c.is_ascii_digit())
            && whole.chars().all(|c| c.is_ascii_digit() || matches!(c, '_' | ','));
    let exponent_is_number = exponent.is_none_or(|exponent| {
        exponent.strip_prefix(['+', '-']).is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    });
    let has_digits = !(whole.is_empty() && fraction.is_empty());
    if !whole_is_number
        || !exponent_is_number
        || !has_digits
        || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    text.replace([',', '_'], "").parse().ok()
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let within = |part: &str, limit: u32| {
        (1..=2).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse().is_ok_and(|value: u32| value <= limit)
    };
    year.len() == 4
        && year.bytes().all(|byte| byte.is_ascii_digit())
        && within(month, 12)
        && within(day, 31)
}

fn signed(text: &str) -> (i128, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psych_table() {
        let table = [
            ("", Scalar::Null),
            ("Null", Scalar::Null),
            ("yes", Scalar::Bool(true)),
            ("OFF", Scalar::Bool(false)),
            ("y", Scalar::Text),
            ("12", Scalar::Integer(12)),
            ("-1_000", Scalar::Integer(-1000)),
            ("010", Scalar::Integer(8)),
            ("0o17", Scalar::Integer(15)),
            ("0x1F", Scalar::Integer(31)),
            ("08", Scalar::Text),
            ("22:22", Scalar::Integer(1342)),
            ("1:75", Scalar::Text),
            ("1.10", Scalar::Float(1.1)),
            ("1.2.3", Scalar::Text),
            (".5", Scalar::Float(0.5)),
            ("1e3", Scalar::Text),
            ("1.0e+3", Scalar::Float(1000.0)),
            ("-", Scalar::Text),
            (".", Scalar::Text),
            ("2024-01-31", Scalar::Date),
            ("2024-13-31", Scalar::Text),
            ("1h 30m", Scalar::Text),
            ("make", Scalar::Text),
        ];
        for (text, meaning) in table {
            assert_eq!(resolve(text), meaning, "{text:?}");
        }
    }

    #[test]
    fn floats_print_like_ruby() {
        for (value, text) in
            [(1.1, "1.1"), (2.0, "2.0"), (1e20, "1.0e+20"), (1.5e-7, "1.5e-07"), (0.0, "0.0")]
        {
            assert_eq!(float_text(value), text);
        }
    }
}
