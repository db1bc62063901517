//! Nothing is left of a plugin that was killed in the middle of a call.
//! `local/tests/support/killing.rs` says how, and what `MAYFLY_KILL_POINTS` is.

#[path = "../../local/tests/support/killing.rs"]
mod killing;
#[expect(dead_code, reason = "for machines of which processes are known")]
#[path = "../../local/tests/support/shared.rs"]
mod shared;
mod support;

use aws_sdk_ec2::types::{Filter, Instance, InstanceStateName, Reservation};
use killing::{Killable, nothing_is_left_after_a_refusal, nothing_is_left_after_kills};
use mayfly_plugin::host::{Plugin, StartError};
use serde_json::json;
use support::proxy::Proxy;
use support::{LIMIT, Rig};

impl Killable for Rig {
    async fn begin(&self) -> Result<Plugin, StartError> {
        self.try_start().await
    }

    fn marker(&self) -> String {
        format!("HOME={}", self.directory.path().display())
    }

    fn binary(&self) -> &'static str {
        "fleeting-plugin-aws"
    }

    /// Wishes of groups, and machines that somebody pays for.
    async fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for name in self.groups() {
            let (wish, instances) = self.size(&name).await;
            if wish != 0 || instances != 0 {
                left.push(format!("{name}: {instances} of {wish} instances"));
            }
            let of_group = Filter::builder().name("tag:aws:autoscaling:groupName").values(name);
            let shown = self.ec2.describe_instances().filters(of_group.build()).send().await;
            let shown = shown.expect("a list");
            let machines = shown.reservations().iter().flat_map(Reservation::instances);
            left.extend(machines.filter(|machine| costs(machine)).map(|one| format!("{one:?}")));
        }
        left
    }
}

fn costs(machine: &Instance) -> bool {
    let state = machine.state().and_then(|state| state.name());
    !matches!(state, Some(InstanceStateName::Terminated | InstanceStateName::ShuttingDown))
}

#[tokio::test]
async fn instances_of_groups() {
    let Some(rig) = Rig::new(json!({})).await else { return };
    nothing_is_left_after_kills(&rig).await;
}

#[tokio::test]
async fn bad_credentials_and_a_service_that_is_down() {
    let Some(mut rig) = Rig::new(json!({})).await else { return };
    let refused = Proxy::error(403, "InvalidClientTokenId", "the token is not valid");
    rig.proxy.fail("DescribeAutoScalingGroups", "", 100, refused);
    nothing_is_left_after_a_refusal(&rig).await;
    rig.config["endpoint"] = "http://127.0.0.1:1".into();
    nothing_is_left_after_a_refusal(&rig).await;
}
