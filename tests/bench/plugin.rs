//! The binaries alone: their sizes, and a plugin from its start to its first answer.

use std::time::{Duration, Instant};

use mayfly_plugin::Settings;
use mayfly_plugin::host::{Launch, Plugin};
use support::binaries;

use crate::figure::{Report, Sample, Target};

const STARTS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn sizes(report: &mut Report) {
    let targets = [
        ("mayfly", Target::AtMost(20.0)),
        ("mayfly-agent", Target::AtMost(5.0)),
        ("fleeting-plugin-local", Target::None),
    ];
    for (name, target) in targets {
        let path = if name == "mayfly-agent" { agent() } else { binaries().path(name) };
        let bytes = std::fs::metadata(path).expect("the binary is there").len();
        #[expect(clippy::cast_precision_loss, reason = "megabytes")]
        report.add(format!("size of {name}"), bytes as f64 / 1e6, "MB", target);
    }
}

/// The agent lies beside the others under its architecture's name.
fn agent() -> std::path::PathBuf {
    let entries = std::fs::read_dir(binaries().directory().join("agents")).expect("agents");
    entries.flatten().next().expect("there is an agent").path()
}

/// Start, handshake, `Init`, and the answer to `Update`.
pub(crate) fn start(report: &mut Report) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let directory = tempfile::tempdir().expect("a directory");
        let config = serde_json::json!({"name": "bench", "root": directory.path()});
        let config = config.to_string().into_bytes();
        starts.push(runtime.block_on(async {
            let begun = Instant::now();
            let launch = Launch::new(binaries().plugin("local"));
            let plugin = Plugin::start(&launch, &config, &Settings::default()).await;
            let plugin = plugin.unwrap_or_else(|error| panic!("{error}"));
            plugin.update(PATIENCE).await.expect("it answers");
            let took = begun.elapsed();
            plugin.stop(PATIENCE).await;
            took
        }));
    }
    let starts = Sample::new(starts);
    report.add("plugin start to first answer, p50", starts.quantile(0.5), "ms", Target::None);
    report.add("plugin start to first answer, p99", starts.quantile(0.99), "ms", Target::None);
}
