//! What containers may do and use: the job's, and, where GitLab has a twin of a key for
//! them, its services'.

use std::collections::BTreeMap;

use job::compose::docker::HostOptions;

use super::super::read_file;
use super::{Expected, Table, values};

/// GitLab's documentation of `memory`.
const LEAST_MEMORY: i64 = 4 << 20;
/// The kernel's range of `oom_score_adj`.
const OOM_SCORES: std::ops::RangeInclusive<i64> = -1000..=1000;
/// All that GitLab Runner lets through to the daemon's log driver.
const LOG_OPTIONS: [&str; 2] = ["env", "labels"];

const SIZE: Expected = ("is no size", "write for instance \"512m\" or \"2g\"");
const CPUS: Expected = ("is no number of processors", "write for instance \"2\" or \"1.5\"");
const GPUS: Expected =
    ("is not supported", "write \"all\", a number as \"1\", or \"device=0\" with numbers or ids");
const ULIMIT: Expected = ("is no limit", "write \"soft:hard\" or one number, such as \"1024\"");
const DEVICE: Expected =
    ("is no device", "write \"/dev/outside\", after it perhaps \":/dev/inside\" and \":rwm\"");
const ADDRESS: Expected = ("is no address", "write IP addresses, such as \"10.0.0.2\"");
const EXTRA_HOST: Expected = ("has no address", "write \"name:address\"");

impl Table<'_> {
    /// Of the job's container.
    pub(super) fn build_options(&mut self) -> HostOptions {
        let keys = self.keys;
        let memory = [&keys.memory, &keys.memory_swap, &keys.memory_reservation];
        let [memory, memory_swap, memory_reservation] = self.memory("", memory);
        HostOptions {
            cap_add: keys.cap_add.clone(),
            cap_drop: keys.cap_drop.clone(),
            devices: self.words("devices", &keys.devices, values::device, DEVICE),
            device_cgroup_rules: keys.device_cgroup_rules.clone(),
            gpus: self.scalar("gpus", &keys.gpus, values::gpus, GPUS).unwrap_or_default(),
            dns: self.words("dns", &keys.dns, values::address, ADDRESS),
            dns_search: keys.dns_search.clone(),
            extra_hosts: {
                let (key, texts) = ("extra_hosts", &keys.extra_hosts);
                self.words(key, texts, values::extra_host, EXTRA_HOST)
            },
            links: keys.links.clone(),
            volumes_from: keys.volumes_from.clone(),
            group_add: keys.group_add.clone(),
            security_opt: self.security("security_opt", &keys.security_opt),
            sysctls: keys.sysctls.clone(),
            tmpfs: keys.tmpfs.clone(),
            ulimits: self.ulimits(),
            log_options: self.log_options(),
            memory,
            memory_swap,
            memory_reservation,
            nano_cpus: self.cpus("cpus", &keys.cpus),
            cpu_shares: self.amount("cpu_shares", keys.cpu_shares),
            cpuset_cpus: keys.cpuset_cpus.clone(),
            cpuset_mems: keys.cpuset_mems.clone(),
            shm_size: self.amount("shm_size", keys.shm_size),
            oom_kill_disable: keys.oom_kill_disable,
            oom_score_adjust: self.oom_score(),
            userns_mode: keys.userns_mode.clone(),
            runtime: keys.runtime.clone(),
            cgroup_parent: keys.cgroup_parent.clone(),
            ipc_mode: keys.ipcmode.clone(),
        }
    }

    /// Of services. What GitLab Runner gives them of the job's own keys, they get here, too
    /// (`createHostConfigForService`); what is wrong with those was told already.
    pub(super) fn service_options(&mut self) -> HostOptions {
        let keys = self.keys;
        let memory =
            [&keys.service_memory, &keys.service_memory_swap, &keys.service_memory_reservation];
        let [memory, memory_swap, memory_reservation] = self.memory("service_", memory);
        let gpus = self.scalar("service_gpus", &keys.service_gpus, values::gpus, GPUS);
        HostOptions {
            gpus: gpus.unwrap_or_default(),
            dns: keys.dns.clone(),
            dns_search: keys.dns_search.clone(),
            extra_hosts: keys.extra_hosts.clone(),
            security_opt: self.security("services_security_opt", &keys.services_security_opt),
            tmpfs: keys.services_tmpfs.clone(),
            log_options: keys.log_options.clone(),
            memory,
            memory_swap,
            memory_reservation,
            nano_cpus: self.cpus("service_cpus", &keys.service_cpus),
            cpu_shares: self.amount("service_cpu_shares", keys.service_cpu_shares),
            cpuset_cpus: keys.service_cpuset_cpus.clone(),
            shm_size: keys.shm_size,
            userns_mode: keys.userns_mode.clone(),
            runtime: keys.runtime.clone(),
            cgroup_parent: keys.service_cgroup_parent.clone(),
            ..HostOptions::default()
        }
    }

    /// What a text means, nothing being nothing; `None` where it is wrong, which is told.
    fn scalar<T: Default>(
        &mut self,
        key: &str,
        text: &str,
        parse: fn(&str) -> Option<T>,
        expected: Expected,
    ) -> Option<T> {
        if text.trim().is_empty() {
            return Some(T::default());
        }
        self.word(key, text, parse, expected)
    }

    fn cpus(&mut self, key: &str, text: &str) -> i64 {
        self.scalar(key, text, values::nano_cpus, CPUS).unwrap_or_default()
    }

    /// Bytes of `memory`, `memory_swap` and `memory_reservation`, told what every daemon
    /// refuses of them.
    fn memory(&mut self, prefix: &str, texts: [&String; 3]) -> [i64; 3] {
        let keys = ["memory", "memory_swap", "memory_reservation"];
        let keys = keys.map(|key| format!("{prefix}{key}"));
        let sizes: Vec<i64> = keys
            .iter()
            .zip(texts)
            .filter_map(|(key, text)| self.scalar(key, text, values::bytes, SIZE))
            .collect();
        let Ok([limit, swap, reservation]) = <[i64; 3]>::try_from(sizes) else {
            return [0; 3];
        };
        let too_small = "is less than Docker allows";
        let fault = match (limit, swap, reservation) {
            (1..LEAST_MEMORY, ..) => Some((0, too_small, "use \"4m\" or more; mind the unit")),
            (.., 1..LEAST_MEMORY) => Some((2, too_small, "use \"4m\" or more; mind the unit")),
            (0, 1.., _) => Some((
                1,
                "counts only with a limit of memory",
                "set that, too: it is memory and swap together",
            )),
            (_, 1.., _) if swap < limit => {
                Some((1, "is less than memory", "it is memory and swap together"))
            }
            (1.., ..) if reservation > limit => {
                Some((2, "is more than memory", "it is the softer limit, and the lower one"))
            }
            _ => None,
        };
        if let Some((place, message, hint)) = fault {
            self.error(&keys[place], format!("{:?} {message}", texts[place]), hint);
        }
        [limit, swap, reservation]
    }

    /// An amount that no daemon takes below zero.
    fn amount(&mut self, key: &str, value: i64) -> i64 {
        if value < 0 {
            self.error(key, format!("{value} is too small"), "use 0 or more");
        }
        value
    }

    fn oom_score(&mut self) -> i64 {
        let score = self.keys.oom_score_adjust;
        if !OOM_SCORES.contains(&score) {
            self.error("oom_score_adjust", format!("{score} is no score"), "use -1000 to 1000");
        }
        score
    }

    fn ulimits(&mut self) -> BTreeMap<String, (i64, i64)> {
        let limits = self.keys.ulimit.iter();
        limits
            .filter_map(|(name, text)| {
                let key = format!("ulimit.{name}");
                Some((name.clone(), self.word(&key, text, values::ulimit, ULIMIT)?))
            })
            .collect()
    }

    fn log_options(&mut self) -> BTreeMap<String, String> {
        let options = &self.keys.log_options;
        for name in options.keys().filter(|name| !LOG_OPTIONS.contains(&name.as_str())) {
            self.error(
                &format!("log_options.{name}"),
                "is no option of logs that may be set",
                "only `env` and `labels` are: remove it",
            );
        }
        options.clone()
    }

    /// Security options, those that name a file of system calls with what the file says: it
    /// is the manager's, and the daemon is elsewhere.
    fn security(&mut self, key: &str, options: &[String]) -> Vec<String> {
        options.iter().map(|option| self.security_option(key, option)).collect()
    }

    fn security_option(&mut self, key: &str, option: &str) -> String {
        let Some(profile) = option.strip_prefix("seccomp=") else { return option.to_owned() };
        if profile.starts_with('{') || matches!(profile, "unconfined" | "builtin") {
            return option.to_owned();
        }
        let (key, faults) = (format!("{}.{key}", self.at), self.findings.0.len());
        let content = read_file(profile, &key, self.around, self.findings);
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&content).is_ok();
        if !is_json && self.findings.0.len() == faults {
            let hint = "write a profile as Docker's documentation shows, or \"seccomp=unconfined\"";
            self.findings.error(&key, format!("{profile} is not JSON"), hint);
        }
        format!("seccomp={}", String::from_utf8_lossy(&content))
    }
}
