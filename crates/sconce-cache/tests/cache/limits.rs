//! Every configured time and size at and beyond its bounds: it is used without a panic, or refused by name.

use std::time::Duration;

use sconce_cache::{
    BreakerConfig, BuildError, Cache, CacheConfig, Failure, FeatureCache, Found, Key, MemoryConfig, PostgresConfig,
    PostgresTier, RedisConfig, RedisTier, ReplicaConfig, SqliteConfig, SqliteTier, Tier, TierConfig, TierError,
    TierFuture, Value,
};

use crate::support::redis::{Clients as _, RedisServer};
use crate::support::{key, value};

const DAY: Duration = Duration::from_hours(24);
const CENTURY: Duration = Duration::from_hours(24 * 36_500);
const NANOSECOND: Duration = Duration::from_nanos(1);

/// A tier that is down.
struct Down;

impl Tier for Down {
    fn name(&self) -> &'static str {
        "down"
    }

    fn get_many<'a>(&'a self, _: &'a [Key]) -> TierFuture<'a, Result<Vec<Found>, TierError>> {
        Box::pin(async { Err(TierError::unavailable("down")) })
    }

    fn put_many<'a>(&'a self, _: &'a [(Key, Value)]) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(async { Err(TierError::unavailable("down")) })
    }
}

/// Uses a cache often enough that breakers open, and shuts it down.
async fn is_used(cache: Cache<&'static str>, what: &str) {
    for number in 0..20 {
        let key = key(&format!("{what} {number}"));
        let answer = cache.get_or_compute(key, &[], || async { Ok(value("good")) }).await;
        assert_eq!(answer.map(|answer| answer.value), Ok(value("good")), "{what}");
    }
    let bad = cache.get_or_compute(key(what), &[], || async { Err(Failure::BadInput("bad")) }).await;
    assert!(bad.is_err(), "{what}");
    cache.flush(Duration::MAX).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    cache.shutdown(Duration::MAX).await;
}

#[tokio::test]
async fn a_breaker_and_budgets_at_their_bounds_are_used_and_beyond_them_refused() {
    let breaker = |cool_down, max_cool_down, max_failures| BreakerConfig { max_failures, cool_down, max_cool_down };
    let tier = |get_budget, put_budget, breaker| TierConfig { get_budget, put_budget, max_value_bytes: 1000, breaker };
    let usual = BreakerConfig::default;
    let table = [
        (tier(DAY, DAY, breaker(DAY, DAY, 1)), None),
        (tier(NANOSECOND, NANOSECOND, breaker(NANOSECOND, DAY, 1)), None),
        (tier(DAY, DAY, breaker(NANOSECOND, NANOSECOND, u32::MAX)), None),
        (TierConfig { max_value_bytes: usize::MAX, ..tier(DAY, DAY, usual()) }, None),
        (TierConfig { max_value_bytes: 0, ..tier(DAY, DAY, usual()) }, Some("max_value_bytes")),
        (tier(DAY, DAY, breaker(Duration::MAX, Duration::MAX, 3)), Some("breaker.cool_down")),
        (tier(DAY, DAY, breaker(DAY + NANOSECOND, DAY + NANOSECOND, 3)), Some("breaker.cool_down")),
        (tier(DAY, DAY, breaker(NANOSECOND, Duration::MAX, 3)), Some("breaker.max_cool_down")),
        (tier(DAY, DAY, breaker(Duration::ZERO, DAY, 3)), Some("breaker.cool_down")),
        (tier(DAY, DAY, breaker(DAY, Duration::ZERO, 3)), Some("breaker.max_cool_down")),
        (tier(DAY, DAY, breaker(DAY, DAY, 0)), Some("breaker.max_failures")),
        (tier(Duration::MAX, DAY, usual()), Some("get_budget")),
        (tier(Duration::ZERO, DAY, usual()), Some("get_budget")),
        (tier(DAY, Duration::MAX, usual()), Some("put_budget")),
        (tier(DAY, Duration::ZERO, usual()), Some("put_budget")),
    ];
    for (config, refused) in table {
        let built = Cache::builder().tier(Down, config.clone()).build();
        used_or_refused(built, refused, &format!("{config:?}")).await;
    }
}

async fn used_or_refused(built: Result<Cache<&'static str>, BuildError>, refused: Option<&str>, what: &str) {
    match (built, refused) {
        (Ok(cache), None) => is_used(cache, what).await,
        (Err(BuildError::Config(error)), Some(field)) => assert_eq!(error.field, field, "{what}: {error}"),
        (Ok(_), Some(field)) => panic!("{field} is out of bounds: {what}"),
        (Err(error), _) => panic!("{error}: {what}"),
    }
}

#[tokio::test]
async fn a_stack_and_its_memory_at_their_bounds_are_used_and_beyond_them_refused() {
    let stack = CacheConfig::default;
    let table = [
        (
            CacheConfig {
                max_queue_size: 1 << 20,
                max_queue_bytes: usize::MAX,
                max_batch_size: 1 << 16,
                negative_ttl: CENTURY,
                max_negatives: u64::MAX,
            },
            None,
        ),
        (
            CacheConfig {
                max_queue_size: 1,
                max_queue_bytes: 1,
                max_batch_size: 1,
                negative_ttl: Duration::ZERO,
                max_negatives: 0,
            },
            None,
        ),
        (CacheConfig { max_queue_size: usize::MAX, ..stack() }, Some("max_queue_size")),
        (CacheConfig { max_queue_size: 0, ..stack() }, Some("max_queue_size")),
        (CacheConfig { max_queue_bytes: 0, ..stack() }, Some("max_queue_bytes")),
        (CacheConfig { max_batch_size: usize::MAX, ..stack() }, Some("max_batch_size")),
        (CacheConfig { max_batch_size: 0, ..stack() }, Some("max_batch_size")),
        (CacheConfig { negative_ttl: Duration::MAX, ..stack() }, Some("negative_ttl")),
    ];
    for (config, refused) in table {
        let built = Cache::builder().config(config.clone()).tier(Down, TierConfig::default()).build();
        used_or_refused(built, refused, &format!("{config:?}")).await;
    }
    let table = [
        (MemoryConfig { max_bytes: u64::MAX, ttl: CENTURY }, None),
        (MemoryConfig { max_bytes: 1, ttl: Duration::from_millis(1) }, None),
        (MemoryConfig { max_bytes: 0, ttl: CENTURY }, Some("max_bytes")),
        (MemoryConfig { max_bytes: 1, ttl: Duration::MAX }, Some("ttl")),
        (MemoryConfig { max_bytes: 1, ttl: Duration::ZERO }, Some("ttl")),
    ];
    for (config, refused) in table {
        let built = Cache::builder().memory(config.clone()).build();
        used_or_refused(built, refused, &format!("{config:?}")).await;
    }
}

#[tokio::test]
async fn replicas_at_their_bounds_are_used_and_beyond_them_refused() {
    let server = RedisServer::start();
    let redis = server.tier().await;
    let replicas = ReplicaConfig::default;
    let table = [
        (ReplicaConfig { lease: DAY, max_wait: DAY, poll: DAY, budget: DAY, ..replicas() }, None),
        (
            ReplicaConfig {
                lease: Duration::from_millis(1),
                max_wait: Duration::ZERO,
                poll: NANOSECOND,
                budget: DAY,
                ..replicas()
            },
            None,
        ),
        (ReplicaConfig { lease: Duration::MAX, ..replicas() }, Some("lease")),
        (ReplicaConfig { lease: NANOSECOND, ..replicas() }, Some("lease")),
        (ReplicaConfig { max_wait: Duration::MAX, ..replicas() }, Some("max_wait")),
        (ReplicaConfig { poll: Duration::MAX, ..replicas() }, Some("poll")),
        (ReplicaConfig { poll: Duration::ZERO, ..replicas() }, Some("poll")),
        (ReplicaConfig { budget: Duration::MAX, ..replicas() }, Some("budget")),
        (ReplicaConfig { budget: Duration::ZERO, ..replicas() }, Some("budget")),
    ];
    for (config, refused) in table {
        let patient = TierConfig { get_budget: DAY, put_budget: DAY, ..TierConfig::default() };
        let built = Cache::builder().tier(redis.clone(), patient).replicas(redis.clone(), config.clone()).build();
        used_or_refused(built, refused, &format!("{config:?}")).await;
    }
}

#[tokio::test]
async fn a_sqlite_tier_at_its_bounds_is_used_and_beyond_them_refused() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = || SqliteConfig::new(directory.path().join("cache"));
    let mut table = vec![
        (SqliteConfig { ttl: Some(CENTURY), max_bytes: u64::MAX, mmap_bytes: u64::MAX, ..sqlite() }, None),
        (SqliteConfig { max_bytes: 1 << 20, mmap_bytes: 0, readers: 1, max_queue_size: 1, ..sqlite() }, None),
        (SqliteConfig { readers: 256, max_queue_size: 1 << 20, ..sqlite() }, None),
        (SqliteConfig { max_bytes: (1 << 20) - 1, ..sqlite() }, Some("max_bytes")),
        (SqliteConfig { readers: usize::MAX, ..sqlite() }, Some("readers")),
        (SqliteConfig { readers: 0, ..sqlite() }, Some("readers")),
        (SqliteConfig { max_queue_size: usize::MAX, ..sqlite() }, Some("max_queue_size")),
        (SqliteConfig { max_queue_size: 0, ..sqlite() }, Some("max_queue_size")),
    ];
    for ttl in [Duration::MAX, CENTURY + NANOSECOND, Duration::ZERO, NANOSECOND] {
        table.push((SqliteConfig { ttl: Some(ttl), ..sqlite() }, Some("ttl")));
    }
    for (config, refused) in table {
        match (SqliteTier::open(&config), refused) {
            (Ok(tier), None) => {
                tier.put_many(&[(key("one"), value("one"))])
                    .await
                    .unwrap_or_else(|error| panic!("{error}: {config:?}"));
                let found = tier.get_many(&[key("one")]).await.unwrap_or_else(|error| panic!("{error}: {config:?}"));
                assert_eq!(found, [Found::Hit(value("one"))], "{config:?}");
            }
            (Err(error), Some(field)) => assert!(error.to_string().starts_with(&format!("{field} is ")), "{error}"),
            (Ok(_), Some(field)) => panic!("{field} is out of bounds: {config:?}"),
            (Err(error), None) => panic!("{error}: {config:?}"),
        }
    }
}

#[tokio::test]
async fn a_redis_tier_at_its_bounds_is_used_and_beyond_them_refused() {
    let server = RedisServer::start();
    let redis = || server.config();
    let mut table = vec![
        (RedisConfig { ttl: CENTURY, ttl_jitter: 0.0, connect_timeout: DAY, timeout: DAY, ..redis() }, None),
        (RedisConfig { ttl: CENTURY, ttl_jitter: 1.0, ..redis() }, None),
        (RedisConfig { ttl_jitter: f64::NAN, ..redis() }, Some("ttl_jitter")),
        (RedisConfig { ttl_jitter: f64::INFINITY, ..redis() }, Some("ttl_jitter")),
        (RedisConfig { ttl_jitter: -0.1, ..redis() }, Some("ttl_jitter")),
    ];
    for time in [Duration::MAX, Duration::ZERO, DAY + NANOSECOND] {
        table.push((RedisConfig { connect_timeout: time, ..redis() }, Some("connect_timeout")));
        table.push((RedisConfig { timeout: time, ..redis() }, Some("timeout")));
    }
    for ttl in [Duration::MAX, Duration::ZERO, CENTURY + NANOSECOND] {
        table.push((RedisConfig { ttl, ..redis() }, Some("ttl")));
    }
    for (config, refused) in table {
        match (RedisTier::open(&config), refused) {
            (Ok(tier), None) => {
                tier.put_many(&[(key("one"), value("one"))]).await.expect("a server that answers");
                tier.get_many(&[key("one")]).await.expect("a server that answers");
            }
            (Err(error), Some(field)) => assert!(error.to_string().starts_with(&format!("{field} is ")), "{error}"),
            (Ok(_), Some(field)) => panic!("{field} is out of bounds"),
            (Err(error), None) => panic!("{error}: {config:?}"),
        }
    }
}

#[tokio::test]
async fn a_postgres_tier_at_its_bounds_is_made_and_beyond_them_refused() {
    let postgres = || PostgresConfig::new("postgres://nobody@localhost:1/nothing");
    let table = [
        (PostgresConfig { ttl: Some(CENTURY), max_connections: 4096, connect_timeout: DAY, ..postgres() }, None),
        (PostgresConfig { max_connections: 1, connect_timeout: NANOSECOND, ..postgres() }, None),
        (PostgresConfig { max_connections: usize::MAX, ..postgres() }, Some("max_connections")),
        (PostgresConfig { max_connections: 0, ..postgres() }, Some("max_connections")),
        (PostgresConfig { connect_timeout: Duration::MAX, ..postgres() }, Some("connect_timeout")),
        (PostgresConfig { connect_timeout: Duration::ZERO, ..postgres() }, Some("connect_timeout")),
        (PostgresConfig { ttl: Some(Duration::MAX), ..postgres() }, Some("ttl")),
        (PostgresConfig { ttl: Some(Duration::ZERO), ..postgres() }, Some("ttl")),
    ];
    for (config, refused) in table {
        match (PostgresTier::open(&config), refused) {
            // No server listens at the address.
            (Ok(tier), None) => assert!(tier.get_many(&[key("one")]).await.is_err()),
            (Err(error), Some(field)) => assert!(error.to_string().starts_with(&format!("{field} is ")), "{error}"),
            (Ok(_), Some(field)) => panic!("{field} is out of bounds"),
            (Err(error), None) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn prepared_inputs_take_any_bound_but_none_and_a_weight_of_any_size() {
    let error = FeatureCache::<u8, ()>::new(0, |_| 1).err().expect("nothing fits");
    assert_eq!(error.field, "max_bytes");
    let digest = sconce_cache::Digest::of(b"how");
    for (max_bytes, weight) in [(1, 1), (u64::MAX, 1), (u64::MAX, usize::MAX)] {
        let features = FeatureCache::<u8, ()>::new(max_bytes, move |_| weight).unwrap();
        assert_eq!(features.get_or_prepare(digest, b"input", || async { Ok(7) }).await, Ok(7));
        features.tidy_up();
    }
}
