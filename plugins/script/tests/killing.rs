//! Nothing is left of a plugin that was killed in the middle of a call, and of the script
//! that ran. `local/tests/support/killing.rs` says how, and what `MAYFLY_KILL_POINTS` is.

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
        format!("MAYFLY_PLUGIN_RIG={}", self.path("").display().to_string().trim_end_matches('/'))
    }

    fn binary(&self) -> &'static str {
        "fleeting-plugin-script"
    }

    async fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("things")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect()
    }
}

/// Instances are directories: one is there or is not, whenever a script is killed.
const LIST: &str = r#"
instances=
for thing in "$directory"/things/*; do
    [ -d "$thing" ] || continue
    state=running
    [ ! -d "$thing/paused" ] || state=suspended
    login='"address":"10.0.0.9","user":"ci","password":"word"'
    instances="$instances${instances:+,}{\"id\":\"${thing##*/}\",\"state\":\"$state\",$login}"
done
echo "{\"instances\":[$instances]}"
"#;

/// For each instance of the request.
fn each(lines: &str, answer: &str) -> String {
    format!(
        r#"
ids=$(printf '%s' "$request" | sed 's/.*"instances":\[\([^]]*\)\].*/\1/')
for id in $(printf '%s' "$ids" | tr -d '"' | tr , ' '); do
    thing=$directory/things/$id
    sleep 0.02
    {lines}
done
echo "{{\"{answer}\":[$ids]}}"
"#
    )
}

#[tokio::test]
async fn one_operation_at_a_time() {
    let rig = Rig::ops(json!({}));
    let create = r#"
token=$(printf '%s' "$request" | sed 's/.*"tokens":\["\([^"]*\)".*/\1/')
sleep 0.02
mkdir -p "$directory/things/$token"
sleep 0.02
echo "{\"created\":[\"$token\"]}"
"#;
    rig.on("init", r#"sleep 0.02; echo '{"suspend": true}'"#)
        .on("create", create)
        .on("list", LIST)
        .on("delete", &each(r#"rm -rf "$thing""#, "deleted"))
        .on("suspend", &each(r#"mkdir -p "$thing/paused""#, "suspended"))
        .on("resume", &each(r#"rm -rf "$thing/paused""#, "resumed"))
        .on("heartbeat", r#"sleep 0.02; echo '{"healthy": true}'"#)
        .on(
            "connect",
            r#"sleep 0.02; echo '{"address": "10.0.0.9", "user": "ci", "password": "word"}'"#,
        );
    std::fs::create_dir(rig.path("things")).expect("made");
    nothing_is_left_after_kills(&rig).await;
}

#[tokio::test]
async fn told_a_number() {
    let rig = Rig::count(json!({}));
    let scale = r#"
cd "$directory/things"
sleep 0.02
while [ "$(ls | wc -l)" -lt "$2" ]; do mkdir "$(cat /proc/sys/kernel/random/uuid)"; done
keep=$(printf '%s' "$request" | sed 's/.*"keep":\[\([^]]*\)\].*/\1/')
for id in *; do
    [ "$(ls | wc -l)" -gt "$2" ] || break
    case $keep in *"\"$id\""*) continue ;; esac
    rmdir "$id"
done
sleep 0.02
"#;
    rig.on("scale", scale).on("list", LIST);
    std::fs::create_dir(rig.path("things")).expect("made");
    nothing_is_left_after_kills(&rig).await;
}

#[tokio::test]
async fn bad_credentials_and_a_provider_that_is_down() {
    let rig = Rig::ops(json!({"timeouts": {"init": "2s"}}));
    for lines in ["echo bad credentials >&2; exit 1", "kill -KILL $$", "sleep 100"] {
        rig.on("init", lines);
        nothing_is_left_after_a_refusal(&rig).await;
    }
}
