//! The calls `ModelInfer` and `ModelStreamInfer`, whose memory is counted before they are decoded. The protocol's other
//! calls are generated.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use sconce_server::{Call, Charge, RequestError};
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder};
use tonic::codegen::{BoxFuture, Service as HttpService, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::deadline;
use crate::measure::decoded_bytes;
use crate::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::proto::{ModelInferRequest, ModelInferResponse};
use crate::service::Service;
use crate::status::status;
use crate::stream::{ModelStreamInfer, StreamedCodec};

type Generated = GrpcInferenceServiceServer<Service>;

/// Bytes at most of a message of the calls that ask about models.
const MAX_QUESTION_BYTES: usize = 64 * 1024;
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
/// The path of the call that is a stream of requests.
pub(crate) const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// The protocol's service.
#[derive(Clone)]
pub(crate) struct Inference {
    service: Service,
    generated: Generated,
    max_message_bytes: usize,
}

impl Inference {
    pub(crate) fn new(service: Service, max_message_bytes: usize) -> Self {
        let generated = Generated::new(service.clone())
            .max_decoding_message_size(MAX_QUESTION_BYTES)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        Self { service, generated, max_message_bytes }
    }
}

impl NamedService for Inference {
    const NAME: &'static str = Generated::NAME;
}

impl HttpService<http::Request<Body>> for Inference {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.service.clone();
        let charge = request.extensions().get::<Arc<Charge>>().cloned();
        let max_bytes = self.max_message_bytes;
        match request.uri().path() {
            MODEL_INFER => {
                let mut grpc = bounded(Encoded { charge }, max_bytes);
                Box::pin(async move { Ok(grpc.unary(ModelInfer(service), request).await) })
            }
            MODEL_STREAM_INFER => {
                let mut grpc = bounded(StreamedCodec { charge }, max_bytes);
                Box::pin(async move { Ok(grpc.streaming(ModelStreamInfer(service), request).await) })
            }
            _ => self.generated.call(request),
        }
    }
}

fn bounded<C: Codec>(codec: C, max_bytes: usize) -> Grpc<C> {
    Grpc::new(codec)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .max_decoding_message_size(max_bytes)
}

/// A codec that leaves a request encoded, and counts the bytes that it takes decompressed.
struct Encoded {
    charge: Option<Arc<Charge>>,
}

impl Codec for Encoded {
    type Encode = ModelInferResponse;
    type Decode = Bytes;
    type Encoder = ProstEncoder<ModelInferResponse>;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<ModelInferResponse, ModelInferRequest>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self {
        Self { charge: self.charge.clone() }
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        if let Some(charge) = &self.charge {
            charge.decompressed(message.remaining()).map_err(status)?;
        }
        // Taken out of the buffer, not copied.
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

struct ModelInfer(Service);

impl UnaryService<Bytes> for ModelInfer {
    type Response = ModelInferResponse;
    type Future = BoxFuture<Response<ModelInferResponse>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            // Keeps the charge until the call is answered.
            let charge = request.extensions().get::<Arc<Charge>>().cloned();
            let call = request.extensions().get::<Arc<Call>>().cloned();
            let arrival = deadline::of(&request).map_err(status)?;
            let message = decode(request.into_inner(), charge.as_deref()).map_err(status)?;
            let answer = service.answer(message, arrival, charge.as_deref()).await.map_err(status)?;
            if let Some(call) = call {
                call.answered(answer.encoded_len());
            }
            Ok(Response::new(answer))
        })
    }
}

/// Decodes a request, after the memory that it takes then is counted.
pub(crate) fn decode(message: Bytes, charge: Option<&Charge>) -> Result<ModelInferRequest, RequestError> {
    if let Some(charge) = charge {
        charge.grow(decoded_bytes(&message, charge.max()))?;
    }
    let malformed = |error: prost::DecodeError| RequestError::Malformed {
        expected: "ModelInferRequest",
        message: error.to_string(),
    };
    ModelInferRequest::decode(message).map_err(malformed)
}
