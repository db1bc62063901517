//! The made-up provider: numbered instances in a file, which outlives the process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fault::Fault;

/// How long an instance is creating.
const BOOT: Duration = Duration::from_millis(300);

/// The instances: id to the millisecond of their creation, and whether they are suspended.
#[derive(Debug)]
pub(crate) struct Cloud {
    fault: Fault,
    file: PathBuf,
    instances: BTreeMap<String, (u64, bool)>,
    next: u64,
}

impl Cloud {
    pub(crate) fn open(fault: Fault, file: PathBuf) -> Self {
        let mut cloud = Self { fault, file, instances: BTreeMap::new(), next: 1 };
        let text = std::fs::read_to_string(&cloud.file).unwrap_or_default();
        for line in text.lines().filter(|_| fault != Fault::OnlyInMemory) {
            let fields: Vec<&str> = line.split(' ').collect();
            match fields.as_slice() {
                ["next", next] => cloud.next = next.parse().unwrap_or(1),
                [id, at, suspended] => {
                    let at = at.parse().unwrap_or(0);
                    cloud.instances.insert((*id).to_owned(), (at, *suspended == "suspended"));
                }
                _ => {}
            }
        }
        if fault == Fault::SavesAtShutdown {
            let _ = std::fs::remove_file(&cloud.file);
        }
        cloud
    }

    fn changed(&self) {
        if ![Fault::SavesAtShutdown, Fault::OnlyInMemory].contains(&self.fault) {
            self.save();
        }
    }

    pub(crate) fn save(&self) {
        let mut text = format!("next {}\n", self.next);
        for (id, (at, suspended)) in &self.instances {
            let state = if *suspended { "suspended" } else { "up" };
            text += &format!("{id} {at} {state}\n");
        }
        let new = self.file.with_extension(format!("{}.new", std::process::id()));
        std::fs::write(&new, text).expect("the state can be written");
        std::fs::rename(new, &self.file).expect("the state can be replaced");
    }

    pub(crate) fn create(&mut self, n: u32) {
        for _ in 0..n {
            self.instances.insert(format!("i-{}", self.next), (now_ms(), false));
            self.next += 1;
        }
        self.changed();
    }

    pub(crate) fn delete(&mut self, id: &str) -> bool {
        let was = self.instances.remove(id).is_some();
        self.changed();
        was
    }

    pub(crate) fn delete_all(&mut self) {
        self.instances.clear();
        self.changed();
    }

    pub(crate) fn suspend(&mut self, ids: &[String], suspended: bool) -> Vec<String> {
        let mut taken = Vec::new();
        for id in ids {
            if let Some(instance) = self.instances.get_mut(id) {
                instance.1 = suspended;
                taken.push(id.clone());
            }
        }
        self.changed();
        taken
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.instances.contains_key(id)
    }

    /// Ids and numbers of states.
    pub(crate) fn list(&self) -> Vec<(String, i32)> {
        let state = |at: u64, suspended: bool| match suspended {
            true => 6,
            _ if self.fault == Fault::NeverBoots => 0,
            _ if now_ms() < at + BOOT.as_millis() as u64 => {
                if self.fault == Fault::OddState {
                    99
                } else {
                    0
                }
            }
            _ => 1,
        };
        let listed = self.instances.iter();
        listed.map(|(id, (at, suspended))| (id.clone(), state(*at, *suspended))).collect()
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}
