//! The SSH server of instances on the wire.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mayfly_plugin::host::Plugin;
use mayfly_plugin::{ConnectInfo, ConnectorConfig, Settings};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};
use russh::{ChannelMsg, Sig};
use support::*;

/// One instance without isolation: the server is the same in all.
async fn one() -> (Rig, Plugin, String) {
    let rig = Rig::new(Mode::None).await.expect("always possible");
    let (plugin, id) = rig.one().await;
    (rig, plugin, id)
}

fn key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), algorithm).expect("a key")
}

#[tokio::test]
async fn status_signal_and_the_order_of_the_end() {
    let (_rig, plugin, id) = one().await;
    let client = login(&plugin, &id).await;
    let ended = client.exec("echo out; echo err >&2; exit 7").await;
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(ended.status, Some(7));
    assert_eq!(ended.order, ["eof", "status", "close"]);
    let ended = client.exec("kill -TERM $$").await;
    assert_eq!(ended.signal.as_deref(), Some("TERM"));
    assert_eq!(ended.order, ["eof", "signal", "close"]);
    assert_eq!(client.exec("exec sh -c 'exit 3'").await.status, Some(3));
    assert_eq!(client.exec("/no/such/program").await.status, Some(127));
}

#[tokio::test]
async fn a_command_leads_a_session_of_its_own() {
    let (_rig, plugin, id) = one().await;
    let client = login(&plugin, &id).await;
    let fields = client.output("exec cut -d' ' -f1,5,6 /proc/self/stat").await;
    let ids: Vec<&str> = fields.split(' ').collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{fields}");
    assert_eq!(client.exec("kill -9 0").await.signal.as_deref(), Some("KILL"));
    assert_eq!(client.output("echo still there").await, "still there");
}

#[tokio::test]
async fn stdin_is_passed_on_and_ends() {
    let (_rig, plugin, id) = one().await;
    let client = login(&plugin, &id).await;
    let channel = client.start("cat; echo end").await;
    channel.data_bytes(&b"input\n"[..]).await.expect("sent");
    channel.eof().await.expect("sent");
    assert_eq!(drain(channel).await.stdout, "input\nend\n");

    let channel = client.open().await.expect("a channel");
    channel.request_shell(true).await.expect("sent");
    channel.data_bytes(&b"cd /\necho $((6 * 7)) $PWD\nexit 5\n"[..]).await.expect("sent");
    let ended = drain(channel).await;
    assert_eq!((ended.stdout.as_str(), ended.status), ("42 /\n", Some(5)));
}

#[tokio::test]
async fn a_large_input_arrives_whole() {
    const BYTES: usize = 20 << 20;
    let (_rig, plugin, id) = one().await;
    let client = login(&plugin, &id).await;
    // A reader that starts late makes the server put most of it aside.
    let channel = client.start("sleep 0.5; sha256sum").await;
    let bytes: Vec<u8> = (0..BYTES).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &bytes).expect("written");
    let expected = run("sha256sum", &[file.path().to_str().expect("text")]);
    channel.data_bytes(bytes).await.expect("sent");
    channel.eof().await.expect("sent");
    let got = drain(channel).await.stdout;
    assert_eq!(got.split(' ').next(), expected.split(' ').next());
}

#[tokio::test]
async fn a_command_that_does_not_read_stops_nobody() {
    let (_rig, plugin, id) = one().await;
    let client = login(&plugin, &id).await;
    let deaf = client.start("exec sleep 60").await;
    tokio::time::timeout(Duration::from_secs(10), deaf.data_bytes(vec![0; 20 << 20]))
        .await
        .expect("the server takes it all")
        .expect("sent");
    assert_eq!(client.output("echo free").await, "free");
}

/// OpenSSH's client opens no window that nobody reads, unlike the one of these tests.
#[tokio::test]
async fn an_unread_channel_stops_nobody() {
    let (rig, plugin, id) = one().await;
    let Some(ssh) = OpenSsh::new(&rig, &info(&plugin, &id).await, &id) else { return };
    let mut master = ssh.command("cat").stdin(Stdio::piped()).spawn().expect("started");
    until(async || exists(&ssh.control).then_some(())).await;
    let unread = ssh.command("exec cat /dev/zero").spawn().expect("started");
    // Until all buffers on the way are full.
    let blocked = async || {
        let pid = processes_with("cat\0/dev/zero").into_iter().next()?;
        let before = read_bytes(pid)?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        (before > 0 && read_bytes(pid)? == before).then_some(())
    };
    until(blocked).await;

    let start = Instant::now();
    // One megabyte a second.
    let command = "for i in 1 2 3 4 5 6 7 8 9 10; do head -c 104858 /dev/zero; sleep 0.1; done";
    let readers: Vec<_> = (0..10)
        .map(|_| tokio::spawn(ssh.command(command).stderr(Stdio::inherit()).output()))
        .collect();
    for reader in readers {
        let output = tokio::time::timeout(LIMIT, reader).await.expect("in time").expect("read");
        assert_eq!(output.expect("ran").stdout.len(), 1_048_580);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop((unread, master.stdin.take()));
}

/// Bytes that a process has read so far.
fn read_bytes(pid: i32) -> Option<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

#[tokio::test]
async fn a_command_outlives_its_connection_and_sees_its_end() {
    for mode in MODES {
        let Some(rig) = Rig::new(mode).await else { continue };
        let (plugin, id) = rig.one().await;
        let client = login(&plugin, &id).await;
        let job = unique_seconds();
        let command = format!("sleep {job} & cat > input; echo over >> input; wait");
        let channel = client.start(&command).await;
        channel.data_bytes(&b"go\n"[..]).await.expect("sent");
        until(async || (!sleepers(job).is_empty()).then_some(())).await;
        client.cut();
        let client = login(&plugin, &id).await;
        until(async || {
            let input = client.exec("cat input").await.stdout;
            (input == "go\nover\n").then_some(())
        })
        .await;
        assert_eq!(sleepers(job).len(), 1, "{mode:?}");
    }
}

#[tokio::test]
async fn a_closed_channel_leaves_its_command_alone() {
    let (_rig, plugin, id) = one().await;
    let client = login(&plugin, &id).await;
    let job = unique_seconds();
    let channel = client.start(&format!("cat > /dev/null; exec sleep {job}")).await;
    channel.close().await.expect("sent");
    until(async || (!sleepers(job).is_empty()).then_some(())).await;
}

#[tokio::test]
async fn a_signal_reaches_the_commands_group() {
    let (_rig, plugin, id) = one().await;
    let client = login(&plugin, &id).await;
    let job = unique_seconds();
    let channel = client.start(&format!("sleep {job}; exit 1")).await;
    until(async || (!sleepers(job).is_empty()).then_some(())).await;
    channel.signal(Sig::INT).await.expect("sent");
    let ended = drain(channel).await;
    assert_eq!(ended.signal.as_deref(), Some("INT"), "{ended:?}");
    assert_eq!(sleepers(job), Vec::<i32>::new());
}

#[tokio::test]
async fn channels_are_bounded_and_given_back() {
    let (_rig, plugin, id) = one().await;
    let client = login(&plugin, &id).await;
    let mut channels = Vec::new();
    for _ in 0..32 {
        channels.push(client.open().await.expect("within the limit"));
    }
    assert!(client.open().await.is_err(), "the 33rd");
    for channel in channels {
        channel.exec(true, "true").await.expect("sent");
        assert_eq!(drain(channel).await.status, Some(0));
    }
    // Given back whichever side ended them.
    for _ in 0..40 {
        client.open().await.expect("free again").close().await.expect("sent");
        client.output("true").await;
    }
}

#[tokio::test]
async fn what_is_not_offered_is_refused_and_exec_still_works() {
    let (_rig, plugin, id) = one().await;
    let client = login(&plugin, &id).await;
    let mut channel = client.open().await.expect("a channel");
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.expect("sent");
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    channel.request_subsystem(true, "sftp").await.expect("sent");
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    channel.set_env(true, "LD_PRELOAD", "/x").await.expect("sent");
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    channel.set_env(true, "LC_ALL", "C").await.expect("sent");
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
    channel.exec(true, "echo $LC_ALL $LD_PRELOAD; tty || true").await.expect("sent");
    let ended = drain(channel).await;
    assert_eq!((ended.stdout.as_str(), ended.status), ("C\nnot a tty\n", Some(0)));
    assert!(client.open_tcp().await.is_err(), "no forwarding");
}

#[tokio::test]
async fn only_known_keys_of_the_one_user_log_in() {
    let (_rig, plugin, id) = one().await;
    let info = info(&plugin, &id).await;
    let (address, user) = (info.internal_addr.as_str(), info.connector.username.as_str());
    let stranger = key(Algorithm::Ed25519);
    assert!(Client::dial_with(address, user, stranger.clone()).await.is_err());
    let ours = PrivateKey::from_openssh(&info.connector.key).expect("a key");
    for other in ["root2", "", "../root"] {
        assert!(Client::dial_with(address, other, ours.clone()).await.is_err(), "{other}");
    }

    // Added while the instance runs, as a manager does; one kind after the other.
    let client = login(&plugin, &id).await;
    let curves = [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521];
    let ecdsa = curves.map(|curve| key(Algorithm::Ecdsa { curve }));
    for key in ecdsa.into_iter().chain([stranger]) {
        assert!(Client::dial_with(address, user, key.clone()).await.is_err());
        let line = key.public_key().to_openssh().expect("text");
        client.output(&format!("echo '{line}' >> ~/.ssh/authorized_keys")).await;
        let added = Client::dial_with(address, user, key).await.expect("known now");
        assert_eq!(added.output("echo in").await, "in");
    }
    // Whatever a job does to the file, the plugin's own key stays good.
    client.output("rm -r ~/.ssh").await;
    login(&plugin, &id).await.output("true").await;
}

#[tokio::test]
async fn openssh_can_log_in() {
    let (rig, plugin, id) = one().await;
    let Some(ssh) = OpenSsh::new(&rig, &info(&plugin, &id).await, &id) else { return };
    let output = ssh.command("echo $((40 + 2))").output().await.expect("ran");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n", "{output:?}");
}

/// OpenSSH's client, which checks the host key; its sessions share a connection.
struct OpenSsh {
    arguments: Vec<String>,
    control: std::path::PathBuf,
}

impl OpenSsh {
    fn new(rig: &Rig, info: &ConnectInfo, id: &str) -> Option<Self> {
        if std::process::Command::new("ssh").arg("-V").output().is_err() {
            println!("skipped: there is no OpenSSH client here");
            return None;
        }
        let (host, port) = info.internal_addr.rsplit_once(':').expect("an address");
        let path = |name: &str| rig.directory.path().join(name);
        let (key, known, control) = (path("key"), path("known_hosts"), path("control"));
        let stranger = self::key(Algorithm::Ed25519).to_openssh(LineEnding::LF).expect("text");
        let write_key = |path: &std::path::Path, pem: &[u8]| {
            std::fs::write(path, pem).expect("written");
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(path, private).expect("set");
        };
        write_key(&key, &info.connector.key);
        write_key(&path("stranger"), stranger.as_bytes());
        let public = rig.instance_dir(id).join("ssh_host_ed25519_key.pub");
        let public = std::fs::read_to_string(public).expect("the host key is public");
        std::fs::write(&known, format!("[{host}]:{port} {public}")).expect("written");
        let options = format!(
            "-F none -T -p {port} -o IdentitiesOnly=yes -i {} -i {} -o UserKnownHostsFile={} -o StrictHostKeyChecking=yes \
             -o BatchMode=yes -o ControlMaster=auto -S {} {}@{host}",
            path("stranger").display(),
            key.display(),
            known.display(),
            control.display(),
            info.connector.username,
        );
        Some(Self { arguments: options.split(' ').map(str::to_owned).collect(), control })
    }

    fn command(&self, command: &str) -> tokio::process::Command {
        let mut ssh = tokio::process::Command::new("ssh");
        ssh.args(&self.arguments).arg(command);
        ssh.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        ssh
    }
}

#[tokio::test]
async fn the_operators_settings_win() {
    let rig = Rig::new(Mode::None).await.expect("always possible");
    let operators = key(Algorithm::Ed25519);
    let mut settings = Settings::default();
    settings.connector = ConnectorConfig {
        username: "ci".into(),
        key: operators.to_openssh(LineEnding::LF).expect("text").as_bytes().to_vec(),
        use_static_credentials: true,
        keepalive: Duration::from_secs(5),
        timeout: Duration::from_secs(60),
        ..ConnectorConfig::default()
    };
    let plugin = rig.start_with(&settings).await.expect("started");
    let id = rig.add(&plugin).await;
    let info = info(&plugin, &id).await;
    assert_eq!(info.connector.username, "ci");
    assert_eq!(info.connector.key, settings.connector.key);
    assert_eq!(info.connector.keepalive, Duration::from_secs(5));
    assert_eq!(info.connector.timeout, Duration::from_secs(60));
    let client = Client::dial(&info).await.expect("login");
    assert_eq!(client.output("echo $USER").await, "ci");
    let lines = client.output("wc -l < ~/.ssh/authorized_keys").await;
    assert_eq!(lines, "1", "no key beside the operator's");
}

#[tokio::test]
async fn clients_that_do_not_log_in_make_room() {
    use tokio::io::AsyncReadExt as _;
    let (_rig, plugin, id) = one().await;
    let address = info(&plugin, &id).await.internal_addr;
    let mut idle = Vec::new();
    for _ in 0..40 {
        let mut stream = tokio::net::TcpStream::connect(&address).await.expect("connected");
        stream.read_exact(&mut [0; 4]).await.expect("greeted");
        idle.push(stream);
    }
    let client = login(&plugin, &id).await;
    let mut rest = Vec::new();
    let oldest = tokio::time::timeout(LIMIT, idle[0].read_to_end(&mut rest)).await;
    assert!(oldest.is_ok(), "the oldest is gone");
    let mut bytes = [0; 1000];
    let newest = tokio::time::timeout(LIMIT, idle[39].read(&mut bytes));
    assert!(newest.await.is_ok_and(|read| read.is_ok_and(|n| n > 0)), "the newest is served");
    assert_eq!(client.output("echo in").await, "in");
}

#[tokio::test]
async fn commands_inherit_nothing_of_the_server() {
    let (_rig, plugin, id) = one().await;
    let client = login(&plugin, &id).await;
    let status = client.output("grep -E '^Sig(Ign|Blk)' /proc/self/status").await;
    let masks = status.lines().filter_map(|line| u64::from_str_radix(line.get(8..)?, 16).ok());
    // The C library keeps signals 32 and 33 to itself.
    assert!(masks.map(|mask| mask & 0x7fff_ffff).eq([0, 0]), "{status}");
    let open = client.output("exec ls -l /proc/self/fd").await;
    assert_eq!(open.lines().filter(|line| line.contains(" -> ")).count(), 4, "{open}");
}
