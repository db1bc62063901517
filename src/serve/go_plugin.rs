//! The services that go-plugin hosts expect beside the provider's own. The broker and
//! the stdio stream carry nothing for fleeting; they stay open until the end.

use std::pin::Pin;

use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::wire::go_plugin::grpc_broker_server::{GrpcBroker, GrpcBrokerServer};
use crate::wire::go_plugin::grpc_controller_server::{GrpcController, GrpcControllerServer};
use crate::wire::go_plugin::grpc_stdio_server::{GrpcStdio, GrpcStdioServer};
use crate::wire::go_plugin::{ConnInfo, Empty, StdioData};
use crate::wire::health::health_check_response::ServingStatus;
use crate::wire::health::health_server::{Health, HealthServer};
use crate::wire::health::{HealthCheckRequest, HealthCheckResponse};

type Stay<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A stream that yields nothing and ends with the plugin.
fn until<T: Send + 'static>(ending: CancellationToken) -> Stay<T> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = ending.cancelled() => {}
            () = sender.closed() => {}
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

struct Services {
    ending: CancellationToken,
}

pub(super) fn broker(ending: CancellationToken) -> GrpcBrokerServer<impl GrpcBroker> {
    GrpcBrokerServer::new(Services { ending })
}

pub(super) fn controller(ending: CancellationToken) -> GrpcControllerServer<impl GrpcController> {
    GrpcControllerServer::new(Services { ending })
}

pub(super) fn stdio(ending: CancellationToken) -> GrpcStdioServer<impl GrpcStdio> {
    GrpcStdioServer::new(Services { ending })
}

pub(super) fn health(ending: CancellationToken) -> HealthServer<impl Health> {
    HealthServer::new(Services { ending })
}

#[tonic::async_trait]
impl GrpcBroker for Services {
    type StartStreamStream = Stay<ConnInfo>;

    async fn start_stream(
        &self,
        request: Request<Streaming<ConnInfo>>,
    ) -> Result<Response<Self::StartStreamStream>, Status> {
        let mut offers = request.into_inner();
        let ending = self.ending.clone();
        // fleeting never uses the broker; offers are read so that the host is not held.
        tokio::spawn(async move {
            let drain = async { while let Ok(Some(_)) = offers.message().await {} };
            tokio::select! {
                () = ending.cancelled() => {}
                () = drain => {}
            }
        });
        Ok(Response::new(until(self.ending.clone())))
    }
}

#[tonic::async_trait]
impl GrpcController for Services {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.ending.cancel();
        Ok(Response::new(Empty {}))
    }
}

#[tonic::async_trait]
impl GrpcStdio for Services {
    type StreamStdioStream = Stay<StdioData>;

    async fn stream_stdio(
        &self,
        _: Request<()>,
    ) -> Result<Response<Self::StreamStdioStream>, Status> {
        Ok(Response::new(until(self.ending.clone())))
    }
}

#[tonic::async_trait]
impl Health for Services {
    type WatchStream = Stay<HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        serving(&request.into_inner().service).map(Response::new)
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let now = serving(&request.into_inner().service)?;
        let stream = tokio_stream::once(Ok(now)).chain(until(self.ending.clone()));
        Ok(Response::new(Box::pin(stream)))
    }
}

fn serving(service: &str) -> Result<HealthCheckResponse, Status> {
    match service {
        "" | "plugin" => Ok(HealthCheckResponse { status: ServingStatus::Serving.into() }),
        other => Err(Status::not_found(format!("unknown service {other}"))),
    }
}
