//! Pure. `image` and `services`: the containers of jobs.
//!
//! Keys and forms are GitLab's, `Ci::Config::Entry::Image` and `Service`. A job that has one
//! of the two takes nothing of the default's.

use super::{
    Image, Service,
    diagnostic::{Findings, quoted},
    fields::{self, put},
    keywords::Place,
    yaml::{Entry, Node},
};
use crate::coordinator::Executor;

/// `pull_policy`, in GitLab's words.
const PULL_POLICIES: &[&str] = &["always", "if-not-present", "never"];

/// What is said of containers; `None` where nothing is.
#[derive(Debug, Clone, Default)]
pub(super) struct Containers {
    pub(super) image: Option<Image>,
    pub(super) services: Option<Vec<Service>>,
}

impl Containers {
    /// Reads `image` or `services`, whichever `key` is.
    pub(super) fn set(
        &mut self,
        key: &str,
        entry: &Entry,
        executor: Executor,
        findings: &mut Findings<'_>,
    ) {
        if executor == Executor::Instance {
            let message = format!("{} has no effect without containers", quoted(key));
            let hint = "run the pipeline with `--executor docker`, or remove it";
            findings.error(entry.key.span, message, Some(hint.into()));
        }
        match key {
            "image" => self.image = image(&entry.value, findings),
            _ => self.services = services(&entry.value, findings),
        }
    }
}

fn image(node: &Node, findings: &mut Findings<'_>) -> Option<Image> {
    let what = "`image`";
    if node.map().is_none() {
        return Some(Image { name: name(node, what, findings)?, ..Image::default() });
    }
    let mut image = Image::default();
    for (key, entry) in fields::keyed(node, what, Place::Image, findings) {
        set(&mut image, key, &entry.value, findings);
    }
    check_name(node, what, findings)?;
    Some(image)
}

fn services(node: &Node, findings: &mut Findings<'_>) -> Option<Vec<Service>> {
    let Some(items) = node.list() else {
        fields::mismatch(findings, node, "`services`", "a list of images");
        return None;
    };
    let read: Vec<_> = items.iter().map(|item| service(item, findings)).collect();
    read.into_iter().collect()
}

fn service(node: &Node, findings: &mut Findings<'_>) -> Option<Service> {
    let what = "an entry of `services`";
    if node.map().is_none() {
        let image = Image { name: name(node, what, findings)?, ..Image::default() };
        return Some(Service { image, ..Service::default() });
    }
    let mut service = Service::default();
    for (key, entry) in fields::keyed(node, what, Place::Service, findings) {
        let value = &entry.value;
        match key {
            "alias" => service.alias = fields::text(value, "`alias`", findings),
            "command" => service.command = fields::texts(value, "`command`", findings),
            "variables" => {
                service.variables = fields::variables(value, Place::JobVariable, findings);
            }
            _ => set(&mut service.image, key, value, findings),
        }
    }
    check_name(node, what, findings)?;
    Some(service)
}

/// What images and services have in common.
fn set(image: &mut Image, key: &str, node: &Node, findings: &mut Findings<'_>) {
    match key {
        "name" => put(&mut image.name, name(node, "`name`", findings)),
        "entrypoint" => image.entrypoint = fields::texts(node, "`entrypoint`", findings),
        "pull_policy" => put(&mut image.pull_policy, pull_policy(node, findings)),
        _ => {
            for (key, entry) in fields::keyed(node, "`docker`", Place::Docker, findings) {
                let slot = match key {
                    "platform" => &mut image.platform,
                    _ => &mut image.user,
                };
                *slot = word(&entry.value, &quoted(key), findings);
            }
        }
    }
}

fn name(node: &Node, what: &str, findings: &mut Findings<'_>) -> Option<String> {
    if node.text().is_none() {
        let expected = "the name of an image or a mapping";
        let expected = if what == "`name`" { "text" } else { expected };
        fields::mismatch(findings, node, what, expected);
        return None;
    }
    word(node, what, findings)
}

/// A text that says something.
fn word(node: &Node, what: &str, findings: &mut Findings<'_>) -> Option<String> {
    let text = fields::text(node, what, findings)?;
    if text.trim().is_empty() {
        findings.error(node.span, format!("{what} is empty"), None);
        return None;
    }
    Some(text)
}

/// A name that is there but wrong has a finding of its own.
fn check_name(node: &Node, what: &str, findings: &mut Findings<'_>) -> Option<()> {
    if node.get("name").is_none() {
        let hint = "say which image it runs: `name: alpine`";
        findings.error(node.span, format!("{what} has no `name`"), Some(hint.into()));
        return None;
    }
    Some(())
}

/// One word or a list of them, tried in their order.
fn pull_policy(node: &Node, findings: &mut Findings<'_>) -> Option<Vec<String>> {
    let what = "`pull_policy`";
    let items = node.list().unwrap_or(std::slice::from_ref(node));
    if items.is_empty() {
        let hint = format!("one of: {}", PULL_POLICIES.join(", "));
        findings.error(node.span, format!("{what} is empty"), Some(hint));
        return None;
    }
    let mut policy = |item: &Node| {
        let word = fields::text(item, what, findings)?;
        if !PULL_POLICIES.contains(&word.as_str()) {
            fields::one_of(item.span, what, PULL_POLICIES, findings);
            return None;
        }
        Some(word)
    };
    let read: Vec<_> = items.iter().map(&mut policy).collect();
    read.into_iter().collect()
}
