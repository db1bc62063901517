//! What go-plugin hosts expect beside the provider.

use std::pin::Pin;

use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};

use crate::fault::Fault;
use crate::provider::{Provider, server};

pub(crate) mod plugin {
    #![expect(unreachable_pub, reason = "generated code")]
    tonic::include_proto!("plugin");
}
pub(crate) mod health {
    #![expect(unreachable_pub, reason = "generated code")]
    tonic::include_proto!("grpc.health.v1");
}

type Never<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
struct Services {
    fault: Fault,
    end: watch::Sender<bool>,
}

/// All services.
pub(crate) fn router(
    fault: Fault,
    end: watch::Sender<bool>,
    ending: watch::Receiver<bool>,
) -> Router {
    let services = Services { fault, end };
    let routes = Routes::new(server(Provider::new(fault, ending)))
        .add_service(plugin::grpc_broker_server::GrpcBrokerServer::new(services.clone()))
        .add_service(plugin::grpc_controller_server::GrpcControllerServer::new(services.clone()))
        .add_service(plugin::grpc_stdio_server::GrpcStdioServer::new(services.clone()))
        .add_service(health::health_server::HealthServer::new(services));
    tonic::transport::Server::builder().add_routes(routes)
}

#[tonic::async_trait]
impl plugin::grpc_broker_server::GrpcBroker for Services {
    type StartStreamStream = Never<plugin::ConnInfo>;

    async fn start_stream(
        &self,
        _: Request<Streaming<plugin::ConnInfo>>,
    ) -> Result<Response<Self::StartStreamStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }
}

#[tonic::async_trait]
impl plugin::grpc_stdio_server::GrpcStdio for Services {
    type StreamStdioStream = Never<plugin::StdioData>;

    async fn stream_stdio(
        &self,
        _: Request<()>,
    ) -> Result<Response<Self::StreamStdioStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }
}

#[tonic::async_trait]
impl plugin::grpc_controller_server::GrpcController for Services {
    async fn shutdown(&self, _: Request<plugin::Empty>) -> Result<Response<plugin::Empty>, Status> {
        if self.fault != Fault::NeverEnds {
            let _ = self.end.send(true);
        }
        Ok(Response::new(plugin::Empty {}))
    }
}

#[tonic::async_trait]
impl health::health_server::Health for Services {
    type WatchStream = Never<health::HealthCheckResponse>;

    async fn check(
        &self,
        _: Request<health::HealthCheckRequest>,
    ) -> Result<Response<health::HealthCheckResponse>, Status> {
        let status = if self.fault == Fault::NotServing { 2 } else { 1 };
        Ok(Response::new(health::HealthCheckResponse { status }))
    }

    async fn watch(
        &self,
        _: Request<health::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }
}
