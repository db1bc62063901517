//! Nothing is left of a plugin that was killed in the middle of a call, in every isolation
//! this machine allows. `support/killing.rs` says how, and what `MAYFLY_KILL_POINTS` is.

mod support;

use support::killing::{Killable, nothing_is_left_after_a_refusal, nothing_is_left_after_kills};
use support::*;

impl Killable for Rig {
    async fn begin(&self) -> Result<mayfly_plugin::host::Plugin, mayfly_plugin::host::StartError> {
        self.start().await
    }

    fn marker(&self) -> String {
        format!("HOME={}", self.home().display())
    }

    fn binary(&self) -> &'static str {
        "fleeting-plugin-local"
    }

    async fn left(&self) -> Vec<String> {
        let root = self.root().display().to_string();
        let mut left: Vec<String> =
            processes_with(&root).into_iter().map(|pid| format!("process {pid}")).collect();
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("readable");
        left.extend(mounts.lines().filter(|line| line.contains(&root)).map(str::to_owned));
        let entries = std::fs::read_dir(self.root().join("local")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        left.extend(names.filter(|name| name != "lock" && name != "lease"));
        left
    }
}

#[tokio::test]
async fn full_isolation() {
    kill(Mode::Full).await;
}

#[tokio::test]
async fn user_isolation() {
    kill(Mode::User).await;
}

#[tokio::test]
async fn no_isolation() {
    kill(Mode::None).await;
}

async fn kill(mode: Mode) {
    let Some(rig) = Rig::new(mode).await else { return };
    nothing_is_left_after_kills(&rig).await;
}

#[tokio::test]
async fn a_configuration_that_is_refused() {
    let mut rig = Rig::unchecked(Mode::None);
    rig.extra = r#", "lease": "soon""#.into();
    nothing_is_left_after_a_refusal(&rig).await;
}
