//! Carries out the steps of suspends and resumes that a list has shown to be due.

use std::collections::BTreeMap;

use crate::cloud::Cloud;
use crate::failure::Failure;
use crate::machines;
use crate::scaling;
use crate::standing::Step;

/// AWS's limit of instances in one call of EnterStandby and ExitStandby.
const AT_ONCE: usize = 20;

/// Takes each step for the instances of each group. What fails is due again in the next list.
pub(crate) async fn take(cloud: &Cloud, steps: BTreeMap<(&str, Step), Vec<String>>) {
    for ((group, step), ids) in steps {
        for ids in ids.chunks(AT_ONCE) {
            if let Err(failure) = one(cloud, group, step, ids).await {
                tracing::warn!(group, ?step, instances = ids.join(" "), "{failure}");
            }
        }
    }
}

async fn one(cloud: &Cloud, group: &str, step: Step, ids: &[String]) -> Result<(), Failure> {
    match step {
        Step::EnterStandby => scaling::enter_standby(cloud, group, ids).await,
        Step::ExitStandby => scaling::exit_standby(cloud, group, ids).await,
        Step::Stop => machines::stop(cloud, ids, false).await,
        Step::Hibernate => machines::stop(cloud, ids, true).await,
        Step::Start => machines::start(cloud, ids).await,
    }
}
