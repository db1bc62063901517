//! A rig for one plugin before a moto server of this process, with groups of its own.
#![allow(dead_code, reason = "each test file uses a part")]

#[path = "../../../local/tests/support/logs.rs"]
pub(crate) mod logs;
mod moto;
pub(crate) mod proxy;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_autoscaling::types::{AutoScalingGroup, LaunchTemplateSpecification};
use aws_sdk_ec2::types::{InstanceType, PlatformValues, RequestLaunchTemplateData, Reservation};
use mayfly_plugin::host::{Launch, Plugin, StartError};
use mayfly_plugin::{InstanceState, InstanceStatus, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;

use proxy::Proxy;

pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// The SDK's traces would be seen.
pub(crate) const LOG_LEVEL: tracing::Level = tracing::Level::TRACE;
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const RUNNING: InstanceState = InstanceState::Running;
/// Of no account.
pub(crate) const KEY_ID: &str = "AKIAMAYFLYTEST000001";
pub(crate) const SECRET: &str = "not-a-secret-but-must-not-be-shown";
pub(crate) const TOKEN: &str = "a-token-that-must-not-be-shown-either";

/// Clients of a test's own, and the host's side of one plugin at a time.
pub(crate) struct Rig {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) endpoint: String,
    pub(crate) config: Value,
    pub(crate) settings: Settings,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) autoscaling: aws_sdk_autoscaling::Client,
    pub(crate) ec2: aws_sdk_ec2::Client,
    pub(crate) queue: aws_sdk_sqs::Client,
    pub(crate) directory: TempDir,
}

impl Rig {
    /// One group of up to five instances; `None` where there is no moto.
    pub(crate) async fn new(extra: Value) -> Option<Self> {
        Self::with_groups(&[5], extra).await
    }

    /// Groups of these maximum sizes, made as they should be.
    pub(crate) async fn with_groups(sizes: &[i32], extra: Value) -> Option<Self> {
        let moto = moto::address()?;
        let (proxy, endpoint) = Proxy::start(moto).await;
        let credentials = aws_sdk_ec2::config::Credentials::new(KEY_ID, SECRET, None, None, "test");
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(credentials)
            .endpoint_url(moto)
            .load()
            .await;
        let mut rig = Self {
            proxy,
            config: json!({"region": REGION, "endpoint": endpoint}),
            endpoint,
            settings: Settings::default(),
            environment: vec![
                ("AWS_ACCESS_KEY_ID".into(), KEY_ID.into()),
                ("AWS_SECRET_ACCESS_KEY".into(), SECRET.into()),
            ],
            autoscaling: aws_sdk_autoscaling::Client::new(&config),
            ec2: aws_sdk_ec2::Client::new(&config),
            queue: aws_sdk_sqs::Client::new(&config),
            directory: tempfile::tempdir().expect("a directory"),
        };
        let mut names = Vec::new();
        for size in sizes {
            names.push(rig.make_group(*size).await);
        }
        rig.config["groups"] = names.into();
        for (key, value) in extra.as_object().expect("a table") {
            rig.config[key] = value.clone();
        }
        Some(rig)
    }

    /// Makes a group as the README wants it; its name.
    pub(crate) async fn make_group(&self, max: i32) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let data = RequestLaunchTemplateData::builder()
            .image_id(self.image().await)
            .instance_type(InstanceType::T3Micro)
            .build();
        let template = self
            .ec2
            .create_launch_template()
            .launch_template_name(&name)
            .launch_template_data(data);
        template.send().await.expect("a launch template");
        let template =
            LaunchTemplateSpecification::builder().launch_template_name(&name).version("1");
        self.autoscaling
            .create_auto_scaling_group()
            .auto_scaling_group_name(&name)
            .launch_template(template.build())
            .availability_zones(format!("{REGION}a"))
            .min_size(0)
            .max_size(max)
            .desired_capacity(0)
            .new_instances_protected_from_scale_in(true)
            .send()
            .await
            .expect("a group");
        name
    }

    async fn image(&self) -> String {
        let shown = self.ec2.describe_images().send().await.expect("images");
        let linux = shown.images().iter().find(|image| {
            image.platform() != Some(&PlatformValues::Windows)
                && image.architecture().is_some_and(|name| name.as_str() == "x86_64")
        });
        linux.and_then(|image| image.image_id()).expect("an image of Linux").to_owned()
    }

    /// Names of the rig's groups.
    pub(crate) fn groups(&self) -> Vec<String> {
        serde_json::from_value(self.config["groups"].clone()).expect("names")
    }

    pub(crate) async fn try_start(&self) -> Result<Plugin, StartError> {
        let mut launch = Launch::new(env!("CARGO_BIN_EXE_fleeting-plugin-aws"));
        launch.guard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../local/tests/support/guard");
        launch.environment.retain(|(name, _)| {
            let name = name.to_string_lossy();
            !name.starts_with("AWS_") && name != "HOME" && !name.to_lowercase().ends_with("_proxy")
        });
        launch.environment.push(("HOME".into(), self.directory.path().into()));
        launch.environment.push(("AWS_EC2_METADATA_DISABLED".into(), "true".into()));
        for (name, value) in &self.environment {
            launch.environment.push((name.into(), value.into()));
        }
        Plugin::start(&launch, self.config.to_string().as_bytes(), &self.settings).await
    }

    pub(crate) async fn start(&self) -> Plugin {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Why the plugin does not start.
    pub(crate) async fn refusal(&self) -> String {
        match self.try_start().await {
            Ok(_) => panic!("started with {}", self.config),
            Err(error) => error.to_string(),
        }
    }

    /// One group as AWS has it.
    pub(crate) async fn group(&self, name: &str) -> AutoScalingGroup {
        let shown =
            self.autoscaling.describe_auto_scaling_groups().auto_scaling_group_names(name).send();
        shown.await.expect("a list").auto_scaling_groups()[0].clone()
    }

    /// Desired capacity and number of instances of one group.
    pub(crate) async fn size(&self, name: &str) -> (i32, usize) {
        let group = self.group(name).await;
        (group.desired_capacity().expect("a size"), group.instances().len())
    }

    /// The name of an instance's state in EC2.
    pub(crate) async fn power(&self, id: &str) -> String {
        let shown = self.ec2.describe_instances().instance_ids(id).send().await.expect("a list");
        let instance = shown.reservations().iter().flat_map(Reservation::instances).next();
        let state = instance.and_then(|instance| instance.state()?.name()).expect("a state");
        state.as_str().to_owned()
    }
}

pub(crate) async fn list(plugin: &Plugin) -> Vec<InstanceStatus> {
    plugin.update(LIMIT).await.expect("a list")
}

/// Ids that run, sorted.
pub(crate) async fn running(plugin: &Plugin) -> Vec<String> {
    let listed = list(plugin).await.into_iter();
    let mut ids: Vec<String> =
        listed.filter(|one| one.state == RUNNING).map(|one| one.id).collect();
    ids.sort();
    ids
}

pub(crate) async fn state_of(plugin: &Plugin, id: &str) -> Option<InstanceState> {
    list(plugin).await.into_iter().find(|one| one.id == id).map(|one| one.state)
}

/// Makes so many and waits until all run; the ids of all that run.
pub(crate) async fn add(plugin: &Plugin, n: u32) -> Vec<String> {
    let before = running(plugin).await.len();
    assert_eq!(plugin.increase(n, LIMIT).await.expect("accepted"), n);
    until(async || {
        let ids = running(plugin).await;
        (ids.len() == before + n as usize).then_some(ids)
    })
    .await
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "nothing happened within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Everything that the plugin asked of AWS is in the policy that it prints.
pub(crate) fn assert_in_policy(rig: &Rig) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_fleeting-plugin-aws")).arg("--iam-policy").output();
    let output = output.expect("it runs");
    assert!(output.status.success());
    let policy: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(policy["Version"], "2012-10-17");
    let policy = policy.to_string();
    let actions = rig.proxy.actions();
    assert!(!actions.is_empty());
    for action in actions {
        assert!(policy.contains(&format!(":{action}\"")), "{action} is not in {policy}");
    }
}
