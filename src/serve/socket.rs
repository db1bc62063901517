//! The unix socket a plugin listens on: where go-plugin hosts ask for it, removed on
//! every way out.

use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::contract::Error;

pub(super) struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

impl Socket {
    pub(super) fn path(&self) -> &str {
        &self.file.0
    }

    /// The file is removed when the second part is dropped.
    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// Removes the socket's file on drop: tokio's listener leaves it.
pub(super) struct SocketFile(String);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good as removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds `plugin<digits>` in `PLUGIN_UNIX_SOCKET_DIR`, else in the temporary directory.
pub(super) fn bind() -> Result<Socket, Error> {
    let dir = match std::env::var_os("PLUGIN_UNIX_SOCKET_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => std::env::temp_dir(),
    };
    let path = dir.join(format!("plugin{}", std::process::id()));
    let path = path
        .to_str()
        .ok_or_else(|| Error::new(format!("socket directory {} is not UTF-8", dir.display())))?
        .to_owned();
    let listener = UnixListener::bind(&path)
        .map_err(|error| Error::new(format!("cannot listen on {path}: {error}")))?;
    let file = SocketFile(path);
    if let Some(group) = std::env::var("PLUGIN_UNIX_SOCKET_GROUP").ok().filter(|g| !g.is_empty()) {
        share_with_group(Path::new(&file.0), &group)?;
    }
    Ok(Socket { listener, file })
}

/// Gives the socket to a group by id or by name, with mode 0660, as go-plugin does.
fn share_with_group(path: &Path, group: &str) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let id = match group.parse::<u32>() {
        Ok(id) => id,
        Err(_) => group_id(group)
            .ok_or_else(|| Error::new(format!("PLUGIN_UNIX_SOCKET_GROUP: no group {group:?}")))?,
    };
    std::os::unix::fs::chown(path, None, Some(id))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(())
}

fn group_id(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}
