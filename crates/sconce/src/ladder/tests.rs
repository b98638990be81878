//! Ladders with real threads and a model that ships.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sconce_models::Precision::{F32, Int8, Q4K};

use crate::cache::MemoryConfig;
use crate::{AnswerCache, BuildError, LadderConfig, Model, ModelSource, Request, RequestGroup, Runtime};

const MODEL: &str = "tiny-bert-sentiment";

fn zoo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo").join(name)
}

fn runtime(ladder: LadderConfig) -> Runtime {
    let cache = AnswerCache::builder().memory(MemoryConfig::default()).build().expect("a valid cache");
    // Without warming up, the figures do not depend on how busy the machine is while it loads.
    let builder = Runtime::builder().model(ModelSource::new(zoo(MODEL)).ladder(ladder)).without_warm_up();
    builder.allow_undecided(true).cache(cache).build().expect("a model that ships")
}

/// Asks again and again until the model has stepped down, with a bound.
async fn flood(model: Model, caller: usize) -> Vec<crate::Answer> {
    let mut answers = Vec::new();
    for turn in 0..1000 {
        let text = format!("{caller} {turn} {}", "a long text that takes a while ".repeat(12));
        answers.push(model.infer(Request::new(text).uncached()).await.expect("an answer"));
        if model.precision() == Int8 && turn > 0 {
            break;
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_flood_a_model_steps_down_answers_everything_and_comes_back_up() {
    let runtime = runtime(LadderConfig::new([Int8]).target_p99(Duration::from_millis(25)));
    let model = runtime.model(MODEL).unwrap();
    assert_eq!(model.infer("alone").await.unwrap().precision, F32);
    let callers: Vec<_> = (0..512).map(|caller| tokio::spawn(flood(model.clone(), caller))).collect();
    let mut answers = Vec::new();
    for caller in callers {
        answers.extend(caller.await.unwrap());
    }
    let in_precision = |precision| answers.iter().filter(|answer| answer.precision == precision).count();
    assert!(in_precision(F32) > 0 && in_precision(Int8) > 0, "{} and {}", in_precision(F32), in_precision(Int8));
    assert_eq!(in_precision(F32) + in_precision(Int8), answers.len());
    let metrics = model.metrics();
    let ladder = metrics.ladder.unwrap();
    assert_eq!((metrics.precision, ladder.steps_down, ladder.steps_up), ("int8", 1, 0));
    let answered = metrics.answer_precisions.iter().find(|count| count.name == "int8").unwrap();
    assert_eq!(answered.count, in_precision(Int8) as u64);
    // Ten minutes later, without a request in between.
    model.inner.rungs.look_at(MODEL, Instant::now() + Duration::from_mins(10));
    assert_eq!(model.precision(), F32);
    assert_eq!(model.infer("alone again").await.unwrap().precision, F32);
    assert_eq!(model.metrics().ladder.unwrap().steps_up, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_can_demand_a_precision_of_the_ladder_and_no_other() {
    let runtime = runtime(LadderConfig::new([Int8]));
    let model = runtime.model(MODEL).unwrap();
    assert_eq!(model.precisions(), [F32, Int8]);
    let int8 = Runtime::builder().model(ModelSource::new(zoo(MODEL)).precision(Int8)).allow_undecided(true);
    let int8 = int8.build().unwrap();
    let (text, alone) = ("What a wonderful day!", int8.model(MODEL).unwrap());
    let in_f32 = model.infer(text).await.unwrap();
    let in_int8 = model.infer(Request::new(text).precision(Int8)).await.unwrap();
    assert_eq!((in_f32.precision, in_int8.precision), (F32, Int8));
    assert_eq!((in_f32.decision.as_deref(), in_int8.decision.as_deref()), (None, Some("undecided")));
    assert_eq!(in_int8.source.name(), "computed", "answers of another precision are cached apart");
    assert_eq!(in_int8.output, alone.infer(text).await.unwrap().output, "as if it were loaded in int8 alone");
    assert_eq!(model.infer(Request::new(text).precision(Int8)).await.unwrap().source.name(), "memory");
    let blocking = {
        let model = model.clone();
        tokio::task::spawn_blocking(move || model.infer_blocking(Request::new(text).uncached().precision(Int8)))
    };
    assert_eq!(blocking.await.unwrap().unwrap().precision, Int8);
    let group = RequestGroup { precision: Some(Int8), ..RequestGroup::new(["one", "two"]) };
    let in_group = model.infer_many(group.clone()).await.unwrap();
    assert!(in_group.iter().all(|answer| answer.precision == Int8));
    assert!(model.infer_each(group).await.into_iter().all(|answer| answer.unwrap().precision == Int8));
    let refused = model.infer(Request::new(text).precision(Q4K)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "model 'tiny-bert-sentiment' computes in f32, int8, not in q4k; ask for one of those or for none, or have it loaded with \
         q4k"
    );
    assert_eq!(model.precision(), F32, "demands are not load");
}

#[test]
fn a_ladder_that_cannot_be_is_refused_before_anything_is_loaded() {
    let build = |name: &str, ladder| {
        let source = ModelSource::new(zoo(name)).ladder(ladder);
        Runtime::builder().model(source).allow_undecided(true).build().err().map(|error: BuildError| error.to_string())
    };
    let refused = build(MODEL, LadderConfig::new([Int8, Int8])).unwrap();
    assert!(refused.starts_with("model 'tiny-bert-sentiment': 'ladder.precisions' names int8, which"), "{refused}");
    let refused = build("digits-cnn", LadderConfig::new([Int8])).unwrap();
    assert!(refused.contains("have no precision 'int8' on device 'cpu'; choose one of: f32"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ladder_in_sconce_toml_is_as_good_as_one_of_the_source() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(zoo(MODEL).join(file), directory.path().join(file)).unwrap();
    }
    let toml = |text: &str| std::fs::write(directory.path().join("sconce.toml"), text).unwrap();
    toml("[ladder]\nprecisions = [\"int8\"]\ntarget_p99_ms = 250\n");
    let runtime = Runtime::builder().named_model(MODEL, directory.path()).allow_undecided(true).build().unwrap();
    let model = runtime.model(MODEL).unwrap();
    assert_eq!(model.precisions(), [F32, Int8]);
    assert!(model.devices().iter().all(|device| device.cost.is_known()), "rungs are measured, to be compared");
    assert_eq!(model.devices().iter().map(|device| device.precision).collect::<Vec<_>>(), [F32, Int8]);
    assert!(model.devices()[1].weight_bytes < model.devices()[0].weight_bytes, "memory is counted for each");
    toml("[ladder]\ntarget_p99_ms = 250\n");
    let refused = Runtime::builder().named_model(MODEL, directory.path()).build().err().unwrap().to_string();
    assert!(refused.contains("'ladder.precisions' is empty; name"), "{refused}");
}

#[test]
fn each_rung_needs_a_decision_of_its_own() {
    let source = ModelSource::new(zoo(MODEL)).ladder(LadderConfig::new([Int8]));
    let refused = Runtime::builder().model(source).build().err().unwrap().to_string();
    assert!(refused.starts_with("model 'tiny-bert-sentiment' may not serve in int8 on cpu"), "{refused}");
}
