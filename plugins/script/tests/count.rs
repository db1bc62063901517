//! A provider that is told a number: which number, with what, and who is never in danger.

mod support;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use support::*;

/// A provider as Windmill's script would drive it: makes as many instances as it is told,
/// and takes the ones away that are to go, if it listens to that at all.
const CLOUD: &str = r#"
cloud=$directory/cloud
mkdir -p "$cloud"
keep=$(printf '%s' "$request" | sed 's/.*"keep":\[\([^]]*\)\].*/\1/')
while [ "$(ls "$cloud" | wc -l)" -lt "$2" ]; do mktemp -p "$cloud" >/dev/null; done
for id in $(ls "$cloud"); do
    [ "$(ls "$cloud" | wc -l)" -gt "$2" ] || break
    case $LISTENS:$keep in yes:*"\"$id\""*) continue ;; esac
    rm "$cloud/$id"
done
"#;
const LIST: &str = r#"
mkdir -p "$directory/cloud"
ids=$(ls "$directory/cloud" | sed 's/.*/{"id":"&","state":"running"}/' | paste -sd, -)
echo "{\"instances\":[$ids]}"
"#;

fn cloud(more: Value, listens: &str) -> Rig {
    let mut more = more;
    more["env"] = json!({"LISTENS": listens});
    let rig = Rig::count(more);
    rig.on("scale", CLOUD).on("list", LIST);
    rig
}

async fn ids(plugin: &mayfly_plugin::host::Plugin) -> Vec<String> {
    list(plugin).await.into_iter().map(|one| one.id).collect()
}

#[tokio::test]
async fn the_script_is_called_as_windmill_does() {
    let rig = cloud(json!({"name": "default", "max_size": 3}), "yes");
    let plugin = rig.start().await;
    assert_eq!((plugin.info().id.as_str(), plugin.info().max_size), ("script/default", 3));
    assert_eq!(plugin.increase(2, LIMIT).await.expect("accepted"), 2);
    assert_eq!(plugin.increase(5, LIMIT).await.expect("accepted"), 1, "up to the maximum");
    assert_eq!(plugin.increase(1, LIMIT).await.expect("accepted"), 0);
    let all = ids(&plugin).await;
    assert_eq!(all.len(), 3);
    // The middle one: a provider that chose by itself would take another.
    let gone = vec![all[1].clone(), "was-never-there".to_owned()];
    assert_eq!(plugin.decrease(gone.clone(), LIMIT).await.expect("accepted"), gone);
    assert_eq!(ids(&plugin).await, [all[0].clone(), all[2].clone()]);

    let arguments = rig.arguments("scale");
    let calls: Vec<Vec<&str>> = arguments.iter().map(|text| text.lines().collect()).collect();
    let told: Vec<_> = calls.iter().map(|call| (call[0], call[1], call[3])).collect();
    let expected = [
        ("default", "2", "scaleout"),
        ("default", "3", "full_scaleout"),
        ("default", "2", "scalein"),
    ];
    assert_eq!(told, expected);
    assert!(calls.iter().all(|call| call.len() == 4 && !call[2].is_empty()), "{calls:?}");
    let last = rig.asked("scale").pop().expect("asked");
    assert_eq!(last["keep"], json!([all[0], all[2]]));
    assert_eq!((&last["delete"], &last["desired"]), (&json!([all[1]]), &json!(2)));
    for request in rig.asked("scale") {
        schema::check(&schema::of("scale", "request"), &request).expect("fits");
    }
    let unhandy = plugin.suspend(vec![], LIMIT).await.expect_err("cannot");
    assert!(unhandy.to_string().contains("not supported"), "{unhandy}");
}

#[tokio::test]
async fn a_hook_gets_the_ids_before_the_number() {
    let rig = cloud(json!({"delete": "provider.sh"}), "no");
    let hook = r#"
        [ ! -e "$directory/told-first" ] || exit 1
        touch "$directory/hook-came"
        id=$(printf '%s' "$request" | sed 's/.*"instances":\["\([^"]*\)".*/\1/')
        rm "$directory/cloud/$id"
        echo "{\"deleted\": [\"$id\"], \"error\": \"one at a time\"}""#;
    rig.on("delete", hook);
    let plugin = rig.start().await;
    plugin.increase(3, LIMIT).await.expect("accepted");
    let all = ids(&plugin).await;
    // The hook takes the first one only; the other stays, and is not accepted.
    let asked = vec![all[1].clone(), all[2].clone()];
    assert_eq!(plugin.decrease(asked, LIMIT).await.expect("some"), [all[1].clone()]);
    assert_eq!(ids(&plugin).await, [all[0].clone(), all[2].clone()]);
    let last = rig.asked("scale").pop().expect("told");
    assert_eq!((&last["desired"], &last["event"]), (&json!(2), &json!("scalein")));
    assert_eq!(last["keep"], json!([all[0], all[2]]));
    assert_eq!(rig.asked("delete")[0]["keep"], json!([all[0]]));
    schema::check(&schema::of("delete", "request"), &rig.asked("delete")[0]).expect("fits");
    // One that was given up may still be there: the hook gets it, and the number falls.
    rig.on("scale", "true").on(
        "list",
        &format!("echo '{{\"instances\": [{{\"id\": \"{}\", \"state\": \"timeout\"}}]}}'", all[2]),
    );
    assert_eq!(plugin.decrease(vec![all[2].clone()], LIMIT).await.expect("gone").len(), 1);
    assert_eq!(rig.asked("scale").pop().expect("told")["desired"], 0);
    rig.on("list", LIST);
    // A hook that fails: no number is told.
    rig.on("delete", "echo not now >&2; exit 1").forget();
    let refused = plugin.decrease(vec![all[0].clone()], LIMIT).await.expect_err("refused");
    assert!(refused.to_string().contains("delete: not now"), "{refused}");
    assert!(rig.asked("scale").is_empty());
}

#[tokio::test]
async fn the_number_survives_the_plugin_and_never_falls_by_a_wish() {
    let rig = cloud(json!({}), "yes");
    // A provider that has shown nothing yet.
    rig.on("scale", "true");
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(3, LIMIT).await.expect("accepted"), 3);
    let mode =
        std::fs::metadata(rig.path("state/told.json")).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    rig.kill_plugin(plugin).await;
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(1, LIMIT).await.expect("accepted"), 1);
    let told: Vec<Value> = rig.asked("scale").iter().map(|one| one["desired"].clone()).collect();
    assert_eq!(told, [3, 4]);

    // One group has one plugin, and a damaged file is not overwritten.
    let other = rig.refusal().await;
    assert!(other.contains("another plugin process uses"), "{other}");
    rig.kill_plugin(plugin).await;
    let state = rig.path("state");
    let open = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&state, open(0o777)).expect("set");
    let refused = rig.refusal().await;
    assert!(refused.contains("writable by nobody else"), "{refused}");
    std::fs::set_permissions(&state, open(0o700)).expect("set");
    std::fs::write(rig.path("state/told.json"), "{").expect("written");
    let damaged = rig.refusal().await;
    assert!(damaged.contains("state_file") && damaged.contains("move it away"), "{damaged}");
}

#[tokio::test]
async fn a_plugin_killed_while_it_tells_a_number_tells_it_again() {
    let rig = cloud(json!({}), "yes");
    let plugin = rig.start().await;
    plugin.increase(2, LIMIT).await.expect("accepted");
    let all = ids(&plugin).await;
    let seconds = unique_seconds();
    rig.on("scale", &format!("sleep {seconds}"));
    {
        let deleting = plugin.decrease(vec![all[0].clone()], LIMIT);
        tokio::pin!(deleting);
        let runs = until(async || (!sleepers(seconds).is_empty()).then_some(()));
        tokio::select! {
            result = &mut deleting => panic!("it ended: {result:?}"),
            () = runs => {}
        }
    }
    rig.kill_plugin(plugin).await;
    until(async || sleepers(seconds).is_empty().then_some(())).await;
    // It went by itself meanwhile: nothing is left to delete, but the number to tell.
    std::fs::remove_file(rig.path("cloud").join(&all[0])).expect("removed");
    rig.on("scale", CLOUD).forget();
    let plugin = rig.start().await;
    assert_eq!(plugin.decrease(vec![all[0].clone()], LIMIT).await.expect("gone").len(), 1);
    assert_eq!(rig.asked("scale")[0]["desired"], 1);
    assert_eq!(plugin.decrease(vec![all[0].clone()], LIMIT).await.expect("gone").len(), 1);
    assert_eq!(rig.asked("scale").len(), 1, "told once");
    assert_eq!(ids(&plugin).await, [all[1].clone()]);
}

#[tokio::test]
async fn numbers_are_told_one_after_the_other_even_to_a_host_in_a_hurry() {
    let rig = cloud(json!({}), "yes");
    rig.on("scale", &format!("sleep 0.5\n{CLOUD}"));
    let plugin = rig.start().await;
    let hasty = plugin.increase(1, std::time::Duration::from_millis(300)).await;
    assert!(hasty.expect_err("no answer").outcome_unknown());
    assert_eq!(plugin.increase(1, LIMIT).await.expect("accepted"), 1);
    assert_eq!(ids(&plugin).await.len(), 2);
    let told: Vec<Value> = rig.asked("scale").iter().map(|one| one["desired"].clone()).collect();
    assert_eq!(told, [1, 2]);
}

#[tokio::test]
async fn a_failed_number_is_an_error_in_the_scripts_words() {
    let rig = cloud(json!({"connect": "provider.sh"}), "yes");
    rig.on("scale", "echo no capacity >&2; exit 1");
    let plugin = rig.start().await;
    let refused = plugin.increase(1, LIMIT).await.expect_err("refused").to_string();
    assert!(refused.contains("scale: no capacity"), "{refused}");
    rig.on("scale", CLOUD);
    assert_eq!(plugin.increase(1, LIMIT).await.expect("accepted"), 1);
    let id = ids(&plugin).await.remove(0);
    assert_eq!(rig.asked("scale").pop().expect("told")["desired"], 1, "the same number again");
    rig.on("connect", r#"echo '{"address": "10.0.0.3", "user": "ci", "password": "p"}'"#);
    let info = plugin.connect_info(&id, LIMIT).await.expect("the script says it");
    assert_eq!(info.external_addr, "10.0.0.3");
    plugin.heartbeat(&id, LIMIT).await.expect("nobody says otherwise");
}
