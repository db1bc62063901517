//! `[runners.autoscaler]`: limits, policies, plugin and connector.

use jiff::tz::TimeZone;
use mayfly_plugin::{ConnectorConfig, Protocol, Settings};
use scheduler::limits::Throttle;
use scheduler::period::Period;
use scheduler::policy::Policy;
use scheduler::{Limits, Schedule};

use super::super::Autoscaler;
use super::super::file::{AutoscalerTable, ConnectorTable, GoDuration, PolicyTable, RunnerEntry};
use super::super::report::Findings;
use super::super::template::{self, Template};
use super::{Surroundings, positive, read_file};
use crate::secret::Secret;

/// GitLab's defaults.
const THROTTLE_LIMIT: u32 = 100;

pub(super) fn check(
    table: &AutoscalerTable,
    entry: &RunnerEntry,
    at: &str,
    around: &Surroundings,
    findings: &mut Findings,
) -> Option<Autoscaler> {
    if table.plugin.trim().is_empty() {
        findings.error(
            &format!("{at}.plugin"),
            "is missing",
            "name the provider plugin, such as \"fleeting-plugin-local\"",
        );
    }
    if table.vm_isolation.enabled {
        findings.error(
            &format!("{at}.vm_isolation"),
            "is not supported",
            "remove the table, or leave this entry to GitLab Runner",
        );
    }
    let plugin_config = plugin_config(table, at, findings)?;
    let limits = limits(table, at, findings);
    let policies =
        table.policy.iter().enumerate().map(|(index, policy)| {
            self::policy(policy, &format!("{at}.policy[{index}]"), findings)
        });
    let schedule = Schedule::new(policies.collect());
    let settings =
        connector(&table.connector_config, &format!("{at}.connector_config"), around, findings);
    let template = Template {
        plugin: table.plugin.trim().to_owned(),
        plugin_config,
        settings,
        use_external_addr: table.connector_config.use_external_addr,
        docker_host: None,
        plugin_environment: template::environment(&entry.mayfly.plugin_environment),
    };
    Some(Autoscaler {
        template,
        limits,
        schedule,
        instance_ready_command: table.instance_ready_command.clone(),
        delete_instances_on_shutdown: table.delete_instances_on_shutdown,
        ..patience(table, at, findings)
    })
}

/// How long and how often things are waited for and tried; zero is GitLab's default.
fn patience(table: &AutoscalerTable, at: &str, findings: &mut Findings) -> Autoscaler {
    let mut own = Autoscaler::default();
    let times = [
        (&mut own.instance_acquire_timeout, table.instance_acquire_timeout),
        (&mut own.update_interval, table.update_interval),
        (&mut own.update_interval_when_expecting, table.update_interval_when_expecting),
        (&mut own.shutdown_deletion_interval, table.shutdown_deletion_interval),
    ];
    for (time, value) in times {
        if let Some(GoDuration(value)) = value.filter(|value| !value.0.is_zero()) {
            *time = value;
        }
    }
    let counts = [
        (
            &mut own.shutdown_deletion_retries,
            table.shutdown_deletion_retries,
            "shutdown_deletion_retries",
        ),
        (&mut own.failure_threshold, table.failure_threshold, "failure_threshold"),
    ];
    for (count, value, key) in counts {
        let value = value.map_or(0, |value| positive(value, &format!("{at}.{key}"), 0, findings));
        if value > 0 {
            *count = value;
        }
    }
    own
}

fn plugin_config(table: &AutoscalerTable, at: &str, findings: &mut Findings) -> Option<Secret> {
    match serde_json::to_string(&table.plugin_config) {
        Ok(json) => Some(Secret::new(json)),
        Err(error) => {
            findings.error(
                &format!("{at}.plugin_config"),
                format!("cannot be given to a plugin: {error}"),
                "dates must be written as text",
            );
            None
        }
    }
}

fn limits(table: &AutoscalerTable, at: &str, findings: &mut Findings) -> Limits {
    let mut count = |value: i64, key: &str| positive(value, &format!("{at}.{key}"), 0, findings);
    let capacity = count(table.capacity_per_instance, "capacity_per_instance").max(1);
    let max_use_count = count(table.max_use_count, "max_use_count");
    let max_instances = count(table.max_instances, "max_instances");
    let defaults = Limits::default();
    if max_use_count > 0 && max_use_count < capacity {
        findings.warn(
            &format!("{at}.max_use_count"),
            format!("{max_use_count} is less than capacity_per_instance {capacity}"),
            "the surplus capacity is never used",
        );
    }
    Limits {
        capacity,
        max_use_count,
        max_instances,
        throttle: throttle(table, max_instances, at, findings),
        deletion_retry: match table.deletion_retry_interval {
            Some(interval) if !interval.0.is_zero() => interval.0,
            _ => defaults.deletion_retry,
        },
        prepare_deadline: match table.connector_config.timeout {
            Some(timeout) if !timeout.0.is_zero() => timeout.0,
            _ => defaults.prepare_deadline,
        },
        ..defaults
    }
}

fn throttle(
    table: &AutoscalerTable,
    max_instances: u32,
    at: &str,
    findings: &mut Findings,
) -> Throttle {
    let (limit, burst) = table.scale_throttle.as_ref().map_or((0, 0), |t| (t.limit, t.burst));
    if limit < 0 {
        return Throttle::Unlimited;
    }
    let limit = match u32::try_from(limit).unwrap_or(u32::MAX) {
        0 => THROTTLE_LIMIT,
        limit => limit,
    };
    let burst = match positive(burst, &format!("{at}.scale_throttle.burst"), 0, findings) {
        0 if max_instances > 0 => max_instances,
        0 => limit,
        burst => burst,
    };
    Throttle::PerSecond { limit, burst }
}

fn policy(table: &PolicyTable, at: &str, findings: &mut Findings) -> Policy {
    let key = format!("{at}.periods");
    let mut periods = Vec::new();
    for text in &table.periods {
        match Period::parse(text) {
            Ok(period) => periods.push(period),
            Err(error) => findings.error(
                &key,
                format!("{text:?}: {error}"),
                "for instance \"* 8-17 * * mon-fri\"",
            ),
        }
    }
    if table.scale_factor < 0.0 || !table.scale_factor.is_finite() {
        findings.error(
            &format!("{at}.scale_factor"),
            format!("{} is not a share", table.scale_factor),
            "use 0 to switch it off, or a positive number",
        );
    }
    Policy {
        periods,
        timezone: timezone(&table.timezone, at, findings),
        idle_count: positive(table.idle_count, &format!("{at}.idle_count"), 0, findings),
        // GitLab's default of an unset idle time inside a policy is none at all.
        idle_time: table.idle_time.unwrap_or_default().0,
        scale_factor: table.scale_factor,
        scale_factor_limit: positive(
            table.scale_factor_limit,
            &format!("{at}.scale_factor_limit"),
            0,
            findings,
        ),
        preemptive_mode: table.preemptive_mode,
    }
}

fn timezone(name: &str, at: &str, findings: &mut Findings) -> TimeZone {
    if name.is_empty() || name.eq_ignore_ascii_case("local") {
        return TimeZone::system();
    }
    TimeZone::get(name).unwrap_or_else(|_| {
        findings.error(
            &format!("{at}.timezone"),
            format!("{name:?} is no time zone"),
            "use a name such as \"Europe/Berlin\" or \"UTC\"",
        );
        TimeZone::UTC
    })
}

fn connector(
    table: &ConnectorTable,
    at: &str,
    around: &Surroundings,
    findings: &mut Findings,
) -> Settings {
    let protocol = Protocol::parse(&table.protocol).unwrap_or_else(|error| {
        findings.error(&format!("{at}.protocol"), error.to_string(), "leave it out for ssh");
        None
    });
    if matches!(protocol, Some(Protocol::WinRm | Protocol::WinRmHttps)) {
        findings.error(&format!("{at}.protocol"), "WinRM is not supported yet", "use ssh");
    }
    if table.os.eq_ignore_ascii_case("windows") {
        findings.error(
            &format!("{at}.os"),
            "Windows instances are not supported yet",
            "use Linux instances",
        );
    }
    let protocol_port = match table.protocol_port {
        0 => None,
        port => u16::try_from(port).ok().or_else(|| {
            findings.error(
                &format!("{at}.protocol_port"),
                format!("{port} is no port"),
                "use 1 to 65535, or leave it out",
            );
            None
        }),
    };
    if table.use_static_credentials && table.username.is_empty() {
        findings.error(
            &format!("{at}.username"),
            "is required when use_static_credentials is set",
            "name the user to log in as",
        );
    }
    let mut settings = Settings::default();
    settings.connector = ConnectorConfig {
        os: table.os.clone(),
        arch: table.arch.clone(),
        protocol,
        protocol_port,
        username: table.username.clone(),
        password: table.password.clone(),
        key: read_file(&table.key_path, &format!("{at}.key_path"), around, findings),
        use_static_credentials: table.use_static_credentials,
        keepalive: table.keepalive.unwrap_or_default().0,
        timeout: table.timeout.unwrap_or_default().0,
    };
    settings
}
