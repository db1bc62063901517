//! `mayfly plugin new`: writes the crate of a provider plugin that works as it is and
//! passes `mayfly plugin check`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Exit;

const PREFIX: &str = "fleeting-plugin-";
/// File in the new crate, and its content. `{{name}}` is the provider's name, `{{library}}`
/// how the crate gets the plugin library.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("plugin_new/Cargo.toml.in")),
    ("src/main.rs", include_str!("plugin_new/main.rs.in")),
    ("src/provider.rs", include_str!("plugin_new/provider.rs.in")),
    ("tests/life.rs", include_str!("plugin_new/life.rs.in")),
    ("README.md", include_str!("plugin_new/README.md.in")),
];

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// Name of the provider, such as `acme`
    name: String,
    /// Where the crate is written; default: fleeting-plugin-NAME
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// A checkout of Mayfly for the plugin library; default: its repository
    #[arg(long, value_name = "DIR")]
    library: Option<PathBuf>,
}

pub(crate) fn run(flags: &Flags) -> Exit {
    match write(flags) {
        Ok(directory) => {
            println!("Wrote {}. Next:", directory.display());
            println!("  cd {}", directory.display());
            println!("  cargo test");
            println!("README.md there says how to go on.");
            Exit::Success
        }
        Err(error) => {
            eprintln!("error: {error}");
            Exit::Failed
        }
    }
}

fn write(flags: &Flags) -> Result<PathBuf, String> {
    let name = flags.name.strip_prefix(PREFIX).unwrap_or(&flags.name);
    check_name(name)?;
    let directory = flags.path.clone().unwrap_or_else(|| format!("{PREFIX}{name}").into());
    let is_empty = |directory: &Path| {
        std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
    };
    if directory.exists() && !is_empty(&directory) {
        return Err(format!(
            "{} is there already, and is not empty; choose another place with --path",
            directory.display()
        ));
    }
    let library = library(flags.library.as_deref())?;
    for (file, content) in FILES {
        let text = content.replace("{{name}}", name).replace("{{library}}", &library);
        let path = directory.join(file);
        let written = std::fs::create_dir_all(path.parent().unwrap_or(&directory))
            .and_then(|()| std::fs::write(&path, text));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(directory)
}

fn check_name(name: &str) -> Result<(), String> {
    let begins_well = name.starts_with(|first: char| first.is_ascii_lowercase());
    let is_plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if begins_well && is_plain && name.len() <= 40 && !name.ends_with('-') {
        return Ok(());
    }
    Err(format!(
        "{name:?} cannot be a provider's name: write up to 40 small letters, digits and hyphens, \
         a letter first"
    ))
}

/// How the manifest of the new crate names the plugin library.
fn library(checkout: Option<&Path>) -> Result<String, String> {
    let Some(checkout) = checkout else {
        return Ok(format!("git = {:?}", env!("CARGO_PKG_REPOSITORY")));
    };
    let cannot = |error: std::io::Error| format!("{}: {error}", checkout.display());
    let checkout = checkout.canonicalize().map_err(cannot)?;
    let manifest = std::fs::read_to_string(checkout.join("Cargo.toml")).unwrap_or_default();
    if !manifest.contains("name = \"mayfly-plugin\"") {
        return Err(format!("{} is not a checkout of Mayfly", checkout.display()));
    }
    Ok(format!("path = {:?}", checkout.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_file_names_and_crates() {
        assert!(["acme", "a1-b"].iter().all(|name| check_name(name).is_ok()));
        let odd = ["", "1a", "Acme", "a_b", "a/b", "a-", "-a", &"a".repeat(41)];
        assert!(odd.iter().all(|name| check_name(name).is_err()));
    }

    #[test]
    fn a_crate_is_written_whole_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new");
        let flags =
            Flags { name: "fleeting-plugin-acme".into(), path: Some(path.clone()), library: None };
        assert_eq!(write(&flags), Ok(path.clone()));
        for (file, _) in FILES {
            let text = std::fs::read_to_string(path.join(file)).expect(file);
            assert!(!text.contains("{{"), "{file}: {text}");
        }
        let error = write(&flags).expect_err("it is there");
        assert!(error.contains("choose another place with --path"), "{error}");
    }
}
