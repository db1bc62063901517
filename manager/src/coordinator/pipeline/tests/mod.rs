//! Whole files through the compiler.

use std::time::Duration;

use super::*;
use crate::coordinator::{Context, Executor};

mod broken;

fn compiled(text: &str) -> Pipeline {
    compile_only(text, &[])
}

fn compile_only(text: &str, only: &[&str]) -> Pipeline {
    let only: Vec<String> = only.iter().map(|name| name.to_string()).collect();
    match compile(text, "f.yml", &Context::default(), &only) {
        Ok(pipeline) => pipeline,
        Err(found) => panic!("{}", render(&found)),
    }
}

fn findings(text: &str) -> Vec<Diagnostic> {
    compile(text, "f.yml", &Context::default(), &[]).expect_err("the file is broken")
}

/// A run whose jobs are containers.
fn docker(has_image: bool) -> Context {
    Context { executor: Executor::Docker { has_image }, ..Context::default() }
}

fn render(found: &[Diagnostic]) -> String {
    found.iter().map(|finding| format!("{finding}\n")).collect()
}

fn job<'a>(pipeline: &'a Pipeline, name: &str) -> &'a CompiledJob {
    pipeline.jobs.iter().find(|job| job.name == name).expect("the job exists")
}

fn lines(text: &[&str]) -> Vec<String> {
    text.iter().map(|line| line.to_string()).collect()
}

const FULL: &str = "
stages: [build, test]
default:
  before_script: [echo before]
  timeout: 10 minutes
  artifacts: { paths: [log/] }
variables:
  GLOBAL: g
  BOTH: { value: one, description: of the file }
build:
  stage: build
  script:
    - make
    - [a, [b]]
  variables: { BOTH: two, RAW: { value: $X, expand: false } }
  artifacts:
    name: out
    paths: [out/, '*.txt']
    exclude: [out/tmp]
    when: always
    untracked: true
    expire_in: 1 week
test:
  script: make test
  before_script: []
  after_script: [echo after]
  needs: [build, { job: lint, artifacts: false, optional: true }, { job: gone, optional: true }]
  allow_failure: { exit_codes: [1, 2] }
  timeout: 1h 30m
  when: always
lint:
  needs: []
  script: [lint]
  tags: [linux]
";

#[test]
fn a_full_file() {
    let pipeline = compiled(FULL);
    assert_eq!(pipeline.stages, lines(&[".pre", "build", "test", ".post"]));
    let build = job(&pipeline, "build");
    assert_eq!(build.scripts.script, lines(&["make", "a", "b"]));
    assert_eq!(build.scripts.before, lines(&["echo before"]));
    assert_eq!(build.timeout, Duration::from_secs(600));
    let variable =
        |name: &str, value: &str, raw| Variable { name: name.into(), value: value.into(), raw };
    assert_eq!(
        build.variables,
        [
            variable("GLOBAL", "g", false),
            variable("BOTH", "two", false),
            variable("RAW", "$X", true)
        ]
    );
    assert_eq!(
        build.artifacts,
        Some(Artifacts {
            paths: lines(&["out/", "*.txt"]),
            exclude: lines(&["out/tmp"]),
            name: Some("out".into()),
            untracked: true,
            expire_in: Some("1 week".into()),
            when: ArtifactsWhen::Always,
        })
    );
    let test = job(&pipeline, "test");
    assert_eq!((test.stage.as_str(), test.stage_index), ("test", 2));
    assert!(test.scripts.before.is_empty());
    assert_eq!(test.scripts.after, lines(&["echo after"]));
    assert_eq!(test.allow_failure, AllowFailure::ExitCodes(vec![1, 2]));
    assert_eq!(test.when, When::Always);
    assert_eq!(test.timeout, Duration::from_secs(5400));
    assert_eq!(test.artifacts.as_ref().map(|a| a.paths.clone()), Some(lines(&["log/"])));
    let needs = test.needs.as_ref().expect("needs");
    let needs: Vec<_> = needs.iter().map(|need| (need.job.as_str(), need.artifacts)).collect();
    assert_eq!(needs, [("build", true), ("lint", false)]);
    assert_eq!(job(&pipeline, "lint").needs, Some(vec![]));
    assert!(pipeline.notes.iter().any(|note| note.contains("`tags` are ignored")));
}

#[test]
fn anchors_aliases_and_merges() {
    let pipeline = compiled(
        "
.base: &base
  before_script: &setup [one, two]
  variables: { A: base }
  timeout: 5m
.more: &more { timeout: 6m, tags: [x] }
a:
  <<: *base
  script: [*setup, three]
  timeout: 7m
b:
  <<: [*more, *base]
  script: [x]
c:
  timeout: 8m
  <<: *base
  script: &same
    - x
d: { script: *same }
",
    );
    let a = job(&pipeline, "a");
    assert_eq!(a.scripts.script, lines(&["one", "two", "three"]));
    assert_eq!(a.scripts.before, lines(&["one", "two"]));
    assert_eq!(a.timeout, Duration::from_secs(420));
    assert_eq!(job(&pipeline, "b").timeout, Duration::from_secs(360));
    assert_eq!(job(&pipeline, "c").timeout, Duration::from_secs(300), "merges override, as Psych");
    assert!(pipeline.notes.iter().any(|note| note.starts_with("line 16: `<<` comes after")));
    assert_eq!(job(&pipeline, "d").scripts.script, lines(&["x"]));
}

#[test]
fn scalars_mean_what_they_mean_in_gitlab() {
    let pipeline = compiled(
        "j: { script: [x], variables: { A: 010, B: 1.10, C: yes, D: '010', E: 22:22, F: '' } }",
    );
    let values: Vec<_> =
        pipeline.jobs[0].variables.iter().map(|variable| variable.value.as_str()).collect();
    assert_eq!(values, ["8", "1.1", "true", "010", "1342", ""]);
    assert_eq!(pipeline.notes.len(), 4, "{:?}", pipeline.notes);
    assert!(pipeline.notes[1].contains("`B` becomes `1.1`"), "{:?}", pipeline.notes);
}

#[test]
fn named_jobs_bring_what_they_need() {
    let text = "
stages: [build, test, deploy]
a: { stage: build, script: [a] }
b: { stage: test, script: [b], needs: [a] }
c: { stage: deploy, script: [c], when: manual }
d: { stage: deploy, script: [d] }
";
    let names = |only: &[&str]| -> Vec<String> {
        compile_only(text, only).jobs.iter().map(|job| job.name.clone()).collect()
    };
    assert_eq!(names(&[]), ["a", "b", "c", "d"]);
    assert_eq!(names(&["b"]), ["a", "b"]);
    assert_eq!(names(&["d"]), ["d"]);
    let manual = compile_only(text, &["c"]);
    assert_eq!(manual.jobs[0].when, When::OnSuccess);
    assert_eq!(manual.jobs[0].allow_failure, AllowFailure::Never);
    let all = compiled(text);
    assert_eq!(job(&all, "c").allow_failure, AllowFailure::Always);
    assert!(all.notes.iter().any(|note| note.contains("`c` is `when: manual`")));
    let unknown = compile(text, "f.yml", &Context::default(), &["bb".into()]).expect_err("unknown");
    assert_eq!(unknown[0].position, None);
    assert_eq!(unknown[0].hint.as_deref(), Some("the file's jobs are: a, b, c, d"));
}

#[test]
fn jobs_that_never_run_are_left_out() {
    let pipeline = compiled(
        "a: { script: [a], when: never }\nb: { script: [b], needs: [{ job: a, optional: true }] }",
    );
    assert_eq!(pipeline.jobs.len(), 1);
    assert_eq!(pipeline.jobs[0].needs, Some(vec![]));
}

#[test]
fn a_job_has_containers_of_its_own_or_the_defaults() {
    let text = "
default:
  image: base:1
  services: [redis, { name: 'db:1', alias: db, variables: { A: 1 } }]
own:
  image: { name: own:1, entrypoint: [sh, -c], pull_policy: never, docker: { platform: linux/amd64, user: '1' } }
  services: []
  script: [x]
plain: { script: [x] }
";
    let pipeline = compile(text, "f.yml", &docker(false), &[]).expect("it compiles");
    let own = job(&pipeline, "own");
    let image = Image {
        name: "own:1".into(),
        entrypoint: Some(lines(&["sh", "-c"])),
        pull_policy: lines(&["never"]),
        platform: Some("linux/amd64".into()),
        user: Some("1".into()),
    };
    assert_eq!((own.image.as_ref(), own.services.len()), (Some(&image), 0));
    let plain = job(&pipeline, "plain");
    assert_eq!(plain.image.as_ref().map(|image| image.name.as_str()), Some("base:1"));
    let [redis, db] = &plain.services[..] else { panic!("{:?}", plain.services) };
    assert_eq!((redis.image.name.as_str(), redis.alias.as_deref()), ("redis", None));
    assert_eq!((db.image.name.as_str(), db.alias.as_deref()), ("db:1", Some("db")));
    let a = Variable { name: "A".into(), value: "1".into(), raw: false };
    assert_eq!(db.variables, [a]);
}

#[test]
fn a_job_without_an_image_needs_a_default() {
    let text = "a: { script: [x] }\nb: { image: b, script: [x] }\n";
    assert!(compile(text, "f.yml", &docker(true), &[]).is_ok());
    assert!(compile(text, "f.yml", &docker(false), &["b".into()]).is_ok());
    let found = compile(text, "f.yml", &docker(false), &[]).expect_err("no image");
    assert_eq!(found.len(), 1);
    assert!(found[0].message.contains("`a` names no image"), "{}", found[0]);
    assert!(found[0].hint.as_deref().is_some_and(|hint| hint.contains("--image")), "{}", found[0]);
}
