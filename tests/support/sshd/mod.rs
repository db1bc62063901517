//! Machines to run jobs on: accounts of this machine behind Debian's own OpenSSH server,
//! hardened as administrators do (no PAM, no forwarding, ten sessions a connection).
//!
//! Each machine is an account with a home of its own and an address of the loopback
//! network. Needs root, since `sshd` becomes the users that log in.

mod accounts;

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::processes;
use crate::skipped;
use crate::wait::{look_until, seconds};
use accounts::Account;

/// An OpenSSH server listens on 16 addresses at most; machines beyond share them.
const ADDRESSES: u8 = 16;
const SSHD: &str = "/usr/sbin/sshd";

/// An OpenSSH server that is about to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    machines: u8,
    lines: String,
    keys: Keys,
    group: Option<u32>,
}

/// What the server's and the users' keys are.
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    /// ed25519, in OpenSSH's format.
    Ed25519,
    /// RSA of 4096 bits, in OpenSSH's format.
    Rsa,
    /// RSA of 4096 bits, in PKCS#1, as clouds hand them out.
    RsaPem,
}

impl Keys {
    /// Arguments of `ssh-keygen`.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Ed25519 => &["-t", "ed25519"],
            Self::Rsa => &["-t", "rsa", "-b", "4096"],
            Self::RsaPem => &["-t", "rsa", "-b", "4096", "-m", "PEM"],
        }
    }
}

/// A running OpenSSH server. It ends with this value, its accounts and whatever runs
/// under them too.
#[derive(Debug)]
pub struct Sshd {
    directory: TempDir,
    address: SocketAddr,
    machines: Vec<Machine>,
    server: Child,
}

/// One machine.
#[derive(Debug)]
pub struct Machine {
    /// Its name, such as `machine-001`.
    pub name: String,
    /// `127.0.77.x:PORT`.
    pub address: String,
    /// A private key that may log in.
    pub key_path: PathBuf,
    account: Account,
}

impl Setup {
    /// So many machines; one unless set, 200 at most.
    #[must_use]
    pub fn machines(mut self, n: u8) -> Self {
        assert!((1..=200).contains(&n), "from 1 to 200 machines, not {n}");
        self.machines = n;
        self
    }

    /// A line of `sshd_config` that wins over those that are there.
    #[must_use]
    pub fn config(mut self, line: &str) -> Self {
        // sshd takes the first value of a key.
        self.lines.push_str(line);
        self.lines.push('\n');
        self
    }

    /// One more group that all users are in, by its number.
    #[must_use]
    pub fn group(mut self, id: u32) -> Self {
        self.group = Some(id);
        self
    }

    /// What the keys are; ed25519 unless set.
    #[must_use]
    pub fn keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// Starts the server; `None`, with the reason printed, where that is not possible.
    pub fn start(self) -> Option<Sshd> {
        match missing() {
            None => Some(Sshd::launch(&self)),
            Some(missing) => {
                skipped(&missing);
                None
            }
        }
    }
}

/// What this machine lacks for an OpenSSH server.
fn missing() -> Option<String> {
    if !Path::new(SSHD).is_file() {
        return Some(format!("{SSHD} is not there: apt-get install openssh-server"));
    }
    if !rustix::process::geteuid().is_root() {
        return Some("OpenSSH can be tested by root only: it becomes other users".into());
    }
    let tools = ["useradd", "userdel", "ssh-keygen"];
    let is_there = |tool: &&str| Command::new(tool).arg("--help").output().is_ok();
    let lacking: Vec<&str> = tools.into_iter().filter(|tool| !is_there(tool)).collect();
    (!lacking.is_empty()).then(|| format!("there is no {}", lacking.join(", no ")))
}

impl Sshd {
    /// Settings of a server with one machine.
    pub fn setup() -> Setup {
        Setup { machines: 1, lines: String::new(), keys: Keys::Ed25519, group: None }
    }

    /// A server with one machine; `None`, with the reason printed, where that is not
    /// possible.
    pub fn start() -> Option<Self> {
        Self::setup().start()
    }

    fn launch(setup: &Setup) -> Self {
        // Homes lie in it: users must be able to reach them.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let directory = tempfile::Builder::new()
            .prefix("mayfly-sshd-")
            .permissions(open)
            .tempdir()
            .expect("a directory for the server");
        let at = |name: &str| directory.path().join(name);
        for name in ["host_key", "key"] {
            let path = at(name).display().to_string();
            let mut arguments = vec!["-q", "-N", "", "-f", &path];
            arguments.extend(setup.keys.arguments());
            run("ssh-keygen", &arguments);
        }
        let address = free_port();
        let machines: Vec<Machine> = (1..=setup.machines)
            .map(|n| {
                let name = format!("machine-{n:03}");
                Machine {
                    address: format!("127.0.77.{}:{}", (n - 1) % ADDRESSES + 1, address.port()),
                    key_path: at("key"),
                    account: Account::create(&at(&name), setup.group),
                    name,
                }
            })
            .collect();
        std::fs::copy(at("key.pub"), at("authorized_keys")).expect("a copy of the public key");
        std::fs::write(at("sshd_config"), config(directory.path(), setup, &machines))
            .expect("the server's configuration is written");
        // sshd insists on it, and Debian makes it when the service starts.
        std::fs::create_dir_all("/run/sshd").expect("/run/sshd");
        let server = spawn(directory.path());
        let mut sshd = Self { directory, address, machines, server };
        sshd.wait_until_up();
        sshd
    }

    /// Its machines.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The machines as `instances` of the static provider's configuration.
    pub fn instances(&self) -> Value {
        let login = |machine: &Machine| {
            let login = json!({
                "user": machine.user(), "key_path": machine.key_path, "addr": machine.address,
            });
            (machine.name.clone(), login)
        };
        self.machines.iter().map(login).collect::<Map<_, _>>().into()
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Cuts all connections, as a failing network does; new ones are taken. What left its
    /// session lives on.
    pub fn cut_connections(&self) {
        for process in processes::descendants(self.server.id().cast_signed()) {
            if process.runs("sshd") {
                process.kill();
            }
        }
    }

    /// Takes no more connections, and cuts those that are.
    pub fn stop(&mut self) {
        self.cut_connections();
        if let Some(pid) = Pid::from_raw(self.server.id().cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.server.wait();
    }

    /// Takes connections again.
    pub fn start_again(&mut self) {
        self.server = spawn(self.directory.path());
        self.wait_until_up();
    }

    fn wait_until_up(&mut self) {
        const PATIENCE: Duration = seconds(10);
        let address = self.machines[0].address.parse().unwrap_or(self.address);
        let up = look_until(PATIENCE, || {
            let ended = self.server.try_wait().expect("sshd is a child of this test");
            assert!(ended.is_none(), "sshd ended: {}", self.log());
            TcpStream::connect_timeout(&address, PATIENCE).ok()
        });
        assert!(up.is_some(), "sshd does not listen on {address}: {}", self.log());
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Machine {
    /// The user to log in as.
    pub fn user(&self) -> &str {
        &self.account.name
    }

    /// Its home.
    pub fn home(&self) -> &Path {
        &self.account.home
    }

    /// Everything that runs on it.
    pub fn processes(&self) -> Vec<processes::Process> {
        self.account.processes()
    }

    /// Kills everything that runs on it, as the loss of a machine does.
    pub fn kill_all(&self) {
        self.account.kill_all();
    }
}

fn config(directory: &Path, setup: &Setup, machines: &[Machine]) -> String {
    let directory = directory.display();
    let mut text = setup.lines.clone();
    for machine in machines.iter().take(ADDRESSES.into()) {
        let _ = writeln!(text, "ListenAddress {}", machine.address);
    }
    let _ = write!(
        text,
        "HostKey {directory}/host_key
AuthorizedKeysFile .ssh/authorized_keys {directory}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding no
AllowStreamLocalForwarding no
X11Forwarding no
PrintMotd no
PrintLastLog no
MaxSessions 10
# All machines share one server: their managers' logins come at once.
MaxStartups 1000
LogLevel VERBOSE
"
    );
    text
}

fn spawn(directory: &Path) -> Child {
    Command::new(SSHD)
        .arg("-D")
        .arg("-f")
        .arg(directory.join("sshd_config"))
        .arg("-E")
        .arg(directory.join("log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("sshd starts")
}

fn free_port() -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 77, 1], 0));
    TcpListener::bind(any).and_then(|listener| listener.local_addr()).expect("a free port")
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().expect("the program is there");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {complaint}");
}
