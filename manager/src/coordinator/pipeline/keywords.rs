//! Pure. The words of a pipeline file: which are understood where, and what to say of others.
//!
//! GitLab's own words that `mayfly exec` does not have yet are known here by name, each with
//! the way around it; a word that is close to a known one is taken for a typing error.

/// Where in the file a word stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Top,
    Default,
    Job,
    Artifacts,
    GlobalVariable,
    JobVariable,
    Need,
    AllowFailure,
    Image,
    Service,
    Docker,
}

/// Names that no job may have: GitLab's table, `Ci::Config::Entry::Root` and `Jobs`.
pub(super) const RESERVED: &[&str] = &[
    "image",
    "services",
    "stages",
    "types",
    "before_script",
    "after_script",
    "variables",
    "cache",
    "include",
    "pages:deploy",
    "workflow",
    "default",
    "spec",
];

const SERVER: &str = "needs a GitLab server; a local run has none: remove it";

/// GitLab's words that are refused, and what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("cache", "is not supported yet: jobs start without one, so removing it only costs time"),
    ("rules", "are not evaluated yet: use `when`, or name the jobs on the command line"),
    ("only", "is not evaluated yet: use `when`, or name the jobs on the command line"),
    ("except", "is not evaluated yet: use `when`, or name the jobs on the command line"),
    ("extends", "is not supported yet: use a YAML anchor, `<<: *name`"),
    ("include", "is not supported yet: copy the jobs into this file"),
    ("inherit", "is not supported yet: say in the job what it should have"),
    ("dependencies", "is not supported yet: use `needs`, with `artifacts: false` where wanted"),
    ("parallel", "is not supported yet: write the jobs out one by one"),
    ("matrix", "is not supported yet: write the jobs out one by one"),
    ("retry", "is not supported yet: run the job again by naming it on the command line"),
    ("interruptible", "has no meaning in a local run: remove it"),
    ("resource_group", "has no meaning in a local run: remove it"),
    ("start_in", "belongs to `when: delayed`, which is not supported yet"),
    ("coverage", SERVER),
    ("environment", SERVER),
    ("release", SERVER),
    ("secrets", SERVER),
    ("id_tokens", SERVER),
    ("trigger", SERVER),
    ("pages", SERVER),
    ("publish", SERVER),
    ("identity", SERVER),
    ("manual_confirmation", SERVER),
    ("dast_configuration", SERVER),
    ("hooks", "are not supported yet: put the commands into `before_script`"),
    ("run", "needs GitLab's step runner, which is not supported yet: use `script`"),
    ("inputs", "are not supported yet: use `variables`"),
    ("spec", "is not supported yet: use `variables`"),
    ("workflow", "is not evaluated yet: remove it, every local run makes a pipeline"),
    ("type", "is an old word: write `stage`"),
    ("types", "is an old word: write `stages`"),
    ("reports", SERVER),
    ("expose_as", SERVER),
    ("public", SERVER),
    ("access", SERVER),
    ("options", "belongs to a variable of the whole file"),
    ("description", "belongs to a variable of the whole file"),
    ("pipeline", "is not supported: a job can need only jobs of this file"),
    ("project", "is not supported: a job can need only jobs of this file"),
    ("ref", "is not supported: a job can need only jobs of this file"),
    ("ports", "belongs to GitLab's web terminal, which a local run does not have: remove it"),
    ("kubernetes", "belongs to another executor: say it under `docker`"),
];

/// The words understood at `place`.
pub(super) fn accepted(place: Place) -> &'static [&'static str] {
    match place {
        Place::Top => &[
            "stages",
            "variables",
            "default",
            "image",
            "services",
            "before_script",
            "after_script",
        ],
        Place::Default => {
            &["image", "services", "before_script", "after_script", "artifacts", "tags", "timeout"]
        }
        Place::Job => &[
            "stage",
            "image",
            "services",
            "script",
            "before_script",
            "after_script",
            "variables",
            "needs",
            "artifacts",
            "allow_failure",
            "when",
            "timeout",
            "tags",
        ],
        Place::Artifacts => &["paths", "exclude", "name", "when", "untracked", "expire_in"],
        Place::GlobalVariable => &["value", "description", "expand", "options"],
        Place::JobVariable => &["value", "expand"],
        Place::Need => &["job", "artifacts", "optional"],
        Place::AllowFailure => &["exit_codes"],
        Place::Image => &["name", "entrypoint", "pull_policy", "docker"],
        Place::Service => {
            &["name", "alias", "entrypoint", "command", "variables", "pull_policy", "docker"]
        }
        Place::Docker => &["platform", "user"],
    }
}

/// Whether `word` is one of GitLab's that is refused wherever it stands.
pub(super) fn is_refused(word: &str) -> bool {
    REFUSED.iter().any(|(known, _)| *known == word)
}

/// What to say of `word`, which is not understood at `place`: the message's verb and a hint.
pub(super) fn explain(place: Place, word: &str) -> (&'static str, String) {
    if let Some((_, hint)) = REFUSED.iter().find(|(known, _)| *known == word) {
        return ("not supported here", format!("`{word}` {hint}"));
    }
    let elsewhere = [Place::Top, Place::Job, Place::Artifacts, Place::Service, Place::Docker];
    let stands_in = |place: Place| match place {
        Place::Top => "belongs to the top of the file",
        Place::Job => "belongs into a job",
        Place::Artifacts => "belongs under `artifacts`",
        Place::Service => "belongs to an entry of `services`",
        _ => "belongs under `docker`",
    };
    if let Some(right) = elsewhere.into_iter().find(|other| accepted(*other).contains(&word)) {
        return ("not allowed here", format!("`{word}` {}", stands_in(right)));
    }
    match closest(place, word) {
        Some(similar) => ("unknown", format!("did you mean `{similar}`?")),
        None => ("unknown", format!("known here: {}", accepted(place).join(", "))),
    }
}

/// The known word that `word` is probably a mistyping of.
pub(super) fn closest(place: Place, word: &str) -> Option<&'static str> {
    let refused = REFUSED.iter().map(|(known, _)| *known);
    let known = accepted(place).iter().copied().chain(refused);
    similar(word, known)
}

/// The candidate within two edits (fewer for short words) of `word`, the nearest first.
pub(super) fn similar<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = word.chars().count();
    if length > 255 {
        return None;
    }
    let limit = match length {
        0..=2 => 0,
        3..=4 => 1,
        _ => 2,
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap neighbours) that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanations() {
        let table = [
            (Place::Job, "scrpt", "did you mean `script`?"),
            (Place::Job, "tiemout", "did you mean `timeout`?"),
            (Place::Job, "imagee", "did you mean `image`?"),
            (Place::Job, "stages", "`stages` belongs to the top of the file"),
            (Place::Job, "paths", "`paths` belongs under `artifacts`"),
            (Place::Default, "script", "`script` belongs into a job"),
            (Place::Image, "alias", "`alias` belongs to an entry of `services`"),
            (Place::Image, "user", "`user` belongs under `docker`"),
            (Place::Service, "nmae", "did you mean `name`?"),
            (Place::AllowFailure, "zzz", "known here: exit_codes"),
        ];
        for (place, word, hint) in table {
            assert_eq!(explain(place, word).1, hint);
        }
    }

    #[test]
    fn refused_words_are_nowhere_accepted() {
        let places = [Place::Top, Place::Default, Place::Job, Place::Artifacts, Place::Need];
        for place in places.into_iter().chain([Place::Image, Place::Service, Place::Docker]) {
            assert!(accepted(place).iter().all(|word| !is_refused(word)), "{place:?}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, edits) in [("", "abc", 3), ("abc", "abc", 0), ("acb", "abc", 1), ("a", "b", 1)] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
