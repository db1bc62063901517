//! The ledger for people and for programs.

use serde_json::json;

use super::Sums;

/// Lines of text. `max_instances` is a limit to be held against the peak.
pub(crate) fn print_text(sums: &Sums, max_instances: Option<u32>, now_ms: u64) -> String {
    let mut text = String::from("instance       cost s   boot s  last step\n");
    for life in sums.lives() {
        let last = life.last.map(|step| json!(step)).unwrap_or_default();
        text.push_str(&format!(
            "{:<12} {:>8.1} {:>8.1}  {}\n",
            life.id,
            seconds(life.cost_ms(now_ms)),
            seconds(life.boot_ms(now_ms)),
            last.as_str().unwrap_or_default(),
        ));
    }
    let totals = sums.totals(now_ms);
    let (peak, _) = sums.peak();
    text.push_str(&format!(
        "all {:<8} {:>8.1} {:>8.1}  {} at most at a time, {} alive\n",
        totals.instances,
        seconds(totals.cost_ms),
        seconds(totals.boot_ms),
        peak,
        totals.alive,
    ));
    match sums.over_quota() {
        None => {}
        Some(0) => text.push_str("the quota was never exceeded\n"),
        Some(over) => text.push_str(&format!("the quota was exceeded by {over}\n")),
    }
    match max_instances {
        None => {}
        Some(max) if peak <= max => {
            text.push_str(&format!("max_instances = {max} was never exceeded\n"));
        }
        Some(max) => {
            text.push_str(&format!("max_instances = {max} was exceeded by {}\n", peak - max));
        }
    }
    for (call, count) in &sums.calls {
        text.push_str(&format!("{call}: {} calls, {} failed\n", count.made, count.failed));
    }
    for (kind, count) in &sums.faults {
        text.push_str(&format!("fault {kind}: {count} times\n"));
    }
    text
}

/// The same as one JSON object.
pub(crate) fn print_json(sums: &Sums, max_instances: Option<u32>, now_ms: u64) -> String {
    let lives: Vec<_> = sums
        .lives()
        .map(|life| {
            json!({
                "id": life.id,
                "cost_s": seconds(life.cost_ms(now_ms)),
                "boot_s": seconds(life.boot_ms(now_ms)),
                "last": life.last,
                "alive": life.over_ms.is_none(),
            })
        })
        .collect();
    let totals = sums.totals(now_ms);
    let (peak, peak_at_ms) = sums.peak();
    let report = json!({
        "instances": lives,
        "created": totals.instances,
        "cost_s": seconds(totals.cost_ms),
        "boot_s": seconds(totals.boot_ms),
        "alive": totals.alive,
        "peak": peak,
        "peak_at_ms": peak_at_ms,
        "over_quota": sums.over_quota(),
        "over_max_instances": max_instances.map(|max| peak.saturating_sub(max)),
        "calls": sums.calls,
        "faults": sums.faults,
    });
    report.to_string() + "\n"
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of years fit")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
