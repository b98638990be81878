//! The suite that every tier must pass. A new tier gets these tests by being listed at the end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sconce_cache::{
    Found, Key, MemoryConfig, MemoryTier, PostgresConfig, PostgresTier, RedisConfig, RedisTier, SqliteConfig,
    SqliteTier, Tier, TierError, TierFuture, Value,
};

use crate::support::postgres::{Clients as _, PostgresServer};
use crate::support::redis::{Clients as _, RedisServer};
use crate::support::{eventually, key, keys, large_value, value};

const SHORT: Duration = Duration::from_secs(1);
const BOUND: u64 = 4 << 20;

/// A kind of tier, in the configurations that the suite needs.
struct Subject {
    tier: Arc<dyn Tier>,
    /// The same kind of tier, with a time to live of `SHORT`.
    short: Arc<dyn Tier>,
    bounded: Option<Bounded>,
    spoil: Option<Spoil>,
}

/// The same kind of tier, with room for `BOUND` bytes.
struct Bounded {
    tier: Arc<dyn Tier>,
    held_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Bytes of the store when it is empty.
    overhead: u64,
}

/// Replaces the stored bytes of a key. The memory tier holds values, not bytes, and cannot hold broken ones.
type Spoil = Box<dyn Fn(Key, Vec<u8>) -> TierFuture<'static, ()> + Send + Sync>;

async fn get(tier: &Arc<dyn Tier>, key: Key) -> Found {
    tier.get_many(&[key]).await.expect("the tier works").remove(0)
}

async fn put(tier: &Arc<dyn Tier>, key: Key, value: Value) {
    tier.put_many(&[(key, value)]).await.expect("the tier works");
}

async fn the_suite_holds(subject: Subject) {
    many_keys_are_answered_in_the_order_asked(&subject).await;
    a_later_value_takes_the_place_of_an_earlier_one(&subject).await;
    nothing_is_asked_and_nothing_is_stored(&subject).await;
    keys_with_the_same_beginning_are_never_taken_for_each_other(&subject).await;
    a_large_value_comes_back_whole(&subject).await;
    what_is_not_an_intact_value_is_corrupt_until_it_is_overwritten(&subject).await;
    many_can_read_and_write_at_once(&subject).await;
    an_entry_is_gone_when_its_time_is_over(&subject).await;
    a_bounded_tier_keeps_its_bound_and_goes_on_answering(&subject).await;
}

async fn many_keys_are_answered_in_the_order_asked(subject: &Subject) {
    let keys = keys("order", 100);
    let even: Vec<_> = (0..100).step_by(2).map(|number| (keys[number], value(&format!("value {number}")))).collect();
    subject.tier.put_many(&even).await.expect("the tier works");
    let mut wanted: Vec<_> = keys.iter().rev().copied().collect();
    wanted.extend([keys[4], keys[5], keys[4]]);
    let found = subject.tier.get_many(&wanted).await.expect("the tier works");
    assert_eq!(found.len(), wanted.len());
    for (key, found) in wanted.iter().zip(found) {
        let number = keys.iter().position(|other| other == key).expect("it is one of them");
        let expected = if number % 2 == 0 { Found::Hit(value(&format!("value {number}"))) } else { Found::Miss };
        assert_eq!(found, expected, "{number}");
    }
}

async fn a_later_value_takes_the_place_of_an_earlier_one(subject: &Subject) {
    let key = key("overwritten");
    put(&subject.tier, key, value("first")).await;
    put(&subject.tier, key, value("second")).await;
    assert_eq!(get(&subject.tier, key).await, Found::Hit(value("second")));
    subject.tier.put_many(&[(key, value("third")), (key, value("fourth"))]).await.expect("the tier works");
    assert_eq!(get(&subject.tier, key).await, Found::Hit(value("fourth")));
}

async fn nothing_is_asked_and_nothing_is_stored(subject: &Subject) {
    assert_eq!(subject.tier.get_many(&[]).await.expect("the tier works"), []);
    subject.tier.put_many(&[]).await.expect("the tier works");
}

async fn keys_with_the_same_beginning_are_never_taken_for_each_other(subject: &Subject) {
    let with_end = |end| {
        let mut bytes = [9; 32];
        bytes[31] = end;
        Key::from_bytes(bytes)
    };
    put(&subject.tier, with_end(1), value("one")).await;
    assert_eq!(get(&subject.tier, with_end(2)).await, Found::Miss);
    put(&subject.tier, with_end(2), value("two")).await;
    assert_eq!(get(&subject.tier, with_end(2)).await, Found::Hit(value("two")));
    let first = get(&subject.tier, with_end(1)).await;
    assert!(first == Found::Miss || first == Found::Hit(value("one")), "{first:?}");
}

async fn a_large_value_comes_back_whole(subject: &Subject) {
    let (key, large) = (key("large"), large_value(6 << 20));
    put(&subject.tier, key, large.clone()).await;
    let found = get(&subject.tier, key).await;
    assert!(found == Found::Hit(large), "six megabytes differ");
}

async fn what_is_not_an_intact_value_is_corrupt_until_it_is_overwritten(subject: &Subject) {
    let Some(spoil) = &subject.spoil else { return };
    let good = value("good");
    let mut flipped = good.encoded().to_vec();
    *flipped.last_mut().expect("it is not empty") ^= 1;
    let cut = good.encoded()[..good.encoded().len() - 1].to_vec();
    let mut other_version = good.encoded().to_vec();
    other_version[4] += 1;
    for broken in [flipped, cut, other_version, b"somebody else's".to_vec(), Vec::new()] {
        let key = key("spoilt");
        put(&subject.tier, key, good.clone()).await;
        spoil(key, broken.clone()).await;
        assert_eq!(get(&subject.tier, key).await, Found::Corrupt, "{broken:?}");
        put(&subject.tier, key, good.clone()).await;
        assert_eq!(get(&subject.tier, key).await, Found::Hit(good.clone()));
    }
}

async fn many_can_read_and_write_at_once(subject: &Subject) {
    let own = (0..8).map(|worker| {
        let tier = Arc::clone(&subject.tier);
        tokio::spawn(async move {
            for round in 0..40 {
                // Half of the keys are the worker's own, half are shared; a batch has both, in different orders.
                let texts = [format!("worker {worker} {round}"), format!("shared {}", (round * 7 + worker) % 20)];
                let entries: Vec<_> = texts.iter().map(|text| (key(text), value(text))).collect();
                tier.put_many(&entries).await.expect("the tier works");
                let found = tier.get_many(&texts.each_ref().map(|text| key(text))).await.expect("the tier works");
                assert_eq!(found, texts.map(|text| Found::Hit(value(&text))));
            }
        })
    });
    for worker in join_all(own).await {
        worker.expect("no worker panics");
    }
}

async fn an_entry_is_gone_when_its_time_is_over(subject: &Subject) {
    let (early, late) = (key("early"), key("late"));
    put(&subject.short, early, value("early")).await;
    assert_eq!(get(&subject.short, early).await, Found::Hit(value("early")), "it stays for a second");
    eventually("the entry is gone", async || get(&subject.short, early).await == Found::Miss).await;
    // A write sweeps expired entries, and a new value gets a new time to live.
    put(&subject.short, late, value("late")).await;
    put(&subject.short, early, value("early again")).await;
    assert_eq!(get(&subject.short, early).await, Found::Hit(value("early again")));
}

async fn a_bounded_tier_keeps_its_bound_and_goes_on_answering(subject: &Subject) {
    let Some(Bounded { tier, held_bytes, overhead }) = &subject.bounded else { return };
    let filler = large_value(64 << 10);
    let keys = keys("bound", 200);
    let mut refused = 0;
    for key in &keys {
        match tier.put_many(&[(*key, filler.clone())]).await {
            Ok(()) => {}
            Err(TierError::Full) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let found = tier.get_many(&keys).await.expect("the tier works");
    let hits = found.iter().filter(|found| **found == Found::Hit(filler.clone())).count();
    let misses = found.iter().filter(|found| **found == Found::Miss).count();
    assert_eq!(hits + misses, keys.len(), "nothing is corrupt");
    assert!(hits >= 20, "it holds something like its bound: {hits} of 64 KiB");
    assert!(misses >= keys.len() - 64 && refused <= misses, "{hits} hits, {refused} refused");
    let held = held_bytes();
    assert!(held <= BOUND + overhead, "{held} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    let tier = |config| Arc::new(MemoryTier::new(&config).unwrap());
    let small = tier(MemoryConfig { max_bytes: BOUND, ..MemoryConfig::default() });
    let bounded = Arc::clone(&small);
    let held_bytes = move || {
        bounded.tidy_up();
        bounded.held_bytes()
    };
    the_suite_holds(Subject {
        tier: tier(MemoryConfig::default()),
        short: tier(MemoryConfig { ttl: SHORT, ..MemoryConfig::default() }),
        bounded: Some(Bounded { tier: small, held_bytes: Box::new(held_bytes), overhead: 0 }),
        spoil: None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_conforms() {
    let server = RedisServer::start();
    let used = |server: &RedisServer| {
        let memory: ::redis::InfoDict = ::redis::cmd("INFO").arg("memory").query(&mut server.connection()).unwrap();
        memory.get::<u64>("used_memory").unwrap()
    };
    // The memory of an idle Redis counts towards its bound.
    let base = used(&server);
    let max = (base + BOUND).to_string();
    let small = RedisServer::start_with(&["--maxmemory", &max, "--maxmemory-policy", "allkeys-lru"]);
    let (bounded, connection) = (small.tier().await, small.url());
    let held_bytes = move || {
        let mut connection = ::redis::Client::open(connection.as_str()).unwrap().get_connection().unwrap();
        let memory: ::redis::InfoDict = ::redis::cmd("INFO").arg("memory").query(&mut connection).unwrap();
        memory.get("used_memory").unwrap()
    };
    let url = server.url();
    let spoil = move |key: Key, bytes: Vec<u8>| {
        let mut connection = ::redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
        let name = [b"sconce:", &key.as_bytes()[..]].concat();
        let () = ::redis::cmd("SET").arg(name).arg(bytes).query(&mut connection).unwrap();
        Box::pin(async {}) as TierFuture<'static, ()>
    };
    let short = RedisConfig { ttl: SHORT, prefix: "short:".into(), ..server.config() };
    the_suite_holds(Subject {
        tier: Arc::new(server.tier().await),
        short: Arc::new(RedisTier::open(&short).unwrap()),
        // Buffers of connections are not evicted.
        bounded: Some(Bounded {
            tier: Arc::new(bounded),
            held_bytes: Box::new(held_bytes),
            overhead: base + (1 << 20),
        }),
        spoil: Some(Box::new(spoil)),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let config = |name: &str| SqliteConfig::new(directory.path().join(name));
    let open = |config: &SqliteConfig| Arc::new(SqliteTier::open(config).unwrap());
    let small = SqliteConfig { max_bytes: BOUND, ..config("small") };
    let path = small.path.clone();
    let held_bytes = move || std::fs::metadata(&path).unwrap().len();
    let path = config("tier").path;
    let spoil = move |key: Key, bytes: Vec<u8>| {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        let changed = connection.execute("UPDATE entries SET value = ?1 WHERE key = ?2", (bytes, key.as_bytes()));
        assert_eq!(changed, Ok(1));
        Box::pin(async {}) as TierFuture<'static, ()>
    };
    the_suite_holds(Subject {
        tier: open(&config("tier")),
        short: open(&SqliteConfig { ttl: Some(SHORT), ..config("short") }),
        bounded: Some(Bounded { tier: open(&small), held_bytes: Box::new(held_bytes), overhead: 0 }),
        spoil: Some(Box::new(spoil)),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_conforms() {
    let server = PostgresServer::start();
    // Two replicas that start at once make one table.
    let (tier, _) = tokio::join!(server.tier(), server.tier());
    let client = Arc::new(server.client().await);
    let spoil = move |key: Key, bytes: Vec<u8>| {
        let client = Arc::clone(&client);
        Box::pin(async move {
            let update = "UPDATE sconce_entries SET value = $1 WHERE key = $2";
            let changed = client.execute(update, &[&bytes, &&key.as_bytes()[..]]).await;
            assert_eq!(changed.unwrap(), 1);
        }) as TierFuture<'static, ()>
    };
    let short = PostgresConfig { ttl: Some(SHORT), ..server.config() };
    the_suite_holds(Subject {
        tier: Arc::new(tier),
        short: Arc::new(PostgresTier::open(&short).unwrap()),
        // The tier does not bound its table.
        bounded: None,
        spoil: Some(Box::new(spoil)),
    })
    .await;
}
