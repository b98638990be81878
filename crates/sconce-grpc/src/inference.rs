//! The call `ModelInfer`, whose memory is counted before it is decoded. The protocol's other calls are generated.

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

use crate::measure::decoded_bytes;
use crate::proto::grpc_inference_service_server::{GrpcInferenceService as _, GrpcInferenceServiceServer};
use crate::proto::{ModelInferRequest, ModelInferResponse};
use crate::service::Service;
use crate::status::status;

type Generated = GrpcInferenceServiceServer<Service>;

/// Bytes at most of a message of the calls that ask about models.
const MAX_QUESTION_BYTES: usize = 64 * 1024;
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// The protocol's service.
#[derive(Clone)]
pub(crate) struct Inference {
    service: Arc<Service>,
    generated: Generated,
    max_message_bytes: usize,
}

impl Inference {
    pub(crate) fn new(service: Service, max_message_bytes: usize) -> Self {
        let service = Arc::new(service);
        let generated = Generated::from_arc(Arc::clone(&service))
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
        if request.uri().path() != MODEL_INFER {
            return self.generated.call(request);
        }
        let (service, max_message_bytes) = (Arc::clone(&self.service), self.max_message_bytes);
        Box::pin(async move {
            let charge = request.extensions().get::<Arc<Charge>>().cloned();
            let mut grpc = Grpc::new(Encoded { charge })
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate)
                .max_decoding_message_size(max_message_bytes);
            Ok(grpc.unary(ModelInfer(service), request).await)
        })
    }
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

struct ModelInfer(Arc<Service>);

impl UnaryService<Bytes> for ModelInfer {
    type Response = ModelInferResponse;
    type Future = BoxFuture<Response<ModelInferResponse>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let service = Arc::clone(&self.0);
        Box::pin(async move {
            // Keeps the charge until the call is answered.
            let charge = request.extensions().get::<Arc<Charge>>().cloned();
            let call = request.extensions().get::<Arc<Call>>().cloned();
            let (metadata, extensions, message) = request.into_parts();
            let message = decode(message, charge.as_deref()).map_err(status)?;
            let answer = service.model_infer(Request::from_parts(metadata, extensions, message)).await?;
            if let Some(call) = call {
                call.answered(answer.get_ref().encoded_len());
            }
            Ok(answer)
        })
    }
}

fn decode(message: Bytes, charge: Option<&Charge>) -> Result<ModelInferRequest, RequestError> {
    if let Some(charge) = charge {
        charge.grow(decoded_bytes(&message, charge.max()))?;
    }
    let malformed = |error: prost::DecodeError| RequestError::Malformed {
        expected: "ModelInferRequest",
        message: error.to_string(),
    };
    ModelInferRequest::decode(message).map_err(malformed)
}
