//! What the operator allows: so many instances, so many instance-hours a day.

use std::time::{SystemTime, UNIX_EPOCH};

use mayfly_plugin::Error;

use crate::config::Limits;
use crate::meter::Meter;
use crate::state_file::StateFile;

/// The file may be so far behind: the next plugin charges for the time by itself.
const BEHIND_MS: u64 = 10_000;

/// The caps and what of them is used.
#[derive(Debug)]
pub(crate) struct Caps {
    limits: Limits,
    meter: Meter,
    file: Option<StateFile>,
    written: Meter,
    /// Why the file cannot be written: then nobody knows what a day has cost.
    fault: Option<String>,
    has_said_full: bool,
    has_said_spent: bool,
}

impl Caps {
    /// Reads what the day has cost so far, where that is limited.
    pub(crate) fn open(limits: Limits) -> Result<Self, String> {
        let opened = limits.state_file.as_deref().map(StateFile::open::<Meter>).transpose()?;
        let (file, meter) = opened.unzip();
        let meter = meter.unwrap_or_default();
        Ok(Self {
            limits,
            written: meter.clone(),
            meter,
            file,
            fault: None,
            has_said_full: false,
            has_said_spent: false,
        })
    }

    /// Charges for the time since the last look; so many instances cost from now on.
    pub(crate) fn look(&mut self, costing: u32) {
        let Some(file) = &self.file else { return };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.meter.look(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX), costing);
        if !self.meter.differs(&self.written, BEHIND_MS) && self.fault.is_none() {
            return;
        }
        match file.write(&self.meter) {
            Ok(()) => (self.written, self.fault) = (self.meter.clone(), None),
            Err(why) => {
                if self.fault.is_none() {
                    tracing::error!(why, "cannot write down what the day costs");
                }
                self.fault = Some(why);
            }
        }
    }

    /// How many of `n` may be asked for where `existing` exist or may come.
    pub(crate) fn allow(&mut self, n: u32, existing: u32) -> Result<u32, Error> {
        if let Some(why) = &self.fault {
            return Err(Error::new(format!(
                "{why}: without it max_instance_hours_per_day cannot be kept, so that no instance \
                 is made"
            )));
        }
        self.spent()?;
        let Some(most) = self.limits.max_instances else { return Ok(n) };
        let room = most.saturating_sub(existing);
        let binds = format!("max_instances = {most} binds: {existing} exist or are asked for");
        let is_short = room < n;
        if is_short && !std::mem::replace(&mut self.has_said_full, is_short) {
            tracing::warn!(asked = n, allowed = room, "{binds}");
        }
        self.has_said_full = is_short;
        if room == 0 { Err(Error::new(binds)) } else { Ok(room.min(n)) }
    }

    fn spent(&mut self) -> Result<(), Error> {
        let Some(most) = self.limits.max_hours else { return Ok(()) };
        let hours = self.meter.hours();
        let is_spent = hours >= most;
        let binds = format!(
            "max_instance_hours_per_day = {most} binds: {hours:.2} hours are spent since midnight \
             UTC, no instance is made until the next"
        );
        if is_spent && !std::mem::replace(&mut self.has_said_spent, true) {
            tracing::warn!("{binds}");
        }
        self.has_said_spent = is_spent;
        if is_spent { Err(Error::new(binds)) } else { Ok(()) }
    }
}
