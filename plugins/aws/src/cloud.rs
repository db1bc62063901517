//! The clients of AWS's services, made from the configuration by AWS's own rules.

use std::path::Path;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};

use crate::config::Login;

/// Attempts of one call. Between them the SDK waits twice as long each time, by a random
/// part of it, and longer when AWS throttles.
const ATTEMPTS: u32 = 5;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ATTEMPT_LIMIT: Duration = Duration::from_secs(20);
/// All attempts of one call. Hosts wait for a minute and more.
const CALL_LIMIT: Duration = Duration::from_secs(50);
/// What calls by an assumed role are signed with; CloudTrail shows it.
const SESSION: &str = "mayfly";

/// One client per service, in one region.
pub(crate) struct Cloud {
    pub(crate) autoscaling: aws_sdk_autoscaling::Client,
    pub(crate) ec2: aws_sdk_ec2::Client,
    pub(crate) connect: aws_sdk_ec2instanceconnect::Client,
    pub(crate) queue: aws_sdk_sqs::Client,
    pub(crate) region: String,
}

impl Cloud {
    /// Makes the clients; no call is made but those that find credentials and region.
    pub(crate) async fn open(login: &Login) -> Result<Self, String> {
        let mut config = loader(login)?.load().await;
        let Some(region) = config.region().map(ToString::to_string) else {
            return Err("region: not known: write it in plugin_config, in the profile or into \
                        AWS_REGION"
                .into());
        };
        if let Some(role) = &login.role_arn {
            let mut provider = AssumeRoleProvider::builder(role).session_name(SESSION);
            if let Some(id) = &login.external_id {
                provider = provider.external_id(id);
            }
            let provider = provider.configure(&config).build().await;
            config = loader(login)?.credentials_provider(provider).load().await;
        }
        Ok(Self {
            autoscaling: aws_sdk_autoscaling::Client::new(&config),
            ec2: aws_sdk_ec2::Client::new(&config),
            connect: aws_sdk_ec2instanceconnect::Client::new(&config),
            queue: aws_sdk_sqs::Client::new(&config),
            region,
        })
    }
}

fn loader(login: &Login) -> Result<ConfigLoader, String> {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_LIMIT)
        .operation_attempt_timeout(ATTEMPT_LIMIT)
        .operation_timeout(CALL_LIMIT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts);
    if let Some(region) = &login.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &login.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(endpoint) = &login.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if login.config_file.is_some() || login.credentials_file.is_some() {
        loader = loader.profile_files(files(login)?);
    }
    Ok(loader)
}

/// A file that is written takes the place of the usual one of its kind.
fn files(login: &Login) -> Result<EnvConfigFiles, String> {
    let mut files = EnvConfigFiles::builder();
    files = match &login.config_file {
        Some(path) => files.with_file(EnvConfigFileKind::Config, readable("config_file", path)?),
        None => files.include_default_config_file(true),
    };
    files = match &login.credentials_file {
        Some(path) => {
            files.with_file(EnvConfigFileKind::Credentials, readable("credentials_file", path)?)
        }
        None => files.include_default_credentials_file(true),
    };
    Ok(files.build())
}

/// The SDK would pass over a file that is missing in silence, and take other credentials.
fn readable<'a>(key: &str, path: &'a Path) -> Result<&'a Path, String> {
    match std::fs::File::open(path) {
        Ok(_) => Ok(path),
        Err(error) => Err(format!("{key} = {:?}: {error}", path.display().to_string())),
    }
}
