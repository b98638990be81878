//! Each shipped model gives the answers of its reference over the wire.

use crate::support::*;
use sconce::{ModelSource, Precision, Runtime};
use sconce_grpc::proto::infer_parameter::ParameterChoice;
use sconce_grpc::proto::{InferTensorContents, ModelConfigRequest, ModelInferResponse};
use tonic::codec::CompressionEncoding;

/// The texts whose tokens and embeddings are in encoder-mini's reference.
const REFERENCE_TEXTS: [&str; 4] = [
    "a man is playing a guitar.",
    "someone plays an acoustic guitar.",
    "the stock market fell sharply today.",
    "short",
];

/// Tolerance for weights that were rounded to f16 after the reference was made: even in f64 their answers differ by 1.32e-4.
const ROUNDED_WEIGHTS: f32 = 1.4e-4;

#[tokio::test]
async fn an_embedder_answers_its_reference_for_each_row() {
    let server = Server::start(&[EMBEDDER], sconce::BatcherConfig::default()).await;
    let response = server.client().await.model_infer(texts(EMBEDDER, &REFERENCE_TEXTS)).await.unwrap().into_inner();
    let (shape, embeddings) = floats(&response, "embedding");
    assert_eq!(shape, [4, 384]);
    let expected = reference_f32(EMBEDDER, "reference.safetensors", "sentence_embedding");
    assert_close(&embeddings, &expected, ROUNDED_WEIGHTS);
    for (got, expected) in embeddings.chunks_exact(384).zip(expected.chunks_exact(384)) {
        let cosine: f32 = got.iter().zip(expected).map(|(a, b)| a * b).sum();
        assert!(cosine > 1.0 - 1e-6, "{cosine}");
    }
    assert_eq!((response.model_name.as_str(), response.model_version.as_str()), (EMBEDDER, "1"));
}

#[tokio::test]
async fn embeddings_come_in_the_element_type_that_is_asked_for() {
    let server = Server::start(&[EMBEDDER], sconce::BatcherConfig::default()).await;
    let mut client = server.client().await;
    let plain = client.model_infer(texts(EMBEDDER, &REFERENCE_TEXTS)).await.unwrap().into_inner();
    let (_, plain) = floats(&plain, "embedding");
    for (dtype, datatype, width, size) in [
        ("float16", "FP16", 384, 2),
        ("int8", "INT8", 384, 1),
        ("uint8", "UINT8", 384, 1),
        ("binary", "INT8", 48, 1),
        ("ubinary", "UINT8", 48, 1),
    ] {
        let asked = |request| with(request, "output_dtype", ParameterChoice::StringParam(dtype.into()));
        let response = client.model_infer(asked(texts(EMBEDDER, &REFERENCE_TEXTS))).await.unwrap().into_inner();
        let output = &response.outputs[0];
        assert_eq!((output.datatype.as_str(), &output.shape[..]), (datatype, &[4, width][..]));
        let raw = &response.raw_output_contents[0];
        assert_eq!(raw.len(), 4 * usize::try_from(width * size).unwrap());
        let first = plain[0];
        match dtype {
            "uint8" => assert!((f32::from(raw[0]) - (first + 1.0) * 127.5).abs() <= 1.0),
            "ubinary" => assert_eq!(raw[0] >> 7, u8::from(first > 0.0)),
            _ => {}
        }
        let contents = InferTensorContents { bytes_contents: vec![b"short".to_vec()], ..Default::default() };
        let request = asked(typed(EMBEDDER, tensor("text", "BYTES", &[1]), contents));
        let response = client.model_infer(request).await.unwrap().into_inner();
        let typed = response.outputs[0].contents.clone();
        let of_last = &raw[raw.len() / 4 * 3..];
        match typed {
            None => assert_eq!((datatype, &response.raw_output_contents[0][..]), ("FP16", of_last)),
            Some(InferTensorContents { int_contents, uint_contents, .. }) => {
                let ints = int_contents.into_iter().map(|value| i8::try_from(value).unwrap().cast_unsigned());
                let uints = uint_contents.into_iter().map(|value| u8::try_from(value).unwrap());
                assert_eq!(ints.chain(uints).collect::<Vec<u8>>(), of_last, "{dtype}");
            }
        }
    }
}

#[tokio::test]
async fn a_text_classifier_answers_scores_and_labels() {
    let server = Server::start(&[SENTIMENT], sconce::BatcherConfig::default()).await;
    let mut request = texts(SENTIMENT, &["What a wonderful day!", "The worst film I ever saw."]);
    request.id = "review-7".into();
    let response = server.client().await.model_infer(request).await.unwrap().into_inner();
    assert_eq!(response.id, "review-7");
    assert_eq!(names(&response), ["scores", "label"]);
    let (shape, scores) = floats(&response, "scores");
    assert_eq!(shape, [2, 2]);
    assert!(scores[1] > 0.9 && scores[2] > 0.9, "{scores:?}");
    assert!((scores[0] + scores[1] - 1.0).abs() < 1e-6);
    assert_eq!(strings(&response, "label"), (vec![2, 1], vec!["positive".into(), "negative".into()]));
}

#[tokio::test]
async fn a_list_longer_than_the_queue_is_answered_in_its_order() {
    let batching = sconce::BatcherConfig { max_queue_size: 64, max_batch_size: 32, ..sconce::BatcherConfig::default() };
    let server = Server::start(&[SENTIMENT], batching).await;
    let list: Vec<&str> = ["What a wonderful day!", "Terrible."].into_iter().cycle().take(301).collect();
    let response = server.client().await.model_infer(texts(SENTIMENT, &list)).await.unwrap().into_inner();
    let (shape, labels) = strings(&response, "label");
    assert_eq!(shape, [301, 1]);
    for (at, label) in labels.iter().enumerate() {
        assert_eq!(label, ["positive", "negative"][at % 2], "item {at}");
    }
}

#[tokio::test]
async fn items_that_fail_are_left_out_and_named_where_the_request_asks_for_the_others() {
    let server = Server::start(&[EMBEDDER], sconce::BatcherConfig::default()).await;
    let mut client = server.client().await;
    let too_long = "long ".repeat(4000);
    let refuse = |texts| with(texts, "truncate", ParameterChoice::BoolParam(false));
    let request = refuse(texts(EMBEDDER, &["short", &too_long, REFERENCE_TEXTS[0], &too_long]));
    let whole = client.model_infer(request.clone()).await.unwrap_err();
    assert!(whole.message().contains("has more tokens"), "{whole}");
    let partial = with(request, "partial", ParameterChoice::BoolParam(true));
    let response = client.model_infer(partial).await.unwrap().into_inner();
    let (shape, embeddings) = floats(&response, "embedding");
    let expected = reference_f32(EMBEDDER, "reference.safetensors", "sentence_embedding");
    let (short, first) = (&expected[3 * 384..], &expected[..384]);
    assert_close(&embeddings[..384], short, ROUNDED_WEIGHTS);
    assert_close(&embeddings[384..2 * 384], first, ROUNDED_WEIGHTS);
    let said = |name: &str| match response.parameters[name].parameter_choice.clone() {
        Some(ParameterChoice::StringParam(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!((shape, said("failed_items").as_str()), (vec![2, 384], "1,3"));
    assert!(said("failures").starts_with("item 1: ") && said("failures").contains("\nitem 3: "), "{response:?}");

    let none = with(refuse(texts(EMBEDDER, &[&too_long, &too_long])), "partial", ParameterChoice::BoolParam(true));
    let error = client.model_infer(none).await.unwrap_err();
    assert!(error.message().starts_with("item 0: "), "{error}");
}

#[tokio::test]
async fn digits_come_as_bytes_or_floats_raw_or_typed() {
    let server = Server::start(&[DIGITS], sconce::BatcherConfig::default()).await;
    let mut client = server.client().await;
    let items = 450;
    let shape = [450, 1, 8, 8];
    let pixels = reference(DIGITS, "test.safetensors", "images");
    let as_floats: Vec<f32> = pixels.iter().map(|pixel| f32::from(*pixel)).collect();
    let logits = reference_f32(DIGITS, "test_logits.safetensors", "logits");
    let expected: Vec<f32> = logits.chunks_exact(10).flat_map(softmax).collect();

    let raw_u8 = raw(DIGITS, tensor("image", "UINT8", &shape), pixels.clone());
    let raw_f32: Vec<u8> = as_floats.iter().flat_map(|value| value.to_le_bytes()).collect();
    let raw_f32 = raw(DIGITS, tensor("image", "FP32", &shape), raw_f32);
    for request in [raw_u8, raw_f32] {
        let response = client.model_infer(request).await.unwrap().into_inner();
        let (shape, scores) = floats(&response, "scores");
        assert_eq!(shape, [items, 10]);
        assert_close(&scores, &expected, 1e-5);
        let labels: Vec<i64> = strings(&response, "label").1.iter().map(|label| label.parse().unwrap()).collect();
        let right = labels.iter().zip(reference_i64(DIGITS, "test.safetensors", "labels")).filter(|(a, b)| **a == *b);
        assert_eq!(right.count(), 443);
    }

    let uint_contents = pixels.iter().map(|pixel| u32::from(*pixel)).collect();
    let typed_u8 = InferTensorContents { uint_contents, ..Default::default() };
    let typed_f32 = InferTensorContents { fp32_contents: as_floats, ..Default::default() };
    for (datatype, contents) in [("UINT8", typed_u8), ("FP32", typed_f32)] {
        let request = typed(DIGITS, tensor("image", datatype, &shape), contents);
        let response = client.model_infer(request).await.unwrap().into_inner();
        assert!(response.raw_output_contents.is_empty(), "a typed request gets a typed answer");
        let scores = response.outputs[0].contents.clone().unwrap().fp32_contents;
        assert_close(&scores, &expected, 1e-5);
        assert_eq!(response.outputs[1].contents.clone().unwrap().bytes_contents.len(), 450);
    }
}

#[tokio::test]
async fn file_contents_come_as_byte_strings_or_as_rows_of_bytes() {
    let server = Server::start(&[MAGIKA], sconce::BatcherConfig::default()).await;
    let mut client = server.client().await;
    let expected = reference_f32(MAGIKA, "reference.safetensors", "probs");
    let contents: Vec<Vec<u8>> =
        reference_i64(MAGIKA, "reference.safetensors", "bytes").chunks_exact(2048).map(content).collect();

    let response = client.model_infer(texts(MAGIKA, &contents)).await.unwrap().into_inner();
    let (shape, scores) = floats(&response, "scores");
    assert_eq!(shape, [6, 214]);
    assert_close(&scores, &expected, 1e-4);
    assert_eq!(strings(&response, "label").1, ["python", "markdown", "png", "toml", "wav", "c"]);

    let rows = contents[..2].concat();
    let request = raw(MAGIKA, tensor("content", "UINT8", &[2, 2048]), rows);
    let response = client.model_infer(request).await.unwrap().into_inner();
    assert_close(&floats(&response, "scores").1, &expected[..2 * 214], 1e-4);
}

#[tokio::test]
async fn outputs_come_in_the_order_asked_for_and_as_classes_where_asked() {
    let server = Server::start(&[SENTIMENT], sconce::BatcherConfig::default()).await;
    let mut client = server.client().await;
    let request = || texts(SENTIMENT, &["What a wonderful day!", "The worst film I ever saw."]);

    let response = client.model_infer(asking(request(), &[("label", None)])).await.unwrap().into_inner();
    assert_eq!(names(&response), ["label"]);
    let asked = asking(request(), &[("label", None), ("scores", Some(2))]);
    let response = client.model_infer(asked).await.unwrap().into_inner();
    assert_eq!(names(&response), ["label", "scores"]);
    let (shape, classes) = strings(&response, "scores");
    assert_eq!(shape, [2, 2]);
    let names: Vec<&str> = classes.iter().map(|class| class.split_once(':').unwrap().1).collect();
    assert_eq!(names, ["1:positive", "0:negative", "0:negative", "1:positive"]);
    let best: f32 = classes[0].split(':').next().unwrap().parse().unwrap();
    assert!(best > 0.9, "{classes:?}");
}

#[tokio::test]
async fn a_long_text_is_truncated_and_said_to_be_or_refused() {
    let server = Server::start(&[SENTIMENT], sconce::BatcherConfig::default()).await;
    let mut client = server.client().await;
    let request = || texts(SENTIMENT, &["short".to_owned(), "day ".repeat(500)]);
    let truncated = client.model_infer(request()).await.unwrap().into_inner();
    let said = truncated.parameters["truncated"].parameter_choice.clone();
    assert_eq!(said, Some(ParameterChoice::BoolParam(true)));
    let short = client.model_infer(texts(SENTIMENT, &["short"])).await.unwrap().into_inner();
    assert!(!short.parameters.contains_key("truncated"));

    let refused = with(request(), "truncate", ParameterChoice::BoolParam(false));
    let status = client.model_infer(refused).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(
        status.message().starts_with("item 1: input 'text' has more tokens than the 64 that the model takes"),
        "{status}"
    );
}

#[tokio::test]
async fn an_answer_and_the_configuration_say_which_precision_made_it_on_which_device() {
    for precision in [Precision::F32, Precision::Int8] {
        let source = ModelSource::new(zoo().join(SENTIMENT)).precision(precision);
        let server = Server::of(Runtime::builder().allow_undecided(true).model(source).build().unwrap()).await;
        let mut client = server.client().await;
        let response = client.model_infer(texts(SENTIMENT, &["What a wonderful day!"; 2])).await.unwrap().into_inner();
        let said = response.parameters["precision"].parameter_choice.clone();
        assert_eq!(said, Some(ParameterChoice::StringParam(precision.to_string())));
        let decision = response.parameters.get("decision").and_then(|it| it.parameter_choice.clone());
        let undecided = (precision != Precision::F32).then(|| ParameterChoice::StringParam("undecided".to_owned()));
        assert_eq!(decision, undecided);
        let device = Some(ParameterChoice::StringParam("cpu".to_owned()));
        assert_eq!(response.parameters["device"].parameter_choice, device);
        let request = ModelConfigRequest { name: SENTIMENT.into(), version: String::new() };
        let config = client.model_config(request).await.unwrap().into_inner().config.unwrap();
        assert_eq!(config.parameters["precision"].string_value, precision.to_string());
        assert_eq!(config.parameters["device"].string_value, "cpu");
    }
}

#[tokio::test]
async fn a_compressed_request_is_read() {
    let server = Server::start(&[SENTIMENT], sconce::BatcherConfig::default()).await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = server.client().await.send_compressed(encoding);
        let response = client.model_infer(texts(SENTIMENT, &["a wonderful day ".repeat(9)])).await.unwrap();
        assert_eq!(strings(response.get_ref(), "label").1, ["positive"]);
    }
}

#[tokio::test]
async fn many_items_of_one_request_share_batches_and_keep_their_order() {
    let server = Server::start(&[SENTIMENT], patient(32)).await;
    let reviews: Vec<String> = (0..64)
        .map(|at| if at % 3 == 0 { format!("wonderful, {at} times") } else { format!("terrible, {at} times") })
        .collect();
    let mut client = server.client().await;
    let response = client.model_infer(texts(SENTIMENT, &reviews)).await.unwrap().into_inner();
    for (review, label) in reviews.iter().zip(strings(&response, "label").1) {
        let expected = if review.starts_with("wonderful") { "positive" } else { "negative" };
        assert_eq!(label, expected, "{review}");
    }
    let statistics = sconce_grpc::proto::ModelStatisticsRequest { name: SENTIMENT.into(), version: String::new() };
    let figures = client.model_statistics(statistics).await.unwrap().into_inner().model_stats.remove(0);
    assert_eq!((figures.inference_count, figures.execution_count), (64, 2));
    assert_eq!(figures.batch_stats.iter().map(|of_size| of_size.batch_size).collect::<Vec<_>>(), [32]);
}

fn names(response: &ModelInferResponse) -> Vec<&str> {
    response.outputs.iter().map(|output| output.name.as_str()).collect()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// A file whose first and last 1024 bytes are those of a row of the reference. 256 stands for no byte; a file that is
/// too short to fill one side is the same on both.
fn content(row: &[i64]) -> Vec<u8> {
    let (first, last) = row.split_at(1024);
    let bytes = |side: &[i64]| side.iter().filter_map(|value| u8::try_from(*value).ok()).collect::<Vec<u8>>();
    match bytes(first) {
        short if short.len() < 1024 => short,
        first => [first, bytes(last)].concat(),
    }
}
