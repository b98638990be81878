//! Entities, rerankers, zero-shot labels, prompts and options of vectors, with and without a cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sconce::cache::{MemoryConfig, SqliteConfig, SqliteTier, TierConfig};
use sconce::{
    AnswerCache, AnswerSource, InferError, Input, InputError, Model, OutputDtype, PrecomputeConfig, Precomputed,
    Request, RequestGroup, Runtime, ZeroShot,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn family(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tests/families").join(model)
}

/// A copy of a model, its `config.json` changed.
fn changed(model: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let copy = tempfile::tempdir().expect("room");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(family(model).join(file), copy.path().join(file)).expect("a file");
    }
    let path = copy.path().join("config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    change(&mut config);
    std::fs::write(path, config.to_string()).expect("a file");
    copy
}

fn build(directory: &Path, cached: bool) -> (Runtime, Model) {
    let mut builder = Runtime::builder().named_model("model", directory);
    if cached {
        let cache = AnswerCache::builder().memory(MemoryConfig::default()).build().expect("good defaults");
        builder = builder.cache(cache);
    }
    let runtime = builder.build().expect("it loads");
    let model = runtime.model("model").expect("it has one");
    (runtime, model)
}

#[tokio::test]
async fn entities_found_in_a_cache_have_their_places_in_the_text() {
    let text = "the Candle light, on a red wall: Ada!";
    let (_plain, plain) = build(&family("entities"), false);
    let expected = plain.infer(text).await.unwrap().output;
    assert!(!expected.entities().unwrap().is_empty());
    let (runtime, model) = build(&family("entities"), true);
    for source in [AnswerSource::Computed, AnswerSource::Cached("memory")] {
        let answer = model.infer(text).await.unwrap();
        assert_eq!((answer.source, &answer.output), (source, &expected));
    }
    assert_eq!(runtime.cache().unwrap().stats().computed, 1);
    let others = ["ada sat", text, "red"];
    let (of_plain, of_cached) = (plain.infer_many(others.to_vec()).await, model.infer_many(others.to_vec()).await);
    for (plain, cached) in of_plain.unwrap().iter().zip(of_cached.unwrap()) {
        assert_eq!(plain.output, cached.output);
    }
    let blocking = tokio::task::spawn_blocking(move || plain.infer_blocking(text).unwrap().output);
    assert_eq!(blocking.await.unwrap(), expected);
}

#[tokio::test]
async fn requests_for_other_dimensions_and_lengths_share_one_row_of_the_cache() {
    let (runtime, model) = build(&family("distilbert"), true);
    let whole = model.infer("river").await.unwrap().output;
    let whole = whole.embedding().unwrap();
    let cut = model.infer(Request::new("river").dimensions(4)).await.unwrap();
    assert_eq!(cut.source, AnswerSource::Cached("memory"));
    let cut = cut.output.embedding().unwrap().to_vec();
    let length = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length(&cut) - 1.0).abs() < 1e-6);
    let expected: Vec<f32> = whole[..4].iter().map(|x| x / length(&whole[..4])).collect();
    assert!(cut.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{cut:?}, {expected:?}");
    let raw = model.infer(Request::new("river").normalize(false)).await.unwrap().output;
    assert!((length(raw.embedding().unwrap()) - 1.0).abs() > 1e-3);
    assert_eq!(runtime.cache().unwrap().stats().computed, 1);
    let group = RequestGroup::new(["river", "stone"]).dimensions(3);
    for answer in model.infer_many(group).await.unwrap() {
        assert_eq!(answer.output.embedding().unwrap().len(), 3);
    }
    let refused = model.infer(Request::new("river").dimensions(whole.len() + 1)).await.unwrap_err();
    let (got, max) = (whole.len() + 1, whole.len());
    assert!(
        matches!(refused, InferError::Input(InputError::Dimensions { got: it, max: most }) if (it, most) == (got, max))
    );
}

#[tokio::test]
async fn requests_for_other_element_types_share_one_row_of_the_cache_and_refuse_what_does_not_fit() {
    let (runtime, model) = build(&family("distilbert"), true);
    let exact = model.infer("river").await.unwrap().output;
    for dtype in OutputDtype::ALL {
        let answer = model.infer(Request::new("river").output_dtype(dtype)).await.unwrap();
        assert_eq!(answer.source, AnswerSource::Cached("memory"));
        assert_eq!(answer.output, exact.clone().converted(dtype).unwrap(), "{dtype}");
    }
    let group = RequestGroup::new(["river", "stone"]).output_dtype(OutputDtype::Binary).dimensions(16);
    for answer in model.infer_many(group).await.unwrap() {
        assert_eq!(answer.output.converted_embedding().unwrap().elements.len(), 2);
    }
    assert_eq!(runtime.cache().unwrap().stats().computed, 2);
    let long = Request::new("river").output_dtype(OutputDtype::Int8).normalize(false);
    let refused = model.infer(long).await.unwrap_err();
    assert!(matches!(refused, InferError::Input(InputError::Unrepresentable { dtype: "int8", .. })), "{refused}");
    let (_runtime, classifier) = build(&family("distilbert-sst2"), false);
    let refused =
        classifier.infer(Request::new("river").output_dtype(OutputDtype::Uint8)).await.unwrap_err().to_string();
    assert_eq!(refused, "option 'output_dtype' has no meaning for the task classification; leave it out");
}

#[tokio::test]
async fn a_prompt_by_name_is_part_of_the_key_and_stands_before_the_text() {
    let copy = changed("distilbert", |_| {});
    let prompts = json!({"prompts": {"query": "hello ", "document": ""}, "default_prompt_name": "query"});
    std::fs::write(copy.path().join("config_sentence_transformers.json"), prompts.to_string()).unwrap();
    let (runtime, model) = build(copy.path(), true);
    let (_plain, plain) = build(&family("distilbert"), false);
    let prompted = model.infer(Request::new("world").prompt("query")).await.unwrap();
    let document = model.infer(Request::new("world").prompt("document")).await.unwrap();
    let unsaid = model.infer("world").await.unwrap();
    assert_eq!(prompted.output, plain.infer("hello world").await.unwrap().output);
    assert_eq!(document.output, plain.infer("world").await.unwrap().output);
    assert_eq!(unsaid.output, prompted.output, "the default");
    assert_eq!(runtime.cache().unwrap().stats().computed, 3);
    let again = model.infer(Request::new("world").prompt("document")).await.unwrap();
    assert_eq!((again.source, again.output), (AnswerSource::Cached("memory"), document.output));
    let refused = model.infer(Request::new("world").prompt("title")).await.unwrap_err().to_string();
    assert_eq!(refused, "prompt 'title' is not known; known are: document, query");
    let group = RequestGroup::new(["world", "river"]).prompt("title");
    assert_eq!(model.infer_many(group).await.unwrap_err().to_string(), refused);
    let refused = plain.infer(Request::new("world").prompt("query")).await.unwrap_err().to_string();
    assert_eq!(refused, "prompt 'query' is not known; known are: (none)");
}

#[tokio::test]
async fn answers_precomputed_with_a_prompt_are_found_by_requests_with_it_and_by_no_others() {
    let copy = changed("distilbert", |_| {});
    let prompts = json!({"prompts": {"query": "hello ", "document": "good "}, "default_prompt_name": "document"});
    std::fs::write(copy.path().join("config_sentence_transformers.json"), prompts.to_string()).unwrap();
    let file = copy.path().join("answers.sqlite");
    let open = || SqliteTier::open(&SqliteConfig::new(&file)).unwrap();
    let (_plain, plain) = build(copy.path(), false);
    let precompute = async |prompt: Option<&str>| {
        let config = PrecomputeConfig { prompt: prompt.map(str::to_owned), ..PrecomputeConfig::default() };
        let mut texts = ["world", "river"].into_iter();
        let mut stored = 0;
        let done = |(), outcome| stored += usize::from(matches!(outcome, Precomputed::Stored));
        let next = async || texts.next().map(|text| ((), Input::from(text)));
        plain.precompute(&open(), &config, next, done).await.map(|()| stored)
    };
    assert_eq!(precompute(Some("query")).await.unwrap(), 2);
    let patient = TierConfig { get_budget: Duration::from_secs(10), ..TierConfig::default() };
    let cache = AnswerCache::builder().tier(open(), patient).build().unwrap();
    let runtime = Runtime::builder().named_model("model", copy.path()).cache(cache).build().unwrap();
    let model = &runtime.model("model").unwrap();
    let source = async |request: Request| model.infer(request).await.unwrap().source;
    let world = || Request::new("world");
    assert_eq!(source(world().prompt("query")).await, AnswerSource::Cached("sqlite"));
    assert_eq!(
        source(world().prompt("query").dimensions(8).output_dtype(OutputDtype::Int8)).await,
        AnswerSource::Cached("sqlite")
    );
    assert_eq!(source(world().prompt("document")).await, AnswerSource::Computed);
    assert_eq!(precompute(None).await.unwrap(), 2, "the default prompt has keys of its own");
    assert_eq!(source(world()).await, AnswerSource::Cached("sqlite"));
    let refused = precompute(Some("title")).await.unwrap_err().to_string();
    assert_eq!(refused, "prompt 'title' is not known; known are: document, query");
}

#[tokio::test]
async fn documents_are_ranked_in_their_order_or_best_first_and_only_by_a_reranker() {
    let (_runtime, model) = build(&family("bert-cross-encoder"), false);
    let documents = ["a candle", "the river", "a stone wall and the mat", "good news"];
    let ranked = model.rerank("hello world", documents).await.unwrap();
    assert_eq!(ranked.iter().map(|one| one.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for (one, document) in ranked.iter().zip(documents) {
        let alone = model.infer(("hello world", document)).await.unwrap();
        assert_eq!(one.score.to_bits(), alone.output.score().unwrap().score.to_bits());
    }
    assert_eq!(model.stats().batched, 8, "each pair once in the group and once alone");
    let top = model.rerank_top("hello world", documents, 2).await.unwrap();
    assert_eq!(top.len(), 2);
    let best = ranked.iter().map(|one| one.score).fold(f32::NEG_INFINITY, f32::max);
    assert!(top[0].score.to_bits() == best.to_bits() && top[0].score >= top[1].score);
    assert!(model.rerank("hello", Vec::<String>::new()).await.unwrap().is_empty());
    let (_runtime, embedder) = build(&family("distilbert"), false);
    let refused = embedder.rerank("hello", ["world"]).await.unwrap_err().to_string();
    let message = "model 'model' does embedding, not reranking, which needs a classifier of pairs with one label";
    assert_eq!(refused, message);
}

#[tokio::test]
async fn labels_of_a_request_are_scored_by_what_the_text_entails() {
    let copy = changed("distilbert-sst2", |config| {
        config["id2label"] = json!({"0": "contradiction", "1": "ENTAILMENT"});
    });
    let (_runtime, model) = build(copy.path(), false);
    let mut logits = Vec::new();
    for label in ["river", "stone"] {
        let sentence = format!("hello {label} .");
        let answer = model.infer(("good news", sentence.as_str())).await.unwrap();
        logits.push(answer.output.classification().unwrap().logits.clone());
    }
    let asked = || ZeroShot::new(["river", "stone"]).template("hello {} .");
    let close = |got: &[f32], expected: &[f32]| got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
    let one = model.classify_zero_shot("good news", asked()).await.unwrap();
    let [a, b] = [logits[0][1].exp(), logits[1][1].exp()];
    assert!(close(&one.scores, &[a / (a + b), b / (a + b)]), "{one:?}");
    assert_eq!(&one.labels[..], ["river", "stone"]);
    let each = model.classify_zero_shot("good news", asked().multi_label()).await.unwrap();
    let expected: Vec<f32> = logits.iter().map(|row| row[1].exp() / (row[0].exp() + row[1].exp())).collect();
    assert!(close(&each.scores, &expected), "{each:?}");
    let single = model.classify_zero_shot("good news", ZeroShot::new(["river"]).template("hello {} .")).await.unwrap();
    assert!(close(&single.scores, &expected[..1]));
    let refused =
        |answer: Result<_, sconce::InferManyError>| answer.map(|_: sconce::Classification| ()).unwrap_err().to_string();
    let none = model.classify_zero_shot("good news", Vec::<String>::new()).await;
    assert_eq!(refused(none), "there are no labels; give at least one");
    let template = model.classify_zero_shot("good news", ZeroShot::new(["river"]).template("hello")).await;
    assert_eq!(refused(template), "the template 'hello' has no {} in place of the label");
    let (_runtime, sentiment) = build(&family("distilbert-sst2"), false);
    let other = refused(sentiment.classify_zero_shot("good news", vec!["river"]).await);
    assert!(other.contains("'model' does classification, not zero-shot"), "{other}");
}
