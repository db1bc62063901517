//! What the operator allows: so many instances, so many instance-hours and so much money a
//! day.

use mayfly_plugin::Error;

use crate::config::Limits;
use crate::ledger::Ledger;

/// The caps, the books that they are kept by, and which caps the operator was told about.
#[derive(Debug)]
pub(crate) struct Caps {
    limits: Limits,
    pub(crate) ledger: Ledger,
    has_said_full: bool,
    has_said_hours: bool,
    has_said_cost: bool,
}

impl Caps {
    pub(crate) fn new(limits: Limits, ledger: Ledger) -> Self {
        Self { limits, ledger, has_said_full: false, has_said_hours: false, has_said_cost: false }
    }

    /// How many of `n` may be asked for where `existing` exist or may come.
    pub(crate) fn allow(&mut self, n: u32, existing: u32) -> Result<u32, Error> {
        if let (Some(why), Some(key)) = (self.ledger.fault(), self.limits.key_of_a_day()) {
            return Err(Error::new(format!(
                "{why}: without it {key} cannot be kept, so that no instance is made"
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

    /// An error that names each cap of the day that binds.
    fn spent(&mut self) -> Result<(), Error> {
        let meter = self.ledger.meter();
        let (hours, cost) = (meter.hours(), meter.cost());
        let since = "since midnight UTC, no instance is made until the next";
        let hours_bind = self.limits.max_hours.filter(|most| hours >= *most).map(|most| {
            format!("max_instance_hours_per_day = {most} binds: {hours:.2} hours are spent {since}")
        });
        let cost_binds = self.limits.max_cost.filter(|most| cost >= *most).map(|most| {
            let costs = meter.costs();
            format!("max_cost_per_day = {most} binds: {cost:.2} is spent ({costs}) {since}")
        });
        say_once(&mut self.has_said_hours, hours_bind.as_deref());
        say_once(&mut self.has_said_cost, cost_binds.as_deref());
        let binds: Vec<String> = hours_bind.into_iter().chain(cost_binds).collect();
        if binds.is_empty() { Ok(()) } else { Err(Error::new(binds.join("; "))) }
    }
}

fn say_once(has_said: &mut bool, binds: Option<&str>) {
    if let Some(binds) = binds.filter(|_| !*has_said) {
        tracing::warn!("{binds}");
    }
    *has_said = binds.is_some();
}
