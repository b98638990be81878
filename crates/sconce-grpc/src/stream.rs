//! The call `ModelStreamInfer`: the requests of a stream, answered beside each other and in their order.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Buf as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use prost::Message as _;
use sconce_server::{Arrival, Call, Charge, RequestError, TokenAdmission};
use tokio::task::JoinSet;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic::codegen::{BoxFuture, tokio_stream::Stream};
use tonic::metadata::MetadataMap;
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::deadline;
use crate::inference::decode;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::{InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use crate::service::Service;
use crate::status::{retry_after_ms, status};

/// Requests of one stream at most that are read and not answered. A further one is not read before, so that its client has
/// to wait; more would only hold memory.
const MAX_REQUESTS_IN_FLIGHT: usize = 256;
/// The metadata by which a client asks that an error ends the stream with its status.
const ENDS_AT_ERROR: &str = "triton_grpc_error";
const FINAL_RESPONSE: &str = "triton_final_response";
const RETRY_AFTER: &str = "retry_after_ms";

/// The answers of a stream.
pub(crate) type StreamedAnswers = BoxStream<'static, Result<ModelStreamInferResponse, Status>>;

/// A request of a stream, or the reason why it cannot be read.
pub(crate) struct StreamedRequest {
    request: Result<ModelInferRequest, RequestError>,
    at: Instant,
    /// Held until the request is answered.
    charge: Option<Charge>,
}

impl From<ModelInferRequest> for StreamedRequest {
    fn from(request: ModelInferRequest) -> Self {
        Self { request: Ok(request), at: Instant::now(), charge: None }
    }
}

/// A codec that takes each request of a stream with the memory that it holds.
pub(crate) struct StreamedCodec {
    /// The charge of the stream.
    pub(crate) charge: Option<Arc<Charge>>,
}

impl Codec for StreamedCodec {
    type Encode = ModelStreamInferResponse;
    type Decode = StreamedRequest;
    type Encoder = ProstEncoder<ModelStreamInferResponse>;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<ModelStreamInferResponse, ModelInferRequest>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self {
        Self { charge: self.charge.clone() }
    }
}

impl Decoder for StreamedCodec {
    type Item = StreamedRequest;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<StreamedRequest>, Status> {
        let charge = self.charge.as_ref().and_then(|stream| stream.take_message());
        let counted = charge.as_ref().map_or(Ok(()), |charge| charge.decompressed(message.remaining()));
        // Taken out of the buffer, not copied.
        let bytes = message.copy_to_bytes(message.remaining());
        let request = counted.and_then(|()| decode(bytes, charge.as_ref()));
        Ok(Some(StreamedRequest { request, at: Instant::now(), charge }))
    }
}

pub(crate) struct ModelStreamInfer(pub(crate) Service);

impl StreamingService<StreamedRequest> for ModelStreamInfer {
    type Response = ModelStreamInferResponse;
    type ResponseStream = StreamedAnswers;
    type Future = BoxFuture<Response<StreamedAnswers>, Status>;

    fn call(&mut self, request: Request<Streaming<StreamedRequest>>) -> Self::Future {
        let answers = answers(self.0.clone(), request);
        Box::pin(async move { Ok(Response::new(answers?)) })
    }
}

/// The terms of a stream, which hold for each of its requests.
#[derive(Clone)]
struct StreamTerms {
    service: Service,
    /// The stream's arrival: its deadline, its trace and its client are those of each request.
    arrival: Arrival,
    ends_at_error: bool,
    call: Option<Arc<Call>>,
}

/// Answers the requests of a stream. It ends when the client has sent its last request, or the server leaves.
pub(crate) fn answers<R>(service: Service, request: Request<Streaming<R>>) -> Result<StreamedAnswers, Status>
where
    R: Into<StreamedRequest> + Send + 'static,
{
    let call = request.extensions().get::<Arc<Call>>().cloned();
    // Held until the stream ends.
    let charge = request.extensions().get::<Arc<Charge>>().cloned();
    let arrival = deadline::of(&request).map_err(status)?;
    let ends_at_error = ends_at_error(request.metadata());
    let leaving: Pin<Box<dyn Future<Output = ()> + Send>> = if let Some(call) = &call {
        Box::pin(call.leaving())
    } else {
        let runtime = service.runtime().clone();
        Box::pin(async move { runtime.draining().await })
    };
    let terms = StreamTerms { service, arrival, ends_at_error, call };
    let admission = request.extensions().get::<TokenAdmission>().cloned();
    let still_admitted = move || admission.as_ref().map_or(Ok(()), |admission| admission.check().map_err(status));
    let answers = requests(request.into_inner(), leaving)
        .map(move |request| request.and_then(|request| still_admitted().map(|()| request)))
        .map(move |request| {
            let (terms, _charge) = (terms.clone(), charge.clone());
            async move { answer_beside_others(terms, request?.into()).await }
        })
        .buffered(MAX_REQUESTS_IN_FLIGHT);
    Ok(until_error(answers).boxed())
}

fn ends_at_error(metadata: &MetadataMap) -> bool {
    metadata.get(ENDS_AT_ERROR).is_some_and(|value| value.as_encoded_bytes() == b"true")
}

/// The requests of a stream as they come. After an error, or when `leaving` resolves, no further one is read.
fn requests<R: Send + 'static>(
    requests: Streaming<R>,
    leaving: Pin<Box<dyn Future<Output = ()> + Send>>,
) -> impl Stream<Item = Result<R, Status>> + Send {
    stream::unfold(Some((requests, leaving)), |state| async {
        let (mut requests, mut leaving) = state?;
        tokio::select! {
            biased;
            () = &mut leaving => {
                Some((Err(Status::unavailable("the server is leaving; begin a new stream, at another server")), None))
            }
            request = requests.message() => match request.transpose()? {
                Ok(request) => Some((Ok(request), Some((requests, leaving)))),
                Err(status) => Some((Err(status), None)),
            },
        }
    })
}

/// The items of a stream up to its first error.
fn until_error<T: Send>(
    items: impl Stream<Item = Result<T, Status>> + Send,
) -> impl Stream<Item = Result<T, Status>> + Send {
    items.scan(false, |has_ended, item| {
        let item = (!*has_ended).then_some(item);
        *has_ended |= matches!(item, Some(Err(_)));
        std::future::ready(item)
    })
}

/// Answers a request in a task of its own, which ends with this future.
async fn answer_beside_others(
    terms: StreamTerms,
    request: StreamedRequest,
) -> Result<ModelStreamInferResponse, Status> {
    let mut task = JoinSet::new();
    task.spawn(answer(terms, request));
    let failed = || Status::internal("the task of the request failed");
    task.join_next().await.ok_or_else(failed)?.map_err(|_| failed())?
}

async fn answer(terms: StreamTerms, streamed: StreamedRequest) -> Result<ModelStreamInferResponse, Status> {
    let StreamedRequest { request, at, charge } = streamed;
    // Its connection is busy until there is an answer.
    let call = terms.call.as_ref().map(|call| call.of_message());
    let arrival = Arrival { at, ..terms.arrival };
    let (id, model, version) = match &request {
        Ok(request) => (request.id.clone(), request.model_name.clone(), request.model_version.clone()),
        Err(_) => Default::default(),
    };
    // The stream itself has counted as one request.
    let within_rate = arrival.client.as_ref().map_or(Ok(()), |client| client.begin_request(at));
    let admitted = within_rate.and(request);
    let answered = match admitted {
        Ok(request) => terms.service.answer(request, arrival, charge.as_ref()).await,
        Err(error) => Err(error),
    };
    let mut response = match answered {
        Ok(response) => ModelStreamInferResponse { infer_response: Some(response), error_message: String::new() },
        Err(error) if terms.ends_at_error => return Err(status(error)),
        Err(error) => of_error(&error, id, model, version),
    };
    if let Some(response) = &mut response.infer_response {
        put(response, FINAL_RESPONSE, ParameterChoice::BoolParam(true));
    }
    if let Some(call) = call {
        call.answered(response.encoded_len());
    }
    Ok(response)
}

/// The answer to a request that failed, by whose id the client knows it.
fn of_error(error: &RequestError, id: String, model_name: String, model_version: String) -> ModelStreamInferResponse {
    let mut response = ModelInferResponse { id, model_name, model_version, ..Default::default() };
    if let Some(milliseconds) = retry_after_ms(error) {
        put(&mut response, RETRY_AFTER, ParameterChoice::Int64Param(milliseconds.try_into().unwrap_or(i64::MAX)));
    }
    ModelStreamInferResponse { error_message: error.message(), infer_response: Some(response) }
}

fn put(response: &mut ModelInferResponse, name: &str, choice: ParameterChoice) {
    response.parameters.insert(name.to_owned(), InferParameter { parameter_choice: Some(choice) });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sconce::QueueError;

    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let refusal = |retry_after| {
            let source = QueueError::QueueFull { max: 8, retry_after }.into();
            let response = of_error(&RequestError::Refused { source }, "7".into(), "m".into(), "1".into());
            assert_eq!(response.error_message, "the queue is full: at most 8 items may wait");
            let mut response = response.infer_response.unwrap();
            assert_eq!((response.id.as_str(), response.model_name.as_str()), ("7", "m"));
            response.parameters.remove(RETRY_AFTER).and_then(|parameter| parameter.parameter_choice)
        };
        assert_eq!(refusal(Some(Duration::from_micros(2001))), Some(ParameterChoice::Int64Param(3)));
        assert_eq!(refusal(None), None);
    }
}
