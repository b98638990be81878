//! Messages over gRPC, to every call.

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use prost::Message as _;
use sconce_grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use sconce_grpc::proto::{InferParameter, InferTensorContents, ModelInferRequest, infer_parameter::ParameterChoice};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::mutate::Mutator;
use crate::{GOOD_EVERY, MAX_WAIT, inputs, panics, runtime, seed, watch_panics};

const SERVICE: &str = "/inference.GRPCInferenceService/";

/// Calls whose messages name a model, a version or a region, so that those of one are good for all.
const CALLS: [&str; 13] = [
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryRegister",
    "TraceSetting",
    "LogSettings",
];

fn parameter(name: &str, value: ParameterChoice) -> (String, InferParameter) {
    (name.to_owned(), InferParameter { parameter_choice: Some(value) })
}

fn sentiment(texts: &[&str]) -> ModelInferRequest {
    let bytes_contents = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    ModelInferRequest {
        model_name: "tiny-bert-sentiment".to_owned(),
        id: "7".to_owned(),
        parameters: [
            parameter("priority", ParameterChoice::Int64Param(1)),
            parameter("timeout", ParameterChoice::Int64Param(1_000_000)),
        ]
        .into(),
        inputs: vec![InferInputTensor {
            name: "text".to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![i64::try_from(texts.len()).expect("few"), 1],
            contents: Some(InferTensorContents { bytes_contents, ..Default::default() }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Good requests to infer: with contents and raw, of texts and numbers.
fn good() -> Vec<Vec<u8>> {
    let mut raw = sentiment(&["a day"]);
    raw.inputs[0].contents = None;
    raw.raw_input_contents = vec![[&5_u32.to_le_bytes()[..], b"a day"].concat().into()];
    raw.outputs = vec![InferRequestedOutputTensor {
        name: "scores".to_owned(),
        parameters: [parameter("classification", ParameterChoice::Int64Param(2))].into(),
    }];
    let digits = ModelInferRequest {
        model_name: "digits-cnn".to_owned(),
        inputs: vec![InferInputTensor {
            name: "image".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 1, 8, 8],
            contents: Some(InferTensorContents { fp32_contents: vec![0.5; 64], ..Default::default() }),
            ..Default::default()
        }],
        ..Default::default()
    };
    [sentiment(&["a wonderful day", "a bad film"]), raw, digits].iter().map(ModelInferRequest::encode_to_vec).collect()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("it is short");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// The code of an answer, and its message.
fn status(headers: &HeaderMap) -> Option<(i32, String)> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    Some((text("grpc-status")?.parse().ok()?, text("grpc-message").unwrap_or_default().to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_panics_hangs_or_fails_by_the_servers_fault() {
    watch_panics();
    let (routes, _drain) = sconce_grpc::router(runtime()).await;
    let routes = routes.prepare().into_axum_router();
    let call = async |method: &str, body: Vec<u8>| {
        let request = Request::post(format!("{SERVICE}{method}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let request = request.body(Body::from(body)).expect("a request");
        let response = routes.clone().oneshot(request).await.expect("a router does not fail");
        let early = status(response.headers());
        let body = http_body_util::BodyExt::collect(response.into_body()).await;
        let late = body.ok().and_then(|body| status(body.trailers()?));
        early.or(late)
    };
    let (good, mut mutator) = (good(), Mutator::new(seed() + 2));
    // A name, and numbers, as all of these calls have them.
    let named = sentiment(&[]).encode_to_vec();
    for number in 0..inputs() {
        let (method, body) = match mutator.below(10) {
            0 | 1 => (*mutator.choose(&CALLS), framed(&mutator.bytes(&named))),
            2 | 3 => {
                let messages = (0..3).map(|_| {
                    let message = mutator.choose::<Vec<u8>>(&good).clone();
                    framed(&mutator.bytes(&message))
                });
                ("ModelStreamInfer", messages.collect::<Vec<_>>().concat())
            }
            4 => {
                let framed = framed(mutator.choose::<Vec<u8>>(&good));
                ("ModelInfer", mutator.bytes(&framed))
            }
            _ => {
                let message = mutator.choose(&good).clone();
                ("ModelInfer", framed(&mutator.bytes(&message)))
            }
        };
        let shown = || format!("input {number}, {method}, {body:02x?}");
        let ended = timeout(MAX_WAIT, call(method, body.clone())).await;
        let (code, message) = ended.unwrap_or_else(|_| panic!("no answer: {}", shown())).unwrap_or_default();
        assert_eq!(panics(), 0, "a panic: {}", shown());
        // A message that is none is refused by INTERNAL, as gRPC has it: by its frame, or by what is in it.
        let is_none = ["EOF", "Missing", "decode", "compress"].iter().any(|word| message.contains(word));
        assert!(!matches!(code, 2 | 13 | 15) || is_none, "{code} {message}: {}", shown());
        assert!(message.len() < 4096, "{code} {message}: {}", shown());
        if number % GOOD_EVERY == 0 {
            for message in &good {
                assert_eq!(call("ModelInfer", framed(message)).await, Some((0, String::new())), "after {}", shown());
            }
        }
    }
}
