//! The routes of OpenAI, Cohere, Jina and text-embeddings-inference, answered by real models.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sconce::Runtime;
use serde_json::{Value, json};
use tower::ServiceExt as _;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

fn zoo(name: &str) -> PathBuf {
    models().join("zoo").join(name)
}

fn family(name: &str) -> PathBuf {
    models().join("tests/families").join(name)
}

fn router(directories: &[PathBuf]) -> (Router, Runtime) {
    let builder = directories.iter().fold(Runtime::builder(), |builder, directory| builder.model(directory.clone()));
    let runtime = builder.build().expect("the models load");
    (sconce_http::router(runtime.clone()), runtime)
}

async fn send(router: &Router, request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    let response = router.clone().oneshot(request).await.expect("a router does not fail");
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a whole body");
    (parts.status, parts.headers, serde_json::from_slice(&bytes).expect("JSON"))
}

async fn post(router: &Router, path: &str, body: Value) -> (StatusCode, HeaderMap, Value) {
    send(router, Request::post(path).body(Body::from(body.to_string())).expect("a request")).await
}

async fn fine(router: &Router, path: &str, body: Value) -> Value {
    let (status, _, answer) = post(router, path, body).await;
    assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    answer
}

fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).expect("a list of numbers")
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// An embedding by the library itself.
async fn embedded(runtime: &Runtime, model: &str, text: &str) -> Vec<f32> {
    let answer = &runtime.model(model).expect("a model").infer(text).await.expect("an answer");
    answer.output.embedding().expect("an embedding").to_vec()
}

#[tokio::test]
async fn openais_embeddings_are_the_librarys_in_both_encodings() {
    let (router, runtime) = router(&[zoo("encoder-mini"), zoo("tiny-bert-sentiment")]);
    let expected = [embedded(&runtime, "encoder-mini", "one").await, embedded(&runtime, "encoder-mini", "two").await];

    let asked = json!({"model": "encoder-mini", "input": ["one", "two"], "user": "someone"});
    let answer = fine(&router, "/v1/embeddings", asked.clone()).await;
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("encoder-mini")));
    for (index, expected) in expected.iter().enumerate() {
        assert_eq!(floats(&answer["data"][index]["embedding"]), *expected);
        assert_eq!(
            (&answer["data"][index]["index"], &answer["data"][index]["object"]),
            (&json!(index), &json!("embedding"))
        );
    }
    assert_eq!(answer["usage"], json!({"prompt_tokens": 6, "total_tokens": 6}));

    let (_, headers, answer) =
        post(&router, "/v1/embeddings", json!({"input": "one", "encoding_format": "base64"})).await;
    let bytes = BASE64_STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(values, expected[0], "the only model that embeds needs no name");
    assert!(headers["x-sconce-precision"] == "f32" && headers["x-sconce-device"] == "cpu");

    let cut = fine(&router, "/v1/embeddings", json!({"input": "one", "dimensions": 8})).await;
    let cut = floats(&cut["data"][0]["embedding"]);
    assert_eq!(cut.len(), 8);
    assert!(cosine(&cut, &expected[0][..8]) > 0.99999);

    let listed = send(&router, Request::get("/v1/models").body(Body::empty()).unwrap()).await.2;
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let one = send(&router, Request::get("/v1/models/encoder-mini").body(Body::empty()).unwrap()).await.2;
    assert_eq!((&one["id"], &one["object"]), (&json!("encoder-mini"), &json!("model")));
}

#[tokio::test]
async fn numbers_of_tokens_are_read_as_the_text_that_they_stand_for() {
    let (router, runtime) = router(&[zoo("encoder-mini")]);
    let tokens = fine(&router, "/tokenize", json!({"inputs": "a sconce holds candles"})).await;
    let ids: Vec<u64> = tokens[0].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap()).collect();
    assert_eq!(tokens[0][0]["special"], json!(true));
    assert_eq!(
        (&tokens[0][1]["text"], &tokens[0][1]["start"], &tokens[0][1]["stop"]),
        (&json!("a"), &json!(0), &json!(1))
    );
    let answer = fine(&router, "/v1/embeddings", json!({"input": ids})).await;
    let expected = embedded(&runtime, "encoder-mini", "a sconce holds candles").await;
    assert_eq!(floats(&answer["data"][0]["embedding"]), expected);
    let answer = fine(&router, "/embed", json!({"inputs": [ids, ids]})).await;
    assert_eq!((floats(&answer[0]), floats(&answer[1])), (expected.clone(), expected));
    let decoded = fine(&router, "/decode", json!({"ids": ids})).await;
    assert_eq!(decoded, json!(["a sconce holds candles"]));
    let (status, _, error) = post(&router, "/embed", json!({"inputs": [4_000_000]})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{error}");
}

#[tokio::test]
async fn routes_of_text_embeddings_inference_answer_as_documented() {
    let (router, runtime) =
        router(&[zoo("encoder-mini"), zoo("tiny-bert-sentiment"), family("bert-cross-encoder"), family("splade")]);
    let expected = embedded(&runtime, "encoder-mini", "What is Deep Learning?").await;
    let asked = json!({"inputs": "What is Deep Learning?", "truncate": true, "truncation_direction": "Right"});
    let (status, headers, answer) = post(&router, "/embed", asked).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(floats(&answer[0]), expected);
    assert!(headers["x-compute-characters"] == "22" && headers["x-compute-type"] == "cpu");
    assert!(headers.contains_key("x-compute-tokens") && headers.contains_key("x-inference-time"));

    let positive =
        fine(&router, "/models/tiny-bert-sentiment/predict", json!({"inputs": "What a wonderful day!"})).await;
    assert_eq!(positive[0]["label"], json!("positive"));
    assert!(positive[0]["score"].as_f64().unwrap() > positive[1]["score"].as_f64().unwrap());
    let many = json!({"inputs": [["What a wonderful day!"], ["The worst film."]], "raw_scores": true});
    let many = fine(&router, "/models/tiny-bert-sentiment/predict", many).await;
    assert_eq!((&many[0][0]["label"], &many[1][0]["label"]), (&json!("positive"), &json!("negative")));
    assert!(many[0][1]["score"].as_f64().unwrap() < 0.0, "logits: {many}");

    let asked = json!({"query": "What is Deep Learning?", "texts": ["Deep Learning is not...", "Deep learning is..."], "return_text": true});
    let ranks = fine(&router, "/rerank", asked).await;
    assert!(ranks[0]["score"].as_f64().unwrap() >= ranks[1]["score"].as_f64().unwrap());
    let index = usize::try_from(ranks[0]["index"].as_u64().unwrap()).unwrap();
    assert_eq!(ranks[0]["text"], json!(["Deep Learning is not...", "Deep learning is..."][index]));

    let sparse = fine(&router, "/embed_sparse", json!({"inputs": "I like you."})).await;
    assert!(sparse[0][0]["index"].is_u64() && sparse[0][0]["value"].as_f64().unwrap() > 0.0, "{sparse}");

    let asked = json!({"inputs": {"source_sentence": "a cat", "sentences": ["a cat", "stock markets"]}});
    let similar = floats(&fine(&router, "/similarity", asked).await);
    assert!((similar[0] - 1.0).abs() < 1e-5 && similar[1] < 0.9, "{similar:?}");

    let info = send(&router, Request::get("/models/encoder-mini/info").body(Body::empty()).unwrap()).await.2;
    assert_eq!((&info["model_id"], &info["model_dtype"]), (&json!("encoder-mini"), &json!("float32")));
}

#[tokio::test]
async fn an_address_alone_is_enough_for_one_model() {
    let (router, runtime) = router(&[zoo("encoder-mini")]);
    let answer = fine(&router, "/", json!({"inputs": "one", "parameters": {"normalize": true}})).await;
    assert_eq!(floats(&answer[0]), embedded(&runtime, "encoder-mini", "one").await);
    let asked = json!({"inputs": {"source_sentence": "one", "sentences": ["one"]}});
    assert!((floats(&fine(&router, "/", asked).await)[0] - 1.0).abs() < 1e-5);
}

#[tokio::test]
async fn documents_are_ranked_as_by_cohere_and_jina() {
    let (router, runtime) = router(&[family("bert-cross-encoder")]);
    let documents = ["a sconce holds candles", "one", "two three"];
    let model = &runtime.model("bert-cross-encoder").unwrap();
    let expected = model.rerank_top("candles", documents, 2).await.unwrap();
    for path in ["/v1/rerank", "/v2/rerank"] {
        let asked = json!({
            "model": "bert-cross-encoder", "query": "candles", "top_n": 2, "return_documents": true,
            "documents": [documents[0], {"text": documents[1]}, documents[2]],
        });
        let answer = fine(&router, path, asked).await;
        assert_eq!(answer["results"].as_array().unwrap().len(), 2);
        for (result, expected) in answer["results"].as_array().unwrap().iter().zip(&expected) {
            assert_eq!(result["index"], json!(expected.index));
            assert_eq!(result["document"]["text"], json!(documents[expected.index]));
            let score = result["relevance_score"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&score));
        }
        assert!(answer["usage"]["total_tokens"].as_u64().unwrap() > 9);
    }
}

#[tokio::test]
async fn a_list_that_is_longer_than_the_queue_is_answered_in_order() {
    let directory = zoo("encoder-mini");
    let batching = sconce::BatcherConfig { max_queue_size: 4, ..sconce::BatcherConfig::default() };
    let runtime = Runtime::builder().batching(batching).model(directory).build().unwrap();
    let router = sconce_http::router(runtime.clone());
    let texts: Vec<String> = (0..23).map(|at| format!("text number {at}")).collect();
    let answer = fine(&router, "/embed", json!({"inputs": texts})).await;
    for (row, text) in answer.as_array().unwrap().iter().zip(&texts) {
        assert_eq!(floats(row), embedded(&runtime, "encoder-mini", text).await, "{text}");
    }
    assert_eq!(answer.as_array().unwrap().len(), 23);
    let (status, _, error) = post(&router, "/embed", json!({"inputs": texts, "priority": 7})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{error}");
    let mut texts: Vec<Value> = texts.into_iter().map(Value::from).collect();
    texts[17] = "a ".repeat(700_000).into();
    let (_, _, error) = post(&router, "/embed", json!({"inputs": texts})).await;
    assert!(error["error"].as_str().unwrap().starts_with("item 17: "), "{error}");
}

#[tokio::test]
async fn errors_have_the_form_of_their_api_and_name_the_field() {
    let (router, _) = router(&[zoo("encoder-mini"), zoo("tiny-bert-sentiment"), family("bert-cross-encoder")]);
    let table: [(&str, Value, u16, &str, &str); 21] = [
        ("/embed", json!({"inputs": "a", "raw_scores": false}), 422, "/error", "'raw_scores' has no meaning"),
        ("/embed", json!({"inputs": "a", "parameters": {"return_text": true}}), 422, "/error", "'return_text' has no"),
        (
            "/models/tiny-bert-sentiment/predict",
            json!({"inputs": "a", "return_text": true}),
            422,
            "/error",
            "'return_text' has no meaning",
        ),
        ("/embed", json!({"inputs": "a", "truncation_direction": 7}), 422, "/error", "field 'truncation_direction': "),
        ("/rerank", json!({"query": "a", "texts": ["b"], "raw_scores": "x"}), 422, "/error", "field 'raw_scores': "),
        (
            "/embed",
            json!({"inputs": "a", "parameters": {"truncation_direction": 7}}),
            422,
            "/error",
            "field 'parameters.truncation_direction': ",
        ),
        ("/models/encoder-mini/", json!({"inputs": [[]]}), 422, "/error", "or one token"),
        ("/v1/embeddings", json!({"input": "a", "model": "gpt"}), 404, "/error/code", "model_not_found"),
        (
            "/v1/embeddings",
            json!({"input": "a", "model": "gpt"}),
            404,
            "/error/message",
            "encoder-mini, tiny-bert-sentiment",
        ),
        (
            "/v1/embeddings",
            json!({"input": "a", "model": "tiny-bert-sentiment"}),
            400,
            "/error/message",
            "does classification",
        ),
        ("/v1/embeddings", json!({"input": []}), 400, "/error/param", "input"),
        (
            "/v1/embeddings",
            json!({"input": "a", "encoding_format": "hex"}),
            400,
            "/error/message",
            "field 'encoding_format'",
        ),
        (
            "/v1/embeddings",
            json!({"input": "a", "dimension": 3}),
            400,
            "/error/message",
            "parameter 'dimension' is not known",
        ),
        ("/v1/embeddings", json!({"input": "a", "dimensions": 999}), 400, "/error/message", "between 1 and 384"),
        ("/embed", json!({"inputs": [1, "a"]}), 422, "/error", "numbers beside texts"),
        ("/embed", json!({"inputs": []}), 400, "/error_type", "Empty"),
        ("/embed", json!({"inputs": "a", "truncation_direction": "left"}), 422, "/error", "'truncation_direction'"),
        ("/embed_sparse", json!({"inputs": "a"}), 404, "/error", "no model gives sparse embeddings"),
        ("/predict", json!({"inputs": "a"}), 422, "/error", "more than one model classifies texts"),
        ("/v1/rerank", json!({"query": "a", "documents": ["b"], "top_n": 0}), 400, "/message", "'top_n' is 0"),
        ("/v1/rerank", json!({"query": "a", "documents": [7]}), 400, "/message", "field 'documents[0]'"),
    ];
    for (path, body, status, pointer, words) in table {
        let (got, _, answer) = post(&router, path, body.clone()).await;
        let message = answer.pointer(pointer).map(ToString::to_string).unwrap_or_default();
        assert!(got.as_u16() == status && message.contains(words), "{path} {body}: {got} {answer}");
    }
    let (status, _, answer) = post(&router, "/v1/embedding", json!({})).await;
    assert!(status == 404 && answer["error"].as_str().unwrap().contains("POST /v1/embedding;"), "{answer}");
    let (status, _, _) = send(&router, Request::get("/embed").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    for (body, words) in [("", "the body is empty"), ("{", "not JSON"), ("[]", "expected"), ("{}x", "")] {
        let request = Request::post("/embed").body(Body::from(body)).unwrap();
        let (status, _, answer) = send(&router, request).await;
        assert!(status == 422 && answer["error"].as_str().unwrap().contains(words), "{body}: {status} {answer}");
    }
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let batching = sconce::BatcherConfig { max_queue_size: 1, ..sconce::BatcherConfig::default() };
    let runtime = Runtime::builder().batching(batching).model(zoo("encoder-mini")).build().unwrap();
    let router = sconce_http::router(runtime);
    let long = "a sconce holds candles ".repeat(200);
    let calls = (0..32).map(|at| {
        let (router, text) = (router.clone(), format!("{at} {long}"));
        tokio::spawn(async move { post(&router, "/v1/embeddings", json!({"input": text})).await })
    });
    let mut refused = 0;
    for call in calls.collect::<Vec<_>>() {
        let (status, headers, answer) = call.await.unwrap();
        if status == StatusCode::TOO_MANY_REQUESTS {
            refused += 1;
            assert_eq!(answer["error"]["code"], json!("rate_limit_exceeded"));
            assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
            assert!(headers["retry-after-ms"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
        }
    }
    assert!(refused > 0, "32 callers of a queue for one");
}

#[tokio::test]
async fn the_document_describes_routes_that_are_there_and_resolves_its_references() {
    let (router, _) = router(&[zoo("encoder-mini")]);
    let document = send(&router, Request::get("/openapi.json").body(Body::empty()).unwrap()).await.2;
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 12, "{:?}", paths.keys());
    for path in ["/v2/rerank", "/models/{model}/embed", "/models/{model}/info"] {
        assert!(paths.contains_key(path), "{path}");
    }
    let ids = paths.values().flat_map(|methods| methods.as_object().unwrap().values());
    let mut ids: Vec<_> = ids.map(|operation| operation["operationId"].to_string()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let path = path.replace("{model}", "encoder-mini");
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(&path).body(Body::empty());
            let (status, _, answer) = send(&router, request.unwrap()).await;
            assert!(status != 404 && status != 405, "{method} {path}: {answer}");
            assert!(operation["responses"]["200"]["content"]["application/json"]["schema"].is_object(), "{path}");
        }
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some_and(Value::is_object), "{reference}");
    }
    let embeddings = document["components"]["schemas"]["EmbeddingsRequest"].to_string();
    for field in ["input", "model", "encoding_format", "dimensions", "truncate"] {
        assert!(document.to_string().contains(&format!("\"{field}\"")), "{field}: {embeddings}");
    }
    assert!(!embeddings.contains("unknown"), "{embeddings}");
}

fn collect_references(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect_references(value, references));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_references(value, references)),
        _ => {}
    }
}

#[tokio::test]
async fn requests_whose_answers_or_pairs_would_fill_the_memory_are_refused_with_what_is_allowed() {
    let (router, _) = router(&[zoo("encoder-mini"), family("bert-cross-encoder")]);
    let many = vec!["a"; sconce_http::MAX_ITEMS + 1];
    let long = "a ".repeat(sconce_http::MAX_BODY_BYTES / 4);
    let all = vec!["a "; sconce_http::MAX_TOKENIZED / 2 + 1];
    let table = [
        ("/v1/embeddings", json!({"input": many}), "/error/message", "has 16385 items, but at most 16384"),
        ("/embed", json!({"inputs": many}), "/error", "has 16385 items, but at most 16384"),
        ("/v1/rerank", json!({"query": "a", "documents": many}), "/message", "field 'documents' has 16385 items"),
        ("/rerank", json!({"query": long, "texts": ["a", "b", "c"]}), "/error", "but at most 2 are answered"),
        ("/models/encoder-mini/tokenize", json!({"inputs": all}), "/error", "has 1048578 bytes, but at most 1048576"),
        ("/models/encoder-mini/decode", json!({"ids": vec![5; sconce_http::MAX_TOKENIZED + 1]}), "/error", "'ids' has"),
    ];
    for (path, body, pointer, words) in table {
        let (status, _, answer) = post(&router, path, body).await;
        let message = answer.pointer(pointer).map(ToString::to_string).unwrap_or_default();
        assert!(status == StatusCode::PAYLOAD_TOO_LARGE && message.contains(words), "{path}: {status} {message}");
    }
}

#[tokio::test]
async fn embeddings_come_in_other_element_types_and_null_is_as_if_left_out() {
    let (router, runtime) = router(&[zoo("encoder-mini")]);
    let plain = embedded(&runtime, "encoder-mini", "one").await;
    let asked = json!({"input": "one", "output_dtype": "int8", "dimensions": null, "prompt_name": null});
    let (status, _, answer) = post(&router, "/v1/embeddings", asked).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let int8: Vec<i8> = serde_json::from_value(answer["data"][0]["embedding"].clone()).unwrap();
    for (value, plain) in int8.iter().zip(&plain) {
        assert!((f32::from(*value) + 128.0 - (plain + 1.0) * 127.5).abs() <= 1.0, "{value} {plain}");
    }
    let asked = json!({"input": "one", "output_dtype": "int8", "encoding_format": "base64"});
    let answer = fine(&router, "/v1/embeddings", asked).await;
    let bytes = BASE64_STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    assert_eq!(bytes, int8.iter().map(|value| value.cast_unsigned()).collect::<Vec<_>>());
    let bits = fine(&router, "/embed", json!({"inputs": "one", "parameters": {"output_dtype": "ubinary"}})).await;
    assert_eq!(bits[0].as_array().unwrap().len(), 48);
    let half = floats(&fine(&router, "/embed", json!({"inputs": "one", "output_dtype": "float16"})).await[0]);
    assert!(half.iter().zip(&plain).all(|(half, plain)| (half - plain).abs() < 1e-3));
    let asked = json!({"inputs": {"source_sentence": "a", "sentences": ["b"]}, "output_dtype": "int8"});
    let (status, _, answer) = post(&router, "/similarity", asked).await;
    assert!(status == 422 && answer["error"].as_str().unwrap().contains("'output_dtype'"), "{answer}");
}

#[tokio::test]
async fn options_in_parameters_count_before_those_at_the_top_and_null_before_none() {
    let (router, _) = router(&[zoo("encoder-mini")]);
    let width = async |asked: Value| {
        let answer = fine(&router, "/embed", asked).await;
        answer[0].as_array().map(Vec::len)
    };
    assert_eq!(width(json!({"inputs": "a", "dimensions": 4, "parameters": {"dimensions": null}})).await, Some(4));
    assert_eq!(width(json!({"inputs": "a", "dimensions": 4, "parameters": {"dimensions": 8}})).await, Some(8));
    for (body, words) in [
        (json!({"inputs": "a", "prompt": "a", "prompt_name": "b"}), "mean the same"),
        (json!({"inputs": "a", "prompt": "a", "parameters": {"prompt_name": "none"}}), "prompt 'none' is not known"),
        (json!({"inputs": "a", "parameters": {"parameters": {}}}), "'parameters.parameters' is not known"),
    ] {
        let (status, _, answer) = post(&router, "/embed", body.clone()).await;
        let message = answer["error"].as_str().unwrap_or_default();
        assert!(status == StatusCode::UNPROCESSABLE_ENTITY && message.contains(words), "{body}: {answer}");
    }
    let (_, _, answer) = post(&router, "/v1/embeddings", json!({"input": "a", "dimensions": "x"})).await;
    assert_eq!(answer["error"]["param"], json!("dimensions"), "{answer}");
    fine(&router, "/v1/embeddings", json!({"input": "a", "encoding_format": null})).await;
    let (status, _, answer) = post(&router, "/", json!({"inputs": ["a", ["b"]]})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "a list is no similarity: {answer}");
}

#[tokio::test]
async fn tokens_and_scores_come_as_they_are_asked_for() {
    let (router, runtime) = router(&[zoo("encoder-mini"), family("bert-cross-encoder"), family("colbert")]);
    let plain = json!({"inputs": ["one", "two"], "add_special_tokens": false});
    let plain = fine(&router, "/models/encoder-mini/tokenize", plain).await;
    assert!(
        plain
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|text| text.as_array().unwrap())
            .all(|token| token["special"] == json!(false))
    );
    let whole = fine(&router, "/models/encoder-mini/tokenize", json!({"inputs": "one"})).await;
    let ids: Vec<u64> = whole[0].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap()).collect();
    let kept = json!({"ids": ids, "skip_special_tokens": false});
    let kept = fine(&router, "/models/encoder-mini/decode", kept).await;
    assert!(kept[0].as_str().unwrap().contains("[CLS]"), "{kept}");
    let (status, _, _) = post(&router, "/models/encoder-mini/decode", json!({"ids": []})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let empty = json!({"inputs": vec![""; sconce_http::MAX_ITEMS + 1]});
    assert_eq!(post(&router, "/models/encoder-mini/tokenize", empty).await.0, StatusCode::PAYLOAD_TOO_LARGE);

    let expected = runtime.model("bert-cross-encoder").unwrap().rerank("one", ["two"]).await.unwrap();
    let logit = expected[0].answer.output.score().unwrap().logit;
    let raw = fine(&router, "/rerank", json!({"query": "one", "texts": ["two"], "raw_scores": true})).await;
    assert_eq!(floats(&json!([raw[0]["score"]])), [logit]);
    assert!(raw[0].get("text").is_none());
    let documents = json!({"query": "one", "documents": ["two"]});
    assert!(fine(&router, "/v1/rerank", documents).await["results"][0].get("document").is_none());

    let vectors = runtime.model("colbert").unwrap().infer("one two").await.unwrap();
    let vectors = vectors.output.token_vectors().unwrap();
    let rows = fine(&router, "/embed_all", json!({"inputs": "one two"})).await;
    let rows: Vec<Vec<f32>> = serde_json::from_value(rows[0].clone()).unwrap();
    assert_eq!(rows.concat(), vectors.values);
    assert!(rows.iter().all(|row| row.len() == vectors.dimensions));
}

#[tokio::test]
async fn a_list_that_is_too_heavy_for_the_queue_is_answered_in_order() {
    let batching =
        sconce::BatcherConfig { max_batch_weight: 128, max_queue_weight: 128, ..sconce::BatcherConfig::default() };
    let runtime = Runtime::builder().batching(batching).model(zoo("encoder-mini")).build().unwrap();
    let texts: Vec<String> = (0..13).map(|at| format!("{at} {}", "candle ".repeat(20 + at))).collect();
    let model = &runtime.model("encoder-mini").unwrap();
    model.try_infer_many(texts.clone()).await.expect_err("too heavy as a whole");
    let answers = model.try_infer_list(texts.clone()).await.unwrap();
    for (answer, text) in answers.iter().zip(&texts) {
        assert_eq!(answer.output, model.infer(text.as_str()).await.unwrap().output, "{text}");
    }
    let mut wrong = texts;
    wrong[11] = "a".repeat(2 << 20);
    let error = model.try_infer_list(wrong).await.unwrap_err();
    assert_eq!(error.index, Some(11), "{error}");
}

#[tokio::test]
async fn times_of_an_answer_are_those_of_one_item_and_not_their_sum() {
    let (router, _) = router(&[zoo("encoder-mini")]);
    let (_, headers, _) = post(&router, "/embed", json!({"inputs": vec!["a sconce holds candles"; 64]})).await;
    let number = |name: &str| headers[name].to_str().unwrap().parse::<u64>().unwrap();
    for name in ["x-tokenization-time", "x-queue-time", "x-inference-time"] {
        assert!(number(name) <= number("x-total-time"), "{headers:?}");
    }
    assert_eq!(number("x-compute-tokens"), 64 * 10, "of all");
}

#[tokio::test]
async fn items_that_fail_are_left_out_and_listed_where_the_request_asks_for_the_others() {
    let (router, runtime) = router(&[zoo("encoder-mini"), family("bert-cross-encoder")]);
    let too_long = "long ".repeat(4000);
    let asked = json!({"model": "encoder-mini", "input": [too_long, "one", too_long, "two"], "truncate": false});
    assert_eq!(post(&router, "/v1/embeddings", asked.clone()).await.0, StatusCode::BAD_REQUEST);
    let mut partial = asked;
    partial["partial"] = json!(true);
    let answer = fine(&router, "/v1/embeddings", partial).await;
    let indices = |list: &Value| list.as_array().unwrap().iter().map(|it| it["index"].clone()).collect::<Vec<_>>();
    assert_eq!(indices(&answer["data"]), [1, 3]);
    assert_eq!(floats(&answer["data"][1]["embedding"]), embedded(&runtime, "encoder-mini", "two").await);
    assert_eq!(indices(&answer["failed"]), [0, 2]);
    assert!(answer["failed"][0]["error"].as_str().unwrap().contains("tokens"), "{answer}");

    let documents = [&too_long, "a sconce", "a day"];
    let asked = json!({"query": "candles", "documents": documents, "truncate": false, "partial": true});
    let answer = fine(&router, "/v1/rerank", asked).await;
    let mut ranked = indices(&answer["results"]);
    ranked.sort_by_key(Value::as_u64);
    assert_eq!((ranked, indices(&answer["failed"])), (vec![json!(1), json!(2)], vec![json!(0)]));

    let whole =
        fine(&router, "/v1/embeddings", json!({"model": "encoder-mini", "input": "one", "partial": true})).await;
    assert_eq!(whole.get("failed"), None);
    let (status, _, refused) = post(&router, "/embed", json!({"inputs": ["one", "two"], "partial": true})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["error"].as_str().unwrap().contains("no index"), "{refused}");
}
