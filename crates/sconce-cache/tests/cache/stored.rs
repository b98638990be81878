//! The suite that every tier must pass whose entries outlive the process: they are counted, copied and deleted. A new
//! tier gets these tests by being listed at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use sconce_cache::{
    Cache, Found, Key, PostgresConfig, PostgresTier, Purge, RedisConfig, RedisTier, SqliteConfig, SqliteTier,
    StoredTier, TierConfig, Value,
};

use crate::support::postgres::{Clients as _, PostgresServer};
use crate::support::redis::{Clients as _, RedisServer};
use crate::support::{eventually, key, keys, value};

const SHORT: Duration = Duration::from_secs(1);
const ENTRIES: usize = 250;

/// Runs the suite. `tier` and `short` are empty; entries of `short` expire after `SHORT`.
async fn the_suite_holds(tier: &dyn StoredTier, short: &dyn StoredTier, keeps_what_is_over: bool) {
    let empty = tier.usage().await.expect("the tier works");
    assert_eq!((empty.entries, empty.expired), (0, 0));
    assert_eq!(tier.scan(None, 10).await.expect("the tier works").entries, []);
    assert_eq!(tier.purge(Purge::All).await.expect("the tier works"), 0);

    let stored = fill(tier).await;
    let full = tier.usage().await.expect("the tier works");
    assert_eq!((full.entries, full.expired), (ENTRIES as u64, 0));
    let least: usize = stored.values().map(|value| value.encoded().len()).sum();
    assert!(full.bytes >= least as u64, "{full:?}");
    for page in [0, 1, 7, ENTRIES, 10_000, usize::MAX] {
        assert_eq!(scan_all(tier, page).await, stored, "{page} at a time");
    }

    assert_eq!(tier.purge(Purge::Expired).await.expect("the tier works"), 0, "nothing is over");
    assert_eq!(tier.purge(Purge::All).await.expect("the tier works"), ENTRIES as u64);
    assert_eq!(tier.usage().await.expect("the tier works").entries, 0);
    let (gone, _) = stored.first_key_value().expect("there were some");
    assert_eq!(tier.get_many(&[*gone]).await.expect("the tier works"), [Found::Miss]);

    fill(short).await;
    eventually("they are over", async || scan_all(short, 1000).await.is_empty()).await;
    let usage = short.usage().await.expect("the tier works");
    let over = if keeps_what_is_over { ENTRIES as u64 } else { 0 };
    assert_eq!((usage.entries, usage.expired), (over, over));
    assert_eq!(short.purge(Purge::Expired).await.expect("the tier works"), over);
    assert_eq!(short.usage().await.expect("the tier works").entries, 0);
}

async fn fill(tier: &dyn StoredTier) -> BTreeMap<Key, Value> {
    let entries: Vec<_> = keys("stored", ENTRIES)
        .into_iter()
        .enumerate()
        .map(|(number, key)| (key, value(&format!("value {number}"))))
        .collect();
    tier.put_many(&entries).await.expect("the tier works");
    entries.into_iter().collect()
}

async fn scan_all(tier: &dyn StoredTier, page: usize) -> BTreeMap<Key, Value> {
    let (mut all, mut from) = (BTreeMap::new(), None);
    loop {
        let scanned = tier.scan(from, page).await.expect("the tier works");
        assert_eq!(scanned.corrupt, 0);
        all.extend(scanned.entries);
        match scanned.next {
            None => return all,
            next => from = next,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_conforms() {
    let server = RedisServer::start();
    // Another service has entries in the same Redis, and this prefix has characters that are special in patterns.
    let others = server.tier().await;
    let other = fill(&others).await;
    let open = |prefix: &str, ttl| {
        RedisTier::open(&RedisConfig { prefix: prefix.to_owned(), ttl, ..server.config() }).unwrap()
    };
    the_suite_holds(&open("mine[a-z]*:", Duration::from_hours(1)), &open("short:", SHORT), false).await;
    assert_eq!(scan_all(&others, 100).await, other, "other prefixes are left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let config = |name: &str| SqliteConfig::new(directory.path().join(name));
    let tier = SqliteTier::open(&config("tier")).unwrap();
    let short = SqliteTier::open(&SqliteConfig { ttl: Some(SHORT), ..config("short") }).unwrap();
    the_suite_holds(&tier, &short, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_conforms() {
    let server = PostgresServer::start();
    the_suite_holds(&server.tier().await, &short_lived(&PostgresServer::start()), true).await;
}

fn short_lived(server: &PostgresServer) -> PostgresTier {
    PostgresTier::open(&PostgresConfig { ttl: Some(SHORT), ..server.config() }).expect("the address of a server")
}

#[tokio::test]
async fn a_scan_does_not_go_on_in_a_tier_of_another_kind() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = SqliteTier::open(&SqliteConfig::new(directory.path().join("tier"))).unwrap();
    fill(&sqlite).await;
    let next = sqlite.scan(None, 1).await.unwrap().next;
    assert!(next.is_some());
    let redis = RedisServer::start().tier().await;
    assert!(redis.scan(next, 1).await.is_err());
}

#[tokio::test]
async fn leaving_empties_the_log_that_sqlite_keeps_beside_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tier");
    let cache: Cache<()> = Cache::builder()
        .tier(SqliteTier::open(&SqliteConfig::new(&path)).unwrap(), TierConfig::default())
        .build()
        .unwrap();
    cache.put(key("one"), &value("one"));
    assert_eq!(cache.shutdown(Duration::from_secs(30)).await, 0);
    let log = std::fs::metadata(directory.path().join("tier-wal")).map_or(0, |log| log.len());
    assert_eq!(log, 0, "all is in the file");
    let other = SqliteTier::open(&SqliteConfig::new(&path)).unwrap();
    assert_eq!(scan_all(&other, 10).await.len(), 1);
}
