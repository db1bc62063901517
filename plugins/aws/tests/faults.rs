//! What AWS does wrong never ends an instance too many, and never goes unsaid.

mod support;

use serde_json::json;
use support::logs::{await_log, logs};
use support::proxy::{Fault, Proxy};
use support::{LIMIT, Rig, add, list, running, until};

const DESCRIBE: &str = "DescribeAutoScalingGroups";
const TERMINATE: &str = "TerminateInstanceInAutoScalingGroup";

fn throttled() -> Fault {
    Proxy::error(400, "Throttling", "Rate exceeded")
}

/// Launches that failed now, as AWS lists them.
fn failed_launches(reason: &str) -> Fault {
    let now = jiff::Timestamp::now();
    let activity = format!(
        "<member><ActivityId>1</ActivityId><AutoScalingGroupName>x</AutoScalingGroupName>\
         <Description>Launching a new EC2 instance</Description><Cause>c</Cause>\
         <StartTime>{now}</StartTime><StatusCode>Failed</StatusCode>\
         <StatusMessage>{reason}</StatusMessage></member>"
    );
    let xml = format!(
        "<DescribeScalingActivitiesResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
         <DescribeScalingActivitiesResult><Activities>{activity}</Activities>\
         </DescribeScalingActivitiesResult></DescribeScalingActivitiesResponse>"
    );
    Fault::Answer(200, xml)
}

/// What AWS answers to a change that it takes; here nothing follows from it.
fn accepted() -> Fault {
    let xml = "<SetDesiredCapacityResponse \
               xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"/>";
    Fault::Answer(200, xml.into())
}

#[tokio::test]
async fn throttled_calls_are_made_again() {
    let Some(rig) = Rig::new(json!({})).await else { return };
    let plugin = rig.start().await;
    let ids = add(&plugin, 1).await;
    rig.proxy.fail(DESCRIBE, "", 2, throttled());
    let exceeded = Proxy::ec2_error(503, "RequestLimitExceeded", "slow");
    rig.proxy.fail("DescribeInstances", "", 1, exceeded);
    assert_eq!(running(&plugin).await, ids);
    rig.proxy.fail(TERMINATE, "", 2, throttled());
    assert_eq!(plugin.decrease(ids.clone(), LIMIT).await.expect("accepted"), ids);
    assert_eq!(rig.proxy.count(TERMINATE, &ids[0]), 3);
    assert_eq!(rig.size(&rig.groups()[0]).await, (0, 0));
}

#[tokio::test]
async fn a_list_without_its_last_page_is_no_list() {
    let Some(rig) = Rig::with_groups(&[2, 2], json!({})).await else { return };
    let plugin = rig.start().await;
    let ids = add(&plugin, 3).await;
    // Moto makes pages of one group.
    rig.proxy.fail(DESCRIBE, "", 1_000, Fault::Add("MaxRecords=1"));
    assert_eq!(running(&plugin).await, ids);
    rig.proxy.fail_first(DESCRIBE, "NextToken", 2, Proxy::error(403, "AccessDenied", "not now"));
    let error = plugin.update(LIMIT).await.expect_err("a part").to_string();
    assert!(error.contains("AccessDenied: not now") && error.contains("--iam-policy"), "{error}");
    assert!(plugin.decrease(ids.clone(), LIMIT).await.is_err());
    assert_eq!(rig.proxy.count(TERMINATE, ""), 0);
    assert_eq!(running(&plugin).await, ids);
}

#[tokio::test]
async fn errors_of_aws_are_told_and_change_nothing() {
    let Some(rig) = Rig::new(json!({})).await else { return };
    let plugin = rig.start().await;
    let ids = add(&plugin, 2).await;
    let of_ec2 = Proxy::ec2_error(500, "InternalError", "broken");
    let of_scaling = Proxy::error(500, "InternalFailure", "broken");
    for (action, fault) in [(DESCRIBE, of_scaling), ("DescribeInstances", of_ec2.clone())] {
        rig.proxy.fail(action, "", 5, fault);
        let error = plugin.update(LIMIT).await.expect_err("no list").to_string();
        assert!(error.contains(action) && error.contains("broken"), "{error}");
    }
    rig.proxy.fail("DescribeInstanceStatus", "", 5, of_ec2);
    plugin.heartbeat(&ids[0], LIMIT).await.expect("not known to be ill");
    assert_eq!(running(&plugin).await, ids);
}

#[tokio::test]
async fn an_answer_that_is_lost_does_not_end_two() {
    let Some(rig) = Rig::new(json!({})).await else { return };
    let plugin = rig.start().await;
    let ids = add(&plugin, 3).await;
    let one = vec![ids[0].clone()];
    rig.proxy.fail(TERMINATE, "", 1, Fault::Lost);
    plugin.decrease(one.clone(), LIMIT).await.expect_err("not known");
    assert_eq!(plugin.decrease(one.clone(), LIMIT).await.expect("gone"), one);
    assert_eq!(rig.proxy.count(TERMINATE, ""), 1);
    assert_eq!(rig.size(&rig.groups()[0]).await, (2, 2));
    // The next wish counts from what is left.
    add(&plugin, 1).await;
    assert_eq!(rig.size(&rig.groups()[0]).await, (3, 3));
}

#[tokio::test]
async fn a_wish_whose_answer_is_lost_is_not_doubled() {
    let Some(rig) = Rig::new(json!({})).await else { return };
    let plugin = rig.start().await;
    rig.proxy.fail("SetDesiredCapacity", "", 1, Fault::Lost);
    assert_eq!(plugin.increase(2, LIMIT).await.expect("made again"), 2);
    assert_eq!(rig.size(&rig.groups()[0]).await, (2, 2));
}

#[tokio::test]
async fn a_shortage_moves_the_wish_to_the_next_group() {
    let reason = "We currently do not have sufficient t3.micro capacity in the Availability Zone \
                  you requested (us-east-1a). Launching EC2 instance failed.";
    let Some(rig) = Rig::with_groups(&[5, 3], json!({"cool_down": "60m"})).await else { return };
    logs();
    let groups = rig.groups();
    let plugin = rig.start().await;
    let first = format!("AutoScalingGroupName={}&", groups[0]);
    rig.proxy.fail("SetDesiredCapacity", &first, 1, accepted());
    rig.proxy.fail("DescribeScalingActivities", &first, 1, failed_launches(reason));
    assert_eq!(plugin.increase(2, LIMIT).await.expect("accepted"), 2);
    let ids = until(async || {
        let ids = running(&plugin).await;
        (ids.len() == 2).then_some(ids)
    })
    .await;
    assert_eq!((rig.size(&groups[0]).await, rig.size(&groups[1]).await), ((0, 0), (2, 2)));
    await_log("AWS cannot launch, passed over: We currently do not have sufficient").await;
    // It is passed over for an hour.
    assert_eq!(plugin.increase(5, LIMIT).await.expect("a part"), 1);
    let error = plugin.increase(1, LIMIT).await.expect_err("nowhere").to_string();
    assert!(
        error.contains("do not have sufficient") && error.contains("3 of at most 3"),
        "{error}"
    );
    assert!(ids.iter().all(|id| !id.is_empty()));
    assert_eq!(list(&plugin).await.len(), 3);
}

#[tokio::test]
async fn a_group_without_protection_keeps_its_wish() {
    let Some(rig) = Rig::with_groups(&[5, 3], json!({})).await else { return };
    logs();
    let groups = rig.groups();
    let spoil = rig.autoscaling.update_auto_scaling_group().auto_scaling_group_name(&groups[0]);
    spoil.new_instances_protected_from_scale_in(false).send().await.expect("changed");
    let plugin = rig.start().await;
    let first = format!("AutoScalingGroupName={}&", groups[0]);
    rig.proxy.fail("SetDesiredCapacity", &first, 1, accepted());
    let reason = "VcpuLimitExceeded - more vCPU than your limit";
    rig.proxy.fail("DescribeScalingActivities", &first, 1, failed_launches(reason));
    assert_eq!(plugin.increase(2, LIMIT).await.expect("accepted"), 2);
    until(async || {
        list(&plugin).await;
        (rig.proxy.count("DescribeScalingActivities", &first) > 0).then_some(())
    })
    .await;
    await_log("so the wish is not taken back").await;
    assert_eq!(rig.proxy.count("SetDesiredCapacity", &first), 1);
    assert_eq!(rig.size(&groups[1]).await, (0, 0));
}

#[tokio::test]
async fn missing_credentials_are_said_in_one_line() {
    let Some(mut rig) = Rig::new(json!({})).await else { return };
    rig.environment.clear();
    let refusal = rig.refusal().await;
    assert!(
        refusal.contains(DESCRIBE) && refusal.to_lowercase().contains("credential"),
        "{refusal}"
    );
    rig.config["credentials_file"] = "/nowhere/keys".into();
    let refusal = rig.refusal().await;
    assert!(refusal.contains("credentials_file = \"/nowhere/keys\""), "{refusal}");
}
