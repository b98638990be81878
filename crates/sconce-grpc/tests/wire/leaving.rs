//! Deadlines, clients that disconnect, and a server that shuts down.

use std::time::Duration;

use crate::support::*;
use sconce::{BatcherConfig, InferError, QueueError, Request, Runtime};
use sconce_grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use sconce_grpc::proto::infer_parameter::ParameterChoice::Int64Param;
use sconce_grpc::proto::{ModelReadyRequest, ServerReadyRequest};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

fn runtime(batching: BatcherConfig) -> Runtime {
    Runtime::builder().model(zoo().join(SENTIMENT)).batching(batching).build().unwrap()
}

/// Uses no socket, because a client's channel watches the same header and would answer in place of the server.
#[tokio::test]
async fn the_smaller_of_header_and_parameter_ends_a_request() {
    let (routes, _drain) = sconce_grpc::router(runtime(BatcherConfig::default())).await;
    let mut client = GrpcInferenceServiceClient::new(routes);
    let mut infer = async |header: &str, timeout_us: i64| {
        let request = with(texts(SENTIMENT, &["What a wonderful day!"]), "timeout", Int64Param(timeout_us));
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("grpc-timeout", header.parse().unwrap());
        client.model_infer(request).await.map_err(|status| status.code()).map(drop)
    };
    assert_eq!(infer("1n", 60_000_000).await, Err(Code::DeadlineExceeded));
    assert_eq!(infer("60S", 1).await, Err(Code::DeadlineExceeded));
    assert_eq!(infer("60S", 60_000_000).await, Ok(()));
    assert_eq!(infer("60S", 0).await, Ok(()), "0 means none");
    assert_eq!(infer("soon", 0).await, Err(Code::InvalidArgument));
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_items_out_of_the_queue() {
    let server = Server::start(&[SENTIMENT], patient(4)).await;
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.model_infer(texts(SENTIMENT, &["one", "two", "three"])).await });
    server.until_queued(SENTIMENT, 3).await;
    call.abort();
    server.until_queued(SENTIMENT, 0).await;
    // No other item is left to share a batch with.
    let model = &server.runtime.model(SENTIMENT).unwrap();
    let alone = soon(model.infer(Request::new("four").timeout(Duration::from_secs(4)))).await.unwrap();
    assert_eq!(alone.timing.batch_size, 1);
}

#[tokio::test]
async fn a_server_that_leaves_says_so_answers_what_is_in_flight_and_then_ends() {
    let server = Server::start(&[SENTIMENT], patient(2)).await;
    let (address, runtime) = (server.address, server.runtime.clone());
    let mut health = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest { service: SENTIMENT.into() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.model_infer(texts(SENTIMENT, &["What a wonderful day!"])).await });
    server.until_queued(SENTIMENT, 1).await;

    let ended = server.stop();
    assert_eq!(soon(watch.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
    assert!(!call.is_finished() && !ended.is_finished(), "the server waits for its last answer");

    // A second item fills the batch of the waiting one.
    let model = &runtime.model(SENTIMENT).unwrap();
    assert_eq!(soon(model.infer("Nice.")).await.unwrap().timing.batch_size, 2);
    let answer = soon(call).await.unwrap().unwrap();
    assert_eq!(strings(answer.get_ref(), "label").1, ["positive"]);

    // The health watch is still open, and does not keep the server from ending.
    soon(ended).await.unwrap().unwrap();
    let refused = model.infer("Too late.").await;
    assert!(matches!(refused, Err(InferError::Queue(QueueError::ShuttingDown))), "{refused:?}");
}

#[tokio::test]
async fn readiness_ends_when_draining_starts_and_a_stopped_runtime_is_unavailable() {
    let runtime = runtime(BatcherConfig::default());
    let (routes, drain) = sconce_grpc::router(runtime.clone()).await;
    let mut client = GrpcInferenceServiceClient::new(routes);
    let model = || ModelReadyRequest { name: SENTIMENT.into(), version: String::new() };
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().get_ref().ready);
    assert!(client.model_ready(model()).await.unwrap().get_ref().ready);

    drain.start().await;
    assert!(!client.server_ready(ServerReadyRequest {}).await.unwrap().get_ref().ready);
    assert!(!client.model_ready(model()).await.unwrap().get_ref().ready);
    assert!(client.model_infer(texts(SENTIMENT, &["in between"])).await.is_ok());
    soon(drain.idle()).await;
    assert_eq!(drain.in_flight(), 0);

    runtime.shutdown().await;
    let refused = client.model_infer(texts(SENTIMENT, &["late"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
}
