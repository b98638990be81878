//! `ModelStreamInfer`: the requests of a stream are answered in their order, beside each other, within bounds.

use crate::support::*;
use sconce::BatcherConfig;
use sconce_grpc::ServerLimits;
use sconce_grpc::proto::infer_parameter::ParameterChoice;
use sconce_grpc::proto::{ModelInferRequest, ModelStreamInferResponse, ServerLiveRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status, Streaming};

/// A stream of requests that is open.
struct Stream {
    requests: mpsc::UnboundedSender<ModelInferRequest>,
    answers: Streaming<ModelStreamInferResponse>,
}

impl Stream {
    async fn open(mut client: Client) -> Self {
        let (requests, received) = mpsc::unbounded_channel();
        let answers = client.model_stream_infer(UnboundedReceiverStream::new(received)).await.unwrap().into_inner();
        Self { requests, answers }
    }

    fn send(&self, request: ModelInferRequest, id: usize) {
        self.requests.send(ModelInferRequest { id: id.to_string(), ..request }).unwrap();
    }

    async fn next(&mut self) -> Result<Option<ModelStreamInferResponse>, Status> {
        soon(self.answers.message()).await
    }

    /// The labels of the next answer, or its error, with its id.
    async fn answer(&mut self) -> (String, Result<Vec<String>, String>) {
        let ModelStreamInferResponse { error_message, infer_response } = self.next().await.unwrap().unwrap();
        let response = infer_response.unwrap();
        let last = response.parameters["triton_final_response"].parameter_choice.clone();
        assert_eq!(last, Some(ParameterChoice::BoolParam(true)));
        let outcome = if error_message.is_empty() { Ok(strings(&response, "label").1) } else { Err(error_message) };
        (response.id, outcome)
    }
}

#[tokio::test]
async fn requests_of_a_stream_are_answered_in_their_order_and_the_error_of_one_leaves_it_open() {
    let server = Server::start(&[SENTIMENT, DIGITS], BatcherConfig::default()).await;
    for compression in [None, Some(CompressionEncoding::Gzip)] {
        let mut client = server.client().await;
        if let Some(compression) = compression {
            client = client.send_compressed(compression);
        }
        let mut stream = Stream::open(client).await;
        let other = texts("bert", &["a"]);
        let requests =
            [texts(SENTIMENT, &["What a wonderful day!"]), other, texts(SENTIMENT, &["Terrible.", "Awful."])];
        for round in 0..20 {
            for (at, request) in requests.iter().enumerate() {
                stream.send(request.clone(), 3 * round + at);
            }
        }
        for id in 0..60 {
            let (answered, outcome) = stream.answer().await;
            assert_eq!(answered, id.to_string());
            match id % 3 {
                0 => assert_eq!(outcome.unwrap(), ["positive"]),
                1 => assert!(outcome.unwrap_err().starts_with("no model is named 'bert'")),
                _ => assert_eq!(outcome.unwrap(), ["negative", "negative"]),
            }
        }
        drop(stream.requests);
        assert!(soon(stream.answers.message()).await.unwrap().is_none(), "it ends when its client has sent all");
    }
    assert_eq!(server.runtime.in_flight(), 0);
}

#[tokio::test]
async fn an_error_ends_a_stream_whose_client_asks_for_it() {
    let server = Server::start(&[SENTIMENT], BatcherConfig::default()).await;
    let requests = [texts(SENTIMENT, &["Nice."]), texts("bert", &["a"]), texts(SENTIMENT, &["Nice."])];
    let mut request = tonic::Request::new(tokio_stream::iter(requests));
    request.metadata_mut().insert("triton_grpc_error", "true".parse().unwrap());
    let mut answers = server.client().await.model_stream_infer(request).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().error_message.is_empty());
    assert_eq!(answers.message().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn requests_of_a_stream_run_together_up_to_a_bound_and_leave_the_queue_with_it() {
    let server = Server::start(&[SENTIMENT], patient(512)).await;
    let stream = Stream::open(server.client().await).await;
    for id in 0..400 {
        stream.send(texts(SENTIMENT, &["Nice."]), id);
    }
    server.until_queued(SENTIMENT, 256).await;
    let mut other = server.client().await;
    for _ in 0..20 {
        other.server_live(ServerLiveRequest {}).await.unwrap();
    }
    assert_eq!(server.runtime.in_flight(), 256, "the rest is not read");
    drop(stream);
    server.until_queued(SENTIMENT, 0).await;
    until(|| server.runtime.in_flight() == 0).await;
}

#[tokio::test]
async fn a_refusal_has_the_id_of_its_request_and_its_stream_goes_on() {
    let batching = BatcherConfig { max_queue_size: 2, ..patient(2) };
    let server = Server::start(&[SENTIMENT], batching).await;
    let mut stream = Stream::open(server.client().await).await;
    stream.send(texts(SENTIMENT, &["Nice."]), 0);
    server.until_queued(SENTIMENT, 1).await;
    // Two do not fit beside it.
    stream.send(texts(SENTIMENT, &["one", "two"]), 1);
    until(|| server.runtime.in_flight() == 1).await;
    stream.send(texts(SENTIMENT, &["Terrible."]), 2);
    assert_eq!(stream.answer().await.1.unwrap(), ["positive"]);
    let refused = stream.next().await.unwrap().unwrap();
    assert_eq!(refused.error_message, "the queue is full: at most 2 items may wait");
    assert_eq!(refused.infer_response.unwrap().id, "1");
    assert_eq!(stream.answer().await.0, "2");
}

#[tokio::test]
async fn a_stream_holds_no_more_memory_than_its_unanswered_requests() {
    const KIB: usize = 1024;
    let limits = ServerLimits { max_request_bytes_in_flight: 1024 * KIB, ..ServerLimits::default() };
    let server = Server::within(limits, &[MAGIKA], BatcherConfig::default()).await;
    let mut stream = Stream::open(server.client().await).await;
    for id in 0..40 {
        stream.send(texts(MAGIKA, &[vec![b'a'; 200 * KIB]]), id);
        stream.answer().await.1.unwrap();
    }
    // Decoding takes more than there is.
    stream.send(texts(MAGIKA, &[vec![b'a'; 600 * KIB]]), 40);
    let refused = stream.answer().await.1.unwrap_err();
    assert!(refused.contains("max_request_bytes_in_flight"), "{refused}");
    stream.send(texts(MAGIKA, &[vec![b'a'; 200 * KIB]]), 41);
    assert!(stream.answer().await.1.is_ok(), "the stream goes on");
}

#[tokio::test]
async fn a_server_that_leaves_answers_what_a_stream_has_in_flight_and_ends_it() {
    let server = Server::start(&[SENTIMENT], patient(2)).await;
    let runtime = server.runtime.clone();
    let mut stream = Stream::open(server.client().await).await;
    stream.send(texts(SENTIMENT, &["What a wonderful day!"]), 0);
    server.until_queued(SENTIMENT, 1).await;
    let ended = server.stop();
    until(|| runtime.is_draining()).await;
    // A second item fills the batch of the waiting one.
    soon(runtime.model(SENTIMENT).unwrap().infer("Nice.")).await.unwrap();
    assert_eq!(stream.answer().await, ("0".to_owned(), Ok(vec!["positive".to_owned()])));
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("begin a new stream"), "{status}");
    soon(ended).await.unwrap().unwrap();
}
