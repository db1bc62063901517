//! The schemas, the examples of the README and what the plugin accepts are the same.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::*;

/// The blocks of the README by their heading: the request, and the answer if there is one.
fn examples() -> Vec<(String, Value, Option<Value>)> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(readme).expect("readable");
    let sections = text.split("\n### `").skip(1);
    let example = |section: &str| {
        let operation = section.split('`').next()?.to_owned();
        let block = section.split("```json\n").nth(1)?.split("```").next()?;
        let mut lines = block.lines().map(parse);
        Some((operation, lines.next()?, lines.next()))
    };
    sections.filter_map(example).collect()
}

#[test]
fn each_operation_has_an_example_that_fits_its_schema() {
    let examples = examples();
    let mut documented: Vec<&str> = examples.iter().map(|(name, ..)| name.as_str()).collect();
    documented.sort_unstable();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let mut schemas: Vec<String> = std::fs::read_dir(directory)
        .expect("readable")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().trim_end_matches(".json").to_owned())
        .collect();
    schemas.sort();
    assert_eq!(documented, schemas);
    for (operation, request, answer) in &examples {
        let halves = [("request", Some(request)), ("response", answer.as_ref())];
        for (half, value) in halves {
            let Some(value) = value else { continue };
            let fits = schema::check(&schema::of(operation, half), value);
            fits.unwrap_or_else(|why| panic!("{operation}, {half}: {why}"));
        }
        assert_eq!(answer.is_none(), operation == "scale", "{operation}");
    }
}

#[tokio::test]
async fn the_plugin_understands_the_examples() {
    let rig = Rig::ops(json!({}));
    for (operation, _, answer) in examples() {
        if let Some(answer) = answer.filter(|_| operation != "connect") {
            rig.on(&operation, &format!("echo '{answer}'"));
        }
    }
    rig.on(
        "connect",
        r#"echo '{"address": "10.0.0.7", "user": "ci", "password": "p", "expires": 1893456000}'"#,
    );
    let plugin = rig.start().await;
    assert_eq!((plugin.info().id.as_str(), plugin.info().max_size), ("eu/builders", 20));
    assert_eq!(list(&plugin).await.len(), 2);
    assert_eq!(plugin.increase(1, LIMIT).await.expect("created"), 1);
    let id = "builders-5f0c8c1de1d8a6b3".to_owned();
    let deleted = plugin.decrease(vec![id.clone()], LIMIT).await.expect("deleted");
    assert_eq!(deleted, std::slice::from_ref(&id));
    let expires = plugin.connect_info(&id, LIMIT).await.expect("known").expires.expect("it ends");
    let unix = expires.duration_since(std::time::UNIX_EPOCH).expect("later").as_secs();
    assert_eq!(unix, 1_893_456_000);
    assert!(plugin.heartbeat(&id, LIMIT).await.is_err(), "the example is of an unhealthy one");
}

/// What the schema refuses the plugin refuses, too, and the other way round.
#[tokio::test]
async fn plugin_and_schema_refuse_the_same_lists() {
    let rig = Rig::ops(json!({}));
    let plugin = rig.start().await;
    let schema = schema::of("list", "response");
    let one = |more: Value| {
        let mut one = json!({"id": "a", "state": "running"});
        one.as_object_mut().expect("a table").extend(more.as_object().expect("a table").clone());
        json!({"instances": [one]})
    };
    for (answer, is_fine) in [
        (json!({"instances": []}), true),
        (one(json!({"address": "h:1", "port": 2222, "protocol": "ssh"})), true),
        (one(json!({"expires": 5, "os": "linux", "arch": "amd64", "key_path": "/k"})), true),
        (json!({}), false),
        (json!([]), false),
        (json!({"instances": [], "more": 1}), false),
        (json!({"instances": [{"id": "a"}]}), false),
        (one(json!({"id": ""})), false),
        (one(json!({"id": "x".repeat(257)})), false),
        (one(json!({"state": "RUNNING"})), false),
        (one(json!({"port": 65536})), false),
        (one(json!({"port": "22"})), false),
        (one(json!({"expires": -1})), false),
        (one(json!({"adress": "h"})), false),
    ] {
        rig.on("list", &format!("echo '{answer}'"));
        let listed = plugin.update(LIMIT).await;
        assert_eq!(listed.is_ok(), is_fine, "{answer}: {listed:?}");
        assert_eq!(schema::check(&schema, &answer).is_ok(), is_fine, "{answer}");
    }
}
