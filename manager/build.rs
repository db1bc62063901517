//! Puts agent binaries into the program.
//!
//! `MAYFLY_AGENTS` names a directory with files `mayfly-agent-<arch>`; each is compressed
//! as small as it gets. Without it the program looks for the agent beside itself.

use std::fmt::Write as _;
use std::path::Path;

/// zstd's level for data that is compressed once and sent often.
const LEVEL: i32 = 19;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=MAYFLY_AGENTS");
    let out = std::env::var("OUT_DIR")?;
    let mut list = String::from("&[\n");
    if let Some(dir) = std::env::var_os("MAYFLY_AGENTS") {
        println!("cargo::rerun-if-changed={}", Path::new(&dir).display());
        let mut files: Vec<_> = std::fs::read_dir(&dir)?.collect::<Result<_, _>>()?;
        files.sort_by_key(std::fs::DirEntry::file_name);
        for file in files {
            let name = file.file_name().into_string().unwrap_or_default();
            let Some(arch) = name.strip_prefix("mayfly-agent-") else {
                continue;
            };
            let packed = Path::new(&out).join(format!("agent-{arch}.zst"));
            std::fs::write(&packed, zstd::encode_all(std::fs::File::open(file.path())?, LEVEL)?)?;
            writeln!(list, "    ({arch:?}, include_bytes!({packed:?})),")?;
        }
    }
    list.push(']');
    std::fs::write(Path::new(&out).join("agents.rs"), list)?;
    Ok(())
}
