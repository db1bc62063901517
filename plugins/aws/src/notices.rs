//! Notices of AWS about Spot instances, from a queue that an EventBridge rule fills.
//!
//! An instance that AWS will take, or has at risk, gets no further job: it is no longer
//! fit. The job that it has goes on, for the two minutes that AWS gives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use crate::cloud::Cloud;
use crate::failure::{Failure, failed};

/// How long one request waits for notices; the longest that SQS knows.
const WAIT_SECONDS: i32 = 20;
/// Waiting beyond the limit of other calls.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a request that failed.
const PAUSE: Duration = Duration::from_secs(15);

/// What AWS says of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It ends within two minutes.
    Interruption,
    /// It is likelier than others to end.
    Rebalance,
}

/// What was said of the instances of our groups.
#[derive(Default)]
pub(crate) struct Notices {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    ours: BTreeSet<String>,
    said: BTreeMap<String, Notice>,
}

/// An event of EventBridge, as far as it matters.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "detail-type")]
    kind: String,
    detail: Detail,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(rename = "instance-id")]
    instance: String,
}

/// What becomes of a message.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It is about one of our instances.
    Ours(String, Notice),
    /// It is about another one: perhaps of another reader of the queue.
    Leave,
    /// It is no notice.
    Drop,
}

impl Notices {
    /// These are the instances now; the rest is forgotten.
    pub(crate) fn instances_are(&self, ids: &[String]) {
        let mut known = self.known();
        known.ours = ids.iter().cloned().collect();
        let Known { ours, said } = &mut *known;
        said.retain(|id, _| ours.contains(id));
    }

    /// What AWS said of an instance.
    pub(crate) fn about(&self, id: &str) -> Option<Notice> {
        self.known().said.get(id).copied()
    }

    fn judge(&self, body: &str) -> Fate {
        let Ok(event) = serde_json::from_str::<Event>(body) else { return Fate::Drop };
        let notice = match event.kind.as_str() {
            "EC2 Spot Instance Interruption Warning" => Notice::Interruption,
            "EC2 Instance Rebalance Recommendation" => Notice::Rebalance,
            _ => return Fate::Drop,
        };
        match self.known().ours.contains(&event.detail.instance) {
            true => Fate::Ours(event.detail.instance, notice),
            false => Fate::Leave,
        }
    }

    fn note(&self, id: &str, notice: Notice) {
        tracing::warn!(instance = id, ?notice, "AWS gave notice: no further job for it");
        self.known().said.insert(id.to_owned(), notice);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the queue until the task is aborted.
pub(crate) async fn read(cloud: Arc<Cloud>, queue: String, notices: Arc<Notices>) {
    let mut is_broken = false;
    loop {
        match receive(&cloud, &queue, &notices).await {
            Ok(()) => is_broken = false,
            Err(failure) => {
                if !is_broken {
                    tracing::warn!("no notices about Spot instances: {failure}");
                }
                is_broken = true;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn receive(cloud: &Cloud, queue: &str, notices: &Notices) -> Result<(), Failure> {
    let request = cloud
        .queue
        .receive_message()
        .queue_url(queue)
        .max_number_of_messages(10)
        .wait_time_seconds(WAIT_SECONDS);
    let wait = Duration::from_secs(WAIT_SECONDS.unsigned_abs().into()) + PATIENCE;
    let timeouts =
        aws_config::timeout::TimeoutConfig::builder().operation_attempt_timeout(wait).build();
    let patient = aws_sdk_sqs::Config::builder().timeout_config(timeouts);
    let received = request.customize().config_override(patient).send().await;
    let received = received.map_err(|error| failed("ReceiveMessage", &error))?;
    for message in received.messages() {
        match notices.judge(message.body().unwrap_or_default()) {
            Fate::Ours(id, notice) => notices.note(&id, notice),
            Fate::Leave => continue,
            Fate::Drop => {}
        }
        if let Some(handle) = message.receipt_handle() {
            let request = cloud.queue.delete_message().queue_url(queue).receipt_handle(handle);
            request.send().await.map_err(|error| failed("DeleteMessage", &error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, id: &str) -> String {
        serde_json::json!({"detail-type": kind, "detail": {"instance-id": id}}).to_string()
    }

    #[test]
    fn notices_about_our_instances_are_kept() {
        let notices = Notices::default();
        notices.instances_are(&["i-1".into(), "i-2".into()]);
        let warning = event("EC2 Spot Instance Interruption Warning", "i-1");
        assert_eq!(notices.judge(&warning), Fate::Ours("i-1".into(), Notice::Interruption));
        let advice = event("EC2 Instance Rebalance Recommendation", "i-2");
        assert_eq!(notices.judge(&advice), Fate::Ours("i-2".into(), Notice::Rebalance));
        notices.note("i-1", Notice::Interruption);
        assert_eq!(notices.about("i-1"), Some(Notice::Interruption));
        assert_eq!(notices.about("i-2"), None);
        notices.instances_are(&["i-2".into()]);
        assert_eq!(notices.about("i-1"), None, "it is gone");
    }

    #[test]
    fn what_is_not_for_us_is_left_or_dropped() {
        let notices = Notices::default();
        let foreign = event("EC2 Spot Instance Interruption Warning", "i-9");
        assert_eq!(notices.judge(&foreign), Fate::Leave);
        assert_eq!(notices.judge(&event("EC2 Instance State-change", "i-9")), Fate::Drop);
        assert_eq!(notices.judge("no JSON"), Fate::Drop);
    }
}
