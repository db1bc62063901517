//! The plan of a job: what the agent gets and does.
//!
//! The types are those of the wire, `proto/agent.proto`; their meaning is told there.

pub use crate::wire::generated::container_work::Work;
pub use crate::wire::generated::stage::Action;
pub use crate::wire::generated::transfer::What;
pub use crate::wire::generated::{
    Archive, Cleanup, Clear, Container, ContainerWork, Containers, Download, File, Furnish, Login,
    Network, Plan, Prepare, PullPolicy, Report, Role, Script, Service, ServiceLogs, Source, Stage,
    TraceOptions, Transfer, Upload, When,
};

impl Plan {
    /// The directory of files that end with the job.
    pub fn temp_dir(&self) -> String {
        temp_dir(&self.project_dir)
    }
}

/// `<project_dir>.tmp`, as GitLab Runner names it.
pub fn temp_dir(project_dir: &str) -> String {
    format!("{project_dir}.tmp")
}

impl PullPolicy {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::PullAlways, Self::PullIfNotPresent, Self::PullNever];

    /// GitLab's word.
    pub fn as_gitlab(self) -> &'static str {
        match self {
            Self::PullAlways => "always",
            Self::PullIfNotPresent => "if-not-present",
            Self::PullNever => "never",
        }
    }

    /// The one of GitLab's word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_gitlab() == word)
    }
}

impl Stage {
    /// A stage that runs once.
    pub fn new(
        name: &str,
        title: impl Into<String>,
        role: Role,
        action: impl Into<Option<Action>>,
    ) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            role: role.into(),
            attempts: 1,
            when: When::OnSuccess.into(),
            notes: String::new(),
            action: action.into(),
        }
    }
}
