//! Checks of `ConnectInfo` and `Heartbeat`. Nobody logs in: the instance's network may not
//! be reachable from here.

use std::time::{SystemTime, UNIX_EPOCH};

use mayfly_plugin::host::{CallError, ConnectAnswer, Probe};
use tokio::time::{Instant, sleep};

use super::exam::Exam;
use super::lab::{LOOK, PATIENCE};
use super::process::NOBODY;
use super::{Check, words};

/// All of them, for when there is no running instance.
pub(super) const CHECKS: &[Check] = &[
    Check::ConnectInfo,
    Check::ConnectAddress,
    Check::ConnectProtocol,
    Check::ConnectTimes,
    Check::ConnectLogin,
    Check::ConnectKey,
    Check::ConnectExpires,
    Check::ConnectUnknown,
    Check::Heartbeat,
    Check::HeartbeatUnknown,
];
/// Times in seconds or milliseconds, read as nanoseconds, are below this.
const LEAST_NANOS: i64 = 1_000_000;
/// Credentials that end later are meant to end earlier: the unit is wrong.
const YEARS_S: u64 = 20 * 365 * 24 * 3600;

pub(super) async fn examine(exam: &mut Exam<'_, '_>, probe: &Probe, id: &str) {
    match probe.connect_info(id, exam.lab.limit()).await {
        Ok(answer) => answered(exam, &answer),
        Err(error) => {
            exam.findings.fail(Check::ConnectInfo, error.to_string());
            exam.findings.skip(&CHECKS[1..7], "there is no answer of ConnectInfo");
        }
    }
    unknown(exam, probe).await;
    heartbeat(exam, probe, id).await;
}

fn answered(exam: &mut Exam<'_, '_>, answer: &ConnectAnswer) {
    exam.lab.secrets.extend(words::credentials(answer));
    for (_, secret) in words::credentials(answer) {
        exam.findings.hide(secret);
    }
    let addressed = !answer.internal_addr.is_empty() || !answer.external_addr.is_empty();
    let address = if addressed { Ok(()) } else { Err("both addresses are empty".into()) };
    exam.findings.judge(Check::ConnectAddress, address);
    exam.findings.judge(Check::ConnectExpires, expires(answer.expires));
    if !answer.has_connector {
        exam.findings.fail(Check::ConnectInfo, "the answer has no connector");
        exam.findings.skip(&CHECKS[2..6], "there is no connector");
        return;
    }
    exam.findings.pass(Check::ConnectInfo);
    let protocol = match answer.protocol.as_str() {
        "" | "ssh" | "winrm" | "winrm+https" => Ok(()),
        other => Err(format!("the protocol is {other:?}")),
    };
    exam.findings.judge(Check::ConnectProtocol, protocol);
    exam.findings.judge(Check::ConnectTimes, times(answer));
    let has_secret = !answer.key.is_empty() || !answer.password.is_empty();
    let login = match (has_secret, answer.username.is_empty()) {
        (true, true) => Err("there is a key or a password, and no user".into()),
        _ => Ok(()),
    };
    exam.findings.judge(Check::ConnectLogin, login);
    if answer.key.is_empty() {
        exam.findings.not_applicable(&[Check::ConnectKey], "it gives no key");
    } else {
        exam.findings.judge(Check::ConnectKey, key(&answer.key));
    }
}

fn times(answer: &ConnectAnswer) -> Result<(), String> {
    for (name, nanos) in [("timeout", answer.timeout), ("keepalive", answer.keepalive)] {
        if nanos < LEAST_NANOS {
            return Err(format!("{name} is {nanos} ns"));
        }
    }
    Ok(())
}

fn key(key: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(key).map_err(|_| "the key is no text")?;
    match russh::keys::decode_secret_key(text, None) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the key cannot be read: {error}")),
    }
}

fn expires(at: i64) -> Result<(), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match u64::try_from(at) {
        Err(_) | Ok(0) => Ok(()),
        Ok(at) if at <= now => Err(format!("expires is {at}, which is over")),
        Ok(at) if at > now + YEARS_S => {
            Err(format!("expires is {at}, in more than twenty years: is it in seconds?"))
        }
        Ok(_) => Ok(()),
    }
}

async fn unknown(exam: &mut Exam<'_, '_>, probe: &Probe) {
    let result = match probe.connect_info(NOBODY, exam.lab.limit()).await {
        Ok(_) => Err("it answers for an id that does not exist".into()),
        Err(CallError::Refused { message, .. }) => {
            exam.lab.errors.push(message);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    exam.findings.judge(Check::ConnectUnknown, result);
}

async fn heartbeat(exam: &mut Exam<'_, '_>, probe: &Probe, id: &str) {
    let limit = exam.lab.limit();
    // It may run, and not be ready for work for moments yet.
    let deadline = Instant::now() + PATIENCE;
    let answer = loop {
        match probe.heartbeat(id, limit).await {
            Err(CallError::Refused { .. }) if Instant::now() < deadline => sleep(LOOK).await,
            answer => break answer,
        }
    };
    if let Err(CallError::Unsupported { .. }) = answer {
        let checks = [Check::Heartbeat, Check::HeartbeatUnknown];
        exam.findings.not_applicable(&checks, "it does not offer Heartbeat");
        return;
    }
    exam.findings.judge(Check::Heartbeat, answer.map_err(|error| error.to_string()));
    let result = match probe.heartbeat(NOBODY, limit).await {
        Ok(()) => Err("an id that does not exist counts as healthy".into()),
        Err(CallError::Refused { message, .. }) => {
            exam.lab.errors.push(message);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    exam.findings.judge(Check::HeartbeatUnknown, result);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_units_of_expiry_are_found() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let now = i64::try_from(now).expect("fits");
        assert!([0, -1, now + 60].iter().all(|at| expires(*at).is_ok()));
        let wrong = [60, now - 1, (now + 60) * 1000, (now + 60) * 1_000_000_000];
        assert!(wrong.iter().all(|at| expires(*at).is_err()));
    }
}
