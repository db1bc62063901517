//! Nothing is left of a plugin that was killed in the middle of a call, and no container.
//! `local/tests/support/killing.rs` says how, and what `MAYFLY_KILL_POINTS` is.

mod support;

use mayfly_plugin::host::{Plugin, StartError};
use serde_json::json;
use support::killing::{Killable, nothing_is_left_after_a_refusal, nothing_is_left_after_kills};
use support::*;

impl Killable for Rig {
    async fn begin(&self) -> Result<Plugin, StartError> {
        self.try_start().await
    }

    fn marker(&self) -> String {
        self.marker()
    }

    fn binary(&self) -> &'static str {
        "fleeting-plugin-docker"
    }

    async fn left(&self) -> Vec<String> {
        self.containers()
    }
}

#[tokio::test]
async fn containers() {
    let Some(rig) = Rig::new(json!({})) else { return };
    nothing_is_left_after_kills(&rig).await;
}

#[tokio::test]
async fn bad_credentials_and_a_daemon_that_is_down() {
    let Some(mut rig) = Rig::new(json!({})) else { return };
    for host in ["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:1"] {
        rig.config["host"] = host.into();
        nothing_is_left_after_a_refusal(&rig).await;
    }
    // A daemon with TLS that is spoken to without a certificate of ours.
    rig.config["host"] = rig.docker.tls_host().into();
    nothing_is_left_after_a_refusal(&rig).await;
}
