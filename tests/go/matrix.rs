//! `docs/plugins/matrix.md` says what these tests try, no more and no less.

use super::{dummy, host, ours};

#[test]
fn the_page_has_what_is_tried() {
    let ours = host_table(
        &["plugin", "Mayfly"],
        &host::ALL.map(|host| format!("GitLab's library of {}", host.library)),
        &ours::NAMES.map(|name| format!("`fleeting-plugin-{name}`")),
        |column| match host::ALL[column].knows_health {
            true => "every call",
            false => "every call but Heartbeat, Suspend, Resume: this library has none",
        },
    );
    let rows = dummy::ALL.map(|dummy| match dummy.suspends {
        true => format!("| {} | every call |", dummy.library),
        false => {
            format!("| {} | every call that it has: no Heartbeat, Suspend, Resume |", dummy.library)
        }
    });
    let theirs = format!(
        "| `fleeting-plugin-dummy` on GitLab's library of | under Mayfly |\n|---|---|\n{}\n",
        rows.join("\n")
    );
    let page = include_str!("../../docs/plugins/matrix.md");
    let tables: Vec<&str> = page.lines().filter(|line| line.starts_with('|')).collect();
    let expected = format!("{ours}{theirs}");
    assert_eq!(tables, expected.lines().collect::<Vec<_>>(), "the page must have:\n{expected}");
}

/// A table with a row for each plugin: all calls under our own host, then what it does under
/// each of the others.
fn host_table(
    first: &[&str],
    hosts: &[String],
    plugins: &[String],
    under: impl Fn(usize) -> &'static str,
) -> String {
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let titles = [first, &hosts].concat();
    let rows = plugins.iter().map(|plugin| {
        let cells = (0..hosts.len()).map(&under).collect::<Vec<_>>().join(" | ");
        format!("| {plugin} | every call but Suspend, Resume | {cells} |\n")
    });
    let rows: String = rows.collect();
    format!("| {} |\n|{}\n{rows}", titles.join(" | "), "---|".repeat(titles.len()))
}
