//! The calls to a running plugin, each with a deadline.
//!
//! An error tells apart what the plugin said, a plugin that is gone, and silence: by the
//! error's source and our own clock, never by status code or text, which differ between
//! gRPC libraries.

use std::time::Duration;

use prost::Message as _;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::contract::{ConnectInfo, Error, InstanceStatus, Partial};
use crate::wire::fleeting::instance_group_client::InstanceGroupClient;
use crate::wire::go_plugin::grpc_broker_client::GrpcBrokerClient;
use crate::wire::go_plugin::grpc_controller_client::GrpcControllerClient;
use crate::wire::go_plugin::grpc_stdio_client::GrpcStdioClient;
use crate::wire::{self, fleeting};

/// Why a call to a plugin failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The plugin answered with an error.
    #[error("{call}: {message}")]
    Refused {
        /// Name of the call.
        call: &'static str,
        /// The plugin's words.
        message: String,
    },
    /// The plugin does not offer the call.
    #[error("{call} is not supported by the plugin")]
    Unsupported {
        /// Name of the call.
        call: &'static str,
    },
    /// The plugin is gone, or its connection is.
    #[error("{call}: the plugin is gone ({message})")]
    Gone {
        /// Name of the call.
        call: &'static str,
        /// What the connection said.
        message: String,
    },
    /// No answer within the deadline; the call may still take effect.
    #[error("{call}: no answer within {} s", limit.as_secs_f32())]
    Deadline {
        /// Name of the call.
        call: &'static str,
        /// The deadline.
        limit: Duration,
    },
}

impl CallError {
    /// Whether the plugin may have acted although no answer came.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::Deadline { .. })
    }
}

/// Calls over the one connection to a plugin.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) group: InstanceGroupClient<Channel>,
    pub(super) channel: Channel,
}

impl Client {
    pub(super) fn new(channel: Channel) -> Self {
        let group = InstanceGroupClient::new(channel.clone())
            .max_decoding_message_size(wire::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(wire::MAX_MESSAGE_BYTES);
        Self { group, channel }
    }

    pub(super) async fn init(
        &self,
        config: Vec<u8>,
        connector: fleeting::ConnectorConfig,
        limit: Duration,
    ) -> Result<fleeting::InitResponse, CallError> {
        // A stock plugin crashes where settings or their connector are missing.
        let settings = fleeting::Settings { connector_config: Some(connector) };
        let request = fleeting::InitRequest { config, settings: Some(settings) };
        let mut group = self.group.clone();
        bounded("Init", limit, request, |request| async move { group.init(request).await }).await
    }

    pub(super) async fn update(&self, limit: Duration) -> Result<Vec<InstanceStatus>, CallError> {
        let mut group = self.group.clone();
        let listed = bounded("Update", limit, fleeting::Empty {}, |request| async move {
            let mut stream = group.update(request).await?.into_inner();
            let mut listed: Vec<InstanceStatus> = Vec::new();
            // A failed stream is a failed call: a partial list is no list.
            while let Some(message) = stream.message().await? {
                listed.push(InstanceStatus::new(
                    message.instance,
                    wire::state_from_wire(message.state),
                ));
            }
            Ok(tonic::Response::new(listed))
        });
        listed.await.map(last_of_each)
    }

    pub(super) async fn increase(&self, n: u32, limit: Duration) -> Result<u32, CallError> {
        let request = fleeting::IncreaseRequest { n };
        let mut group = self.group.clone();
        let reply =
            bounded("Increase", limit, request, |r| async move { group.increase(r).await }).await?;
        if reply.succeeded > n {
            tracing::warn!(
                asked = n,
                accepted = reply.succeeded,
                "plugin accepted more instances than asked"
            );
        }
        Ok(reply.succeeded.min(n))
    }

    pub(super) async fn decrease(
        &self,
        instances: Vec<String>,
        limit: Duration,
    ) -> Result<Vec<String>, CallError> {
        let request = fleeting::DecreaseRequest { instances };
        let mut group = self.group.clone();
        bounded("Decrease", limit, request, |r| async move { group.decrease(r).await })
            .await
            .map(|reply| reply.succeeded)
    }

    pub(super) async fn connect_info(
        &self,
        instance: String,
        limit: Duration,
    ) -> Result<ConnectInfo, CallError> {
        const CALL: &str = "ConnectInfo";
        let request = fleeting::ConnectInfoRequest { instance };
        let mut group = self.group.clone();
        let reply =
            bounded(CALL, limit, request, |r| async move { group.connect_info(r).await }).await?;
        wire::connect_info_from_wire(reply)
            .map_err(|error: Error| CallError::Refused { call: CALL, message: error.to_string() })
    }

    /// Unimplemented counts as healthy: old plugins do not have the call.
    pub(super) async fn heartbeat(
        &self,
        instance: String,
        limit: Duration,
    ) -> Result<(), CallError> {
        let request = fleeting::HeartbeatRequest { instance };
        let mut group = self.group.clone();
        let reply =
            bounded("Heartbeat", limit, request, |r| async move { group.heartbeat(r).await }).await;
        match reply {
            Ok(_) | Err(CallError::Unsupported { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn suspend(
        &self,
        instances: Vec<String>,
        limit: Duration,
    ) -> Result<Partial, CallError> {
        let request = fleeting::SuspendRequest { instances };
        let mut group = self.group.clone();
        bounded("Suspend", limit, request, |request| async move {
            let reply = group.suspend(request).await.map(|r| r.into_inner().succeeded);
            partial(reply, wire::SUSPEND_DETAIL).map(tonic::Response::new)
        })
        .await
    }

    pub(super) async fn resume(
        &self,
        instances: Vec<String>,
        limit: Duration,
    ) -> Result<Partial, CallError> {
        let request = fleeting::ResumeRequest { instances };
        let mut group = self.group.clone();
        bounded("Resume", limit, request, |request| async move {
            let reply = group.resume(request).await.map(|r| r.into_inner().succeeded);
            partial(reply, wire::RESUME_DETAIL).map(tonic::Response::new)
        })
        .await
    }

    /// The provider's own shutdown; only after a successful `Init`, else stock plugins
    /// crash. Unimplemented is fine.
    pub(super) async fn shutdown(&self, limit: Duration) -> Result<(), CallError> {
        let mut group = self.group.clone();
        let reply =
            bounded(
                "Shutdown",
                limit,
                fleeting::Empty {},
                |r| async move { group.shutdown(r).await },
            );
        match reply.await {
            Ok(_) | Err(CallError::Unsupported { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// go-plugin's end. The reply means nothing: a Go plugin hard-stops its server.
    pub(super) async fn end(&self, limit: Duration) {
        let mut controller = GrpcControllerClient::new(self.channel.clone());
        let _ = bounded("Controller.Shutdown", limit, wire::go_plugin::Empty {}, |r| async move {
            controller.shutdown(r).await
        })
        .await;
    }

    /// Keeps the broker stream open and drains stdio until the connection ends. Go
    /// servers send no headers on these before the first message, so nobody may wait.
    pub(super) fn keep_streams(&self) {
        let mut broker = GrpcBrokerClient::new(self.channel.clone());
        tokio::spawn(async move {
            if let Ok(reply) = broker.start_stream(tokio_stream::pending()).await {
                let mut offers = reply.into_inner();
                while let Ok(Some(_)) = offers.message().await {}
            }
        });
        let mut stdio = GrpcStdioClient::new(self.channel.clone());
        tokio::spawn(async move {
            if let Ok(reply) = stdio.stream_stdio(()).await {
                let mut chunks = reply.into_inner();
                while let Ok(Some(_)) = chunks.message().await {}
            }
        });
    }
}

/// Runs one call under a deadline, on the wire and on our own clock.
pub(super) async fn bounded<Q, R, F>(
    call: &'static str,
    limit: Duration,
    message: Q,
    make: impl FnOnce(Request<Q>) -> F,
) -> Result<R, CallError>
where
    F: Future<Output = Result<tonic::Response<R>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(limit);
    match tokio::time::timeout(limit, make(request)).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(call_error(call, limit, &status)),
        Err(_) => Err(CallError::Deadline { call, limit }),
    }
}

fn call_error(call: &'static str, limit: Duration, status: &Status) -> CallError {
    use std::error::Error as _;
    if status.code() == Code::Unimplemented {
        return CallError::Unsupported { call };
    }
    if status.source().is_none() {
        return CallError::Refused { call, message: status.message().to_owned() };
    }
    // tonic's own timer of `grpc-timeout` may fire just before ours.
    if status.code() == Code::Cancelled && status.message().contains("Timeout") {
        return CallError::Deadline { call, limit };
    }
    CallError::Gone { call, message: status.message().to_owned() }
}

/// Ids without a name are dropped, of duplicates the last one counts.
fn last_of_each(listed: Vec<InstanceStatus>) -> Vec<InstanceStatus> {
    let mut last = std::collections::BTreeMap::new();
    for instance in listed {
        if instance.id.is_empty() {
            tracing::warn!("plugin listed an instance without an id");
        } else {
            last.insert(instance.id, instance.state);
        }
    }
    last.into_iter().map(|(id, state)| InstanceStatus { id, state }).collect()
}

/// A failed suspend or resume says in a typed detail which instances succeeded.
fn partial(reply: Result<Vec<String>, Status>, type_url: &str) -> Result<Partial, Status> {
    use std::error::Error as _;
    let status = match reply {
        Ok(succeeded) => return Ok(Partial { succeeded, error: None }),
        Err(status) if status.source().is_some() || status.code() == Code::Unimplemented => {
            return Err(status);
        }
        Err(status) => status,
    };
    let details = wire::rpc::Status::decode(status.details()).unwrap_or_default().details;
    let detail = details.iter().find(|any| any.type_url == type_url);
    // Both detail messages have the ids as field 1.
    let succeeded = detail
        .and_then(|any| fleeting::SuspendResponse::decode(any.value.as_slice()).ok())
        .map(|message| message.succeeded)
        .unwrap_or_default();
    Ok(Partial { succeeded, error: Some(status.message().to_owned()) })
}
