//! Checks of `Decrease`, on an instance that the examination made.

use mayfly_plugin::host::Probe;
use tokio::time::{Instant, sleep};

use super::Check;
use super::exam::Exam;
use super::lab::{LOOK, living};
use super::process::NOBODY;

/// Deletes `id`; `others` must stay. An error says why nothing more can be judged.
pub(super) async fn examine(
    exam: &mut Exam<'_, '_>,
    probe: &Probe,
    id: &str,
    others: &[String],
) -> Result<(), String> {
    let limit = exam.lab.limit();
    match probe.decrease(vec![id.to_owned()], limit).await {
        Err(error) => {
            exam.findings.fail(Check::Decrease, error.to_string());
            return Err("Decrease does not succeed".into());
        }
        Ok(taken) if taken != [id] => {
            let what = format!("asked to delete {id}, it returns [{}]", taken.join(", "));
            exam.findings.fail(Check::DecreaseTells, what);
        }
        Ok(_) => exam.findings.pass(Check::DecreaseTells),
    }
    let deadline = Instant::now() + exam.lab.options.change_limit;
    let left = loop {
        let listed = exam.lab.list(probe).await.map_err(|error| error.to_string())?;
        let left = living(&listed);
        if !left.iter().any(|left| left == id) {
            break left;
        }
        if Instant::now() >= deadline {
            let waited = exam.lab.options.change_limit.as_secs();
            exam.findings.fail(Check::Decrease, format!("{id} is still listed after {waited} s"));
            return Err("instances do not go".into());
        }
        sleep(LOOK).await;
    };
    exam.findings.pass(Check::Decrease);
    exam.lab.made.are_gone([id.to_owned()]);
    if others.is_empty() {
        exam.findings.not_applicable(&[Check::DecreaseOthers], "there was one instance only");
    } else if let Some(lost) = others.iter().find(|other| !left.contains(other)) {
        exam.findings.fail(Check::DecreaseOthers, format!("{lost} went, too"));
        return Err("other instances went, too".into());
    } else {
        exam.findings.pass(Check::DecreaseOthers);
    }
    for (check, gone) in [(Check::DecreaseAgain, id), (Check::DecreaseUnknown, NOBODY)] {
        let answer = probe.decrease(vec![gone.to_owned()], limit).await;
        let result = match answer {
            Ok(taken) if taken == [gone] => Ok(()),
            Ok(_) if exam.findings.has_failed(Check::DecreaseTells) => Ok(()),
            Ok(_) => Err(format!("it does not return {gone}")),
            Err(error) => Err(error.to_string()),
        };
        exam.findings.judge(check, result);
    }
    Ok(())
}
