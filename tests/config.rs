//! A configuration that cannot be used is refused with its place, the reason and the
//! remedy, by `config check` as by `run`, and nothing is left behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{binaries, processes};
use tempfile::TempDir;

/// Exit code of a configuration that is wrong: docs/exit-codes.md.
const CONFIG: i32 = 3;
/// What all files have in common and no message may show.
const TOKEN: &str = "0123456789abcdefghij";

/// A file, the line that is shown (0 for none), and what is said: reason and remedy.
const FILES: &[(&str, usize, &[&str])] = &[
    ("alone-without-unit", 9, &["report_alone_after", "too short", "\"120s\""]),
    ("bad-duration", 19, &["policy[0].idle_time", "no duration", "\"1h30m\""]),
    ("bad-period", 17, &["policy[0].periods", "hour", "* 8-17 * * mon-fri"]),
    ("bad-protocol", 15, &["connector_config.protocol", "telnet", "leave it out"]),
    ("bad-timezone", 18, &["Europe/Atlantis", "Europe/Berlin"]),
    ("bad-url", 5, &["no http or https URL", "https://gitlab.example.com"]),
    ("client-certificate", 7, &["tls-cert-file", "not supported yet", "remove the key"]),
    ("concurrent-zero", 1, &["too small", "1 or more"]),
    ("docker-autoscaler", 7, &["\"linux\" has no [runners.docker] table", "`image`"]),
    ("docker-builds-dir", 8, &["builds_dir: \"builds\"", "absolute path", "\"/builds\""]),
    ("docker-cache-dir", 10, &["docker.cache_dir: \"cache\" is relative", "absolute path"]),
    ("docker-cpu-shares", 10, &["docker.cpu_shares: -1 is too small", "0 or more"]),
    ("docker-cpus", 10, &["docker.cpus: \"all\" is no number of processors", "\"1.5\""]),
    ("docker-device", 10, &["docker.devices: \"kvm\" is no device", "/dev/inside"]),
    ("docker-dns", 10, &["docker.dns: \"dns.example.com\" is no address", "IP addresses"]),
    (
        "docker-executor",
        7,
        &["\"docker\" is not an executor", "\"docker-autoscaler\"", "fleeting-plugin-local"],
    ),
    ("docker-extra-host", 10, &["docker.extra_hosts: \"db\" has no address", "name:address"]),
    ("docker-gpus", 10, &["docker.gpus: \"capabilities=utility\" is not supported", "\"all\""]),
    (
        "docker-host",
        10,
        &["docker.host: is not supported", "that instance's own daemon", "unix:///run"],
    ),
    ("docker-little-memory", 10, &["docker.memory: \"128\" is less", "mind the unit"]),
    ("docker-log-options", 10, &["log_options.max-size: is no option", "`env` and `labels`"]),
    ("docker-machine", 7, &["\"docker+machine\" is not an executor", "\"docker-autoscaler\""]),
    ("docker-macos", 17, &["Linux instances", "no Docker daemon", "\"instance\""]),
    ("docker-memory", 10, &["docker.memory: \"much\" is no size", "\"512m\""]),
    ("docker-mtu", 10, &["network_mtu: -1 is too small", "0 or more"]),
    (
        "docker-nameless-service",
        10,
        &["docker.services[0].name: is missing", "the service's image"],
    ),
    (
        "docker-no-profile",
        10,
        &["services_security_opt: config.toml is not JSON", "Docker's documentation"],
    ),
    ("docker-oom-score", 10, &["oom_score_adjust: 2000", "-1000 to 1000"]),
    ("docker-pull-policy", 10, &["docker.pull_policy: \"sometimes\"", "if-not-present"]),
    (
        "docker-pull-policy-type",
        10,
        &["docker.pull_policy: is a whole number", "a list of texts", "in quotes"],
    ),
    ("docker-seccomp", 10, &["docker.security_opt: cannot read", "no-such-profile.json"]),
    ("docker-services-limit", 10, &["services_limit: 0 is less than", "raise it"]),
    ("docker-swap-alone", 10, &["service_memory_swap: \"1g\" counts only with", "set that, too"]),
    (
        "docker-tls",
        10,
        &["docker.tls_verify: is not supported", "over its socket", "remove the key"],
    ),
    ("docker-ulimit", 10, &["docker.ulimit.nofile: \"many\" is no limit", "soft:hard"]),
    ("docker-ulimit-type", 10, &["docker.ulimit.nofile: is a whole number", "in quotes"]),
    ("docker-user", 10, &["docker.user: \"root\"", "allowed_users"]),
    ("docker-volume", 10, &["docker.volumes: \"cache\"", "no absolute path", "/outside:/inside"]),
    ("docker-volume-twice", 10, &["second volume at /cache", "keep one"]),
    ("key-twice", 8, &["duplicate key", "keep one"]),
    ("negative-capacity", 10, &["capacity_per_instance: -1", "0 or more"]),
    ("negative-idle-count", 18, &["policy[0].idle_count: -1", "0 or more"]),
    ("negative-instances", 11, &["max_instances: -2", "0 or more"]),
    ("negative-limit", 7, &["limit: -1", "0 or more"]),
    ("negative-scale-factor", 19, &["scale_factor: -0.5", "switch it off"]),
    ("no-autoscaler", 3, &["no [runners.autoscaler]", "`plugin`"]),
    ("no-executor", 3, &["executor: is missing", "executor = \"instance\""]),
    ("no-plugin", 8, &["plugin: is missing", "fleeting-plugin-local"]),
    ("no-runners", 0, &["no [[runners]] entry", "README.md"]),
    ("no-token", 3, &["has a token", "into `token`"]),
    ("no-url", 3, &["url: is missing", "https://gitlab.example.com"]),
    ("not-toml", 7, &["not TOML", "put texts in quotes"]),
    ("periods-no-array", 17, &["policy[0].periods: is a text", "periods = ["]),
    ("policy-no-array", 16, &["is a table", "[[runners.autoscaler.policy]]"]),
    ("port-out-of-range", 15, &["protocol_port: 65536", "1 to 65535"]),
    ("powershell", 7, &["\"pwsh\" is not supported", "\"bash\""]),
    ("runners-no-array", 3, &["is a table", "[[runners]]"]),
    ("short-period", 17, &["five fields", "this one has 3", "mon-fri"]),
    ("static-without-user", 14, &["username: is required", "name the user"]),
    ("unclosed-string", 6, &["no closing quote", "put a quote"]),
    ("unknown-executor", 7, &["\"shell\" is not an executor", "\"instance\""]),
    ("unreadable-ca", 7, &["cannot read", "no-such-ca.crt", "correct the path"]),
    ("unreadable-key", 16, &["cannot read", "no-such-key", "correct the path"]),
    ("vm-isolation", 12, &["vm_isolation: is not supported", "remove the table"]),
    ("windows", 15, &["Windows instances", "use Linux"]),
    ("winrm", 15, &["WinRM", "use ssh"]),
    ("wrong-type", 1, &["concurrent: is a text", "a whole number"]),
    ("wrong-type-nested", 11, &["max_instances: is a text", "max_instances = 2"]),
    ("twins", 3, &["\"again\" is the second entry", "register a runner of its own"]),
];

#[test]
fn every_broken_file_is_in_the_table() {
    let known = |name: &str| name == "many-errors" || FILES.iter().any(|(file, ..)| *file == name);
    for entry in std::fs::read_dir(folder()).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        assert!(known(&name), "{name} is not in the table");
    }
}

#[test]
fn a_broken_file_gets_one_error_with_place_reason_and_remedy() {
    for (name, line, says) in FILES {
        let case = Case::new(name);
        for command in [["config", "check"].as_slice(), &["run"]] {
            let text = case.refused(command);
            let errors = text.lines().filter(|line| line.starts_with("error")).count();
            assert_eq!(errors, 1, "{name}: {text}");
            if *line > 0 {
                let place = format!("{}:{line}:", case.path().display());
                assert!(text.contains(&place), "{name}: at line {line}: {text}");
            }
            for part in *says {
                assert!(text.contains(part), "{name}: says {part:?}: {text}");
            }
        }
    }
}

#[test]
fn all_errors_of_a_file_are_told_at_once() {
    let text = Case::new("many-errors").refused(&["config", "check"]);
    assert!(text.ends_with("the configuration is not used: 4 errors\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("error")).count(), 4, "{text}");
}

#[test]
fn a_file_that_cannot_be_read() {
    let case = Case::new("no-url");
    std::fs::remove_file(case.path()).expect("it was there");
    let text = case.refused(&["run"]);
    assert!(text.contains("cannot read the configuration"), "{text}");
    assert!(text.contains("--config"), "{text}");
}

#[test]
fn an_executor_without_containers_does_not_look_at_their_table() {
    let case = Case::new("docker-cpus");
    let text = std::fs::read_to_string(case.path()).expect("the file");
    let text = text.replace("\"docker-autoscaler\"", "\"instance\"");
    let text = text.replace("image =", "no_such_key =");
    std::fs::write(case.path(), text).expect("written");
    let (code, text) = case.says(&["config", "check"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("docker.") && !text.contains("no_such_key"), "{text}");
}

#[test]
fn another_executor_and_other_containers_are_foretold() {
    let case = Case::new("docker-cpus");
    let broken = std::fs::read_to_string(case.path()).expect("the file");
    let good = broken.replace("cpus = \"all\"", "memory = \"1g\"");
    let before = good.replace("\"docker-autoscaler\"", "\"instance\"");
    let candidate = case.directory.path().join("candidate.toml");
    let candidate_text = candidate.display().to_string();
    for (now, then, says) in [
        (&before, &good, &["executor", "instance", "docker-autoscaler", "go as they get empty"]),
        (
            &good,
            &good.replace("\"1g\"", "\"2g\""),
            &["docker.memory", "2147483648", "next jobs", ""],
        ),
    ] {
        std::fs::write(case.path(), now).expect("written");
        std::fs::write(&candidate, then).expect("written");
        let (_, text) = case.says(&["config", "plan", &candidate_text]);
        for part in says {
            assert!(text.contains(part), "says {part:?}: {text}");
        }
    }
}

/// A broken file in a directory of its own.
struct Case {
    directory: TempDir,
}

impl Case {
    fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let case = Self { directory };
        let text = std::fs::read(folder().join(name).with_extension("toml")).expect("the file");
        std::fs::write(case.path(), text).expect("a copy");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(case.path(), mode).expect("its mode");
        case
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// What a command says that refuses the file.
    fn refused(&self, arguments: &[&str]) -> String {
        let (code, text) = self.says(arguments);
        assert_eq!(code, Some(CONFIG), "{arguments:?}: {text}");
        text
    }

    /// What a command says of the file, and its exit code. It leaves nothing behind.
    fn says(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = Command::new(binaries().mayfly())
            .args(arguments)
            .arg("--config")
            .arg(self.path())
            .env("MAYFLY_STATE_DIR", self.state_dir())
            .output()
            .expect("mayfly can be run");
        let text =
            String::from_utf8(stdout).expect("text") + &String::from_utf8(stderr).expect("text");
        assert!(!text.contains(TOKEN), "{arguments:?} shows the token: {text}");
        assert!(!self.state_dir().exists(), "{arguments:?} made a state directory");
        let left = processes::mentioning(&self.directory.path().display().to_string());
        assert!(left.is_empty(), "{arguments:?} left {left:?}");
        (status.code(), text)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("broken-configs")
}
