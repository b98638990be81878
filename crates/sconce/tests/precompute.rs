//! Precomputing answers into a tier, on a model of the zoo.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use sconce::cache::{Found, Key, SqliteConfig, SqliteTier, Tier, TierConfig, TierError, TierFuture, Value};
use sconce::{
    AnswerCache, InferError, Input, Model, ModelSource, PrecomputeConfig, PrecomputeError, Precomputed, Runtime,
};

const SENTIMENT: &str = "tiny-bert-sentiment";

fn zoo(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo").join(model)
}

fn runtime() -> (Runtime, Model) {
    let runtime = Runtime::builder().model(zoo(SENTIMENT)).build().expect("it loads");
    let model = runtime.models().remove(0);
    (runtime, model)
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("text {number} of many")).collect()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    stored: usize,
    found: usize,
    duplicate: usize,
    failed: usize,
}

async fn precompute(
    model: &Model,
    tier: &dyn Tier,
    config: &PrecomputeConfig,
    texts: &[String],
) -> Result<Tally, PrecomputeError> {
    let mut texts = texts.iter();
    let mut tally = Tally::default();
    let done = |(), outcome| match outcome {
        Precomputed::Stored => tally.stored += 1,
        Precomputed::Found => tally.found += 1,
        Precomputed::Duplicate => tally.duplicate += 1,
        Precomputed::Failed(InferError::Input(_)) => tally.failed += 1,
        other => panic!("{other:?}"),
    };
    let next = async || texts.next().map(|text| ((), Input::from(text.as_str())));
    model.precompute(tier, config, next, done).await?;
    Ok(tally)
}

fn tally(stored: usize, found: usize, duplicate: usize, failed: usize) -> Tally {
    Tally { stored, found, duplicate, failed }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_computed_ahead_is_found_by_requests_and_not_computed_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || SqliteTier::open(&SqliteConfig::new(directory.path().join("answers"))).unwrap();
    let (runtime, model) = runtime();
    let mut texts = texts(600);
    texts.push("x".repeat(2 << 20)); // the model refuses texts of more than a megabyte
    let config = PrecomputeConfig { max_batch_size: 64, ..PrecomputeConfig::default() };
    assert_eq!(precompute(&model, &open(), &config, &texts).await.unwrap(), tally(600, 0, 0, 1));
    assert_eq!(model.stats().batched, 600);
    texts.extend(["one more".to_owned(), "one more".to_owned()]);
    let second = precompute(&model, &open(), &config, &texts).await.unwrap();
    assert_eq!(second.stored, 1);
    assert_eq!((second.found + second.duplicate, second.failed), (601, 1));
    assert_eq!(model.stats().batched, 601, "none of them twice");
    runtime.shutdown().await;

    let patient = TierConfig { get_budget: Duration::from_secs(10), ..TierConfig::default() };
    let cache = AnswerCache::builder().tier(open(), patient).build().unwrap();
    let runtime = Runtime::builder().model(zoo(SENTIMENT)).cache(cache).build().unwrap();
    let model = &runtime.model(SENTIMENT).unwrap();
    for text in texts.iter().take(600).step_by(7) {
        let found = model.infer(text.as_str()).await.unwrap();
        assert_eq!(found.source.name(), "sqlite");
        let computed = model.infer(sconce::Request::new(text.as_str()).uncached()).await.unwrap();
        assert_eq!(found.output, computed.output);
    }
}

/// A tier in a map that fails or panics when a test says so.
#[derive(Default)]
struct Faulty {
    entries: Mutex<BTreeMap<Key, Value>>,
    /// Number of operations from now on that fail.
    failures: AtomicU32,
    /// Most entries; then the tier is full.
    room: Option<usize>,
    puts: AtomicUsize,
}

impl Faulty {
    fn fails(&self) -> bool {
        self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

impl Tier for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> TierFuture<'a, Result<Vec<Found>, TierError>> {
        Box::pin(async {
            if self.fails() {
                return Err(TierError::unavailable("it was told to fail"));
            }
            let entries = self.entries.lock().expect("no test panics with the entries");
            Ok(keys.iter().map(|key| entries.get(key).cloned().map_or(Found::Miss, Found::Hit)).collect())
        })
    }

    fn put_many<'a>(&'a self, new: &'a [(Key, Value)]) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(async {
            if self.fails() {
                return Err(TierError::unavailable("it was told to fail"));
            }
            let mut entries = self.entries.lock().expect("no test panics with the entries");
            if self.room.is_some_and(|room| entries.len() + new.len() > room) {
                return Err(TierError::Full);
            }
            entries.extend(new.iter().cloned());
            self.puts.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_that_fails_for_a_while_is_tried_again_and_loses_nothing() {
    let (_runtime, model) = runtime();
    let tier = Faulty { failures: AtomicU32::new(3), ..Faulty::default() };
    let done = precompute(&model, &tier, &PrecomputeConfig::default(), &texts(50)).await.unwrap();
    assert_eq!(done, tally(50, 0, 0, 0));
    assert_eq!(tier.entries.lock().unwrap().len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_that_goes_on_failing_or_is_full_ends_it_and_the_next_run_goes_on_from_there() {
    let (_runtime, model) = runtime();
    let mut tier = Faulty { room: Some(40), ..Faulty::default() };
    let config = PrecomputeConfig { max_batch_size: 16, ..PrecomputeConfig::default() };
    let full = precompute(&model, &tier, &config, &texts(100)).await.unwrap_err();
    assert_eq!(full.to_string(), "the faulty tier is full");
    let stored = tier.entries.lock().unwrap().len();
    assert!(stored > 0, "what was stored stays");
    tier.room = None;
    tier.failures = AtomicU32::new(5);
    let dead = precompute(&model, &tier, &config, &texts(100)).await.unwrap_err();
    let expected = "the faulty tier failed 5 times in a row: the tier is unavailable: it was told to fail";
    assert_eq!(dead.to_string(), expected);
    assert_eq!(precompute(&model, &tier, &config, &texts(100)).await.unwrap(), tally(100 - stored, stored, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_source_is_served_as_it_comes() {
    let (_runtime, model) = runtime();
    let tier = Faulty::default();
    let (sender, mut inputs) = tokio::sync::mpsc::channel(1);
    let (report, mut stored) = tokio::sync::mpsc::unbounded_channel();
    let run = async {
        let next = async || inputs.recv().await;
        let done = |id: usize, outcome: Precomputed| {
            assert!(matches!(outcome, Precomputed::Stored), "{outcome:?}");
            report.send(id).unwrap();
        };
        model.precompute(&tier, &PrecomputeConfig::default(), next, done).await.unwrap();
    };
    let source = async {
        for (id, text) in texts(3).into_iter().enumerate() {
            sender.send((id, Input::from(text))).await.unwrap();
            // The next input comes only once this one is stored.
            assert_eq!(stored.recv().await, Some(id));
        }
        drop(sender);
    };
    tokio::join!(run, source);
    assert_eq!(tier.puts.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn another_name_or_precision_is_another_answer() {
    let tier = Faulty::default();
    let text = texts(1);
    for source in [
        ModelSource::new(zoo(SENTIMENT)),
        ModelSource::new(zoo(SENTIMENT)).name("other"),
        ModelSource::new(zoo(SENTIMENT)).precision(sconce::Precision::Int8),
    ] {
        let runtime = Runtime::builder().allow_undecided(true).model(source).build().unwrap();
        let model = &runtime.models().remove(0);
        let config = PrecomputeConfig::default();
        assert_eq!(precompute(model, &tier, &config, &text).await.unwrap(), tally(1, 0, 0, 0));
        assert_eq!(precompute(model, &tier, &config, &text).await.unwrap(), tally(0, 1, 0, 0));
    }
}

#[tokio::test]
async fn a_bound_that_cannot_be_is_refused_and_the_largest_and_smallest_are_used() {
    let (_runtime, model) = runtime();
    let usual = PrecomputeConfig::default;
    for (config, message) in [
        (PrecomputeConfig { max_batch_size: 0, ..usual() }, "max_batch_size is 0, but must be between 1 and 65536"),
        (
            PrecomputeConfig { max_batch_size: usize::MAX, ..usual() },
            "max_batch_size is 18446744073709551615, but must be between 1 and 65536",
        ),
        (PrecomputeConfig { max_attempts: 0, ..usual() }, "max_attempts is 0, but must be at least 1"),
    ] {
        let refused = precompute(&model, &Faulty::default(), &config, &texts(1)).await.unwrap_err();
        assert_eq!(refused.to_string(), message);
    }
    for (max_batch_size, max_attempts) in [(1, 1), (65_536, u32::MAX)] {
        let config = PrecomputeConfig { max_batch_size, max_attempts, ..usual() };
        let done = precompute(&model, &Faulty::default(), &config, &texts(3)).await.unwrap();
        assert_eq!(done, tally(3, 0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_between_attempts_have_a_bound_however_many_there_are() {
    let (_runtime, model) = runtime();
    let tier = Faulty { failures: AtomicU32::new(200), ..Faulty::default() };
    let config = PrecomputeConfig { max_attempts: u32::MAX, ..PrecomputeConfig::default() };
    let began = tokio::time::Instant::now();
    assert_eq!(precompute(&model, &tier, &config, &texts(1)).await.unwrap(), tally(1, 0, 0, 0));
    assert!(began.elapsed() < 200 * Duration::from_mins(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn answers_that_nobody_would_find_are_not_computed() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join(SENTIMENT);
    std::fs::create_dir(&copy).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(zoo(SENTIMENT).join(file), copy.join(file)).unwrap();
    }
    std::fs::write(copy.join("sconce.toml"), "[cache]\nanswers = false").unwrap();
    let runtime = Runtime::builder().model(copy).build().unwrap();
    let model = &runtime.model(SENTIMENT).unwrap();
    let refused = precompute(model, &Faulty::default(), &PrecomputeConfig::default(), &texts(1)).await.unwrap_err();
    assert!(matches!(refused, PrecomputeError::NeverCached { .. }), "{refused}");
    assert_eq!(model.stats().batched, 0);
}
