//! The servers to compare, each run in a process of its own.

use clap::ValueEnum;
use sconce_benches::Error;
use sconce_benches::wire::model::{self, Cost};
use sconce_benches::wire::{message, process};
use sconce_grpc::proto::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use sconce_grpc::proto::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse,
};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::rest::Tensors;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// A bare tonic server that answers without a model or a queue
    Echo,
    /// Sconce, with a model that returns its first ten inputs
    Sconce,
    /// The same over HTTP, with tensors as JSON
    RestJson,
    /// The same over HTTP, with binary tensors
    RestBinary,
}

impl Kind {
    /// The tensors of a server over HTTP.
    pub(crate) fn tensors(self) -> Option<Tensors> {
        match self {
            Self::Echo | Self::Sconce => None,
            Self::RestJson => Some(Tensors::Json),
            Self::RestBinary => Some(Tensors::Binary),
        }
    }
}

/// Serves on a free port, prints its address, and ends when standard input does.
pub(crate) fn run(kind: Kind, workers: usize) -> Result<(), Error> {
    let runtime = match workers {
        // The same runtime as that of `sconce serve`.
        0 => tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
        workers => tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?,
    };
    runtime.block_on(serve(kind))
}

async fn serve(kind: Kind) -> Result<(), Error> {
    let listener = process::listen().await?;
    let stopped = process::parent(String::new);
    match kind {
        Kind::Echo => {
            let service = Server::builder().add_service(GrpcInferenceServiceServer::new(Echo));
            service.serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stopped).await?;
        }
        Kind::Sconce | Kind::RestJson | Kind::RestBinary => {
            let directory = tempfile::tempdir()?;
            let runtime = model::builder(directory.path(), Cost::default())?.build()?;
            match kind.tensors() {
                None => sconce_grpc::serve(runtime, listener, stopped).await?,
                Some(_) => sconce_http::serve(runtime, listener, stopped).await?,
            }
        }
    }
    Ok(())
}

/// Reads a request and writes an answer; the rest of the protocol is left out.
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
