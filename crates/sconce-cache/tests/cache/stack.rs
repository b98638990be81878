//! The stack: order of tiers, promotion, writing behind, single flight, precisions, remembered bad inputs.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sconce_cache::{
    Cache, CacheBuilder, CacheConfig, CrossPrecision, Digest, Dtype, Failure, Found, KeyFields, KeyTensor,
    MemoryConfig, Source, SourcedValue, SqliteConfig, SqliteTier, TensorView, Tier, TierConfig, Value,
};
use tokio::sync::Notify;

use crate::support::redis::{Clients as _, RedisServer};
use crate::support::{eventually, key, keys, large_value, value};

const MINUTE: Duration = Duration::from_mins(1);

#[derive(Debug, PartialEq)]
struct Fault(&'static str);

fn builder() -> CacheBuilder<Fault> {
    Cache::builder()
}

/// A configuration with long budgets, so that a busy machine does not disturb a test.
fn patient() -> TierConfig {
    TierConfig { get_budget: MINUTE, put_budget: MINUTE, ..TierConfig::default() }
}

fn in_memory() -> Cache<Fault> {
    builder().memory(MemoryConfig::default()).build().expect("a good configuration")
}

fn sqlite(directory: &tempfile::TempDir) -> Arc<SqliteTier> {
    Arc::new(SqliteTier::open(&SqliteConfig::new(directory.path().join("cache"))).expect("a good configuration"))
}

#[tokio::test]
async fn any_subset_of_tiers_is_a_cache_and_none_is_one_that_finds_nothing() {
    let (server, directory) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let (redis, sqlite) = (server.tier().await, sqlite(&directory));
    for subset in 0..8 {
        let mut stack = builder();
        let mut nearest = None;
        if subset & 1 != 0 {
            stack = stack.memory(MemoryConfig::default());
            nearest = nearest.or(Some("memory"));
        }
        if subset & 2 != 0 {
            stack = stack.tier(redis.clone(), patient());
            nearest = nearest.or(Some("redis"));
        }
        if subset & 4 != 0 {
            stack = stack.tier(Arc::clone(&sqlite), patient());
            nearest = nearest.or(Some("sqlite"));
        }
        let cache = stack.build().unwrap();
        let key = key(&format!("subset {subset}"));
        let computed = cache.get_or_compute(key, &[], || async { Ok(value("new")) }).await.unwrap();
        assert_eq!(computed, SourcedValue { value: value("new"), source: Source::Computed });
        cache.flush(MINUTE).await.unwrap();
        let expected = nearest.map(|tier| SourcedValue { value: value("new"), source: Source::Tier(tier) });
        assert_eq!(cache.get(key, &[]).await, expected);
        assert_eq!(cache.get_many(&[key]).await, [expected]);
        assert_eq!(cache.stats().tiers.len(), usize::count_ones(subset) as usize);
    }
}

#[tokio::test]
async fn what_a_lower_tier_has_is_promoted_to_all_above_it() {
    let (server, directory) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let (redis, sqlite) = (server.tier().await, sqlite(&directory));
    let stack = builder().memory(MemoryConfig::default()).tier(redis.clone(), patient());
    let cache = stack.tier(Arc::clone(&sqlite), patient()).build().unwrap();
    let keys = keys("promoted", 3);
    for key in &keys[..2] {
        sqlite.put_many(&[(*key, value("precomputed"))]).await.unwrap();
    }
    let source = |answer: Option<SourcedValue>| answer.map(|answer| answer.source);
    assert_eq!(source(cache.get(keys[0], &[]).await), Some(Source::Tier("sqlite")));
    assert_eq!(source(cache.get(keys[0], &[]).await), Some(Source::Tier("memory")));
    let many: Vec<_> = cache.get_many(&keys).await.into_iter().map(source).collect();
    assert_eq!(many, [Some(Source::Tier("memory")), Some(Source::Tier("sqlite")), None]);
    cache.flush(MINUTE).await.unwrap();
    let found = redis.get_many(&keys).await.unwrap();
    assert_eq!(found, [Found::Hit(value("precomputed")), Found::Hit(value("precomputed")), Found::Miss]);
    let stats = cache.stats();
    let [memory, redis, sqlite] = &stats.tiers[..] else { panic!("three tiers") };
    assert_eq!([memory.hits, redis.hits, sqlite.hits], [2, 0, 2]);
    assert_eq!([memory.misses, redis.misses, sqlite.misses], [3, 3, 1]);
    assert_eq!([memory.puts, redis.puts, sqlite.puts], [2, 2, 0]);
    assert_eq!(redis.written_bytes, 2 * value("precomputed").encoded().len() as u64);
    // One operation for a lookup, and one for a batch of two.
    assert_eq!([redis.reads.latency.count, sqlite.reads.latency.count], [2, 2]);
}

#[tokio::test]
async fn a_higher_precision_answers_for_a_lower_one_only_where_the_policy_says_so_and_never_the_reverse() {
    let cache = in_memory();
    let precisions = ["f32", "int8", "q4k"];
    let key_of = |precision| {
        let inputs = [KeyTensor { name: "x", dtype: Dtype::U8, shape: &[1], bytes: &[1] }];
        let (model, digest) = ("m", Digest::of(b""));
        KeyFields {
            model,
            weights: digest,
            precision,
            device_class: "cpu",
            processing: digest,
            parameters: &[],
            outputs: &[],
            inputs: &inputs,
        }
        .key()
    };
    let tensor = TensorView { name: "y", dtype: Dtype::U8, shape: &[1], bytes: &[2] };
    cache.put(key_of("int8"), &Value::new("int8", &[tensor]).unwrap());
    let made_by = async |asked, policy: CrossPrecision| {
        let instead: Vec<_> = policy.instead_of(asked, &precisions).map(key_of).collect();
        let answer = cache.get(key_of(asked), &instead).await;
        answer.map(|answer| answer.value.precision().to_owned())
    };
    assert_eq!(made_by("q4k", CrossPrecision::Never).await, None);
    assert_eq!(made_by("q4k", CrossPrecision::Higher).await.as_deref(), Some("int8"));
    assert_eq!(made_by("int8", CrossPrecision::Never).await.as_deref(), Some("int8"));
    assert_eq!(made_by("f32", CrossPrecision::Higher).await, None);
}

#[tokio::test]
async fn a_broken_value_is_a_miss_that_is_counted_and_the_next_answer_replaces_it() {
    let server = RedisServer::start();
    let cache = builder().tier(server.tier().await, patient()).build().unwrap();
    let key = key("broken");
    let name = [b"sconce:", &key.as_bytes()[..]].concat();
    let () = redis::cmd("SET").arg(name).arg("not a value").query(&mut server.connection()).unwrap();
    let answer = cache.get_or_compute(key, &[], || async { Ok(value("good")) }).await.unwrap();
    assert_eq!(answer.source, Source::Computed);
    cache.flush(MINUTE).await.unwrap();
    assert_eq!(cache.get(key, &[]).await.unwrap().value, value("good"));
    let stats = &cache.stats().tiers[0];
    assert_eq!((stats.corrupt, stats.misses, stats.hits), (1, 0, 1));
}

#[tokio::test]
async fn what_does_not_fit_into_the_queue_or_the_tier_is_dropped_and_counted_and_nobody_waits() {
    let server = RedisServer::start();
    let config = CacheConfig { max_queue_size: 4, max_batch_size: 1, ..CacheConfig::default() };
    let tier = TierConfig { max_value_bytes: 1000, ..patient() };
    let cache = builder().config(config).tier(server.tier().await, tier).build().unwrap();
    server.pause();
    let keys = keys("queue", 20);
    for key in &keys {
        cache.put(*key, &value("x"));
    }
    cache.put(key("large"), &large_value(1001));
    let lost = cache.stats().tiers[0].lost;
    assert!((15..=16).contains(&lost.queue_full), "4 wait and at most one is being written: {lost:?}");
    assert_eq!((lost.too_large, lost.failed), (1, 0));
    server.resume();
    cache.flush(MINUTE).await.unwrap();
    assert_eq!(cache.stats().tiers[0].puts, 20 - lost.queue_full);
}

#[tokio::test]
async fn bytes_that_wait_are_bounded_as_well() {
    let server = RedisServer::start();
    let config = CacheConfig { max_queue_bytes: 10_000, ..CacheConfig::default() };
    let cache = builder().config(config).tier(server.tier().await, patient()).build().unwrap();
    server.pause();
    for key in keys("bytes", 20) {
        cache.put(key, &large_value(1_000));
    }
    // The bound holds 9 values of 1,000 bytes with their headers.
    assert_eq!(cache.stats().tiers[0].lost.queue_full, 11);
    server.resume();
    cache.flush(MINUTE).await.unwrap();
    cache.put(key("room again"), &value("x"));
    cache.flush(MINUTE).await.unwrap();
    assert_eq!(cache.stats().tiers[0].puts, 10);
}

#[tokio::test]
async fn shutting_down_writes_what_waits_and_says_what_it_could_not_write_in_time() {
    let server = RedisServer::start();
    let build = async || builder().tier(server.tier().await, patient()).build().unwrap();
    let (cache, other) = (build().await, build().await);
    let keys = keys("shutdown", 200);
    for key in &keys[..100] {
        cache.put(*key, &value("x"));
    }
    assert_eq!(cache.shutdown(MINUTE).await, 0);
    assert_eq!(cache.stats().tiers[0].puts, 100);
    cache.put(keys[100], &value("too late"));
    assert_eq!(cache.stats().tiers[0].lost.queue_full, 1);
    assert!(cache.get(keys[0], &[]).await.is_some(), "lookups go on");

    server.pause();
    for key in &keys[100..] {
        other.put(*key, &value("x"));
    }
    let started = Instant::now();
    assert_eq!(other.shutdown(Duration::from_millis(200)).await, 100);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_requests_compute_once_and_all_get_the_answer() {
    let (cache, computed) = (Arc::new(in_memory()), Arc::new(AtomicUsize::new(0)));
    let callers = (0..200).map(|_| {
        let (cache, computed) = (Arc::clone(&cache), Arc::clone(&computed));
        tokio::spawn(async move {
            let compute = || async {
                computed.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(value("once"))
            };
            cache.get_or_compute(key("flight"), &[], compute).await.unwrap()
        })
    });
    let answers: Vec<_> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(computed.load(Ordering::SeqCst), 1);
    assert!(answers.iter().all(|answer| answer.value == value("once")));
    assert_eq!(answers.iter().filter(|answer| answer.source == Source::Computed).count(), 1);
    assert_eq!(cache.stats().computed, 1);
}

#[tokio::test]
async fn a_leader_that_goes_away_hands_over_to_one_who_waits() {
    let cache = in_memory();
    let mut leader = Box::pin(cache.get_or_compute(key("handed over"), &[], || async { pending().await }));
    let waiting = cache.get_or_compute(key("handed over"), &[], || async { Ok(value("by the second")) });
    let mut waiting = Box::pin(waiting);
    tokio::select! {
        biased;
        _ = &mut leader => panic!("it computes for ever"),
        _ = &mut waiting => panic!("somebody computes already"),
        () = std::future::ready(()) => {}
    }
    drop(leader);
    let answer = waiting.await.unwrap();
    assert_eq!(answer, SourcedValue { value: value("by the second"), source: Source::Computed });
}

#[tokio::test]
async fn a_leader_that_panics_hands_over_as_well() {
    let (cache, started) = (Arc::new(in_memory()), Arc::new(Notify::new()));
    let leader = tokio::spawn({
        let (cache, started) = (Arc::clone(&cache), Arc::clone(&started));
        async move {
            let compute = || async {
                started.notify_one();
                tokio::task::yield_now().await;
                panic!("this model panics");
            };
            cache.get_or_compute(key("panic"), &[], compute).await
        }
    });
    started.notified().await;
    let answer = cache.get_or_compute(key("panic"), &[], || async { Ok(value("fine")) }).await.unwrap();
    assert_eq!(answer.value, value("fine"));
    assert!(leader.await.unwrap_err().is_panic());
}

#[tokio::test]
async fn an_error_reaches_all_who_wait_and_is_not_kept() {
    let cache = in_memory();
    let go = Notify::new();
    let failing = || {
        cache.get_or_compute(key("error"), &[], || async {
            go.notified().await;
            Err(Failure::Passing(Fault("out of memory")))
        })
    };
    let (first, second, ()) = tokio::join!(failing(), failing(), async { go.notify_one() });
    let (first, second) = (first.unwrap_err(), second.unwrap_err());
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(*first, Fault("out of memory"));
    assert!(cache.get_or_compute(key("error"), &[], || async { Ok(value("now")) }).await.is_ok());
    let stats = cache.stats();
    assert_eq!((stats.computed, stats.failed, stats.shared, stats.negative_hits), (1, 1, 1, 0));
}

#[tokio::test]
async fn a_bad_input_is_remembered_for_a_short_time() {
    let config = CacheConfig { negative_ttl: Duration::from_secs(1), ..CacheConfig::default() };
    let cache = builder().config(config).memory(MemoryConfig::default()).build().unwrap();
    let ask = || cache.get_or_compute(key("bad"), &[], || async { Err(Failure::BadInput(Fault("empty text"))) });
    assert_eq!(*ask().await.unwrap_err(), Fault("empty text"));
    assert_eq!(*ask().await.unwrap_err(), Fault("empty text"));
    assert_eq!((cache.stats().failed, cache.stats().negative_hits), (1, 1));
    let good = async || cache.get_or_compute(key("bad"), &[], || async { Ok(value("good")) }).await.is_ok();
    eventually("it is computed again", good).await;
}

#[tokio::test]
async fn who_accepts_other_precisions_does_not_answer_for_who_does_not() {
    let cache = in_memory();
    let go = Notify::new();
    let strict = cache.get_or_compute(key("int8"), &[], || async {
        go.notified().await;
        Ok(value("strict"))
    });
    let lenient_keys = [key("f32")];
    let lenient = cache.get_or_compute(key("int8"), &lenient_keys, || async {
        go.notify_one();
        Ok(value("lenient"))
    });
    let (strict, lenient) = tokio::join!(strict, lenient);
    assert_eq!((strict.unwrap().value, lenient.unwrap().value), (value("strict"), value("lenient")));
}

#[tokio::test]
async fn a_cache_is_built_within_a_runtime_only() {
    let outside = std::thread::spawn(|| builder().build().err().map(|error| error.to_string())).join().unwrap();
    assert_eq!(outside.as_deref(), Some("a cache must be built within a tokio runtime"));
}
