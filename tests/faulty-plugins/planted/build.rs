//! Compiles the wire's definition by itself: this plugin shares no code with what it tests.

/// Generated code is not held to the budgets of ours.
const ALLOWED: &str =
    "#[allow(clippy::too_many_lines, clippy::allow_attributes, clippy::mixed_attributes_style)]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../..";
    let files = ["instance_group", "go_plugin", "health"].map(|name| format!("proto/{name}.proto"));
    for file in &files {
        println!("cargo::rerun-if-changed={root}/{file}");
    }
    let descriptors = protox::compile(files, [root])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_client(false)
        .server_mod_attribute(".", ALLOWED)
        .compile_fds(descriptors)?;
    Ok(())
}
