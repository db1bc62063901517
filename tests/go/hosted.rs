//! A Go plugin under the host side of `mayfly-plugin`, found among the processes of this
//! machine by a marker.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mayfly_plugin::host::{Launch, Plugin, StartError};
use mayfly_plugin::{ConnectorConfig, Protocol, Settings};
use support::processes::{self, Process};
use support::{binaries, seconds};

/// One plugin binary and the marker of all that is started from it.
#[derive(Debug)]
pub(super) struct Hosted {
    binary: PathBuf,
    marker: String,
}

impl Hosted {
    /// Does not start it yet.
    pub(super) fn new(binary: PathBuf) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { binary, marker: format!("interop-{}-{number}", std::process::id()) }
    }

    /// How to start it.
    pub(super) fn launch(&self) -> Launch {
        let mut launch = Launch::new(&self.binary).env("MAYFLY_PLUGIN_TEST", &self.marker);
        launch.guard = binaries().mayfly();
        launch
    }

    /// Starts it.
    pub(super) async fn start(&self, config: &str) -> Result<Plugin, StartError> {
        Plugin::start(&self.launch(), config.as_bytes(), &settings()).await
    }

    /// The plugin's own process.
    pub(super) fn process(&self) -> Process {
        let mut processes = processes::mentioning(&self.marker);
        processes.retain(|process| process.exe == self.binary);
        assert_eq!(processes.len(), 1, "{processes:?}");
        processes.remove(0)
    }

    /// The directory of the plugin's socket, which the guard gets as an argument.
    pub(super) fn socket_directory(&self) -> PathBuf {
        let is_guard =
            |process: &&Process| process.args.get(1).is_some_and(|role| role == "plugin-guard");
        let processes = processes::mentioning(&self.marker);
        let guard = processes.iter().find(is_guard).expect("a guard");
        Path::new(&guard.args[2]).to_owned()
    }

    /// Waits until neither the plugin nor its guard runs.
    pub(super) fn assert_nothing_runs(&self) {
        let gone = processes::wait_until_gone(seconds(60), || processes::mentioning(&self.marker));
        assert_eq!(gone, Ok(()));
    }
}

/// An operator's settings, every one of them.
pub(super) fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.connector = ConnectorConfig {
        os: "linux".into(),
        arch: "arm64".into(),
        protocol: Some(Protocol::Ssh),
        protocol_port: Some(2222),
        username: "ci".into(),
        password: "pass word".into(),
        key: b"a key".to_vec(),
        use_static_credentials: true,
        keepalive: seconds(20),
        timeout: seconds(90),
    };
    settings
}
