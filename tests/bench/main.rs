//! Measures what docs/performance.md tells: real release binaries, real instances, a
//! server on this machine, everything in one run.
//!
//! `mayfly [--json] [warm|burst|cold|memory|containers|plugin|sizes|scale]… [local|openssh]…`,
//! and by its name only, since it takes 10 GB: `thousand`.

mod cold;
mod containers;
mod figure;
mod phase;
mod plugin;
mod pool;
mod scale;
mod warm;

use std::process::ExitCode;

use figure::Report;
use phase::Provider;

const MEASUREMENTS: [&str; 9] =
    ["sizes", "plugin", "warm", "burst", "memory", "cold", "containers", "scale", "thousand"];

fn main() -> ExitCode {
    if let Some(code) = mayfly_plugin::host::run_guard_if_asked() {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_known = |arg: &String| {
        let arg = arg.as_str();
        arg == "--json" || arg == "--bench" || named(arg) || Provider::named(arg).is_some()
    };
    if let Some(unknown) = args.iter().find(|arg| !is_known(arg)) {
        eprintln!("{unknown:?} is not measured: name some of {}", MEASUREMENTS.join(", "));
        return ExitCode::from(2);
    }
    let asked =
        |name: &str| !args.iter().any(|arg| named(arg)) || args.iter().any(|arg| arg == name);
    let mut providers: Vec<Provider> = args.iter().filter_map(|arg| Provider::named(arg)).collect();
    if providers.is_empty() {
        providers = vec![Provider::Local, Provider::OpenSsh];
    }
    let mut report = Report::default();
    if asked("sizes") {
        plugin::sizes(&mut report);
    }
    if asked("plugin") {
        plugin::start(&mut report);
    }
    for provider in providers {
        if asked("warm") || asked("burst") {
            warm::measure(provider, asked("warm"), asked("burst"), &mut report);
        }
        if asked("memory") {
            pool::memory(provider, &mut report);
        }
        if asked("cold") {
            cold::measure(provider, &mut report);
        }
    }
    if asked("containers") {
        containers::measure(&mut report);
    }
    if asked("scale") {
        scale::measure(100, &mut report);
    }
    if args.iter().any(|arg| arg == "thousand") {
        scale::measure(1_000, &mut report);
    }
    if args.iter().any(|arg| arg == "--json") {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    ExitCode::SUCCESS
}

fn named(arg: &str) -> bool {
    MEASUREMENTS.contains(&arg)
}
