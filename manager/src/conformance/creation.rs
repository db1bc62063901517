//! Checks of `Increase`, up to a running instance.

use mayfly_plugin::host::Probe;
use tokio::time::{Instant, sleep};

use super::Check;
use super::exam::Exam;
use super::lab::{DELETED, LOOK, RUNNING, TIMED_OUT, living, state_of};

/// Lists in which a surplus has time to show.
const LATER_LOOKS: u32 = 3;

/// The first instance that was made.
pub(super) struct First {
    pub(super) id: String,
    /// Whether it came to run.
    pub(super) runs: bool,
}

/// Asks for nothing. An error says why no more is asked for.
pub(super) async fn increase_zero(exam: &mut Exam<'_, '_>, probe: &Probe) -> Result<(), String> {
    let check = Check::IncreaseZero;
    match probe.increase(0, exam.lab.limit()).await {
        Err(error) if error.outcome_unknown() => {
            exam.findings.fail(check, error.to_string());
            return Err("Increase cannot be relied on".into());
        }
        Ok(made) if made > 0 => exam.findings.fail(check, format!("it says that it made {made}")),
        _ => {}
    }
    let new = newcomers(exam, probe, 1).await?;
    if !new.is_empty() {
        exam.findings.fail(check, format!("then there is {}", new.join(", ")));
        // To be removed like the others.
        exam.lab.made.ask(u32::try_from(new.len()).unwrap_or(u32::MAX));
    }
    exam.findings.pass(check);
    if exam.findings.has_failed(check) {
        return Err("Increase cannot be relied on".into());
    }
    Ok(())
}

/// Instances that came, after so many looks.
async fn newcomers(
    exam: &mut Exam<'_, '_>,
    probe: &Probe,
    looks: u32,
) -> Result<Vec<String>, String> {
    let mut new = Vec::new();
    for _ in 0..=looks {
        let listed = exam.lab.list(probe).await.map_err(|error| error.to_string())?;
        for id in exam.lab.made.newcomers(&living(&listed)) {
            if !new.contains(&id) {
                new.push(id);
            }
        }
        sleep(LOOK).await;
    }
    Ok(new)
}

/// Makes one instance.
pub(super) async fn first(exam: &mut Exam<'_, '_>, probe: &Probe) -> Result<First, String> {
    exam.lab.made.ask(1);
    let made = match probe.increase(1, exam.lab.limit()).await {
        Ok(made) => made,
        Err(error) => {
            exam.findings.fail(Check::IncreaseAnswers, error.to_string());
            return Err("Increase does not succeed".into());
        }
    };
    exam.findings.pass(Check::IncreaseAnswers);
    if made != 1 {
        exam.findings
            .fail(Check::IncreaseCount, format!("asked for 1, it says that it made {made}"));
        return Err("Increase cannot be relied on".into());
    }
    let deadline = Instant::now() + exam.lab.options.change_limit;
    let mut new = newcomers(exam, probe, 0).await?;
    while new.is_empty() {
        if Instant::now() >= deadline {
            let what = "it says that it made 1, and none came into the list";
            exam.findings.fail(Check::IncreaseCount, what);
            return Err("no instance came".into());
        }
        new = newcomers(exam, probe, 0).await?;
    }
    for id in newcomers(exam, probe, LATER_LOOKS).await? {
        if !new.contains(&id) {
            new.push(id);
        }
    }
    if new.len() > 1 {
        let what = format!("asked for 1, it made {}: {}", new.len(), new.join(", "));
        exam.findings.fail(Check::IncreaseCount, what);
        return Err("Increase cannot be relied on".into());
    }
    exam.findings.pass(Check::IncreaseCount);
    let id = new.remove(0);
    let result = runs(exam, probe, &id).await;
    let runs = result.is_ok();
    exam.findings.judge(Check::Boots, result);
    Ok(First { id, runs })
}

/// Waits until an instance runs.
pub(super) async fn runs(exam: &mut Exam<'_, '_>, probe: &Probe, id: &str) -> Result<(), String> {
    let deadline = Instant::now() + exam.lab.options.change_limit;
    loop {
        let listed = exam.lab.list(probe).await.map_err(|error| error.to_string())?;
        match state_of(&listed, id) {
            Some(RUNNING) => return Ok(()),
            Some(state @ (DELETED | TIMED_OUT)) => {
                return Err(format!("{id} never ran; it is in state {state}"));
            }
            state if Instant::now() >= deadline => {
                let waited = exam.lab.options.change_limit.as_secs();
                let state = state.map_or("not listed".to_owned(), |it| format!("in state {it}"));
                return Err(format!("after {waited} s {id} is {state}"));
            }
            _ => sleep(LOOK).await,
        }
    }
}
