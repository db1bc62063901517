//! Where an instance stands for the host, and the next step of a suspend or resume. Pure.
//!
//! Three facts decide: its place in the group, its power, and what was wanted of it last,
//! which is a tag on the instance. So a plugin that starts anew goes on where one ended.

use mayfly_plugin::InstanceState;

use crate::config::Suspend;
use crate::machines::{Machine, Power};
use crate::scaling::Life;

/// What was asked for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Suspended(Suspend),
    Running,
}

impl Want {
    /// As the tag says it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Suspended(Suspend::Stop) => "stopped",
            Self::Suspended(Suspend::Hibernate) => "hibernated",
            Self::Running => "running",
        }
    }

    fn read(tag: Option<&str>) -> Option<Self> {
        let all =
            [Self::Suspended(Suspend::Stop), Self::Suspended(Suspend::Hibernate), Self::Running];
        all.into_iter().find(|want| Some(want.as_str()) == tag)
    }
}

/// What brings an instance nearer to what is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    EnterStandby,
    Stop,
    Hibernate,
    Start,
    ExitStandby,
}

/// The state of one instance, and what is to be done next; `None` where the group does not
/// have it. A machine that EC2 does not show yet is believed to be as its group says.
pub(crate) fn stand(
    life: Life,
    machine: Option<&Machine>,
) -> Option<(InstanceState, Option<Step>)> {
    let power = machine.map(|machine| machine.power);
    let want = Want::read(machine.and_then(|machine| machine.want.as_deref()));
    if life == Life::Outside {
        return None;
    }
    if life == Life::Terminating || power == Some(Power::Ending) {
        return Some((InstanceState::Deleting, None));
    }
    Some(match (want, life) {
        (_, Life::Pending) => (InstanceState::Creating, None),
        (Some(Want::Suspended(_)), Life::InService) => {
            (InstanceState::Suspending, Some(Step::EnterStandby))
        }
        (_, Life::InService) => (in_service(power), None),
        (Some(Want::Running), _) => (InstanceState::Resuming, resuming(life, power)),
        (Some(Want::Suspended(how)), Life::Standby) => suspending(how, power),
        // Somebody else's doing where there is no tag: it is not to be used.
        (None, Life::Standby) if power == Some(Power::Stopped) => (InstanceState::Suspended, None),
        _ => (InstanceState::Suspending, None),
    })
}

/// One that was stopped by somebody else is lost to its group, which will replace it.
fn in_service(power: Option<Power>) -> InstanceState {
    match power {
        Some(Power::Pending) => InstanceState::Creating,
        Some(Power::Stopping | Power::Stopped) => InstanceState::Timeout,
        _ => InstanceState::Running,
    }
}

fn suspending(how: Suspend, power: Option<Power>) -> (InstanceState, Option<Step>) {
    let step = match how {
        Suspend::Stop => Step::Stop,
        Suspend::Hibernate => Step::Hibernate,
    };
    match power {
        Some(Power::Running) => (InstanceState::Suspending, Some(step)),
        Some(Power::Stopped) => (InstanceState::Suspended, None),
        _ => (InstanceState::Suspending, None),
    }
}

fn resuming(life: Life, power: Option<Power>) -> Option<Step> {
    match (life, power) {
        (Life::Standby, Some(Power::Stopped)) => Some(Step::Start),
        (Life::Standby, Some(Power::Running)) => Some(Step::ExitStandby),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(power: Power, want: Option<Want>) -> Machine {
        Machine {
            power,
            want: want.map(|want| want.as_str().to_owned()),
            group: None,
            zone: None,
            internal: None,
            external: None,
            os: "linux",
            arch: "amd64",
        }
    }

    fn of(life: Life, power: Power, want: Option<Want>) -> (InstanceState, Option<Step>) {
        stand(life, Some(&machine(power, want))).expect("a member")
    }

    #[test]
    fn a_life_without_suspends() {
        assert_eq!(of(Life::Pending, Power::Pending, None), (InstanceState::Creating, None));
        assert_eq!(of(Life::InService, Power::Pending, None), (InstanceState::Creating, None));
        assert_eq!(of(Life::InService, Power::Running, None), (InstanceState::Running, None));
        assert_eq!(of(Life::Terminating, Power::Running, None), (InstanceState::Deleting, None));
        assert_eq!(of(Life::InService, Power::Ending, None), (InstanceState::Deleting, None));
        assert_eq!(of(Life::InService, Power::Stopped, None), (InstanceState::Timeout, None));
        assert_eq!(stand(Life::Outside, None), None);
        assert_eq!(stand(Life::InService, None), Some((InstanceState::Running, None)));
        assert_eq!(stand(Life::Pending, None), Some((InstanceState::Creating, None)));
    }

    #[test]
    fn a_suspend_goes_through_standby() {
        for (how, step) in [(Suspend::Stop, Step::Stop), (Suspend::Hibernate, Step::Hibernate)] {
            let want = Some(Want::Suspended(how));
            let suspending = |step| (InstanceState::Suspending, step);
            let of = |life, power| of(life, power, want);
            assert_eq!(of(Life::InService, Power::Running), suspending(Some(Step::EnterStandby)));
            assert_eq!(of(Life::EnteringStandby, Power::Running), suspending(None));
            assert_eq!(of(Life::Standby, Power::Running), suspending(Some(step)));
            assert_eq!(of(Life::Standby, Power::Stopping), suspending(None));
            assert_eq!(of(Life::Standby, Power::Stopped), (InstanceState::Suspended, None));
        }
    }

    #[test]
    fn a_resume_is_the_way_back() {
        let of = |life, power| of(life, power, Some(Want::Running));
        let resuming = |step| (InstanceState::Resuming, step);
        assert_eq!(of(Life::EnteringStandby, Power::Running), resuming(None));
        assert_eq!(of(Life::Standby, Power::Stopping), resuming(None));
        assert_eq!(of(Life::Standby, Power::Stopped), resuming(Some(Step::Start)));
        assert_eq!(of(Life::Standby, Power::Pending), resuming(None));
        assert_eq!(of(Life::Standby, Power::Running), resuming(Some(Step::ExitStandby)));
        assert_eq!(of(Life::InService, Power::Running), (InstanceState::Running, None));
    }

    #[test]
    fn standby_of_somebody_else_is_left_alone() {
        assert_eq!(of(Life::Standby, Power::Running, None), (InstanceState::Suspending, None));
        assert_eq!(of(Life::Standby, Power::Stopped, None), (InstanceState::Suspended, None));
    }
}
