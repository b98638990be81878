//! The runtime on the models of the zoo: concurrency, bad input beside good, limits, panics, shutdown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sconce::{
    Array, ArrayData, BatcherConfig, BuildError, InferError, Input, InputError, Model, Precision, QueueError, Request,
    Runtime, Truncation,
};

fn zoo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo")
}

fn runtime() -> Runtime {
    Runtime::builder().models_in(zoo()).build().expect("the zoo loads")
}

fn embedder(runtime: &Runtime) -> Model {
    runtime.model("encoder-mini").expect("it ships").clone()
}

async fn embedding(model: &Model, text: &str) -> Vec<f32> {
    model.infer(text).await.expect("a good text").output.embedding().expect("it embeds").to_vec()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[tokio::test]
async fn several_models_answer_in_one_runtime_each_in_its_own_type() {
    let runtime = runtime();
    let models = runtime.models();
    let names: Vec<_> = models.iter().map(Model::name).collect();
    assert_eq!(names, ["digits-cnn", "encoder-mini", "magika", "tiny-bert-sentiment"]);

    let source = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtime.rs"));
    let [content, sentiment, digit] = [
        ("magika", Input::Bytes(source.expect("this file can be read"))),
        ("tiny-bert-sentiment", Input::from("I love this!")),
        ("digits-cnn", Input::Array(Array { shape: vec![1, 8, 8], data: ArrayData::U8(vec![0; 64]) })),
    ]
    .map(|(name, input)| {
        let model = runtime.model(name).expect("it ships");
        async move { model.infer(input).await.expect("a good input").output }
    });
    let (content, sentiment, digit) = tokio::join!(content, sentiment, digit);
    assert_eq!(content.classification().unwrap().label(), "rust");
    assert_eq!(sentiment.classification().unwrap().label(), "positive");
    assert_eq!(digit.classification().unwrap().scores.len(), 10);
    let embedded = embedder(&runtime).infer("a sconce").await.unwrap();
    assert_eq!(embedded.output.embedding().unwrap().len(), 384);
    assert_eq!(embedded.precision, Precision::F32);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_share_batches_and_get_the_answers_they_would_get_alone() {
    let runtime = runtime();
    let model = embedder(&runtime);
    let texts: Vec<String> = (1..=64).map(|words| "candle ".repeat(words)).collect();
    let mut alone = Vec::new();
    for text in &texts {
        alone.push(embedding(&model, text).await);
    }
    let callers: Vec<_> = texts
        .into_iter()
        .map(|text| {
            let model = model.clone();
            tokio::spawn(async move { model.infer(text).await.expect("a good text") })
        })
        .collect();
    let mut largest_batch = 0;
    for (caller, alone) in callers.into_iter().zip(alone) {
        let answer = caller.await.unwrap();
        largest_batch = largest_batch.max(answer.timing.batch_size);
        assert!(largest_difference(answer.output.embedding().unwrap(), &alone) < 1e-5);
    }
    assert!(largest_batch > 1, "64 concurrent requests never shared a batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_named_and_its_neighbours_succeed() {
    let runtime = runtime();
    let model = embedder(&runtime);
    let expected = embedding(&model, "a good neighbour").await;
    let bad: [(Request, &str); 4] = [
        (Input::Bytes(b"caf\xe9".to_vec()).into(), "not UTF-8: the first 3 bytes"),
        (Input::Array(Array { shape: vec![1], data: ArrayData::U8(vec![1]) }).into(), "takes"),
        (
            Request::new("word ".repeat(500)).truncation(Truncation::Refuse),
            "more tokens than the 128 that the model takes",
        ),
        ("x".repeat(2 << 20).into(), "bytes, but at most"),
    ];
    let mut callers = Vec::new();
    for (request, message) in bad {
        for _ in 0..4 {
            let (model, expected) = (model.clone(), expected.clone());
            callers.push(tokio::spawn(async move {
                let embedding = embedding(&model, "a good neighbour").await;
                assert!(largest_difference(&embedding, &expected) < 1e-5);
            }));
        }
        let model = model.clone();
        callers.push(tokio::spawn(async move {
            let error = model.infer(request).await.expect_err(message);
            assert!(matches!(error, InferError::Input(_)));
            assert!(error.to_string().contains("'text'"), "{error} names its input");
            assert!(error.to_string().contains(message), "{error} says: {message}");
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn a_text_of_too_many_tokens_is_truncated_and_the_answer_says_so() {
    let runtime = runtime();
    let model = embedder(&runtime);
    assert!(model.infer("word ".repeat(500)).await.unwrap().truncated);
    assert!(!model.infer("word ".repeat(50)).await.unwrap().truncated);
}

#[tokio::test]
async fn an_unknown_model_is_refused_with_the_names_there_are() {
    let Err(error) = runtime().model("minilm") else { panic!("minilm does not ship") };
    assert_eq!(
        error.to_string(),
        "no model is named 'minilm'; known are: digits-cnn, encoder-mini, magika, tiny-bert-sentiment"
    );
}

#[tokio::test]
async fn a_model_that_does_not_load_hides_no_other_where_that_is_asked_for() {
    let builder = || {
        let unknown = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(unknown.path().join("config.json"), r#"{"model_type": "no-such-type"}"#).expect("there is room");
        (Runtime::builder().named_model("unknown", unknown.path()), unknown)
    };
    let (alone, _directory) = builder();
    let (runtime, failed) = alone.build_what_loads().unwrap();
    assert_eq!((runtime.models().len(), failed.len()), (0, 1));

    let (mixed, _directory) = builder();
    let (runtime, failed) = mixed.model(zoo().join("encoder-mini")).build_what_loads().unwrap();
    assert!(matches!(&failed["unknown"], BuildError::Load { name, .. } if name == "unknown"), "{failed:?}");
    assert_eq!(embedding(&embedder(&runtime), "a sconce").await.len(), 384);

    let (mixed, _directory) = builder();
    let refused = mixed.model(zoo().join("encoder-mini")).build().err().expect("every model must load");
    assert!(matches!(refused, BuildError::Load { .. }), "{refused}");
    assert!(matches!(Runtime::builder().build_what_loads(), Err(BuildError::NoModel)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_with_its_bound_and_waiting_callers_are_all_served() {
    let batching = BatcherConfig { max_batch_size: 1, max_queue_size: 2, ..BatcherConfig::default() };
    let runtime = Runtime::builder().model(zoo().join("encoder-mini")).batching(batching).build().unwrap();
    let model = embedder(&runtime);
    let (mut refused, mut answered) = (0, 0);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let model = model.clone();
            tokio::spawn(async move { model.try_infer("word ".repeat(100)).await })
        })
        .collect();
    for caller in callers {
        match caller.await.unwrap() {
            Ok(_) => answered += 1,
            Err(InferError::Queue(QueueError::QueueFull { max: 2, .. })) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0 && answered > 0, "{refused} refused, {answered} answered");

    let patient: Vec<_> = (0..50)
        .map(|_| {
            let model = model.clone();
            tokio::spawn(async move { model.infer("word").await })
        })
        .collect();
    for caller in patient {
        caller.await.unwrap().expect("a caller that waits for room is served");
    }
}

#[tokio::test]
async fn a_timeout_is_answered_on_time() {
    let runtime = runtime();
    let request = Request::new("word ".repeat(100)).timeout(Duration::from_nanos(1));
    let error = embedder(&runtime).infer(request.clone()).await.unwrap_err();
    assert!(matches!(error, InferError::Queue(QueueError::DeadlineExceeded { .. })), "{error}");
    let error = tokio::task::spawn_blocking(move || embedder(&runtime).infer_blocking(request)).await.unwrap();
    assert!(matches!(error.unwrap_err(), InferError::Queue(QueueError::DeadlineExceeded { .. })));
}

#[test]
fn a_blocking_caller_needs_no_runtime() {
    let runtime = runtime();
    let answer = &runtime.model("tiny-bert-sentiment").unwrap().infer_blocking("awful, terrible, bad").unwrap();
    assert_eq!(answer.output.classification().unwrap().label(), "negative");
    runtime.shutdown_blocking();
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_answers_what_waits_and_refuses_what_comes_after() {
    let runtime = runtime();
    let model = embedder(&runtime);
    let callers: Vec<_> = (0..40)
        .map(|_| {
            let model = model.clone();
            tokio::spawn(async move { model.infer("word ".repeat(60)).await })
        })
        .collect();
    while model.depth().items == 0 {
        tokio::task::yield_now().await;
    }
    runtime.shutdown().await;
    let mut answered = 0;
    for caller in callers {
        match caller.await.unwrap() {
            Ok(_) => answered += 1,
            Err(InferError::Queue(QueueError::ShuttingDown)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(answered > 0, "what waited was answered");
    assert!(matches!(model.infer("late").await, Err(InferError::Queue(QueueError::ShuttingDown))));
    runtime.shutdown().await;
}

#[test]
fn sconce_toml_goes_before_the_defaults_and_a_bad_value_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("digits");
    std::fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(zoo().join("digits-cnn").join(file), model.join(file)).unwrap();
    }
    let build = |toml: &str| {
        std::fs::write(model.join("sconce.toml"), toml).unwrap();
        Runtime::builder().model(&model).build()
    };
    let runtime = build("[batching]\nmax_batch_size = 7\nmax_queue_delay_us = 250\n").unwrap();
    let config = runtime.model("digits").unwrap().batcher_config().clone();
    assert_eq!((config.max_batch_size, config.max_queue_delay), (7, Duration::from_micros(250)));
    assert_eq!(config.max_queue_size, BatcherConfig::default().max_queue_size);

    let Err(error) = build("[batching]\nmax_batch_size = 0\n") else { panic!("a batch of nothing") };
    assert!(error.to_string().contains("batching.max_batch_size' is 0; it must be at least 1"), "{error}");
    let Err(error) = build("[batching]\nmax_queue_weight = 5\n") else { panic!("a queue that holds no batch") };
    assert!(error.to_string().starts_with("model 'digits': max_queue_weight is 5, but must be at least"), "{error}");
    let Err(error) = build("[batching]\nmax_batch = 1\n") else { panic!("an unknown field") };
    assert!(error.to_string().contains("max_batch") && error.to_string().contains("sconce.toml"), "{error}");
}

#[test]
fn a_runtime_without_a_model_or_with_a_name_taken_twice_is_refused() {
    assert!(matches!(Runtime::builder().build(), Err(BuildError::NoModel)));
    let digits = zoo().join("digits-cnn");
    let twice = Runtime::builder().model(&digits).named_model("digits-cnn", zoo().join("magika")).build();
    assert!(matches!(twice, Err(BuildError::DuplicateName { name, .. }) if name == "digits-cnn"));
    assert!(matches!(Runtime::builder().models_in("no/such/place").build(), Err(BuildError::List { .. })));
    assert!(matches!(Runtime::builder().model("/").build(), Err(BuildError::NoName { .. })));
    let missing = Runtime::builder().model("no/such/model").build();
    assert!(matches!(missing, Err(BuildError::Load { name, .. }) if name == "model"));
}

#[test]
fn input_errors_reach_the_caller_typed() {
    let runtime = runtime();
    let digits = &runtime.model("digits-cnn").unwrap();
    let image = |shape: &[usize], data| Input::Array(Array { shape: shape.to_vec(), data });
    let error = digits.infer_blocking(image(&[8, 8, 1], ArrayData::F32(vec![0.0; 64]))).unwrap_err();
    assert!(matches!(error, InferError::Input(InputError::WrongShape { .. })), "{error}");
    let error = digits.infer_blocking(image(&[1, 8, 8], ArrayData::U8(vec![0; 63]))).unwrap_err();
    assert!(matches!(error, InferError::Input(InputError::WrongLength { .. })), "{error}");
    let error = digits.infer_blocking("seven").unwrap_err();
    assert!(matches!(error, InferError::Input(InputError::WrongKind { .. })), "{error}");
}
