//! Compiles the contract's `.proto` files without a system `protoc`.
//!
//! The include path is the package root, so that the descriptor is called
//! `proto/instance_group.proto` as in stock peers.

/// Generated code is not held to the budgets of ours.
const ALLOWED: &str =
    "#[allow(clippy::too_many_lines, clippy::allow_attributes, clippy::mixed_attributes_style)]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/instance_group.proto",
        "proto/go_plugin.proto",
        "proto/health.proto",
        "proto/status.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_server(std::env::var_os("CARGO_FEATURE_SERVE").is_some())
        .build_client(std::env::var_os("CARGO_FEATURE_HOST").is_some())
        .server_mod_attribute(".", ALLOWED)
        .client_mod_attribute(".", ALLOWED)
        .compile_fds(descriptors)?;
    Ok(())
}
