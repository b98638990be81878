//! The cache in the path of a request, on the models that ship.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sconce::cache::{CrossPrecision, MemoryConfig, SqliteConfig, SqliteTier, TierConfig};
use sconce::{
    AnswerCache, AnswerSource, Array, ArrayData, BatcherConfig, InferError, Input, InputError, Model, ModelSource,
    Precision, Request, Runtime, RuntimeBuilder, Truncation,
};

const SENTIMENT: &str = "tiny-bert-sentiment";

fn zoo(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo").join(model)
}

fn in_memory() -> AnswerCache {
    AnswerCache::builder().memory(MemoryConfig::default()).build().expect("good defaults")
}

fn stored_in(path: &Path) -> AnswerCache {
    let tier = SqliteTier::open(&SqliteConfig::new(path)).expect("a path that can be written");
    // A long budget, so that stored answers are found on slow machines, too.
    let patient = TierConfig { get_budget: Duration::from_secs(10), ..TierConfig::default() };
    AnswerCache::builder().tier(tier, patient).build().expect("good bounds")
}

fn build(builder: RuntimeBuilder) -> (Runtime, Model) {
    let runtime = builder.build().expect("it loads");
    let model = runtime.models().remove(0);
    (runtime, model)
}

async fn ask(model: &Model, request: impl Into<Request>) -> (AnswerSource, sconce::Output) {
    let answer = model.infer(request).await.expect("a good request");
    (answer.source, answer.output)
}

#[tokio::test]
async fn an_answer_is_computed_once_and_its_copies_are_equal_to_the_bit() {
    let (runtime, model) = build(Runtime::builder().model(zoo("encoder-mini")).cache(in_memory()));
    let first = model.infer("a sconce holds candles").await.unwrap();
    let second = model.infer("a sconce holds candles").await.unwrap();
    assert_eq!((first.source, second.source), (AnswerSource::Computed, AnswerSource::Cached("memory")));
    assert_eq!(first.output, second.output);
    assert_eq!((first.timing.batch_size, second.timing.batch_size), (1, 0));
    let (source, output) = ask(&model, Request::new("a sconce holds candles").uncached()).await;
    assert_eq!((source, output), (AnswerSource::Computed, first.output.clone()));
    let blocking = tokio::task::spawn_blocking({
        let model = model.clone();
        move || model.infer_blocking("a sconce holds candles").unwrap()
    });
    assert_eq!(blocking.await.unwrap().source, AnswerSource::Cached("memory"));
    assert_eq!(model.stats().batched, 2);
    assert_eq!(runtime.cache().unwrap().stats().computed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_32_identical_requests_in_flight_one_runs() {
    let batching = BatcherConfig { max_queue_delay: Duration::from_millis(300), ..BatcherConfig::default() };
    let (_runtime, model) = build(
        Runtime::builder().model(zoo(SENTIMENT)).batching(batching).cache(AnswerCache::builder().build().unwrap()),
    );
    let requests: Vec<_> = (0..32)
        .map(|_| {
            let model = model.clone();
            tokio::spawn(async move { model.infer("What a wonderful day!").await.unwrap() })
        })
        .collect();
    let mut sources = Vec::new();
    for request in requests {
        let answer = request.await.unwrap();
        assert_eq!(answer.output.classification().unwrap().label(), "positive");
        sources.push(answer.source);
    }
    assert_eq!(model.stats().batched, 1);
    assert_eq!(sources.iter().filter(|source| **source == AnswerSource::Computed).count(), 1);
    assert_eq!(sources.iter().filter(|source| **source == AnswerSource::Shared).count(), 31);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_gives_little_time_does_not_fail_those_that_wait_for_the_same() {
    let batching = BatcherConfig { max_queue_delay: Duration::from_millis(300), ..BatcherConfig::default() };
    let (_runtime, model) = build(Runtime::builder().model(zoo(SENTIMENT)).batching(batching).cache(in_memory()));
    let hurried = {
        let model = model.clone();
        tokio::spawn(async move { model.infer(Request::new("the same").timeout(Duration::from_millis(20))).await })
    };
    while model.depth().items == 0 && !hurried.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let patient = model.infer("the same").await;
    assert!(patient.is_ok(), "{patient:?}");
}

#[tokio::test]
async fn the_same_bytes_in_another_shape_or_with_another_parameter_are_another_request() {
    let (_runtime, digits) = build(Runtime::builder().model(zoo("digits-cnn")).cache(in_memory()));
    let image = |shape: &[usize]| Input::Array(Array { shape: shape.to_vec(), data: ArrayData::U8(vec![7; 64]) });
    assert_eq!(ask(&digits, image(&[1, 8, 8])).await.0, AnswerSource::Computed);
    for _ in 0..2 {
        let wrong = digits.infer(image(&[1, 4, 16])).await;
        assert!(matches!(wrong, Err(InferError::Input(InputError::WrongShape { .. }))), "{wrong:?}");
    }
    assert_eq!(ask(&digits, image(&[1, 8, 8])).await.0, AnswerSource::Cached("memory"));

    let (_runtime, sentiment) = build(Runtime::builder().model(zoo(SENTIMENT)).cache(in_memory()));
    let long = "good ".repeat(2000);
    assert!(sentiment.infer(long.clone()).await.unwrap().truncated);
    assert!(sentiment.infer(long.clone()).await.unwrap().truncated, "the cached answer says so, too");
    let refused = sentiment.infer(Request::new(long).truncation(Truncation::Refuse)).await;
    assert!(matches!(refused, Err(InferError::Input(InputError::TooLong { .. }))), "{refused:?}");
}

fn copy_of(model: &str, to: &Path) -> std::io::Result<PathBuf> {
    let copy = to.join(model);
    std::fs::create_dir(&copy)?;
    for entry in std::fs::read_dir(zoo(model))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), copy.join(entry.file_name()))?;
        }
    }
    Ok(copy)
}

#[tokio::test]
async fn a_stored_answer_outlives_the_process_but_not_the_model() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("answers.sqlite");
    let copy = copy_of(SENTIMENT, directory.path()).unwrap();
    let answer_of = async |source: ModelSource| {
        let (runtime, model) = build(Runtime::builder().allow_undecided(true).model(source).cache(stored_in(&store)));
        let (source, _) = ask(&model, "What a wonderful day!").await;
        runtime.shutdown().await;
        source.name()
    };
    let model = || ModelSource::new(&copy);
    assert_eq!(answer_of(model()).await, "computed");
    assert_eq!(answer_of(model()).await, "sqlite");
    assert_eq!(answer_of(model().precision(Precision::Int8)).await, "computed", "another precision");
    assert_eq!(answer_of(model().name("other")).await, "computed", "another model");
    assert_eq!(answer_of(model().uncached()).await, "computed", "a model that is not cached");

    let tokenizer = copy.join("tokenizer.json");
    let text = std::fs::read_to_string(&tokenizer).unwrap();
    std::fs::write(&tokenizer, format!("{text} ")).unwrap();
    assert_eq!(answer_of(model()).await, "computed", "another tokenizer");
    let weights = copy.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    assert_eq!(answer_of(model()).await, "computed", "other weights");
    assert_eq!(answer_of(model()).await, "sqlite");
}

#[tokio::test]
async fn a_cache_is_shared_by_the_models_of_a_runtime_and_by_runtimes() {
    let cache = Arc::new(in_memory());
    for (round, expected) in ["computed", "memory"].into_iter().enumerate() {
        let runtime = Runtime::builder()
            .model(zoo(SENTIMENT))
            .model(zoo("encoder-mini"))
            .cache(Arc::clone(&cache))
            .build()
            .unwrap();
        for model in runtime.models() {
            assert_eq!(ask(&model, "a sconce").await.0.name(), expected, "round {round}");
        }
    }
    assert_eq!(cache.stats().computed, 2);
}

#[tokio::test]
async fn a_higher_precision_answers_for_a_lower_one_where_the_policy_allows_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let copy = copy_of(SENTIMENT, directory.path()).unwrap();
    let cache = Arc::new(in_memory());
    let answer = async |precision, policy: Option<CrossPrecision>, settings: &str, text: &str| {
        std::fs::write(copy.join("sconce.toml"), settings).unwrap();
        let source = ModelSource { cross_precision: policy, ..ModelSource::new(&copy).precision(precision) };
        let (_runtime, model) = build(Runtime::builder().allow_undecided(true).model(source).cache(Arc::clone(&cache)));
        let answer = model.infer(text).await.unwrap();
        (answer.source.name(), answer.precision)
    };
    let (f32, int8, higher) = (Precision::F32, Precision::Int8, Some(CrossPrecision::Higher));
    assert_eq!(answer(f32, None, "", "a lovely day").await, ("computed", f32));
    assert_eq!(answer(int8, higher, "", "a lovely day").await, ("memory", f32));
    assert_eq!(answer(int8, None, "[cache]\nhigher_precisions = true", "a lovely day").await, ("memory", f32));
    let never = Some(CrossPrecision::Never);
    assert_eq!(answer(int8, never, "[cache]\nhigher_precisions = true", "a lovely day").await, ("computed", int8));
    assert_eq!(answer(int8, higher, "", "a lovely day").await, ("memory", int8), "its own goes first");

    assert_eq!(answer(int8, None, "", "a dull day").await, ("computed", int8));
    assert_eq!(answer(f32, higher, "", "a dull day").await, ("computed", f32), "a lower one never answers");
    assert_eq!(answer(f32, None, "[cache]\nanswers = false", "a dull day").await, ("computed", f32));
}

#[tokio::test]
async fn an_input_is_prepared_once_for_all_who_want_it_computed() {
    let (runtime, _) = build(
        Runtime::builder()
            .model(ModelSource::new(zoo(SENTIMENT)).name("plain"))
            .allow_undecided(true)
            .model(ModelSource::new(zoo(SENTIMENT)).name("small").precision(Precision::Int8))
            .model(zoo("digits-cnn"))
            .feature_cache(NonZeroU64::new(1 << 20).unwrap()),
    );
    let plain = &runtime.model("plain").unwrap();
    let first = ask(plain, "What a wonderful day!").await;
    assert_eq!(ask(plain, "What a wonderful day!").await, first);
    assert_eq!(ask(plain, Input::Bytes(b"What a wonderful day!".to_vec())).await, first);
    let blocking = {
        let plain = plain.clone();
        tokio::task::spawn_blocking(move || plain.infer_blocking("What a wonderful day!").unwrap().output)
    };
    assert_eq!(blocking.await.unwrap(), first.1);
    ask(&runtime.model("small").unwrap(), "What a wonderful day!").await;
    let stats = runtime.feature_stats().unwrap();
    assert_eq!((stats.hits, stats.misses), (4, 1), "the other precision reads the same tokens");
    ask(plain, Request::new("What a wonderful day!").truncation(Truncation::Refuse)).await;
    let pixels = || Input::Array(Array { shape: vec![1, 8, 8], data: ArrayData::F32(vec![0.5; 64]) });
    for _ in 0..2 {
        ask(&runtime.model("digits-cnn").unwrap(), pixels()).await;
    }
    let stats = runtime.feature_stats().unwrap();
    assert_eq!((stats.hits, stats.misses), (5, 3));
    let refused = plain.infer(vec![0xff]).await;
    assert!(matches!(refused, Err(InferError::Input(InputError::NotUtf8 { .. }))), "{refused:?}");
}
