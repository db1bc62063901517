//! The keys of `config.toml`, as the file says them. Names and types are GitLab's; what
//! they mean is told in `check`.

mod docker;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub(crate) use docker::{DockerTable, ServiceTable};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct File {
    pub(crate) concurrent: Option<i64>,
    pub(crate) check_interval: i64,
    pub(crate) log_level: Option<String>,
    pub(crate) log_format: Option<String>,
    pub(crate) shutdown_timeout: Option<i64>,
    pub(crate) listen_address: Option<String>,
    pub(crate) connection_max_age: Option<GoDuration>,
    pub(crate) user: Option<String>,
    pub(crate) sentry_dsn: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) session_server: Option<toml::Value>,
    pub(crate) experimental: Option<toml::Value>,
    pub(crate) machine: Option<toml::Value>,
    pub(crate) runners: Vec<RunnerEntry>,
    pub(crate) mayfly: Own,
}

/// `[mayfly]`: our own keys for the whole manager.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Own {
    pub(crate) state_dir: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RunnerEntry {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) id: u64,
    pub(crate) token: String,
    pub(crate) token_obtained_at: Option<toml::Value>,
    pub(crate) token_expires_at: Option<toml::Value>,
    #[serde(rename = "tls-ca-file")]
    pub(crate) tls_ca_file: String,
    #[serde(rename = "tls-cert-file")]
    pub(crate) tls_cert_file: String,
    #[serde(rename = "tls-key-file")]
    pub(crate) tls_key_file: String,
    pub(crate) limit: i64,
    pub(crate) request_concurrency: i64,
    pub(crate) strict_check_interval: Option<bool>,
    pub(crate) output_limit: i64,
    pub(crate) executor: String,
    pub(crate) builds_dir: String,
    pub(crate) cache_dir: String,
    pub(crate) clone_url: String,
    pub(crate) environment: Vec<String>,
    pub(crate) shell: String,
    pub(crate) pre_get_sources_script: String,
    pub(crate) post_get_sources_script: String,
    pub(crate) pre_clone_script: String,
    pub(crate) post_clone_script: String,
    pub(crate) pre_build_script: String,
    pub(crate) post_build_script: String,
    pub(crate) debug_trace_disabled: bool,
    pub(crate) safe_directory_checkout: Option<bool>,
    pub(crate) clean_git_config: Option<bool>,
    pub(crate) custom_build_dir: CustomBuildDir,
    pub(crate) artifact: Artifact,
    pub(crate) feature_flags: BTreeMap<String, bool>,
    pub(crate) unhealthy_requests_limit: Option<i64>,
    pub(crate) unhealthy_interval: Option<GoDuration>,
    pub(crate) job_status_final_update_retry_limit: Option<i64>,
    pub(crate) autoscaler: Option<AutoscalerTable>,
    pub(crate) docker: Option<DockerTable>,
    pub(crate) mayfly: OwnRunner,
}

impl RunnerEntry {
    /// Whether stages run in containers of the instance's Docker daemon.
    pub(crate) fn runs_containers(&self) -> bool {
        self.executor == "docker-autoscaler"
    }
}

/// `[runners.mayfly]`: our own keys for one entry.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OwnRunner {
    /// Names of environment variables that the plugin gets beside the usual ones.
    pub(crate) plugin_environment: Vec<String>,
    /// How long an agent is without a manager before it tells the server by itself.
    pub(crate) report_alone_after: Option<GoDuration>,
    /// Whether the container of a likely next job is made before the job is there.
    pub(crate) containers_ahead: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CustomBuildDir {
    pub(crate) enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Artifact {
    pub(crate) upload_timeout: Option<GoDuration>,
    pub(crate) response_header_timeout: Option<GoDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AutoscalerTable {
    pub(crate) plugin: String,
    pub(crate) capacity_per_instance: i64,
    pub(crate) max_use_count: i64,
    pub(crate) max_instances: i64,
    pub(crate) instance_ready_command: String,
    pub(crate) instance_acquire_timeout: Option<GoDuration>,
    pub(crate) update_interval: Option<GoDuration>,
    pub(crate) update_interval_when_expecting: Option<GoDuration>,
    pub(crate) deletion_retry_interval: Option<GoDuration>,
    pub(crate) shutdown_deletion_interval: Option<GoDuration>,
    pub(crate) shutdown_deletion_retries: Option<i64>,
    pub(crate) failure_threshold: Option<i64>,
    pub(crate) reservation_throttling: Option<bool>,
    pub(crate) delete_instances_on_shutdown: bool,
    pub(crate) log_internal_ip: bool,
    pub(crate) log_external_ip: bool,
    pub(crate) instance_operation_time_buckets: Vec<f64>,
    pub(crate) instance_creation_time_buckets: Vec<f64>,
    pub(crate) instance_is_running_time_buckets: Vec<f64>,
    pub(crate) instance_deletion_time_buckets: Vec<f64>,
    pub(crate) instance_readiness_time_buckets: Vec<f64>,
    pub(crate) instance_life_duration_buckets: Vec<f64>,
    pub(crate) scale_throttle: Option<ScaleThrottle>,
    pub(crate) plugin_config: toml::Table,
    pub(crate) connector_config: ConnectorTable,
    pub(crate) state_storage: Option<toml::Value>,
    pub(crate) policy: Vec<PolicyTable>,
    pub(crate) vm_isolation: VmIsolation,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ScaleThrottle {
    pub(crate) limit: i64,
    pub(crate) burst: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConnectorTable {
    pub(crate) os: String,
    pub(crate) arch: String,
    pub(crate) protocol: String,
    pub(crate) protocol_port: i64,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) key_path: String,
    pub(crate) use_static_credentials: bool,
    pub(crate) keepalive: Option<GoDuration>,
    pub(crate) timeout: Option<GoDuration>,
    pub(crate) use_external_addr: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PolicyTable {
    pub(crate) periods: Vec<String>,
    pub(crate) timezone: String,
    pub(crate) idle_count: i64,
    pub(crate) idle_time: Option<GoDuration>,
    pub(crate) scale_factor: f64,
    pub(crate) scale_factor_limit: i64,
    pub(crate) preemptive_mode: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct VmIsolation {
    pub(crate) enabled: bool,
}

/// A duration as Go writes it (`1h30m`), or an integer of nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GoDuration(pub(crate) Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = GoDuration;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration such as \"1h30m\", or an integer of nanoseconds")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<GoDuration, E> {
                parse(text).map(GoDuration).ok_or_else(|| {
                    E::custom(format!(
                        "{text:?} is no duration: write numbers with units, such as \"90s\", \"1h30m\" or \"250ms\""
                    ))
                })
            }

            fn visit_i64<E: serde::de::Error>(self, nanos: i64) -> Result<GoDuration, E> {
                // Negative durations mean "none" wherever GitLab allows them.
                Ok(GoDuration(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn parse(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("h", 3600.0),
        ("m", 60.0),
        ("s", 1.0),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let (unit, seconds) = UNITS.iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        total += number * seconds;
        rest = &rest[digits + unit.len()..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let cases = [
            ("1h30m", Some(5_400_000)),
            ("20m0s", Some(1_200_000)),
            ("1.5s", Some(1_500)),
            ("250ms", Some(250)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("5 m", None),
            ("-1m", None),
            ("1x", None),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text), millis.map(Duration::from_millis), "{text}");
        }
    }
}
