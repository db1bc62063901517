//! What a seed stands for: the numbers of a group, how its provider behaves and what goes
//! wrong when.
//!
//! Everything random comes from one seeded generator, so a seed is a whole history. Bounds
//! that the scheduler counts on are kept here: what a call did shows within 55 s of it, an
//! error's effect within 5 s of the error, no list omits an instance three times in a row.

use std::time::Duration;

use jiff::tz::TimeZone;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use scheduler::limits::{Limits, Throttle};
use scheduler::period::Period;
use scheduler::policy::Policy;
use scheduler::time::Moment;

/// Milliseconds of simulated time.
pub(crate) type Ms = u64;

pub(crate) const SECOND: Ms = 1_000;
pub(crate) const MINUTE: Ms = 60 * SECOND;
/// A call's effect is listed no later than this after it reached the provider.
pub(crate) const EFFECT_SHOWS: Ms = 55 * SECOND;
/// An error's effect is listed no later than this after the error was heard.
pub(crate) const HEARD_EFFECT_SHOWS: Ms = 4_900;

pub(crate) fn moment(at: Ms) -> Moment {
    Moment(Duration::from_millis(at))
}

pub(crate) fn ms(duration: Duration) -> Ms {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The seeded source of all chance.
pub(crate) struct Dice(SmallRng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.0.random_bool(probability.min(1.0))
    }

    /// Both ends included.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0.random_range(from..=to.max(from))
    }

    pub(crate) fn count(&mut self, from: u32, to: u32) -> u32 {
        self.0.random_range(from..=to.max(from))
    }

    pub(crate) fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from * SECOND, to * SECOND))
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let last = from.len() as u64 - 1;
        from[usize::try_from(self.between(0, last)).unwrap_or_default()].clone()
    }

    /// As often short as long: jobs and pauses differ by orders of magnitude.
    pub(crate) fn spread(&mut self, from: Ms, to: Ms) -> Ms {
        let doublings = u64::from((to / from.max(1)).max(1).ilog2());
        let base = from << self.between(0, doublings);
        self.between(base, base * 2).min(to)
    }

    /// Mostly none, else up to `most`.
    fn rate(&mut self, often: f64, most: f64) -> f64 {
        if self.chance(often) { self.0.random_range(0.0..most) } else { 0.0 }
    }
}

/// How the provider and the instances behave. Rates are per call, instance or job.
#[derive(Clone, Default)]
pub(crate) struct Behaviour {
    pub(crate) list_fails: f64,
    pub(crate) list_hangs: f64,
    pub(crate) list_omits: f64,
    pub(crate) list_repeats: f64,
    pub(crate) list_strangers: f64,
    pub(crate) create_partly: f64,
    pub(crate) create_fails: f64,
    pub(crate) create_fails_with_effect: f64,
    pub(crate) create_hangs: f64,
    pub(crate) create_lies: f64,
    pub(crate) delete_fails: f64,
    pub(crate) delete_partly: f64,
    pub(crate) delete_lies: f64,
    pub(crate) delete_hangs: f64,
    pub(crate) never_boots: f64,
    pub(crate) reports_timeout: f64,
    pub(crate) unfit: f64,
    pub(crate) slow_to_reach: f64,
    pub(crate) slot_fails: f64,
    pub(crate) killed: f64,
    pub(crate) interrupted: f64,
    pub(crate) connection_lost: f64,
    pub(crate) never_returns: f64,
    pub(crate) crash: f64,
    pub(crate) write_fails: f64,
    /// Between deciding and acting a job takes a slot.
    pub(crate) races: f64,
}

impl Behaviour {
    fn draw(dice: &mut Dice, storm: bool) -> Self {
        let often = if storm { 0.6 } else { 0.25 };
        let much = if storm { 2.0 } else { 1.0 };
        Self {
            list_fails: dice.rate(often, 0.1 * much),
            list_hangs: dice.rate(often, 0.01 * much),
            list_omits: dice.rate(often, 0.15 * much),
            list_repeats: dice.rate(often, 0.1),
            list_strangers: dice.rate(often / 4.0, 0.002),
            create_partly: dice.rate(often, 0.3 * much),
            create_fails: dice.rate(often, 0.2 * much),
            create_fails_with_effect: dice.rate(often, 0.2 * much),
            create_hangs: dice.rate(often, 0.2 * much),
            create_lies: dice.rate(often, 0.1),
            delete_fails: dice.rate(often, 0.2 * much),
            delete_partly: dice.rate(often, 0.2 * much),
            delete_lies: dice.rate(often, 0.1 * much),
            delete_hangs: dice.rate(often, 0.1 * much),
            never_boots: dice.rate(often, 0.3 * much),
            reports_timeout: dice.rate(often, 0.1 * much),
            unfit: dice.rate(often, 0.1 * much),
            slow_to_reach: dice.rate(often, 0.3),
            slot_fails: dice.rate(often, 0.2),
            killed: dice.rate(often, 0.2 * much),
            interrupted: dice.rate(often, 0.2),
            connection_lost: dice.rate(often, 0.3 * much),
            never_returns: dice.rate(often, 0.5),
            crash: dice.rate(often, 0.003 * much),
            write_fails: dice.rate(often / 2.0, 0.02),
            races: 0.2,
        }
    }
}

/// Something that happens once, at its time.
#[derive(Clone, Debug)]
pub(crate) enum Disturbance {
    Retune,
    Crash,
    Sigterm,
    StateLost,
    WallJump(i64),
    PluginRestart(Ms),
    KillOne,
    Outage(Ms),
    /// Only lists fail.
    Blind(Ms),
    LoseConnections,
    Operator,
}

/// How fast the provider is, whatever goes wrong.
#[derive(Clone)]
pub(crate) struct Pace {
    pub(crate) list: (Ms, Ms),
    pub(crate) call: (Ms, Ms),
    pub(crate) boot: (Ms, Ms),
    /// Longest time from a call to its instances being made.
    pub(crate) born: Ms,
    /// From being made to being listed.
    pub(crate) shows: (Ms, Ms),
    pub(crate) prepare: (Ms, Ms),
    pub(crate) vanish: (Ms, Ms),
    pub(crate) shows_deleted: bool,
}

/// A whole history before it happens.
pub(crate) struct Setup {
    pub(crate) calm: bool,
    pub(crate) limits: Limits,
    pub(crate) policies: Vec<Policy>,
    pub(crate) wall_s: i64,
    pub(crate) update_interval: Ms,
    pub(crate) update_expecting: Ms,
    pub(crate) acquire_timeout: Ms,
    pub(crate) loops: u32,
    pub(crate) behaviour: Behaviour,
    pub(crate) pace: Pace,
    pub(crate) timeline: Vec<(Ms, Disturbance)>,
    pub(crate) arrivals: Vec<(Ms, Ms)>,
    /// Jobs in all, those included that come between deciding and acting.
    pub(crate) most_jobs: usize,
    pub(crate) heal_at: Ms,
    pub(crate) deletes_all: bool,
    pub(crate) ends_early: bool,
}

impl Setup {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let weather = dice.between(0, 9);
        let calm = weather < 2;
        let heal_at = dice.spread(6 * MINUTE, 100 * MINUTE);
        let pace = pace(dice);
        let behaviour = if calm {
            Behaviour { races: 0.2, create_partly: dice.rate(0.3, 0.3), ..Behaviour::default() }
        } else {
            Behaviour::draw(dice, weather > 6)
        };
        let timeline = if calm { Vec::new() } else { timeline(dice, heal_at) };
        Self {
            calm,
            limits: limits(dice),
            policies: policies(dice),
            // Within a year in which clocks are changed twice.
            wall_s: 1_767_225_600 + i64::try_from(dice.between(0, 365 * 86_400)).unwrap_or(0),
            update_interval: dice.between(20 * SECOND, 90 * SECOND),
            update_expecting: dice.between(SECOND, 5 * SECOND),
            acquire_timeout: dice.between(5 * MINUTE, 40 * MINUTE),
            loops: dice.count(1, 4),
            behaviour,
            pace,
            timeline,
            arrivals: arrivals(dice, heal_at),
            most_jobs: 250,
            heal_at,
            deletes_all: dice.chance(0.2),
            ends_early: dice.chance(0.15),
        }
    }
}

fn pace(dice: &mut Dice) -> Pace {
    let boot = dice.spread(SECOND, 60 * SECOND);
    let list = dice.spread(5, 2_000);
    let vanish = dice.spread(100, 60 * SECOND);
    let shows = if dice.chance(0.3) { dice.between(0, 20 * SECOND) } else { 0 };
    Pace {
        list: (list, list * 3),
        call: (20, dice.spread(100, 10 * SECOND)),
        boot: (boot, boot * 2),
        born: 2 * SECOND,
        shows: (0, shows),
        prepare: (20, dice.spread(100, 10 * SECOND)),
        vanish: (vanish, vanish * 2),
        shows_deleted: dice.chance(0.3),
    }
}

pub(crate) fn limits(dice: &mut Dice) -> Limits {
    let throttle = if dice.chance(0.5) {
        Throttle::Unlimited
    } else {
        Throttle::PerSecond { limit: dice.count(1, 5), burst: dice.count(1, 10) }
    };
    let bounded_by_us = dice.chance(0.9);
    Limits {
        capacity: dice.count(1, 4),
        max_use_count: if dice.chance(0.5) { 0 } else { dice.count(1, 5) },
        max_instances: if bounded_by_us { dice.count(1, 12) } else { 0 },
        provider_max_size: if bounded_by_us { 1_000 } else { dice.count(3, 15) },
        throttle,
        boot_deadline: dice.seconds(200, 900),
        prepare_deadline: dice.seconds(60, 600),
        reconnect_deadline: dice.seconds(30, 120),
        deletion_retry: dice.seconds(20, 120),
    }
}

/// What an operator may change while the group runs; the provider's part stays.
pub(crate) fn retuned(dice: &mut Dice, before: &Limits) -> Limits {
    let drawn = limits(dice);
    let mut after = before.clone();
    if dice.chance(0.6) && before.max_instances > 0 {
        after.max_instances = dice.count(1, 12);
    }
    if dice.chance(0.3) {
        after.capacity = drawn.capacity;
    }
    if dice.chance(0.3) {
        after.max_use_count = drawn.max_use_count;
    }
    if dice.chance(0.3) {
        after.throttle = drawn.throttle;
    }
    after
}

pub(crate) fn policies(dice: &mut Dice) -> Vec<Policy> {
    const PERIODS: &[&str] =
        &["* 8-17 * * mon-fri", "* 22-5 * * *", "*/2 * * * *", "0-29 * * * *", "* * * * sat,sun"];
    const ZONES: &[&str] = &["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"];
    let mut policies = Vec::new();
    for _ in 0..dice.between(0, 3) {
        let mut policy = policy(dice);
        if dice.chance(0.5) {
            let period = Period::parse(dice.pick(PERIODS)).expect("a period");
            policy.periods = vec![period];
            policy.timezone = TimeZone::get(dice.pick(ZONES)).expect("a zone");
        }
        policies.push(policy);
    }
    policies
}

pub(crate) fn policy(dice: &mut Dice) -> Policy {
    Policy {
        idle_count: dice.count(0, 5),
        idle_time: if dice.chance(0.1) { Duration::ZERO } else { dice.seconds(5, 600) },
        scale_factor: dice.pick(&[0.0, 0.0, 0.5, 1.2]),
        scale_factor_limit: dice.count(0, 8),
        preemptive_mode: dice.pick(&[None, None, Some(true), Some(false)]),
        ..Policy::default()
    }
}

fn timeline(dice: &mut Dice, until: Ms) -> Vec<(Ms, Disturbance)> {
    let mut timeline = Vec::new();
    for _ in 0..dice.between(0, 8) {
        let at = dice.between(SECOND, until);
        let disturbance = match dice.between(0, 16) {
            0..=3 => Disturbance::Retune,
            4 | 5 => Disturbance::Crash,
            6 | 7 => Disturbance::Sigterm,
            8 => Disturbance::StateLost,
            9 => {
                let jump = i64::try_from(dice.between(0, 4 * 3600)).unwrap_or_default();
                Disturbance::WallJump(jump - 2 * 3600)
            }
            10 | 11 => Disturbance::PluginRestart(dice.spread(50, 2 * MINUTE)),
            12 => Disturbance::KillOne,
            13 => Disturbance::Outage(dice.spread(10 * SECOND, 20 * MINUTE)),
            14 => Disturbance::LoseConnections,
            15 => Disturbance::Blind(dice.spread(MINUTE, 30 * MINUTE)),
            _ => Disturbance::Operator,
        };
        timeline.push((at, disturbance));
    }
    timeline
}

/// When jobs come and how long each runs: calm stretches, bursts, and long quiet.
fn arrivals(dice: &mut Dice, until: Ms) -> Vec<(Ms, Ms)> {
    let longest = dice.spread(10 * SECOND, 20 * MINUTE);
    let mut arrivals = Vec::new();
    let mut at = dice.spread(SECOND, 5 * MINUTE);
    while at < until && arrivals.len() < 150 {
        match dice.between(0, 3) {
            0 => {
                for _ in 0..dice.between(3, 30) {
                    arrivals.push((at + dice.between(0, 5 * SECOND), dice.spread(500, longest)));
                }
            }
            1 => at += dice.between(5 * MINUTE, 30 * MINUTE),
            _ => {
                for _ in 0..dice.between(1, 8) {
                    at += dice.spread(SECOND, 2 * MINUTE);
                    arrivals.push((at, dice.spread(500, longest)));
                }
            }
        }
        at += dice.spread(SECOND, 5 * MINUTE);
    }
    arrivals
}
