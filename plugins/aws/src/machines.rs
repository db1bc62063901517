//! Calls to EC2, in types of our own.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_sdk_ec2::types::{Filter, Instance, InstanceStateName, PlatformValues, SummaryStatus, Tag};

use crate::cloud::Cloud;
use crate::failure::{Failure, Kind, failed};

/// AWS's limit of values of one filter.
const AT_ONCE: usize = 200;
/// What AWS itself writes on the instances of a group.
const GROUP_TAG: &str = "aws:autoscaling:groupName";
/// What this plugin wants of an instance that may be suspended.
pub(crate) const WANT_TAG: &str = "mayfly:want";

/// One EC2 instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Machine {
    pub(crate) power: Power,
    /// Its Auto Scaling group.
    pub(crate) group: Option<String>,
    /// The value of [`WANT_TAG`].
    pub(crate) want: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) internal: Option<String>,
    pub(crate) external: Option<String>,
    /// `linux`, `windows` or `darwin`.
    pub(crate) os: &'static str,
    /// In Go's words.
    pub(crate) arch: &'static str,
}

/// Whether it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Pending,
    Running,
    Stopping,
    Stopped,
    /// Terminated, or about to be.
    Ending,
}

/// These instances by id; those that do not exist are left out.
pub(crate) async fn describe(
    cloud: &Cloud,
    ids: &[String],
) -> Result<BTreeMap<String, Machine>, Failure> {
    let mut found = BTreeMap::new();
    for chunk in ids.chunks(AT_ONCE) {
        // Ids as such would make one that has just gone an error of all.
        let filter = Filter::builder().name("instance-id").set_values(Some(chunk.to_vec()));
        let mut pages =
            cloud.ec2.describe_instances().filters(filter.build()).into_paginator().items().send();
        while let Some(reservation) = pages.next().await {
            let reservation = reservation.map_err(|error| failed("DescribeInstances", &error))?;
            for instance in reservation.instances() {
                if let Some(id) = instance.instance_id() {
                    found.insert(id.to_owned(), Machine::read(instance));
                }
            }
        }
    }
    Ok(found)
}

impl Machine {
    fn read(shown: &Instance) -> Self {
        let tag = |key: &str| {
            let tag = shown.tags().iter().find(|tag| tag.key() == Some(key));
            tag.and_then(|tag| tag.value()).map(str::to_owned)
        };
        let architecture = shown.architecture().map(|architecture| architecture.as_str());
        let arch = architecture.unwrap_or_default();
        let named = |address: Option<&str>| address.filter(|a| !a.is_empty()).map(str::to_owned);
        Self {
            power: power(shown.state().and_then(|state| state.name())),
            group: tag(GROUP_TAG),
            want: tag(WANT_TAG),
            zone: shown.placement().and_then(|p| p.availability_zone()).map(str::to_owned),
            internal: named(shown.private_ip_address()).or(named(shown.ipv6_address())),
            external: named(shown.public_ip_address()).or(named(shown.ipv6_address())),
            os: match shown.platform() {
                Some(PlatformValues::Windows) => "windows",
                _ if arch.ends_with("_mac") => "darwin",
                _ => "linux",
            },
            arch: match arch.trim_end_matches("_mac") {
                "arm64" => "arm64",
                "i386" => "386",
                _ => "amd64",
            },
        }
    }
}

fn power(state: Option<&InstanceStateName>) -> Power {
    match state {
        Some(InstanceStateName::Running) => Power::Running,
        Some(InstanceStateName::Stopping) => Power::Stopping,
        Some(InstanceStateName::Stopped) => Power::Stopped,
        Some(InstanceStateName::ShuttingDown | InstanceStateName::Terminated) => Power::Ending,
        _ => Power::Pending,
    }
}

/// Whether an instance runs and passes AWS's own checks; one that does not exist does not.
pub(crate) async fn is_fit(cloud: &Cloud, id: &str) -> Result<bool, Failure> {
    let request = cloud.ec2.describe_instance_status().instance_ids(id).include_all_instances(true);
    let shown = match request.send().await.map_err(|e| failed("DescribeInstanceStatus", &e)) {
        Err(failure) if failure.kind == Kind::Absent => return Ok(false),
        shown => shown?,
    };
    let impaired = |status: Option<&SummaryStatus>| status == Some(&SummaryStatus::Impaired);
    Ok(shown.instance_statuses().first().is_some_and(|status| {
        let state = status.instance_state().and_then(|state| state.name());
        power(state) == Power::Running
            && !impaired(status.system_status().and_then(|summary| summary.status()))
            && !impaired(status.instance_status().and_then(|summary| summary.status()))
    }))
}

/// Stops instances; with `hibernate` their memory is kept.
pub(crate) async fn stop(cloud: &Cloud, ids: &[String], hibernate: bool) -> Result<(), Failure> {
    let request = cloud.ec2.stop_instances().set_instance_ids(Some(ids.to_vec()));
    let sent = request.hibernate(hibernate).send().await;
    sent.map(drop).map_err(|error| failed("StopInstances", &error))
}

/// Starts instances that were stopped.
pub(crate) async fn start(cloud: &Cloud, ids: &[String]) -> Result<(), Failure> {
    let sent = cloud.ec2.start_instances().set_instance_ids(Some(ids.to_vec())).send().await;
    sent.map(drop).map_err(|error| failed("StartInstances", &error))
}

/// Writes what is wanted of these instances on them: it outlives the plugin.
pub(crate) async fn want(cloud: &Cloud, ids: &[String], want: &str) -> Result<(), Failure> {
    let tag = Tag::builder().key(WANT_TAG).value(want).build();
    let request = cloud.ec2.create_tags().set_resources(Some(ids.to_vec())).tags(tag);
    request.send().await.map(drop).map_err(|error| failed("CreateTags", &error))
}

/// The password of a Windows instance, encrypted, as base64; empty until it has one.
pub(crate) async fn password_data(cloud: &Cloud, id: &str) -> Result<String, Failure> {
    let shown = cloud.ec2.get_password_data().instance_id(id).send().await;
    let shown = shown.map_err(|error| failed("GetPasswordData", &error))?;
    Ok(shown.password_data().unwrap_or_default().trim().to_owned())
}

/// Lets a public key log in as this user. Returns when AWS takes it away again.
pub(crate) async fn send_key(
    cloud: &Cloud,
    id: &str,
    machine: &Machine,
    user: &str,
    public: &str,
) -> Result<SystemTime, Failure> {
    /// From AWS's documentation of `SendSSHPublicKey`.
    const VALID: Duration = Duration::from_secs(60);
    let until = SystemTime::now() + VALID;
    let request = cloud
        .connect
        .send_ssh_public_key()
        .instance_id(id)
        .instance_os_user(user)
        .ssh_public_key(public)
        .set_availability_zone(machine.zone.clone());
    request.send().await.map_err(|error| failed("SendSSHPublicKey", &error))?;
    Ok(until)
}
