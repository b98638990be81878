//! The servers that are compared, each run in a process of its own.

use std::io::{Read as _, Write as _};

use clap::ValueEnum;
use sconce_grpc::proto::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use sconce_grpc::proto::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::{Error, message, model};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// A bare tonic server that answers without a model or a queue
    Echo,
    /// Sconce, with a model that gives its first ten inputs back
    Sconce,
}

/// Serves on a free port, prints its address, and leaves when standard input ends.
pub(crate) fn run(kind: Kind, workers: usize) -> Result<(), Error> {
    let runtime = match workers {
        // As `sconce serve` makes it.
        0 => tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
        workers => tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?,
    };
    runtime.block_on(serve(kind))
}

async fn serve(kind: Kind) -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let (stop, stopped) = oneshot::channel();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        // However the parent goes away, the pipe ends.
        let _ = std::io::stdin().read_to_end(&mut rest);
        let _ = stop.send(());
    });
    let stopped = async { stopped.await.unwrap_or(()) };
    match kind {
        Kind::Echo => {
            let service = Server::builder().add_service(GrpcInferenceServiceServer::new(Echo));
            service.serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stopped).await?;
        }
        Kind::Sconce => {
            let directory = tempfile::tempdir()?;
            sconce_grpc::serve(model::runtime(directory.path())?, listener, stopped).await?;
        }
    }
    Ok(())
}

/// Reads a request and writes an answer; everything else of the protocol is left out.
struct Echo;

fn left_out<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the echo only infers"))
}

#[tonic::async_trait]
impl GrpcInferenceService for Echo {
    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let answer = message::answer(request.into_inner());
        answer.map(Response::new).ok_or_else(|| Status::invalid_argument("not the request of this bench"))
    }

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        left_out()
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        left_out()
    }

    async fn model_ready(&self, _: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        left_out()
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        left_out()
    }

    async fn model_metadata(
        &self,
        _: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        left_out()
    }

    async fn model_config(&self, _: Request<ModelConfigRequest>) -> Result<Response<ModelConfigResponse>, Status> {
        left_out()
    }

    async fn model_statistics(
        &self,
        _: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        left_out()
    }
}
