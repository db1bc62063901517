//! `.runner_system_id`: tells this manager from others that use the same token.

use std::path::Path;

use rand::RngExt as _;

const FILE: &str = ".runner_system_id";

/// The id in the file beside the configuration; a new one where there is none. Shared
/// with GitLab Runner, so that a change of manager is none of system.
pub(crate) fn read_or_make(config_dir: &Path) -> (String, Option<std::io::Error>) {
    let path = config_dir.join(FILE);
    if let Ok(text) = std::fs::read_to_string(&path)
        && is_valid(text.trim())
    {
        return (text.trim().to_owned(), None);
    }
    let id = make();
    let error = std::fs::write(&path, &id).err();
    (id, error)
}

/// `^[sr]_[0-9a-zA-Z]{12}$`
fn is_valid(id: &str) -> bool {
    let rest = id.strip_prefix("s_").or_else(|| id.strip_prefix("r_"));
    rest.is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn make() -> String {
    let random: String =
        rand::rng().sample_iter(rand::distr::Alphanumeric).take(12).map(char::from).collect();
    format!("r_{random}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_and_a_damaged_one_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let (made, error) = read_or_make(dir.path());
        assert!(is_valid(&made) && error.is_none());
        assert_eq!(read_or_make(dir.path()).0, made);
        std::fs::write(dir.path().join(FILE), "nonsense").expect("written");
        let (replaced, _) = read_or_make(dir.path());
        assert!(is_valid(&replaced) && replaced != made);
    }
}
