//! Which images jobs used lately, and which instances have them: a job is rather placed
//! where its image is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use scheduler::fleet::{Instance, InstanceId};

use super::{Group, Inner};
use crate::connect::Docker;

/// Images that a new instance should have: what a project or two use.
const RECENT: usize = 8;
/// Images that are remembered of one instance.
const PER_INSTANCE: usize = 64;

/// What is known of images.
#[derive(Default)]
pub(super) struct Images {
    /// The latest first.
    recent: VecDeque<String>,
    on: BTreeMap<InstanceId, BTreeSet<String>>,
}

impl Images {
    fn note(&mut self, instance: &InstanceId, images: impl IntoIterator<Item = String>) {
        let on = self.on.entry(instance.clone()).or_default();
        on.extend(images);
        while on.len() > PER_INSTANCE {
            on.pop_first();
        }
    }

    pub(super) fn forget(&mut self, instance: &InstanceId) {
        self.on.remove(instance);
    }
}

impl Inner {
    /// Instances that are not known to have an image; none where none has.
    pub(super) fn without_image(&self, image: &str) -> Option<Vec<InstanceId>> {
        let has = |id: &&InstanceId| self.images.on.get(id).is_some_and(|on| on.contains(image));
        let ids: Vec<&InstanceId> = self.fleet.instances().map(Instance::id).collect();
        let without = ids.iter().copied().filter(|id| !has(id)).cloned().collect::<Vec<_>>();
        (without.len() < ids.len()).then_some(without)
    }
}

impl Group {
    /// A job on this instance uses these images; with each, whether others may pull it.
    pub(crate) fn used_images(&self, instance: &InstanceId, images: Vec<(String, bool)>) {
        let mut inner = self.lock();
        for (image, _) in images.iter().filter(|(_, may_be_pulled)| *may_be_pulled) {
            inner.images.recent.retain(|known| known != image);
            inner.images.recent.push_front(image.clone());
        }
        inner.images.recent.truncate(RECENT);
        inner.images.note(instance, images.into_iter().map(|(image, _)| image));
    }

    /// What the preparation of an instance does with its Docker; `None` where jobs are
    /// processes.
    pub(super) fn docker_of(&self, id: &InstanceId) -> Option<Docker> {
        let host = self.tuning().docker_host.clone()?;
        let mut inner = self.lock();
        let images: Vec<String> = inner.images.recent.iter().cloned().collect();
        inner.images.note(id, images.clone());
        Some(Docker { instance: id.0.clone(), host, images })
    }
}
