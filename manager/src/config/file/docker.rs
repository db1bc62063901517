//! The keys of `[runners.docker]`, as the file says them. Names and types are GitLab's
//! (`DockerConfig` of GitLab Runner 19.4); what they mean is told in `check`.
//!
//! Keys without effect here are values of any type: they are only told of.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use toml::Value;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DockerTable {
    pub(crate) host: String,
    pub(crate) tls_cert_path: String,
    pub(crate) tls_verify: bool,
    pub(crate) hostname: String,
    pub(crate) image: String,
    pub(crate) runtime: String,
    pub(crate) memory: String,
    pub(crate) memory_swap: String,
    pub(crate) memory_reservation: String,
    pub(crate) cgroup_parent: String,
    pub(crate) cpuset_cpus: String,
    pub(crate) cpuset_mems: String,
    pub(crate) cpus: String,
    pub(crate) cpu_shares: i64,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) privileged: bool,
    pub(crate) services_privileged: Option<bool>,
    pub(crate) disable_entrypoint_overwrite: bool,
    pub(crate) user: String,
    pub(crate) allowed_users: Vec<String>,
    pub(crate) group_add: Vec<String>,
    pub(crate) userns_mode: String,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) oom_kill_disable: bool,
    pub(crate) oom_score_adjust: i64,
    pub(crate) security_opt: Vec<String>,
    pub(crate) services_security_opt: Vec<String>,
    pub(crate) devices: Vec<String>,
    pub(crate) device_cgroup_rules: Vec<String>,
    pub(crate) gpus: String,
    pub(crate) disable_cache: bool,
    pub(crate) volumes: Vec<String>,
    pub(crate) cache_dir: String,
    pub(crate) extra_hosts: Vec<String>,
    pub(crate) volumes_from: Vec<String>,
    pub(crate) network_mode: String,
    pub(crate) ipcmode: String,
    pub(crate) links: Vec<String>,
    pub(crate) services: Vec<ServiceTable>,
    pub(crate) services_limit: Option<i64>,
    pub(crate) service_memory: String,
    pub(crate) service_memory_swap: String,
    pub(crate) service_memory_reservation: String,
    pub(crate) service_cgroup_parent: String,
    pub(crate) service_cpuset_cpus: String,
    pub(crate) service_cpus: String,
    pub(crate) service_cpu_shares: i64,
    pub(crate) service_gpus: String,
    pub(crate) wait_for_services_timeout: i64,
    pub(crate) allowed_images: Vec<String>,
    pub(crate) allowed_privileged_images: Vec<String>,
    pub(crate) allowed_privileged_services: Vec<String>,
    pub(crate) allowed_pull_policies: Vec<String>,
    pub(crate) allowed_services: Vec<String>,
    pub(crate) pull_policy: TextOrList,
    pub(crate) shm_size: i64,
    pub(crate) tmpfs: BTreeMap<String, String>,
    pub(crate) services_tmpfs: BTreeMap<String, String>,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) helper_image: String,
    pub(crate) container_labels: BTreeMap<String, String>,
    pub(crate) enable_ipv6: bool,
    pub(crate) ulimit: BTreeMap<String, String>,
    pub(crate) network_mtu: i64,
    pub(crate) log_options: BTreeMap<String, String>,

    pub(crate) isolation: Option<Value>,
    pub(crate) mac_address: Option<Value>,
    pub(crate) pid_mode: Option<Value>,
    pub(crate) volume_driver: Option<Value>,
    pub(crate) volume_driver_ops: Option<Value>,
    pub(crate) volume_keep: Option<Value>,
    pub(crate) services_devices: Option<Value>,
    pub(crate) service_slot_cgroup_template: Option<Value>,
    pub(crate) helper_image_flavor: Option<Value>,
    pub(crate) helper_image_autoset_arch_and_os: Option<Value>,
}

/// One entry of `[[runners.docker.services]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceTable {
    pub(crate) name: String,
    pub(crate) alias: String,
    pub(crate) command: Vec<String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) suspend_data_path: Option<Value>,
}

/// A text, or a list of them.
#[derive(Debug, Default)]
pub(crate) struct TextOrList(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for TextOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = TextOrList;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TextOrList, E> {
                Ok(TextOrList(vec![text.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<TextOrList, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(TextOrList(list))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
