//! The order of an examination: each step uses what the one before it showed.

use super::findings::Findings;
use super::lab::{Group, Lab, Options, living};
use super::made::{self, Made};
use super::{Check, connecting, creation, deletion, life, process, words};

/// One examination on its way.
pub(super) struct Exam<'a, 'f> {
    pub(super) lab: Lab<'a>,
    pub(super) findings: &'a mut Findings<'f>,
}

/// Runs every check. May be dropped at any time: processes end with it, and `made` knows
/// which instances are to be removed.
pub(crate) async fn examine(options: &Options, made: &Made, findings: &mut Findings<'_>) {
    let mut exam = Exam { lab: Lab::new(options, made), findings };
    for (_, secret) in &exam.lab.secrets {
        exam.findings.hide(secret.clone());
    }
    let result = exam.run().await;
    exam.lab.note_lists(exam.findings);
    words::examine(&mut exam);
    exam.findings.skip_rest(&result.err().unwrap_or_else(|| "nothing led to it".into()));
}

impl Exam<'_, '_> {
    async fn run(&mut self) -> Result<(), String> {
        process::examine(self).await?;
        let group = self.init().await?;
        let listed = self.lab.list(&group.probe).await;
        let before = match listed {
            Ok(listed) => living(&listed),
            Err(error) => {
                self.findings.fail(Check::Update, error.to_string());
                return Err("there is no list".into());
            }
        };
        self.findings.pass(Check::Update);
        self.lab.made.were_before(before.iter().cloned());
        let result = if self.lab.options.create == 0 {
            self.only_look(group, before).await
        } else {
            self.with_instances(group, before).await
        };
        // What is left is removed before the last look at processes.
        if made::clean_up(self.lab.options, self.lab.made).await.is_ok() {
            process::leftovers(self).await;
        } else {
            self.findings.skip(&[Check::ProcessesLeft], "its instances could not be removed");
        }
        result
    }

    /// `Init`, and what it tells.
    async fn init(&mut self) -> Result<Group, String> {
        let group = match self.lab.group().await {
            Ok(group) => group,
            Err(error) => {
                self.findings.fail(Check::Init, error);
                return Err("Init does not succeed".into());
            }
        };
        let about = &group.about;
        self.findings.pass(Check::Init);
        let told = |is_told: bool, what: &str| if is_told { Ok(()) } else { Err(what.to_owned()) };
        self.findings.judge(Check::GroupId, told(!about.id.trim().is_empty(), "the id is empty"));
        self.findings.judge(Check::MaxSize, told(about.max_size > 0, "max_size is 0"));
        let version = told(!about.version.trim().is_empty(), "the version is empty");
        self.findings.judge(Check::Version, version);
        Ok(group)
    }

    async fn only_look(&mut self, group: Group, before: Vec<String>) -> Result<(), String> {
        life::list_repeats(self, &group.probe).await;
        process::end(self, &group.probe).await;
        drop(group);
        life::restarts(self, &before).await?;
        Err("no instance was made (--read-only)".into())
    }

    async fn with_instances(&mut self, group: Group, before: Vec<String>) -> Result<(), String> {
        let room = group.about.max_size.saturating_sub(u32::try_from(before.len()).unwrap_or(0));
        if room == 0 && group.about.max_size > 0 {
            return Err("the group is full".into());
        }
        creation::increase_zero(self, &group.probe).await?;
        let first = creation::first(self, &group.probe).await?;
        let mut ours = vec![first.id.clone()];
        life::list_repeats(self, &group.probe).await;
        if self.findings.has_failed(Check::ListRepeats) {
            return Err("its lists cannot be relied on".into());
        }
        if first.runs {
            connecting::examine(self, &group.probe, &first.id).await;
            let more = self.lab.options.create.min(room.max(1)) - 1;
            ours.extend(life::concurrent(self, &group.probe, &first.id, more).await?);
            life::suspend(self, &group, &first.id).await;
        } else {
            let checks = [connecting::CHECKS, &[Check::Concurrent, Check::Suspend]].concat();
            self.findings.skip(&checks, "no instance runs");
        }
        if ours.len() > 1 {
            let deleted = ours.remove(0);
            deletion::examine(self, &group.probe, &deleted, &ours).await?;
        }
        process::end(self, &group.probe).await;
        drop(group);
        let last = life::restarts(self, &ours).await?;
        if let (Some(id), Some(last)) = (ours.first(), last) {
            deletion::examine(self, &last.probe, id, &[]).await?;
            made::stop(&last.probe, self.lab.limit()).await;
        }
        Ok(())
    }
}
