//! A year of policies in three time zones, minute by minute: what holds how long, and
//! what happens in the nights in which clocks are changed.

use jiff::civil::date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use scheduler::Schedule;
use scheduler::period::Period;
use scheduler::policy::Policy;

const OFFICE: u32 = 10;
const NIGHT: u32 = 1;

/// Office hours on weekdays; a range of hours that wraps around midnight; nothing else.
fn schedule(zone: &TimeZone) -> Schedule {
    let policy = |period: &str, idle_count| Policy {
        periods: vec![Period::parse(period).expect("a period")],
        timezone: zone.clone(),
        idle_count,
        ..Policy::default()
    };
    Schedule::new(vec![policy("* 8-17 * * mon-fri", OFFICE), policy("* 22-5 * * *", NIGHT)])
}

/// Every minute of the zone's own year 2026.
fn minutes(zone: &TimeZone) -> impl Iterator<Item = Timestamp> {
    let midnight = |year| {
        let first = date(year, 1, 1).at(0, 0, 0, 0);
        first.to_zoned(zone.clone()).expect("it exists").timestamp()
    };
    let (from, to) = (midnight(2026), midnight(2027));
    (from.as_second()..to.as_second())
        .step_by(60)
        .map(|second| Timestamp::from_second(second).expect("in range"))
}

#[test]
fn each_policy_holds_for_as_long_as_the_calendar_says() {
    // 2026 has 261 weekdays, of ten office hours each; no clock is changed in them. The
    // nights of eight hours lose one in spring and win one in autumn.
    let (office, night) = (261 * 10 * 60, 365 * 8 * 60);
    for name in ["Europe/Berlin", "America/New_York", "Asia/Kolkata"] {
        let zone = TimeZone::get(name).expect("a zone");
        let schedule = schedule(&zone);
        let mut found = [0, 0, 0];
        for minute in minutes(&zone) {
            match schedule.at(minute).idle_count {
                OFFICE => found[0] += 1,
                NIGHT => found[1] += 1,
                _ => found[2] += 1,
            }
        }
        assert_eq!(found, [office, night, 365 * 24 * 60 - office - night], "{name}");
    }
}

#[test]
fn a_night_in_which_clocks_are_changed_is_shorter_or_longer() {
    // Each from the evening before: when the night policy begins and ends, in UTC.
    let nights = [
        ("Europe/Berlin", "2026-03-28T21:00:00Z", "2026-03-29T04:00:00Z"),
        ("Europe/Berlin", "2026-10-24T20:00:00Z", "2026-10-25T05:00:00Z"),
        ("Europe/Berlin", "2026-06-30T20:00:00Z", "2026-07-01T04:00:00Z"),
        ("America/New_York", "2026-03-08T03:00:00Z", "2026-03-08T10:00:00Z"),
        ("America/New_York", "2026-11-01T02:00:00Z", "2026-11-01T11:00:00Z"),
        ("Asia/Kolkata", "2026-03-28T16:30:00Z", "2026-03-29T00:30:00Z"),
    ];
    for (name, begins, ends) in nights {
        let schedule = schedule(&TimeZone::get(name).expect("a zone"));
        let holds = |at: Timestamp| schedule.at(at).idle_count == NIGHT;
        let (begins, ends): (Timestamp, Timestamp) =
            (begins.parse().expect("a time"), ends.parse().expect("a time"));
        let minute = Span::new().minutes(1);
        assert!(!holds(begins - minute) && holds(begins), "{name} {begins}");
        assert!(holds(ends - minute) && !holds(ends), "{name} {ends}");
        let all = (begins.as_second()..ends.as_second()).step_by(60);
        let all = all.map(|second| Timestamp::from_second(second).expect("in range"));
        assert_eq!(all.filter(|at| !holds(*at)).count(), 0, "{name}");
    }
}
