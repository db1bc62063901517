//! What happens in a run: from a seed, jobs that arrive and things that go wrong. Pure.
//!
//! Each job and each injection is drawn from the seed and its own number alone: a run with
//! fewer jobs is the beginning of the run with all of them.

use std::time::Duration;

/// Jobs of a whole run.
pub(crate) const JOBS: usize = 300;
/// The time between two arrivals, on average.
const BETWEEN_JOBS_MS: u64 = 130;
/// The time between two injections, on average.
const BETWEEN_INJECTIONS_MS: u64 = 1300;
/// Jobs run on for so long after the last one arrived: then, too, things go wrong.
const TAIL_MS: u64 = 8000;

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) jobs: Vec<Job>,
    pub(crate) injections: Vec<Injection>,
}

/// One job. Times are from the start of the run.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) arrives: Duration,
    pub(crate) prints: Prints,
    /// First number of what it prints, 1 to 2³¹ − 2.
    pub(crate) number: u64,
    /// Pieces that it prints in, with pauses between.
    pub(crate) bursts: u32,
    /// The sum of its pauses.
    pub(crate) lasts: Duration,
    pub(crate) exit: u8,
    pub(crate) after_script: bool,
    pub(crate) artifact: bool,
    /// Someone cancels it so long after it arrived.
    pub(crate) canceled: Option<Duration>,
}

/// What a job prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prints {
    Nothing,
    /// A few short lines in each burst.
    Lines,
    /// 1 MiB in all.
    Megabyte,
    /// Lines of 40 kB.
    LongLines,
    /// Bytes that are no text, and a last line without an end.
    NoText,
}

/// One thing that goes wrong, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injection {
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    /// Which one of those that are there.
    pub(crate) pick: u64,
    /// How long it lasts, or how long it takes until someone starts again what was killed.
    pub(crate) lasts: Duration,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ManagerKilled,
    ManagerStopped,
    /// SIGTERM, as at an upgrade.
    ManagerTerminated,
    PluginKilled,
    PluginStopped,
    GuardKilled,
    /// An agent that runs a job.
    AgentKilled,
    AgentStopped,
    /// An agent that waits for a job.
    WaitingAgentKilled,
    WaitingAgentStopped,
    /// One connection of the manager to an instance.
    ConnectionCut,
    AllConnectionsCut,
    /// The process that keeps the instance, or the first one in it.
    InstanceKilled,
    /// Its SSH server: the instance ends.
    ServerKilled,
    /// Its SSH server hangs.
    ServerStopped,
}

/// How often each is drawn, of 100.
const SHARES: [(Kind, u64); 15] = [
    (Kind::ManagerKilled, 18),
    (Kind::ManagerStopped, 7),
    (Kind::ManagerTerminated, 5),
    (Kind::PluginKilled, 9),
    (Kind::PluginStopped, 7),
    (Kind::GuardKilled, 4),
    (Kind::AgentKilled, 7),
    (Kind::AgentStopped, 8),
    (Kind::WaitingAgentKilled, 7),
    (Kind::WaitingAgentStopped, 4),
    (Kind::ConnectionCut, 10),
    (Kind::AllConnectionsCut, 3),
    (Kind::InstanceKilled, 4),
    (Kind::ServerKilled, 2),
    (Kind::ServerStopped, 5),
];

impl Kind {
    /// Its name in reports.
    pub(crate) fn name(self) -> String {
        let mut name = String::new();
        for (at, letter) in format!("{self:?}").chars().enumerate() {
            if letter.is_ascii_uppercase() && at > 0 {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// For how long, in milliseconds from and to.
    fn lasts_ms(self) -> (u64, u64) {
        match self {
            Self::ManagerKilled | Self::ManagerTerminated => (0, 5000),
            Self::PluginStopped => (300, 5000),
            _ => (200, 4000),
        }
    }
}

impl Plan {
    /// The first jobs of a seed's run, and what goes wrong meanwhile.
    pub(crate) fn of(seed: u64, jobs: usize) -> Self {
        let until = BETWEEN_JOBS_MS * jobs as u64 + TAIL_MS;
        let injections = until / BETWEEN_INJECTIONS_MS;
        Self {
            seed,
            jobs: (0..jobs as u64).map(|at| job(seed, at)).collect(),
            injections: (1..=injections).map(|at| injection(seed, at)).collect(),
        }
    }

    /// Tells one plan from another: a number that is committed with the results.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{:08x}", crc32fast::hash(format!("{self:?}").as_bytes()))
    }
}

fn job(seed: u64, at: u64) -> Job {
    let mut dice = Dice::new(seed, at);
    // In crowds of six: there are times with too many jobs and times with none.
    let crowd = at / 6 * 6;
    let arrives = crowd * BETWEEN_JOBS_MS + dice.below(3 * BETWEEN_JOBS_MS);
    let prints = match dice.below(100) {
        0..10 => Prints::Nothing,
        10..75 => Prints::Lines,
        75..81 => Prints::Megabyte,
        81..90 => Prints::LongLines,
        _ => Prints::NoText,
    };
    let lasts = match dice.below(100) {
        0..55 => 100 + dice.below(900),
        55..85 => 1000 + dice.below(2000),
        _ => 3000 + dice.below(5000),
    };
    let artifact = dice.below(100) < 10;
    let fails = dice.below(100) < 35 && !artifact;
    let exit = if fails { 1 + dice.below(120) } else { 0 };
    let is_canceled = dice.below(100) < 8;
    Job {
        arrives: Duration::from_millis(arrives),
        prints,
        number: 1 + dice.below(2_147_483_645),
        bursts: 2 + u32::try_from(dice.below(7)).unwrap_or_default(),
        lasts: Duration::from_millis(lasts),
        exit: u8::try_from(exit).unwrap_or_default(),
        after_script: dice.below(100) < 15,
        artifact,
        canceled: is_canceled.then(|| Duration::from_millis(200 + dice.below(4000))),
    }
}

fn injection(seed: u64, at: u64) -> Injection {
    // Apart from the jobs' numbers.
    let mut dice = Dice::new(seed, 1_000_000 + at);
    let time = at * BETWEEN_INJECTIONS_MS + dice.below(BETWEEN_INJECTIONS_MS);
    let mut drawn = dice.below(SHARES.iter().map(|(_, share)| share).sum());
    let kind = SHARES.iter().find_map(|(kind, share)| {
        let is_it = drawn < *share;
        drawn = drawn.saturating_sub(*share);
        is_it.then_some(*kind)
    });
    let kind = kind.unwrap_or(Kind::ManagerKilled);
    let (least, most) = kind.lasts_ms();
    Injection {
        at: Duration::from_millis(time),
        kind,
        pick: dice.next(),
        lasts: Duration::from_millis(least + dice.below(most - least)),
    }
}

/// SplitMix64: the same numbers in every build, for ever.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut first = Self(seed);
        Self(first.next() ^ stream.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
