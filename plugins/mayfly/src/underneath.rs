//! The plugin of a provider: looked for, started, and started again by its supervision.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mayfly_plugin::Settings;
use mayfly_plugin::host::{
    CallError, FindError, Launch, Plugin, StartCause, StartFailure, Supervised, SupervisedStatus,
    find,
};

use crate::config::Choice;

/// From the start of the plugin's process to the answer of `Init`.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(45);
/// How long a first start that fails is tried again.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(3);

/// How a first start went.
pub(crate) enum FirstStart {
    Up(Arc<Plugin>),
    /// It is missing, crashes or does not answer, and is tried again.
    Down(String),
    /// It ran, and said no to its configuration or something that cannot be used. It is
    /// tried again all the same.
    Refused(String),
}

/// A plugin, which may not be installed yet.
pub(crate) struct Underneath {
    plugin: String,
    environment: Vec<(String, String)>,
    config: Vec<u8>,
    settings: Settings,
    supervised: OnceLock<Supervised>,
}

impl Underneath {
    /// Starts the plugin if it is there. Does not wait for it. Must be called on a tokio
    /// runtime.
    pub(crate) fn start(choice: &Choice, settings: &Settings) -> Result<Self, FindError> {
        let underneath = Self {
            plugin: choice.plugin.clone(),
            environment: choice.env.clone().into_iter().collect(),
            config: serde_json::to_vec(&choice.config).unwrap_or_default(),
            settings: settings.clone(),
            supervised: OnceLock::new(),
        };
        match underneath.supervised() {
            Err(error @ FindError::BadName(_)) => Err(error),
            Ok(_) | Err(_) => Ok(underneath),
        }
    }

    /// Tells configurations of the plugin apart: another one is seldom the same number. Not
    /// the configuration itself, which may have secrets. With another release the numbers
    /// may be others.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.plugin, &self.environment, &self.config).hash(&mut hasher);
        hasher.finish()
    }

    /// Waits for the first start. One that fails is tried again for a moment: plugins of a
    /// predecessor of this one, which was killed, may be about to end.
    pub(crate) async fn first_start(&self) -> FirstStart {
        let mut status = match self.supervised() {
            Ok(supervised) => supervised.status(),
            Err(error) => return FirstStart::Down(error.to_string()),
        };
        // An error is the end of supervision, which the status tells.
        let _ = status.wait_for(|status| !matches!(status, SupervisedStatus::Starting)).await;
        let is_up = |status: &SupervisedStatus| matches!(status, SupervisedStatus::Up(_));
        let _ = tokio::time::timeout(PREDECESSOR_LIMIT, status.wait_for(is_up)).await;
        match &*status.borrow() {
            SupervisedStatus::Up(plugin) => FirstStart::Up(Arc::clone(plugin)),
            SupervisedStatus::Down(failure) if is_refusal(failure) => {
                FirstStart::Refused(first_line(failure))
            }
            SupervisedStatus::Down(failure) => FirstStart::Down(first_line(failure)),
            _ => FirstStart::Down("its plugin was stopped".into()),
        }
    }

    /// The running plugin, or why there is none, waiting at most `limit`.
    pub(crate) async fn plugin(
        &self,
        call: &'static str,
        limit: Duration,
    ) -> Result<Arc<Plugin>, CallError> {
        match self.supervised() {
            Ok(supervised) => supervised.plugin(call, limit).await,
            Err(error) => Err(CallError::Gone { call, message: error.to_string() }),
        }
    }

    /// Ends the plugin for good.
    pub(crate) async fn stop(&self, limit: Duration) {
        if let Some(supervised) = self.supervised.get() {
            supervised.stop(limit).await;
        }
    }

    /// The supervision, which begins once the binary is found.
    fn supervised(&self) -> Result<&Supervised, FindError> {
        if let Some(supervised) = self.supervised.get() {
            return Ok(supervised);
        }
        let own = std::env::current_exe().ok();
        let mut launch = Launch::new(find(&self.plugin, own.as_deref().and_then(Path::parent))?);
        (launch.start_limit, launch.init_limit) = (START_LIMIT, START_LIMIT);
        for (variable, value) in &self.environment {
            launch = launch.env(variable, value);
        }
        let start = || Supervised::start(launch, self.config.clone(), self.settings.clone());
        Ok(self.supervised.get_or_init(start))
    }
}

fn is_refusal(failure: &StartFailure) -> bool {
    match failure {
        StartFailure::Start(error) => {
            matches!(error.cause, StartCause::Init { .. } | StartCause::Answer { .. })
        }
        StartFailure::Ended(_) => false,
    }
}

fn first_line(failure: &StartFailure) -> String {
    failure.to_string().lines().next().unwrap_or_default().to_owned()
}
