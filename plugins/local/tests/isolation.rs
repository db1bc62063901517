//! What an instance can reach, and what it cannot.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use support::*;

/// The modes that keep anything apart.
const APART: [Mode; 2] = [Mode::Full, Mode::User];

#[test]
fn as_an_ordinary_user() {
    again_as_nobody("as_an_ordinary_user");
}

#[tokio::test]
async fn instances_do_not_see_each_other() {
    for mode in APART {
        let Some(rig) = Rig::new(mode).await else { continue };
        let (plugin, first) = rig.one().await;
        let second = rig.add(&plugin).await;
        let (one, two) = (login(&plugin, &first).await, login(&plugin, &second).await);
        one.output("echo secret > ~/secret; chmod 644 ~/secret; chmod 755 ~").await;
        one.output("echo secret > /tmp/secret; echo secret > /dev/shm/secret").await;
        let job = unique_seconds();
        let _job = one.start(&format!("sleep {job}")).await;
        until(async || (!sleepers(job).is_empty()).then_some(())).await;

        let home = one.output("pwd").await;
        assert!(home.contains(&first), "{mode:?}: {home}");
        for path in [format!("{home}/secret"), "/tmp/secret".into(), "/dev/shm/secret".into()] {
            assert_eq!(one.output(&format!("cat {path}")).await, "secret", "{mode:?}");
            let ended = two.exec(&format!("cat {path}")).await;
            assert_ne!(ended.status, Some(0), "{mode:?}: {path}: {ended:?}");
        }
        let seen = two.output("ps axww -o args || cat /proc/[0-9]*/cmdline").await;
        assert!(!seen.contains(&job.to_string()), "{mode:?}: {seen}");
        let foreign = two.output("ls -d /proc/[0-9]* | wc -l").await;
        assert!(foreign.parse::<u32>().expect("a number") < 8, "{mode:?}: {foreign}");
        // Even everything that it may signal.
        two.exec("kill -9 -1").await;
        assert_eq!(one.output("echo alive").await, "alive", "{mode:?}");
        await_gone(&plugin, &second).await;
        assert_eq!(state_of(&plugin, &first).await, Some(mayfly_plugin::InstanceState::Running));
    }
}

#[tokio::test]
async fn the_plugins_and_the_managers_files_are_hidden() {
    for mode in APART {
        let mut rig = Rig::unchecked(mode);
        let outside = rig.directory.path().join("outside");
        std::fs::create_dir(&outside).expect("made");
        std::fs::write(outside.join("config.toml"), "token").expect("written");
        std::fs::write(rig.home().join("key"), "private").expect("written");
        // Not below /tmp, which is private anyway.
        let file = std::path::Path::new("/var/cache/mayfly-test-config.toml");
        let hidden = match std::fs::write(file, "token") {
            Ok(()) => format!("{}:{}:/no/such", outside.display(), file.display()),
            Err(_) => format!("{}:/etc/hostname", outside.display()),
        };
        rig.environment.push(("MAYFLY_PLUGIN_HIDE".into(), hidden));
        let Ok(plugin) = rig.start().await else { continue };
        let id = rig.add(&plugin).await;
        let client = login(&plugin, &id).await;
        let cat = format!("cat {}/config.toml {} /etc/hostname", outside.display(), file.display());
        let seen = client.exec(&cat).await;
        assert!(!seen.stdout.contains("token"), "{mode:?}: {seen:?}");
        if !file.exists() {
            assert_eq!(seen.stdout, "", "{mode:?}: /etc/hostname is hidden");
        }
        let _ = std::fs::remove_file(file);
        let seen = client.exec(&format!("cat {}/key", rig.home().display())).await;
        assert!(!seen.stdout.contains("private"), "{mode:?}: {seen:?}");
        let listed = client.exec(&format!("find {} -maxdepth 2", rig.root().display())).await;
        for name in ["instance.json", "server.json", "lock", "keeper"] {
            assert!(!listed.stdout.contains(name), "{mode:?}: {listed:?}");
        }
        let root = client.exec("ls -A /root").await;
        assert_eq!(root.stdout, "", "{mode:?}: {root:?}");
        let write = client.exec("touch /root/x").await;
        assert_ne!(write.status, Some(0), "{mode:?}: {write:?}");
        // What was laid over the files cannot be taken away.
        client.exec("umount /root; umount -l /tmp").await;
        let root = client.exec("unshare -Urm sh -c 'umount /root; ls -A /root'").await;
        assert_eq!(root.stdout, "", "{mode:?}: {root:?}");
    }
}

#[tokio::test]
async fn the_user_has_a_name_a_home_and_nothing_else() {
    for mode in MODES {
        let Some(rig) = Rig::new(mode).await else { continue };
        let (plugin, id) = rig.one().await;
        let user = info(&plugin, &id).await.connector.username;
        let client = login(&plugin, &id).await;
        assert_eq!(client.output("id -un").await, user, "{mode:?}");
        assert!(client.output("echo ~").await.ends_with(&format!("{id}/home")), "{mode:?}");
        // What the shell adds by itself left out.
        let names = r"env | cut -d= -f1 | grep -vE '^(PWD|OLDPWD|SHLVL|_)$' | sort | xargs";
        let ours = "HOME LANG LOGNAME MAYFLY_INSTANCE PATH SHELL USER";
        assert_eq!(client.output(names).await, ours, "{mode:?}");
        assert_eq!(client.output("umask").await, "0022", "{mode:?}");
        client.output("test -w ~ && test -w /tmp && test -w /var/tmp").await;
        if mode == Mode::None {
            continue;
        }
        let home = client.output("getent passwd $(id -u) | cut -d: -f6").await;
        assert_eq!(home, client.output("echo ~").await, "{mode:?}");
        let status = client.output("grep -E '^(NoNewPrivs|CapEff|CapPrm)' /proc/self/status").await;
        assert!(status.contains("NoNewPrivs:\t1"), "{mode:?}: {status}");
        if !(mode == Mode::User && is_root()) {
            assert_eq!(status.matches("\t0000000000000000").count(), 2, "{mode:?}: {status}");
        }
        if mode == Mode::Full {
            assert_eq!(user, "mayfly");
            assert_eq!(client.output("id -G").await, client.output("id -u").await);
            let uid: u32 = client.output("id -u").await.parse().expect("a number");
            assert!((60_706..=61_183).contains(&uid), "{uid}");
        }
    }
}

#[tokio::test]
async fn user_ids_are_given_back() {
    let Some(rig) = Rig::new(Mode::Full).await else { return };
    let (plugin, id) = rig.one().await;
    let uid = login(&plugin, &id).await.output("id -u").await;
    let claim = std::path::Path::new("/run/fleeting-plugin-local/uids").join(uid);
    assert!(exists(&claim));
    plugin.decrease(vec![id.clone()], LIMIT).await.expect("decrease");
    await_gone(&plugin, &id).await;
    assert!(!exists(&claim));
}

/// In a user namespace that allows no further one, both isolations are refused.
#[tokio::test]
async fn without_isolation_init_says_what_is_refused_and_what_to_write() {
    let mut rig = Rig::unchecked(Mode::User);
    let refuse = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let tried = Command::new("unshare")
        .args(["-U", "--map-root-user", "sh", "-c", refuse, "sh", "true"])
        .stderr(Stdio::null())
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        println!("skipped: this machine cannot forbid user namespaces");
        return;
    }
    let guard = rig.directory.path().join("guard");
    let script = format!(
        "#!/bin/sh\nunshare -U --map-root-user sh -c '{refuse}' sh \"$3\" </dev/null\n\
         echo \"exit $?\" >&0\n"
    );
    std::fs::write(&guard, script).expect("written");
    std::fs::set_permissions(&guard, std::fs::Permissions::from_mode(0o755)).expect("set");
    for (isolation, parts) in [
        ("auto", ["full: ", "user: unshare(CLONE_NEWUSER | CLONE_NEWPID): No space left"]),
        ("user", ["isolation = \"user\" is not possible here", "isolation = \"none\""]),
    ] {
        rig.isolation = isolation.into();
        let Err(refused) = rig.start().await else { panic!("{isolation} was possible") };
        let refused = refused.to_string();
        assert!(parts.iter().all(|part| refused.contains(part)), "{isolation}: {refused}");
    }
}
