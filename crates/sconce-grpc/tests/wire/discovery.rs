//! Calls other than inference: readiness, metadata, configuration, figures, health, reflection.

use crate::support::*;
use sconce_grpc::proto::health::HealthListRequest;
use sconce_grpc::proto::health::health_client::HealthClient as ListedHealthClient;
use sconce_grpc::proto::model_config::SchedulingChoice;
use sconce_grpc::proto::model_input::Format;
use sconce_grpc::proto::{
    DataType, LogSettingsRequest, ModelConfig, ModelConfigRequest, ModelMetadataRequest, ModelReadyRequest,
    ModelStatisticsRequest, RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerReadyRequest, TraceSettingRequest,
    log_settings_request, trace_setting_request,
};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const SERVICES: [&str; 2] = ["grpc.health.v1.Health", "inference.GRPCInferenceService"];

#[tokio::test]
async fn a_server_says_that_it_lives_is_ready_and_what_it_is() {
    let server = Server::start(&[DIGITS], sconce::BatcherConfig::default()).await;
    let mut client = server.client().await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().get_ref().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().get_ref().ready);
    let metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!((metadata.name.as_str(), metadata.version.as_str()), ("sconce", env!("CARGO_PKG_VERSION")));
    assert_eq!(metadata.extensions, ["classification", "model_configuration", "statistics"]);
    for (name, version, ready) in [(DIGITS, "", true), (DIGITS, "1", true), (DIGITS, "2", false), ("x", "", false)] {
        let request = ModelReadyRequest { name: name.into(), version: version.into() };
        assert_eq!(client.model_ready(request).await.unwrap().get_ref().ready, ready, "{name} {version}");
    }
}

#[tokio::test]
async fn metadata_names_each_tensor_with_its_datatype_and_shape() {
    let server = Server::zoo().await;
    let mut client = server.client().await;
    let table = [
        (EMBEDDER, vec!["text BYTES [-1, 1]", "embedding FP32 [-1, 384]"]),
        (
            SENTIMENT,
            vec!["text BYTES [-1, 1]", "text_pair BYTES [-1, 1]", "scores FP32 [-1, 2]", "label BYTES [-1, 1]"],
        ),
        (MAGIKA, vec!["content BYTES [-1, 1]", "scores FP32 [-1, 214]", "label BYTES [-1, 1]"]),
        (DIGITS, vec!["image UINT8 [-1, 1, 8, 8]", "scores FP32 [-1, 10]", "label BYTES [-1, 1]"]),
    ];
    for (name, expected) in table {
        let request = ModelMetadataRequest { name: name.into(), version: "1".into() };
        let metadata = client.model_metadata(request).await.unwrap().into_inner();
        let tensors = metadata.inputs.iter().chain(&metadata.outputs);
        let tensors: Vec<_> =
            tensors.map(|tensor| format!("{} {} {:?}", tensor.name, tensor.datatype, tensor.shape)).collect();
        assert_eq!(tensors, expected);
        assert_eq!((metadata.name.as_str(), metadata.versions), (name, vec!["1".to_owned()]));
    }
}

#[tokio::test]
async fn the_configuration_says_how_a_model_is_batched() {
    let server = Server::start(&[DIGITS, SENTIMENT], patient(7)).await;
    let mut client = server.client().await;
    let mut config = async |name: &str| -> ModelConfig {
        let request = ModelConfigRequest { name: name.into(), version: String::new() };
        client.model_config(request).await.unwrap().into_inner().config.unwrap()
    };
    let digits = config(DIGITS).await;
    assert_eq!(digits.max_batch_size, 7);
    assert_eq!(digits.input[0].dims, [1, 8, 8]);
    assert_eq!((digits.input[0].data_type(), digits.input[0].format()), (DataType::TypeUint8, Format::Nchw));
    assert_eq!((digits.output[0].name.as_str(), digits.output[0].dims.as_slice()), ("scores", [10].as_slice()));
    let SchedulingChoice::DynamicBatching(batching) = digits.scheduling_choice.unwrap();
    assert_eq!((batching.priority_levels, batching.default_priority_level), (3, 2));
    assert_eq!(batching.max_queue_delay_microseconds, 60_000_000);
    assert_eq!(batching.default_queue_policy.unwrap().max_queue_size, 1024);

    let sentiment = config(SENTIMENT).await;
    assert_eq!(sentiment.input[0].data_type(), DataType::TypeString);
    let optional: Vec<_> = sentiment.input.iter().map(|input| (input.name.as_str(), input.optional)).collect();
    assert_eq!(optional, [("text", false), ("text_pair", true)]);
    assert_eq!(sentiment.parameters["model_type"].string_value, "bert");
    assert_eq!(sentiment.parameters["task"].string_value, "classification");
    assert_eq!(sentiment.parameters["precision"].string_value, "f32");
    assert_eq!(sentiment.parameters["max_tokens"].string_value, "64");
}

#[tokio::test]
async fn statistics_count_what_was_answered_and_what_was_refused() {
    let server = Server::start(&[DIGITS, SENTIMENT], sconce::BatcherConfig::default()).await;
    let mut client = server.client().await;
    for _ in 0..2 {
        client.model_infer(texts(SENTIMENT, &["one", "two", "three"])).await.unwrap();
    }
    client.model_infer(texts(SENTIMENT, &[&"x".repeat(2 << 20)])).await.unwrap_err();
    client.model_infer(texts("bert", &["a"])).await.unwrap_err();

    let all = client.model_statistics(ModelStatisticsRequest::default()).await.unwrap().into_inner().model_stats;
    assert_eq!(all.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), [DIGITS, SENTIMENT]);
    assert_eq!((all[0].inference_count, all[0].last_inference), (0, 0));
    let figures = &all[1];
    let requests = figures.inference_stats.unwrap();
    assert_eq!(figures.inference_count, 6);
    assert!((2..=6).contains(&figures.execution_count), "{figures:?}");
    assert_eq!((requests.success.unwrap().count, requests.fail.unwrap().count), (2, 1));
    let parts = [requests.queue, requests.compute_input, requests.compute_infer, requests.compute_output];
    let parts: Vec<u64> = parts.into_iter().map(|part| part.unwrap().ns).collect();
    assert_eq!(parts.iter().sum::<u64>(), requests.success.unwrap().ns, "the parts add up to the whole");
    assert!(parts[2] > 0, "running took time");
    let batches: u64 = figures.batch_stats.iter().map(|batch| batch.compute_infer.unwrap().count).sum();
    assert_eq!(batches, figures.execution_count);
    for batch in &figures.batch_stats {
        let parts = [batch.compute_input, batch.compute_infer, batch.compute_output].map(Option::unwrap);
        assert!(parts.iter().all(|part| part.count == parts[0].count), "{batch:?}");
        assert!(parts[0].ns > 0 && parts[1].ns > 0, "{batch:?}");
    }
    assert!(figures.last_inference > 1_700_000_000_000, "in milliseconds since 1970");
}

#[tokio::test]
async fn health_is_known_for_the_server_the_service_and_each_model() {
    let server = Server::start(&[DIGITS], sconce::BatcherConfig::default()).await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "inference.GRPCInferenceService", DIGITS] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(answer.get_ref().status(), ServingStatus::Serving, "{service}");
    }
    let unknown = health.check(HealthCheckRequest { service: "bert".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn health_of_all_is_listed_and_changes_when_the_server_leaves() {
    let runtime = sconce::Runtime::builder().model(zoo().join(DIGITS)).build().unwrap();
    let (routes, drain) = sconce_grpc::router(runtime).await;
    let mut health = ListedHealthClient::new(routes);
    for (leaves, expected) in [(false, ServingStatus::Serving), (true, ServingStatus::NotServing)] {
        if leaves {
            drain.start().await;
        }
        let listed = health.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
        let mut names: Vec<&str> = listed.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["", DIGITS, "inference.GRPCInferenceService"]);
        assert!(listed.values().all(|health| health.status() == expected), "{listed:?}");
    }
}

#[tokio::test]
async fn the_index_has_the_models_that_are_loaded_and_none_is_loaded_or_unloaded() {
    let server = Server::start(&[DIGITS, SENTIMENT], sconce::BatcherConfig::default()).await;
    let mut client = server.client().await;
    for ready in [false, true] {
        let request = RepositoryIndexRequest { ready, ..Default::default() };
        let models = client.repository_index(request).await.unwrap().into_inner().models;
        let models: Vec<_> =
            models.iter().map(|model| (model.name.as_str(), model.version.as_str(), model.state.as_str())).collect();
        assert_eq!(models, [(DIGITS, "1", "READY"), (SENTIMENT, "1", "READY")]);
    }
    let load = client.repository_model_load(RepositoryModelLoadRequest::default()).await.unwrap_err();
    let unload = client.repository_model_unload(RepositoryModelUnloadRequest::default()).await.unwrap_err();
    for refused in [load, unload] {
        assert_eq!(refused.code(), Code::Unavailable, "as Triton has it");
        assert!(refused.message().starts_with("explicit model load / unload is not allowed"), "{refused}");
    }
}

#[tokio::test]
async fn settings_of_traces_and_logs_are_read_and_a_change_is_refused_with_its_name() {
    let server = Server::start(&[DIGITS], sconce::BatcherConfig::default()).await;
    let mut client = server.client().await;
    let traces = client.trace_setting(TraceSettingRequest::default()).await.unwrap().into_inner().settings;
    assert_eq!(traces["trace_level"].value, ["OFF"]);
    let logs = client.log_settings(LogSettingsRequest::default()).await.unwrap().into_inner().settings;
    assert!(logs.contains_key("log_error") && logs.contains_key("log_verbose_level"), "{logs:?}");

    let unknown = TraceSettingRequest { model_name: "bert".into(), ..Default::default() };
    assert_eq!(client.trace_setting(unknown).await.unwrap_err().code(), Code::NotFound);
    let settings = [("trace_rate".to_owned(), trace_setting_request::SettingValue::default())].into();
    let change = TraceSettingRequest { settings, ..Default::default() };
    let refused = client.trace_setting(change).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().starts_with("setting 'trace_rate' cannot be changed"), "{refused}");
    let change = LogSettingsRequest {
        settings: [("log_info".to_owned(), log_settings_request::SettingValue::default())].into(),
    };
    let refused = client.log_settings(change).await.unwrap_err();
    assert!(refused.message().contains("RUST_LOG"), "{refused}");
}

#[tokio::test]
async fn a_call_that_there_is_not_is_refused_with_those_that_there_are() {
    let server = Server::start(&[DIGITS], sconce::BatcherConfig::default()).await;
    let mut client = tonic::client::Grpc::new(server.channel().await);
    for (path, expected) in [
        (
            "/inference.GRPCInferenceService/Infer",
            "inference.GRPCInferenceService has no such call; served are: ServerLive, ServerReady, ",
        ),
        ("/grpc.health.v1.Health/Chek", "grpc.health.v1.Health has no such call; served are: Check, List, Watch"),
        (
            "/tensorflow.serving.PredictionService/Predict",
            "there is no such service; served are: inference.GRPCInferenceService, grpc.health.v1.Health",
        ),
    ] {
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<ServerLiveRequest, ServerLiveResponse>::default();
        let request = tonic::Request::new(ServerLiveRequest {});
        let refused = client.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().starts_with(expected), "{refused}");
    }
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_of_its_versions() {
    let server = Server::start(&[DIGITS], sconce::BatcherConfig::default()).await;
    {
        use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
        use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};
        let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let requests = [
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol("inference.ModelConfig".into())),
        ];
        let mut client = ServerReflectionClient::new(server.channel().await);
        let mut answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
        let listed = answers.message().await.unwrap().unwrap().message_response;
        let Some(MessageResponse::ListServicesResponse(listed)) = listed else { panic!("{listed:?}") };
        let names: Vec<String> = listed.service.into_iter().map(|ServiceResponse { name }| name).collect();
        assert!(SERVICES.iter().all(|service| names.iter().any(|name| name == service)), "{names:?}");
        let file = answers.message().await.unwrap().unwrap().message_response;
        assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
    }
    {
        use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;
        use tonic_reflection::pb::v1alpha::{ServerReflectionRequest, ServiceResponse};
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new(server.channel().await);
        let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
        let listed = answers.message().await.unwrap().unwrap().message_response;
        let Some(MessageResponse::ListServicesResponse(listed)) = listed else { panic!("{listed:?}") };
        let names: Vec<String> = listed.service.into_iter().map(|ServiceResponse { name }| name).collect();
        assert!(SERVICES.iter().all(|service| names.iter().any(|name| name == service)), "{names:?}");
    }
}
