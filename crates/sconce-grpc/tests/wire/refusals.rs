//! Each bad request is refused with a code and a message that says what is wrong; requests beside it are answered.

use crate::support::*;
use sconce::BatcherConfig;
use sconce_grpc::MAX_MESSAGE_BYTES;
use sconce_grpc::proto::infer_parameter::ParameterChoice::{BoolParam, DoubleParam, Int64Param, StringParam};
use sconce_grpc::proto::{
    InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelMetadataRequest, ModelStatisticsRequest,
};
use tonic::Code;

/// A request, and the code and the message that refuse it.
type Case = (ModelInferRequest, Code, &'static str);

fn image(datatype: &str, shape: &[i64], bytes: usize) -> ModelInferRequest {
    raw(DIGITS, tensor("image", datatype, shape), vec![0; bytes])
}

fn named() -> Vec<Case> {
    let good = || texts(SENTIMENT, &["good"]);
    let unknown_version = ModelInferRequest { model_version: "2".into(), ..good() };
    vec![
        (
            texts("bert", &["a"]),
            Code::NotFound,
            "no model is named 'bert'; known are: digits-cnn, encoder-mini, magika, tiny-bert-sentiment",
        ),
        (unknown_version, Code::NotFound, "model 'tiny-bert-sentiment' has no version '2'; it has: 1;"),
        (
            raw(SENTIMENT, tensor("txt", "BYTES", &[1]), raw_bytes(&["a"])),
            Code::InvalidArgument,
            "input 'txt' is not known; the model takes: text",
        ),
        (
            ModelInferRequest { model_name: SENTIMENT.into(), ..Default::default() },
            Code::InvalidArgument,
            "input 'text' is missing",
        ),
        (
            ModelInferRequest { inputs: vec![tensor("text", "BYTES", &[1]), tensor("text", "BYTES", &[1])], ..good() },
            Code::InvalidArgument,
            "input 'text' is there more than once",
        ),
        (
            asking(good(), &[("embedding", None)]),
            Code::InvalidArgument,
            "output 'embedding' is not known; the model gives: scores, label",
        ),
        (
            asking(good(), &[("label", None), ("label", None)]),
            Code::InvalidArgument,
            "output 'label' is asked for more than once",
        ),
        (
            asking(good(), &[("label", Some(1))]),
            Code::InvalidArgument,
            "output 'label' cannot be asked for as classification",
        ),
        (with(good(), "sequence_id", Int64Param(7)), Code::Unimplemented, "parameter 'sequence_id' is not served"),
        (with(good(), "timeout", Int64Param(-1)), Code::InvalidArgument, "parameter 'timeout' is the integer -1"),
        (with(good(), "timeout", DoubleParam(1.0)), Code::InvalidArgument, "parameter 'timeout' is the number 1"),
        (
            with(good(), "truncate", StringParam("yes".into())),
            Code::InvalidArgument,
            "parameter 'truncate' is the text \"yes\", but must be a bool",
        ),
        (
            with(good(), "precision", StringParam("int8".into())),
            Code::InvalidArgument,
            "model 'tiny-bert-sentiment' computes in f32, not in int8; leave out parameter 'precision'",
        ),
        (
            with(good(), "quality", StringParam("high".into())),
            Code::InvalidArgument,
            "parameter 'quality' is not known; known are: cache, dimensions, normalize, output_dtype, partial, precision, priority, prompt, timeout, truncate",
        ),
        (with(good(), "timeout", Int64Param(1)), Code::DeadlineExceeded, "the deadline passed"),
    ]
}

fn shaped() -> Vec<Case> {
    vec![
        (
            raw(SENTIMENT, tensor("text", "FP32", &[1]), vec![0; 4]),
            Code::InvalidArgument,
            "input 'text' has datatype 'FP32', but the model takes BYTES",
        ),
        (
            image("FP16", &[1, 1, 8, 8], 128),
            Code::InvalidArgument,
            "input 'image' has datatype 'FP16', but the model takes UINT8 or FP32",
        ),
        (
            image("UINT8", &[1, 8, 8], 64),
            Code::InvalidArgument,
            "input 'image' has shape [1, 8, 8], but the model takes [items, 1, 8, 8] for UINT8",
        ),
        (image("UINT8", &[-1, 1, 8, 8], 64), Code::InvalidArgument, "input 'image' has shape [-1, 1, 8, 8]"),
        (image("UINT8", &[0, 1, 8, 8], 0), Code::InvalidArgument, "input 'image' has shape [0, 1, 8, 8]"),
        (
            image("FP32", &[i64::MAX, 1, 8, 8], 64),
            Code::InvalidArgument,
            "the request has 9223372036854775807 items, but at most 16384 are answered together; send fewer at a time",
        ),
        (
            image("FP32", &[2, 1, 8, 8], 256),
            Code::InvalidArgument,
            "input 'image' has 256 raw bytes, but its shape and datatype need 512",
        ),
        (
            texts(SENTIMENT, &["a"; 16_385]),
            Code::InvalidArgument,
            "the request has 16385 items, but at most 16384 are answered together; send fewer at a time",
        ),
        (
            raw(SENTIMENT, tensor("text", "BYTES", &[2]), raw_bytes(&["a"])),
            Code::InvalidArgument,
            "input 'text' ends within element 1",
        ),
        (
            raw(SENTIMENT, tensor("text", "BYTES", &[1]), raw_bytes(&["a", "b"])),
            Code::InvalidArgument,
            "input 'text' has 5 raw bytes behind its last element",
        ),
    ]
}

fn filled() -> Vec<Case> {
    let mut both = texts(SENTIMENT, &["a"]);
    both.inputs[0].contents = Some(InferTensorContents::default());
    let mut twice = texts(SENTIMENT, &["a"]);
    twice.raw_input_contents.push(raw_bytes(&["b"]).into());
    let fp64 = InferTensorContents { fp64_contents: vec![1.0; 64], ..Default::default() };
    let short = InferTensorContents { fp32_contents: vec![1.0; 63], ..Default::default() };
    let large = InferTensorContents { uint_contents: vec![256; 64], ..Default::default() };
    let mut infinite = vec![0.0_f32; 64];
    infinite[5] = f32::INFINITY;
    let infinite = InferTensorContents { fp32_contents: infinite, ..Default::default() };
    let image = |datatype| tensor("image", datatype, &[1, 1, 8, 8]);
    vec![
        (both, Code::InvalidArgument, "the request has both raw_input_contents and contents"),
        (twice, Code::InvalidArgument, "the request has 2 raw_input_contents for 1 input(s)"),
        (
            typed(DIGITS, image("FP32"), fp64),
            Code::InvalidArgument,
            "input 'image' has fp64_contents, but datatype FP32 uses fp32_contents",
        ),
        (
            typed(DIGITS, image("FP32"), short),
            Code::InvalidArgument,
            "input 'image' has 63 elements, but its shape needs 64",
        ),
        (
            typed(DIGITS, image("UINT8"), large),
            Code::InvalidArgument,
            "input 'image' has the value 256 at element 0, which its datatype UINT8 does not hold",
        ),
        (
            typed(DIGITS, image("FP32"), infinite),
            Code::InvalidArgument,
            "item 0: input 'image' has the value inf at element 5",
        ),
        (
            texts(SENTIMENT, &[b"good".as_slice(), b"ba\xffd", b"good"]),
            Code::InvalidArgument,
            "item 1: input 'text' is not UTF-8: the first 2 bytes are, the next is not",
        ),
        (texts(MAGIKA, &[""]), Code::InvalidArgument, "item 0: input 'content' is empty"),
        (
            texts(SENTIMENT, &["day ".repeat(300_000)]),
            Code::InvalidArgument,
            "item 0: input 'text' has 1200000 bytes, but at most 1048576 are accepted",
        ),
    ]
}

#[tokio::test]
async fn a_bad_request_is_refused_while_its_neighbours_are_answered() {
    let server = Server::zoo().await;
    let client = server.client().await;
    for (request, code, message) in [named(), shaped(), filled()].concat() {
        let infer = |request| {
            let mut client = client.clone();
            async move { client.model_infer(request).await }
        };
        let (before, refused, after) = tokio::join!(
            infer(texts(SENTIMENT, &["What a wonderful day!"])),
            infer(request),
            infer(image("UINT8", &[1, 1, 8, 8], 64)),
        );
        let status = refused.expect_err(message);
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(message), "'{}' does not start with '{message}'", status.message());
        assert_eq!(strings(before.unwrap().get_ref(), "label").1, ["positive"]);
        assert_eq!(floats(after.unwrap().get_ref(), "scores").0, [1, 10]);
    }
}

#[tokio::test]
async fn a_bad_item_fails_its_request_alone_although_they_share_a_batch() {
    let server = Server::start(&[SENTIMENT], patient(4)).await;
    let client = server.client().await;
    let infer = |request| {
        let mut client = client.clone();
        tokio::spawn(async move { client.model_infer(request).await })
    };
    let good: Vec<_> = (0..3).map(|_| infer(texts(SENTIMENT, &["What a wonderful day!"]))).collect();
    server.until_queued(SENTIMENT, 3).await;
    let refused = infer(texts(SENTIMENT, &[b"\xff".as_slice()])).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let last = infer(texts(SENTIMENT, &["What a wonderful day!"]));
    for answer in good.into_iter().chain([last]) {
        let response = soon(answer).await.unwrap().unwrap();
        assert_eq!(strings(response.get_ref(), "label").1, ["positive"]);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let batching = BatcherConfig { max_queue_size: 2, ..patient(4) };
    let server = Server::start(&[SENTIMENT], batching).await;
    let mut client = server.client().await;
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.model_infer(texts(SENTIMENT, &["one", "two"])).await });
    server.until_queued(SENTIMENT, 2).await;
    let refused = soon(client.model_infer(texts(SENTIMENT, &["three"]))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "the queue is full: at most 2 items may wait");
    assert!(!refused.metadata().contains_key("grpc-retry-pushback-ms"), "what a batch costs is not learned yet");
    waiting.abort();
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back_once_it_is_learned_what_batches_cost() {
    let batching = BatcherConfig { max_batch_weight: 100, max_queue_weight: 100, ..patient(2) };
    let server = Server::start(&[SENTIMENT], batching).await;
    let mut client = server.client().await;
    for _ in 0..10 {
        client.model_infer(texts(SENTIMENT, &["one", "two"])).await.unwrap();
    }
    let many_tokens = "good ".repeat(60);
    let (mut other, long) = (client.clone(), many_tokens.clone());
    let waiting = tokio::spawn(async move { other.model_infer(texts(SENTIMENT, &[long])).await });
    server.until_queued(SENTIMENT, 1).await;
    let refused = soon(client.model_infer(texts(SENTIMENT, &[many_tokens]))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let pushback = refused.metadata().get("grpc-retry-pushback-ms").expect("a trailer").to_str().unwrap();
    assert!(pushback.parse::<u64>().is_ok_and(|milliseconds| milliseconds < 1000), "{pushback} ms");
    waiting.abort();
}

#[tokio::test]
async fn an_unknown_model_or_version_is_refused_by_every_call_about_models() {
    let server = Server::start(&[SENTIMENT], BatcherConfig::default()).await;
    let mut client = server.client().await;
    for (name, version) in [("bert", ""), (SENTIMENT, "3")] {
        let (name, version) = (name.to_owned(), version.to_owned());
        let metadata = ModelMetadataRequest { name: name.clone(), version: version.clone() };
        assert_eq!(client.model_metadata(metadata).await.unwrap_err().code(), Code::NotFound);
        let config = ModelConfigRequest { name: name.clone(), version: version.clone() };
        assert_eq!(client.model_config(config).await.unwrap_err().code(), Code::NotFound);
        let statistics = ModelStatisticsRequest { name, version };
        assert_eq!(client.model_statistics(statistics).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_with_both_sizes() {
    let server = Server::start(&[SENTIMENT], BatcherConfig::default()).await;
    let request = texts(SENTIMENT, &[vec![b'a'; MAX_MESSAGE_BYTES]]);
    let refused = server.client().await.model_infer(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert!(refused.message().contains("too large: found 671"), "{refused}");
    assert!(refused.message().contains("the limit is: 67108864 bytes"), "{refused}");
}

#[tokio::test]
async fn a_parameter_that_clients_send_by_themselves_changes_nothing() {
    let server = Server::start(&[SENTIMENT], BatcherConfig::default()).await;
    for name in ["triton_enable_empty_final_response", "binary_data_output"] {
        let request = with(texts(SENTIMENT, &["a"]), name, BoolParam(true));
        assert!(server.client().await.model_infer(request).await.is_ok(), "{name}");
    }
}
