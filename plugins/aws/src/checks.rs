//! What settings of a group endanger jobs or keep the plugin from working. Pure.

use crate::scaling::Group;

/// What changes a setting to what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Protects instances and lets the group be empty.
    Protect,
    /// Suspends a process of the group.
    Suspend(&'static str),
    /// Resumes one.
    Resume(&'static str),
}

/// One setting that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    /// Nothing works with it.
    pub(crate) fatal: bool,
    /// One line: what, and what follows from it.
    pub(crate) text: String,
    pub(crate) repair: Option<Repair>,
}

impl Repair {
    /// The command that does it by hand.
    pub(crate) fn command(self, group: &str) -> String {
        let on = format!("--auto-scaling-group-name {group}");
        match self {
            Self::Protect => format!(
                "aws autoscaling update-auto-scaling-group {on} --min-size 0 \
                 --new-instances-protected-from-scale-in"
            ),
            Self::Suspend(process) => {
                format!("aws autoscaling suspend-processes {on} --scaling-processes {process}")
            }
            Self::Resume(process) => {
                format!("aws autoscaling resume-processes {on} --scaling-processes {process}")
            }
        }
    }
}

/// Looks at one group.
pub(crate) fn check(group: &Group) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |fatal, text: &str, repair| {
        let text = format!("Auto Scaling group {:?}: {text}", group.name);
        findings.push(Finding { fatal, text, repair });
    };
    let suspended = |process: &str| group.suspended.iter().any(|one| one == process);
    if group.ending {
        find(true, "it is being deleted", None);
    }
    if group.max == 0 {
        find(true, "its maximum size is 0: it can have no instance; raise it", None);
    }
    if group.weighted {
        find(true, "its sizes count weights or vCPUs, not instances; leave weights out", None);
    }
    if suspended("Launch") {
        find(true, "Launch is suspended: no instance comes", Some(Repair::Resume("Launch")));
    }
    if suspended("Terminate") {
        let text = "Terminate is suspended: instances may stay when they are deleted";
        find(false, text, Some(Repair::Resume("Terminate")));
    }
    if !group.protects_new {
        let text = "new instances are not protected from scale-in: AWS may choose one with a job \
                    when the group shrinks; and a shortage cannot be taken back";
        find(false, text, Some(Repair::Protect));
    }
    if group.min > 0 {
        let text = format!("its minimum size is {}: it cannot shrink below", group.min);
        find(false, &text, Some(Repair::Protect));
    }
    if group.zones > 1 && !suspended("AZRebalance") {
        let text = "AZRebalance is not suspended: AWS ends instances, with their jobs, to spread \
                    the group over its zones";
        find(false, text, Some(Repair::Suspend("AZRebalance")));
    }
    if group.rebalances_spot {
        let text = "Capacity Rebalancing is on: AWS replaces Spot instances at risk, with their \
                    jobs; switch it off";
        find(false, text, None);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Group {
        Group {
            name: "ci".into(),
            max: 5,
            protects_new: true,
            suspended: vec!["AZRebalance".into()],
            zones: 3,
            ..Group::default()
        }
    }

    #[test]
    fn a_group_as_it_should_be_has_no_findings() {
        assert_eq!(check(&good()), []);
        assert_eq!(check(&Group { suspended: Vec::new(), zones: 1, ..good() }), []);
    }

    #[test]
    fn each_wrong_setting_is_found() {
        let suspended = |process: &str| vec!["AZRebalance".to_owned(), process.to_owned()];
        for (group, fatal, word, repair) in [
            (Group { ending: true, ..good() }, true, "deleted", None),
            (Group { max: 0, ..good() }, true, "maximum size is 0", None),
            (Group { weighted: true, ..good() }, true, "weights", None),
            (
                Group { suspended: suspended("Launch"), ..good() },
                true,
                "Launch",
                Some(Repair::Resume("Launch")),
            ),
            (
                Group { suspended: suspended("Terminate"), ..good() },
                false,
                "Terminate",
                Some(Repair::Resume("Terminate")),
            ),
            (Group { protects_new: false, ..good() }, false, "scale-in", Some(Repair::Protect)),
            (Group { min: 2, ..good() }, false, "minimum size is 2", Some(Repair::Protect)),
            (
                Group { suspended: Vec::new(), ..good() },
                false,
                "AZRebalance",
                Some(Repair::Suspend("AZRebalance")),
            ),
            (Group { rebalances_spot: true, ..good() }, false, "Capacity Rebalancing", None),
        ] {
            let findings = check(&group);
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert!(findings[0].text.contains(word) && findings[0].text.contains("\"ci\""));
            assert_eq!((findings[0].fatal, findings[0].repair), (fatal, repair), "{word}");
        }
    }

    #[test]
    fn commands_name_group_and_process() {
        assert_eq!(
            Repair::Suspend("AZRebalance").command("ci"),
            "aws autoscaling suspend-processes --auto-scaling-group-name ci --scaling-processes \
             AZRebalance"
        );
    }
}
