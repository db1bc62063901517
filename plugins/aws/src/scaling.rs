//! Calls to EC2 Auto Scaling, in types of our own.
//!
//! Lists are read to their last page, or are errors: nothing is ever decided by a part.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_sdk_autoscaling::config::retry::RetryConfig;
use aws_sdk_autoscaling::types::{
    AutoScalingGroup, LifecycleState, ScalingActivityStatusCode, Tag,
};

use crate::capacity::Attempt;
use crate::cloud::Cloud;
use crate::failure::{Failure, Kind, failed};

/// AWS's limit of names in one call, and of instances in calls that change them.
const AT_ONCE: usize = 50;
/// Pauses of a call that is throttled, doubled each time and shortened by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// One Auto Scaling group as AWS shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) desired: u32,
    /// New instances cannot be chosen when the group shrinks.
    pub(crate) protects_new: bool,
    /// Processes of the group that are suspended, such as `AZRebalance`.
    pub(crate) suspended: Vec<String>,
    pub(crate) zones: usize,
    /// Its sizes count something else than instances.
    pub(crate) weighted: bool,
    /// It is being deleted.
    pub(crate) ending: bool,
    /// It replaces Spot instances that are at risk by itself.
    pub(crate) rebalances_spot: bool,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) members: Vec<Member>,
}

/// One instance of a group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) life: Life,
    pub(crate) protected: bool,
}

/// Where the group stands with an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Pending,
    InService,
    Terminating,
    EnteringStandby,
    Standby,
    /// It no longer belongs to the group, or does not yet (warm pool).
    Outside,
}

impl Group {
    /// Instances that count for the desired capacity.
    pub(crate) fn counted(&self) -> u32 {
        let counted = |member: &&Member| matches!(member.life, Life::Pending | Life::InService);
        self.members.iter().filter(counted).count().try_into().unwrap_or(u32::MAX)
    }

    fn read(shown: &AutoScalingGroup) -> Self {
        let size = |size: Option<i32>| size.and_then(|size| size.try_into().ok()).unwrap_or(0);
        let policy = shown.mixed_instances_policy().and_then(|policy| policy.launch_template());
        let overrides = policy.map(|template| template.overrides()).unwrap_or_default();
        let unit = shown.desired_capacity_type().unwrap_or("units");
        Self {
            name: shown.auto_scaling_group_name().unwrap_or_default().into(),
            min: size(shown.min_size()),
            max: size(shown.max_size()),
            desired: size(shown.desired_capacity()),
            protects_new: shown.new_instances_protected_from_scale_in().unwrap_or(false),
            suspended: shown
                .suspended_processes()
                .iter()
                .filter_map(|process| process.process_name().map(str::to_owned))
                .collect(),
            zones: shown.availability_zones().len(),
            weighted: unit != "units" || overrides.iter().any(|o| o.weighted_capacity().is_some()),
            ending: shown.status().is_some(),
            rebalances_spot: shown.capacity_rebalance().unwrap_or(false),
            tags: shown
                .tags()
                .iter()
                .filter_map(|tag| Some((tag.key()?.into(), tag.value()?.into())))
                .collect(),
            members: shown
                .instances()
                .iter()
                .filter_map(|instance| {
                    Some(Member {
                        id: instance.instance_id()?.into(),
                        life: life(instance.lifecycle_state()?),
                        protected: instance.protected_from_scale_in().unwrap_or(false),
                    })
                })
                .collect(),
        }
    }
}

/// `Pending:Wait` and the like are told apart for lifecycle hooks only.
fn life(state: &LifecycleState) -> Life {
    match state.as_str().split(':').next().unwrap_or_default() {
        "Pending" => Life::Pending,
        "InService" => Life::InService,
        "Terminating" | "Terminated" => Life::Terminating,
        "EnteringStandby" => Life::EnteringStandby,
        "Standby" => Life::Standby,
        _ => Life::Outside,
    }
}

/// The groups of these names, in this order; one that does not exist is an error.
pub(crate) async fn describe(cloud: &Cloud, names: &[String]) -> Result<Vec<Group>, Failure> {
    const CALL: &str = "DescribeAutoScalingGroups";
    let mut found = BTreeMap::new();
    for chunk in names.chunks(AT_ONCE) {
        let mut pages = cloud
            .autoscaling
            .describe_auto_scaling_groups()
            .set_auto_scaling_group_names(Some(chunk.to_vec()))
            .into_paginator()
            .items()
            .send();
        while let Some(group) = pages.next().await {
            let group = Group::read(&group.map_err(|error| failed(CALL, &error))?);
            found.insert(group.name.clone(), group);
        }
    }
    let missing = |name: &String| {
        let region = &cloud.region;
        Failure::new(
            Kind::Absent,
            format!("{CALL}: there is no Auto Scaling group {name:?} in {region} of this account"),
        )
    };
    names.iter().map(|name| found.remove(name).ok_or_else(|| missing(name))).collect()
}

/// Sets how many instances a group is to have. Absolute, so it may be sent again.
pub(crate) async fn set_desired(cloud: &Cloud, name: &str, desired: u32) -> Result<(), Failure> {
    let request = cloud
        .autoscaling
        .set_desired_capacity()
        .auto_scaling_group_name(name)
        .desired_capacity(desired.try_into().unwrap_or(i32::MAX))
        .honor_cooldown(false);
    let sent = request.send().await;
    sent.map(drop).map_err(|error| failed("SetDesiredCapacity", &error))
}

/// Terminates one instance, and with `takes_place` its group wants one less.
///
/// Sent again only when AWS throttles: a second time it could take the group down by two.
pub(crate) async fn terminate(cloud: &Cloud, id: &str, takes_place: bool) -> Result<(), Failure> {
    let mut pause = FIRST_PAUSE;
    loop {
        let once = aws_sdk_autoscaling::Config::builder().retry_config(RetryConfig::disabled());
        let request = cloud
            .autoscaling
            .terminate_instance_in_auto_scaling_group()
            .instance_id(id)
            .should_decrement_desired_capacity(takes_place)
            .customize()
            .config_override(once);
        let sent = request.send().await;
        match sent.map_err(|error| failed("TerminateInstanceInAutoScalingGroup", &error)) {
            Err(failure) if failure.kind == Kind::Throttled && pause <= LONGEST_PAUSE => {
                tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                pause *= 2;
            }
            sent => return sent.map(drop),
        }
    }
}

/// Launches that were tried since then, newest first. One page: 100 attempts say enough.
pub(crate) async fn attempts(
    cloud: &Cloud,
    name: &str,
    since: SystemTime,
) -> Result<Vec<Attempt>, Failure> {
    let request = cloud.autoscaling.describe_scaling_activities().auto_scaling_group_name(name);
    let shown = request.send().await;
    let shown = shown.map_err(|error| failed("DescribeScalingActivities", &error))?;
    let attempts = shown.activities().iter().filter_map(|activity| {
        let seconds = activity.start_time()?.secs();
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().ok()?);
        let failed = activity.status_code() == Some(&ScalingActivityStatusCode::Failed);
        let reason = activity.status_message().unwrap_or_default().to_owned();
        // Terminations are activities, too.
        let is_launch = activity.description().is_none_or(|what| what.contains("aunch"));
        (started >= since && is_launch).then_some(Attempt { failed, reason })
    });
    Ok(attempts.collect())
}

/// Takes instances out of the count of their group, and of its checks of health.
pub(crate) async fn enter_standby(
    cloud: &Cloud,
    name: &str,
    ids: &[String],
) -> Result<(), Failure> {
    let request = cloud
        .autoscaling
        .enter_standby()
        .auto_scaling_group_name(name)
        .set_instance_ids(Some(ids.to_vec()))
        .should_decrement_desired_capacity(true);
    let sent = request.send().await;
    sent.map(drop).map_err(|error| failed("EnterStandby", &error))
}

/// Gives them back.
pub(crate) async fn exit_standby(cloud: &Cloud, name: &str, ids: &[String]) -> Result<(), Failure> {
    let request = cloud
        .autoscaling
        .exit_standby()
        .auto_scaling_group_name(name)
        .set_instance_ids(Some(ids.to_vec()));
    let sent = request.send().await;
    sent.map(drop).map_err(|error| failed("ExitStandby", &error))
}

/// Instances that come cannot be chosen when the group shrinks, and it may be empty.
pub(crate) async fn protect(cloud: &Cloud, group: &Group) -> Result<(), Failure> {
    let request = cloud
        .autoscaling
        .update_auto_scaling_group()
        .auto_scaling_group_name(&group.name)
        .min_size(0)
        .new_instances_protected_from_scale_in(true);
    request.send().await.map_err(|error| failed("UpdateAutoScalingGroup", &error))?;
    let bare = group.members.iter().filter(|m| !m.protected && m.life == Life::InService);
    let bare: Vec<String> = bare.map(|member| member.id.clone()).collect();
    for ids in bare.chunks(AT_ONCE) {
        let request = cloud
            .autoscaling
            .set_instance_protection()
            .auto_scaling_group_name(&group.name)
            .set_instance_ids(Some(ids.to_vec()))
            .protected_from_scale_in(true);
        request.send().await.map_err(|error| failed("SetInstanceProtection", &error))?;
    }
    Ok(())
}

/// Suspends or resumes one of the group's processes.
pub(crate) async fn set_process(
    cloud: &Cloud,
    name: &str,
    process: &str,
    suspended: bool,
) -> Result<(), Failure> {
    if suspended {
        let request = cloud.autoscaling.suspend_processes().auto_scaling_group_name(name);
        let sent = request.scaling_processes(process).send().await;
        return sent.map(drop).map_err(|error| failed("SuspendProcesses", &error));
    }
    let request = cloud.autoscaling.resume_processes().auto_scaling_group_name(name);
    let sent = request.scaling_processes(process).send().await;
    sent.map(drop).map_err(|error| failed("ResumeProcesses", &error))
}

/// Writes tags of the group; instances do not get them.
pub(crate) async fn tag(cloud: &Cloud, name: &str, tags: &[(&str, String)]) -> Result<(), Failure> {
    let tags = tags.iter().map(|(key, value)| {
        let tag = Tag::builder().resource_id(name).resource_type("auto-scaling-group");
        tag.key(*key).value(value).propagate_at_launch(false).build()
    });
    let request = cloud.autoscaling.create_or_update_tags().set_tags(Some(tags.collect()));
    let sent = request.send().await;
    sent.map(drop).map_err(|error| failed("CreateOrUpdateTags", &error))
}
