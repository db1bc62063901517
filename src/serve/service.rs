//! The provider's calls on the wire: decode, ask the [`InstanceGroup`], encode.
//!
//! Invariant: no call reaches the group before a successful `init`, and `init` reaches
//! it once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::Mutex;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

use crate::contract::{Error, InstanceGroup, Partial, Settings};
use crate::wire::fleeting::instance_group_server::{InstanceGroup as Wire, InstanceGroupServer};
use crate::wire::{self, fleeting};

pub(super) struct Service<G> {
    group: G,
    initializing: Mutex<()>,
    initialized: AtomicBool,
}

pub(super) fn server<G: InstanceGroup>(
    service: Arc<Service<G>>,
) -> InstanceGroupServer<Service<G>> {
    InstanceGroupServer::from_arc(service)
        .max_decoding_message_size(wire::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(wire::MAX_MESSAGE_BYTES)
}

impl<G: InstanceGroup> Service<G> {
    pub(super) fn new(group: G) -> Self {
        Self { group, initializing: Mutex::new(()), initialized: AtomicBool::new(false) }
    }

    /// Lets the group release what it holds, if the host went without saying so.
    pub(super) async fn end(&self, limit: Duration) {
        if self.initialized.swap(false, Ordering::SeqCst)
            && tokio::time::timeout(limit, self.group.shutdown()).await.is_err()
        {
            tracing::warn!("the group took too long to shut down");
        }
    }

    fn group(&self) -> Result<&G, Status> {
        if self.initialized.load(Ordering::SeqCst) {
            Ok(&self.group)
        } else {
            Err(status(&Error::new("not initialized: Init must succeed first")))
        }
    }
}

#[tonic::async_trait]
impl<G: InstanceGroup> Wire for Service<G> {
    async fn init(
        &self,
        request: Request<fleeting::InitRequest>,
    ) -> Result<Response<fleeting::InitResponse>, Status> {
        let request = request.into_inner();
        let _one_at_a_time = self.initializing.lock().await;
        if self.initialized.load(Ordering::SeqCst) {
            return Err(status(&Error::new("already initialized")));
        }
        let config = decode_config::<G::Config>(&request.config).map_err(|e| status(&e))?;
        let connector = request.settings.unwrap_or_default().connector_config.unwrap_or_default();
        let connector = wire::connector_from_wire(connector).map_err(|e| status(&e))?;
        let info = self.group.init(config, Settings { connector }).await.map_err(|e| status(&e))?;
        self.initialized.store(true, Ordering::SeqCst);
        let suspend = info.suspend_resume.then(|| wire::SUSPEND_RESUME.to_owned());
        Ok(Response::new(fleeting::InitResponse {
            id: info.id,
            max_size: info.max_size,
            version: G::BUILD.version.to_owned(),
            build_info: G::BUILD.line(),
            capabilities: suspend.into_iter().collect(),
        }))
    }

    type UpdateStream =
        Pin<Box<dyn Stream<Item = Result<fleeting::UpdateResponse, Status>> + Send>>;

    async fn update(
        &self,
        _: Request<fleeting::Empty>,
    ) -> Result<Response<Self::UpdateStream>, Status> {
        let instances = self.group()?.update().await.map_err(|e| status(&e))?;
        let messages = instances.into_iter().filter_map(|instance| {
            let Some(state) = wire::state_to_wire(instance.state) else {
                tracing::warn!(instance = instance.id, "skipping instance with unknown state");
                return None;
            };
            Some(Ok(fleeting::UpdateResponse { instance: instance.id, state: state.into() }))
        });
        let messages: Vec<_> = messages.collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn increase(
        &self,
        request: Request<fleeting::IncreaseRequest>,
    ) -> Result<Response<fleeting::IncreaseResponse>, Status> {
        let n = request.into_inner().n;
        let succeeded = self.group()?.increase(n).await.map_err(|e| status(&e))?;
        Ok(Response::new(fleeting::IncreaseResponse { succeeded }))
    }

    async fn decrease(
        &self,
        request: Request<fleeting::DecreaseRequest>,
    ) -> Result<Response<fleeting::DecreaseResponse>, Status> {
        let instances = request.into_inner().instances;
        let succeeded = self.group()?.decrease(instances).await.map_err(|e| status(&e))?;
        Ok(Response::new(fleeting::DecreaseResponse { succeeded }))
    }

    async fn connect_info(
        &self,
        request: Request<fleeting::ConnectInfoRequest>,
    ) -> Result<Response<fleeting::ConnectInfoResponse>, Status> {
        let instance = request.into_inner().instance;
        let info = self.group()?.connect_info(instance).await.map_err(|e| status(&e))?;
        Ok(Response::new(wire::connect_info_to_wire(&info)))
    }

    async fn heartbeat(
        &self,
        request: Request<fleeting::HeartbeatRequest>,
    ) -> Result<Response<fleeting::Empty>, Status> {
        let instance = request.into_inner().instance;
        self.group()?.heartbeat(instance).await.map_err(|e| status(&e))?;
        Ok(Response::new(fleeting::Empty {}))
    }

    async fn suspend(
        &self,
        request: Request<fleeting::SuspendRequest>,
    ) -> Result<Response<fleeting::SuspendResponse>, Status> {
        let instances = request.into_inner().instances;
        let partial = self.group()?.suspend(instances).await.map_err(|e| status(&e))?;
        let succeeded = partial_reply(partial, wire::SUSPEND_DETAIL)?;
        Ok(Response::new(fleeting::SuspendResponse { succeeded }))
    }

    async fn resume(
        &self,
        request: Request<fleeting::ResumeRequest>,
    ) -> Result<Response<fleeting::ResumeResponse>, Status> {
        let instances = request.into_inner().instances;
        let partial = self.group()?.resume(instances).await.map_err(|e| status(&e))?;
        let succeeded = partial_reply(partial, wire::RESUME_DETAIL)?;
        Ok(Response::new(fleeting::ResumeResponse { succeeded }))
    }

    async fn shutdown(
        &self,
        _: Request<fleeting::Empty>,
    ) -> Result<Response<fleeting::Empty>, Status> {
        self.group()?.shutdown().await.map_err(|e| status(&e))?;
        self.initialized.store(false, Ordering::SeqCst);
        Ok(Response::new(fleeting::Empty {}))
    }
}

/// Reads `plugin_config`; nothing and `null` are `{}`, as a stock host sends them.
fn decode_config<C: serde::de::DeserializeOwned>(json: &[u8]) -> Result<C, Error> {
    let json = match json.trim_ascii() {
        b"" | b"null" => b"{}",
        json => json,
    };
    let mut decoder = serde_json::Deserializer::from_slice(json);
    let config = serde_ignored::deserialize(&mut decoder, |path| {
        tracing::warn!(key = %path, "unknown key in plugin_config");
    })
    .and_then(|config| decoder.end().map(|()| config));
    config.map_err(|error| Error::new(format!("unmarshaling config: {error}")))
}

fn status(error: &Error) -> Status {
    let code = if error.is_unsupported() { Code::Unimplemented } else { Code::Unknown };
    Status::new(code, error.to_string())
}

/// A reply, or an error that carries the ids that succeeded as a typed detail. Both
/// detail messages have the ids as field 1.
fn partial_reply(partial: Partial, type_url: &str) -> Result<Vec<String>, Status> {
    let Some(message) = partial.error else {
        return Ok(partial.succeeded);
    };
    let detail = fleeting::SuspendResponse { succeeded: partial.succeeded };
    let details = wire::rpc::Status {
        code: Code::Unknown.into(),
        message: message.clone(),
        details: vec![prost_types::Any {
            type_url: type_url.to_owned(),
            value: detail.encode_to_vec(),
        }],
    };
    Err(Status::with_details(Code::Unknown, message, details.encode_to_vec().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Config {
        name: String,
    }

    #[test]
    fn nothing_and_null_are_the_empty_config() {
        for json in ["", " ", "null", "{}", r#"{"unknown":1}"#] {
            assert_eq!(decode_config(json.as_bytes()), Ok(Config::default()), "{json}");
        }
    }

    #[test]
    fn config_errors_start_as_stock_ones() {
        for json in ["{", "[]x", r#"{"name":1}"#, "{} {}"] {
            let error = decode_config::<Config>(json.as_bytes()).expect_err("must fail");
            assert!(error.to_string().starts_with("unmarshaling config: "), "{error}");
        }
    }

    #[test]
    fn a_partial_suspend_has_the_bytes_of_a_stock_plugin() {
        let partial = Partial { succeeded: vec!["a".into()], error: Some("boom".into()) };
        let status = partial_reply(partial, wire::SUSPEND_DETAIL).expect_err("must fail");
        let mut expected = vec![0x08, 0x02, 0x12, 0x04];
        expected.extend(b"boom");
        expected.extend([0x1a, 0x30, 0x0a, 0x29]);
        expected.extend(wire::SUSPEND_DETAIL.as_bytes());
        expected.extend([0x12, 0x03, 0x0a, 0x01, b'a']);
        assert_eq!(status.details(), expected);
    }
}
