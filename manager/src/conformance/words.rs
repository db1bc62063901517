//! Checks of what a plugin says: its log lines, its errors, and no secret in either.

use mayfly_plugin::host::ConnectAnswer;
use serde_json::Value;

use super::Check;
use super::exam::Exam;

/// Hosts read lines up to this length.
const LINE_BYTES: usize = 64 * 1024;
/// A longer error is not read.
const ERROR_CHARS: usize = 1000;
/// A shorter value may be in a text by chance.
const SECRET_CHARS: usize = 6;

/// Looks at all that was said.
pub(super) fn examine(exam: &mut Exam<'_, '_>) {
    if exam.lab.printed.is_empty() {
        return;
    }
    let logs: Vec<Vec<u8>> = exam.lab.printed.iter().map(|it| it.stderr()).collect();
    let printed: Vec<Vec<u8>> = exam.lab.printed.iter().map(|it| it.stdout()).collect();
    let mut lines = logs.iter().flat_map(|log| log.split(|byte| *byte == b'\n'));
    exam.findings.judge(Check::LogLines, lines.try_for_each(line));

    let beside = exam.lab.beside_handshake.as_bytes().to_vec();
    let stdout: Vec<u8> = std::iter::once(&beside).chain(&printed).flatten().copied().collect();
    let text = String::from_utf8_lossy(&stdout);
    let first = text.lines().find(|line| !line.trim().is_empty());
    let result = first.map_or(Ok(()), |line| Err(format!("it prints {:?}", cut(line))));
    exam.findings.judge(Check::Stdout, result);

    secrets_in(exam, &logs, &printed);
    if exam.lab.errors.is_empty() {
        exam.findings.not_applicable(&[Check::ErrorTexts], "it returned no error");
    } else {
        let result = exam.lab.errors.iter().try_for_each(|text| error_text(text));
        exam.findings.judge(Check::ErrorTexts, result);
    }
}

fn secrets_in(exam: &mut Exam<'_, '_>, logs: &[Vec<u8>], printed: &[Vec<u8>]) {
    if exam.lab.secrets.is_empty() {
        let why = "neither the configuration nor ConnectInfo has a secret";
        exam.findings.not_applicable(&[Check::Secrets], why);
        return;
    }
    let text = |bytes: &[Vec<u8>]| String::from_utf8_lossy(&bytes.concat()).into_owned();
    let places = [
        ("its log", text(logs)),
        ("stdout", text(printed)),
        ("an error", exam.lab.errors.join("\n")),
    ];
    let found = exam.lab.secrets.iter().find_map(|(name, secret)| {
        let (place, _) = places.iter().find(|(_, text)| text.contains(secret.as_str()))?;
        Some(format!("{name} is in {place}"))
    });
    exam.findings.judge(Check::Secrets, found.map_or(Ok(()), Err));
}

fn line(line: &[u8]) -> Result<(), String> {
    if line.len() >= LINE_BYTES {
        return Err(format!("a line has {} bytes", line.len()));
    }
    let Ok(text) = std::str::from_utf8(line) else {
        return Err(format!("a line is not UTF-8: {:?}", cut(&String::from_utf8_lossy(line))));
    };
    let Ok(Value::Object(object)) = serde_json::from_str(text) else { return Ok(()) };
    for key in ["@level", "@message", "@timestamp"] {
        if let Some(value) = object.get(key).filter(|value| !value.is_string()) {
            return Err(format!("in a line {key} is {}, not a text", cut(&value.to_string())));
        }
    }
    Ok(())
}

fn error_text(text: &str) -> Result<(), String> {
    let shown = cut(text);
    if text.trim().is_empty() {
        return Err("an error is empty".into());
    }
    if text.trim_end().contains('\n') {
        return Err(format!("an error has several lines: {shown:?}"));
    }
    if text.chars().count() > ERROR_CHARS {
        return Err(format!("an error has more than {ERROR_CHARS} characters: {shown:?}"));
    }
    Ok(())
}

fn cut(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Name and value of what looks like a secret in a configuration.
pub(super) fn secrets(config: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Ok(config) = serde_json::from_slice(config) {
        collect(&config, "", &mut found);
    }
    found
}

fn collect(value: &Value, name: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| collect(value, key, found)),
        Value::Array(values) => values.iter().for_each(|value| collect(value, name, found)),
        Value::String(text) if is_secret(name) && text.chars().count() >= SECRET_CHARS => {
            found.push((name.to_owned(), text.clone()));
        }
        _ => {}
    }
}

fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 8] = [
        "token",
        "password",
        "passphrase",
        "secret",
        "credential",
        "private_key",
        "api_key",
        "apikey",
    ];
    const PLACES: [&str; 5] = ["file", "path", "dir", "public", "name"];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word)) && !PLACES.iter().any(|word| name.contains(word))
}

/// The secrets of an answer of `ConnectInfo`: of a key its longest line.
pub(super) fn credentials(answer: &ConnectAnswer) -> Vec<(String, String)> {
    let key = String::from_utf8_lossy(&answer.key).into_owned();
    let line = key.lines().filter(|line| !line.starts_with("-----")).max_by_key(|line| line.len());
    let values = [
        ("the key of ConnectInfo", line.unwrap_or_default()),
        ("the password of ConnectInfo", &answer.password),
    ];
    let long = values.into_iter().filter(|(_, value)| value.chars().count() >= SECRET_CHARS);
    long.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_their_names() {
        let config = br#"{"token": "abcdef", "name": "runner", "credentials_file": "/etc/secret",
            "nested": [{"api_password": "ghijkl", "short_secret": "x"}]}"#;
        let names: Vec<String> = secrets(config).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["api_password", "token"]);
    }

    #[test]
    fn lines_that_upset_hosts_are_found() {
        let fine: [&[u8]; 4] =
            [b"", b"plain", b"{\"a\": 1}", br#"{"@level":"info","@message":"m"}"#];
        assert!(fine.iter().all(|text| line(text).is_ok()));
        let wrong: [&[u8]; 3] = [br#"{"@message": 7}"#, b"\xff\xfe", &[b'x'; LINE_BYTES]];
        assert!(wrong.iter().all(|text| line(text).is_err()));
    }

    #[test]
    fn errors_are_one_line() {
        assert!(error_text("no instance i-1; is it deleted?").is_ok());
        assert!(["", " ", "a\nb", &"x".repeat(2000)].iter().all(|text| error_text(text).is_err()));
    }
}
