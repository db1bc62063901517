//! What is said of files that are wrong, and that none of them does harm.

use super::*;

/// Broken files: text, then for each finding line, column, a part of the message, of the hint.
type Broken = (&'static str, &'static [(usize, usize, &'static str, &'static str)]);

const BROKEN: &[Broken] = &[
    ("", &[(1, 1, "the file is empty", "")]),
    ("# only a comment\n", &[(1, 1, "the file is empty", "")]),
    ("- a\n- b\n", &[(1, 1, "must be a mapping of jobs, found a list", "")]),
    ("stages: [a]\n", &[(1, 1, "the file has no jobs", "hello")]),
    (".hidden: { script: [x] }\n", &[(1, 1, "the file has no jobs", "")]),
    ("a: [x\n", &[(1, 4, "not valid YAML", "")]),
    ("a:\n  script: echo: x\n", &[(2, 15, "not valid YAML: ", "quote text")]),
    ("a:\n\tscript: x\n", &[(2, 2, "not valid YAML", "no tabs")]),
    ("a: { script: [x] }\n---\nb: { script: [x] }\n", &[(2, 1, "second YAML document", "spec")]),
    ("a: { script: *nope }\n", &[(1, 14, "not valid YAML", "")]),
    ("a: &a { script: [x], variables: *a }\n", &[(1, 33, "inside the node it refers to", "")]),
    (
        "a:\n  scrpt: [x]\n",
        &[(1, 1, "job `a` has no `script`", ""), (2, 3, "unknown keyword `scrpt`", "`script`?")],
    ),
    (
        "a:\n  image: x\n  script: [x]\n  extends: .b\n",
        &[
            (2, 3, "`image` has no effect without containers", "`--executor docker`"),
            (4, 3, "`extends`", "YAML anchor"),
        ],
    ),
    ("image: alpine\na: { script: [x] }\n", &[(1, 1, "`image` has no effect", "docker")]),
    (
        "default: { services: [x] }\na: { script: [x] }\n",
        &[(1, 12, "`services` has no effect", "remove it")],
    ),
    ("image:\n  script: [x]\n", &[(1, 1, "`image` is a reserved word", "another name")]),
    ("default: { script: [x] }\n", &[(1, 1, "`default` is a reserved word", "")]),
    ("pages:deploy: { script: [x] }\n", &[(1, 1, "`pages:deploy` is a reserved word", "")]),
    (
        "varaibles: { A: b }\na: { script: [x] }\n",
        &[(1, 1, "unknown keyword `varaibles`", "`variables`?")],
    ),
    (
        "a: { stage: tset, script: [x] }\n",
        &[(1, 13, "unknown stage `tset`", "did you mean `test`?")],
    ),
    ("stages: [x]\na: { script: [x] }\n", &[(2, 1, "unknown stage `test`", "file's stages: x")]),
    (
        "a: { script: [x], needs: [b, lnit] }\nlint: { script: [x] }\n",
        &[
            (1, 27, "needs `b`, which is no job", "in this file"),
            (1, 30, "needs `lnit`", "`lint`?"),
        ],
    ),
    (
        "a: { stage: build, script: [x], needs: [b] }\nb: { script: [x] }\n",
        &[(1, 41, "needs `b` of a later stage", "earlier")],
    ),
    (
        "a: { script: [x], needs: [b] }\nb: { script: [x], needs: [c] }\nc: { script: [x], needs: [a] }\n",
        &[(3, 27, "jobs need each other: `a` → `b` → `c` → `a`", "")],
    ),
    ("a: { script: [x], needs: [a] }\n", &[(1, 27, "`a` → `a`", "")]),
    ("a: { script: [x], needs: [b, b] }\nb: { script: [x] }\n", &[(1, 30, "needs `b` twice", "")]),
    ("a:\n  script: [x]\n  script: [y]\n", &[(3, 3, "`script` is there twice", "line 2")]),
    ("a: { script: [] }\n", &[(1, 14, "`script` is empty", "")]),
    ("a: { script: { x: y } }\n", &[(1, 14, "`script` must be a list", "")]),
    (
        "a:\n  script:\n    - echo a: b\n    - 12\n    - true\n    -\n",
        &[
            (3, 7, "found a mapping", "quote the whole line"),
            (4, 7, "must be text, found a number", "quote it: \"12\""),
            (5, 7, "found a boolean", "quote it: \"true\""),
            (6, 6, "found nothing", ""),
        ],
    ),
    (
        "a: { script: [x], before_script: x }\n",
        &[(1, 34, "must be a list of commands", "- command")],
    ),
    (
        "a: { script: [x], timeout: soon }\n",
        &[(1, 28, "`timeout` is not a duration", "90 minutes")],
    ),
    ("a: { script: [x], timeout: 2 months }\n", &[(1, 28, "longer than a month", "")]),
    (
        "a: { script: [x], when: delayed }\n",
        &[(1, 25, "`when: delayed` is not supported", "manual")],
    ),
    ("a: { script: [x], when: alwyas }\n", &[(1, 25, "`when` cannot be `alwyas`", "`always`?")]),
    ("a: { script: [x], allow_failure: maybe }\n", &[(1, 34, "`allow_failure` must be true", "")]),
    (
        "a: { script: [x], allow_failure: { exit_codes: [a] } }\n",
        &[(1, 49, "an exit code must be", "")],
    ),
    ("a: { script: [x], tags: linux }\n", &[(1, 25, "`tags` must be a list of text", "")]),
    (
        "a: { script: [x], artifacts: { reports: {}, path: [x], paths: x, when: x } }\n",
        &[
            (1, 32, "`reports` is not supported", "GitLab server"),
            (1, 45, "unknown keyword `path`", "`paths`?"),
            (1, 63, "`paths` must be a list", "[one, two]"),
            (1, 72, "`when` cannot be `x`", "one of: on_success"),
        ],
    ),
    (
        "a: { script: [x], variables: { A: [b], B:, C: { val: x } } }\n",
        &[
            (1, 35, "variable `A` must be text", ""),
            (1, 41, "variable `B` must be text, a number or a boolean, found nothing", ""),
            (1, 49, "unknown keyword `val`", "known here: value, expand"),
        ],
    ),
    ("a: { script: [x], needs: x }\n", &[(1, 26, "`needs` must be a list of jobs", "")]),
    (
        "a: { script: [x], needs: [{ pipeline: x }] }\n",
        &[(1, 29, "`pipeline` is not supported", "")],
    ),
    ("a: hello\n", &[(1, 1, "job `a` must be a mapping, found text", "")]),
    ("123: { script: [x] }\n", &[(1, 1, "a key must be text, found a number", "\"123\"")]),
    ("on: { script: [x] }\n", &[(1, 1, "a key must be text, found a boolean", "\"on\"")]),
    (
        "a: { script: !reference [.b, script] }\n",
        &[(1, 25, "`!reference` is not supported", "anchor")],
    ),
    ("a: { script: [x], timeout: !duration 5m }\n", &[(1, 38, "the tag `!duration`", "")]),
    ("a: { <<: text, script: [x] }\n", &[(1, 6, "`<<` merges mappings, found text", "")]),
    ("a: { script: [x], when: never }\n", &[(0, 0, "no job is left", "never")]),
    (
        "before_script: [a]\ndefault: { before_script: [b] }\na: { script: [x] }\n",
        &[(2, 12, "`before_script` is there twice", "keep")],
    ),
    ("stages: []\na: { script: [x] }\n", &[(1, 9, "`stages` is empty", "")]),
];

/// The same of runs with containers.
const BROKEN_CONTAINERS: &[Broken] = &[
    ("a: { image: , script: [x] }\n", &[(1, 11, "`image` must be the name of an image", "")]),
    ("a: { image: ' ', script: [x] }\n", &[(1, 13, "`image` is empty", "")]),
    ("a: { image: 7, script: [x] }\n", &[(1, 13, "a mapping, found a number", "")]),
    ("a: { image: { name: 7 }, script: [x] }\n", &[(1, 21, "`name` must be text", "\"7\"")]),
    (
        "a: { image: { user: x }, script: [x] }\n",
        &[
            (1, 13, "`image` has no `name`", "alpine"),
            (1, 15, "`user` is not allowed here, in `image`", "under `docker`"),
        ],
    ),
    (
        "a: { image: { name: x, entrypoint: sh }, script: [x] }\n",
        &[(1, 36, "`entrypoint` must be a list of text", "[one, two]")],
    ),
    (
        "a: { image: { name: x, alias: y, ports: [80] }, script: [x] }\n",
        &[
            (1, 24, "`alias` is not allowed here, in `image`", "`services`"),
            (1, 34, "`ports` is not supported here, in `image`", "web terminal"),
        ],
    ),
    (
        "a: { image: { name: x, docker: { user: 7, platfrom: y } }, script: [x] }\n",
        &[
            (1, 40, "`user` must be text", "\"7\""),
            (1, 43, "unknown keyword `platfrom` in `docker`", "`platform`?"),
        ],
    ),
    ("a: { services: redis, script: [x] }\n", &[(1, 16, "must be a list of images", "")]),
    (
        "a: { services: [{ alias: x }, 7], script: [x] }\n",
        &[
            (1, 17, "an entry of `services` has no `name`", ""),
            (1, 31, "an entry of `services` must be the name of an image", ""),
        ],
    ),
    (
        "a: { services: [{ name: x, pull_policy: [], image: y }], script: [x] }\n",
        &[
            (1, 41, "`pull_policy` is empty", "if-not-present"),
            (1, 45, "`image` is not allowed here, in an entry of `services`", ""),
        ],
    ),
    (
        "a: { services: [{ name: x, pull_policy: [nevr, now] }], script: [x] }\n",
        &[
            (1, 42, "`pull_policy` cannot be `nevr`", "`never`?"),
            (1, 48, "`pull_policy` cannot be `now`", "one of: always"),
        ],
    ),
    (
        "image: x\ndefault: { image: y }\na: { script: [x] }\n",
        &[(2, 12, "`image` is there twice", "keep")],
    ),
];

#[test]
fn broken_files() {
    check(BROKEN, &Context::default());
    check(BROKEN_CONTAINERS, &docker(true));
}

fn check(table: &[Broken], context: &Context) {
    for (text, expected) in table {
        let found = compile(text, "f.yml", context, &[]).expect_err("the file is broken");
        let shown = format!("{text}\n{}", render(&found));
        assert_eq!(found.len(), expected.len(), "{shown}");
        for (finding, (line, column, message, hint)) in found.iter().zip(*expected) {
            let at = finding.position.map_or((0, 0), |place| (place.line, place.column));
            assert_eq!(at, (*line, *column), "{shown}");
            assert!(finding.message.contains(message), "{message}\n{shown}");
            assert!(finding.hint.as_deref().unwrap_or("").contains(hint), "{hint}\n{shown}");
            assert!(finding.rendering.lines().all(|l| l.chars().count() <= 80), "{shown}");
        }
    }
}

#[test]
fn a_rendering() {
    let found = findings("build:\n  script:\n    - make\n  image: alpine\ntest: {}\n");
    assert_eq!(
        render(&found[..1]),
        "\
error: `image` has no effect without containers
 --> f.yml:4:3
  |
3 |     - make
4 |   image: alpine
  |   ^^^^^
5 | test: {}
  |
  = help: run the pipeline with `--executor docker`, or remove it
"
    );
}

#[test]
fn hostile_files_end_quickly() {
    let mut bomb = String::from(".a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!(".a{level}: &a{level} [{aliases}]\n"));
    }
    bomb.push_str("j: { script: *a8 }\n");
    assert!(findings(&bomb)[0].message.contains("aliases expand"));
    assert!(findings(&"[".repeat(100_000))[0].message.contains("not valid YAML"));
    assert!(findings(&"x".repeat((1 << 20) + 1))[0].message.contains("larger than 1 MiB"));
    assert_eq!(findings("a: \u{1}").len(), 1);
    let many: String = (0..1_000).map(|n| format!("j{n}: {{ scrpt: [x] }}\n")).collect();
    assert_eq!(findings(&many).len(), 2_000);
}

#[test]
fn any_prefix_of_a_file_is_read_without_panic() {
    let text = ".b: &b {before_script: [a]}\na:\n  <<: *b\n  script: [\"ü\\n\", 'x']\n  needs: [{job: a}]\n";
    for (end, _) in text.char_indices() {
        drop(compile(&text[..end], "f", &Context::default(), &[]));
        drop(compile(&text[end..], "f", &Context::default(), &[]));
    }
}

/// Characters put in, taken out and replaced at places chosen by a seeded generator.
#[test]
fn damaged_files_are_read_without_panic() {
    let rounds: u64 =
        std::env::var("DAMAGE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let alphabet: Vec<char> =
        "&*<>[]{}:,-!|\"'#%@`?~ \n\t\r\u{0}\u{1b}\u{feff}\u{85}ü日a1.$".chars().collect();
    let mut seed = 1_u64;
    let mut next = |limit: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).expect("31 bits") % limit
    };
    let texts: Vec<&str> =
        BROKEN.iter().chain(BROKEN_CONTAINERS).map(|(text, _)| *text).chain([FULL]).collect();
    for round in 0..rounds {
        let text = texts[usize::try_from(round).expect("small") % texts.len()];
        let mut text: Vec<char> = text.chars().collect();
        for _ in 0..=next(4) {
            let at = next(text.len() + 1);
            match next(3) {
                0 => text.insert(at, alphabet[next(alphabet.len())]),
                1 if at < text.len() => drop(text.remove(at)),
                _ if at < text.len() => text[at] = alphabet[next(alphabet.len())],
                _ => {}
            }
        }
        let text: String = text.into_iter().collect();
        let Err(found) = compile(&text, "f.yml", &docker(false), &[]) else { continue };
        assert!(!found.is_empty());
        for finding in found {
            let width = finding.rendering.lines().map(|line| line.chars().count()).max();
            assert!(width <= Some(90), "{}", finding.rendering);
            let hidden = finding.rendering.chars().any(|c| c.is_control() && c != '\n');
            assert!(!hidden, "{text:?}\n{:?}", finding.rendering);
        }
    }
}
