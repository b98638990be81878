//! The servers to compare, each run in a process of its own.

use std::convert::Infallible;
use std::task::{Context, Poll};

use clap::ValueEnum;
use sconce_benches::Error;
use sconce_benches::wire::model::{self, Cost};
use sconce_benches::wire::{message, process};
use sconce_grpc::proto::{ModelInferRequest, ModelInferResponse};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

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
            let service = Server::builder().add_service(Echo);
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
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async {
            if !request.uri().path().ends_with("/ModelInfer") {
                return Ok(Status::unimplemented("the echo only infers").into_http());
            }
            Ok(Grpc::new(ProstCodec::default()).unary(EchoInfer, request).await)
        })
    }
}

struct EchoInfer;

impl UnaryService<ModelInferRequest> for EchoInfer {
    type Response = ModelInferResponse;
    type Future = BoxFuture<Response<ModelInferResponse>, Status>;

    fn call(&mut self, request: Request<ModelInferRequest>) -> Self::Future {
        Box::pin(async {
            let answer = message::answer(request.into_inner());
            answer.map(Response::new).ok_or_else(|| Status::invalid_argument("not the request of this bench"))
        })
    }
}
