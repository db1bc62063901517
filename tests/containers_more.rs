//! Containers of the docker-autoscaler executor under bad conditions: other users, deaths,
//! stubborn scripts, odd images, private registries, and much of everything.

#[path = "containers_more/ahead.rs"]
mod ahead;
#[expect(dead_code, reason = "only the registry's test pushes such")]
#[path = "install/artifact.rs"]
mod artifact;
#[path = "containers_more/ends.rs"]
mod ends;
#[path = "containers_more/images.rs"]
mod images;
#[path = "containers_more/much.rs"]
mod much;
#[expect(dead_code, reason = "Docker pushes here by itself")]
#[path = "install/registry.rs"]
mod registry;
#[path = "containers_more/users.rs"]
mod users;

/// What a test needs, or it is skipped.
macro_rules! needed {
    ($found:expr) => {
        match $found {
            Ok(found) => found,
            Err(missing) => support::skip!("{missing}"),
        }
    };
}
use needed;
