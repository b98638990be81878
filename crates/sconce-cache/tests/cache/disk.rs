//! The SQLite tier with a full disk, a locked or damaged file, and another application's file.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sconce_cache::{
    BreakerState, Cache, Found, SqliteConfig, SqliteOpenError, SqliteReader, SqliteTier, Tier, TierConfig, TierError,
};

use crate::support::{eventually, key, keys, large_value, value};

const CHILD: &str = "disk::child_that_may_write_no_more_than_it_has";

fn stack(tier: Arc<SqliteTier>, put_budget: Duration) -> Cache<()> {
    let config = TierConfig { get_budget: Duration::from_secs(10), put_budget, ..TierConfig::default() };
    Cache::builder().tier(tier, config).build().expect("a good configuration")
}

/// Limits the size of files, which is like a full disk. The limit applies to a whole process, so the test runs in one
/// of its own.
#[test]
fn a_disk_that_takes_no_more_costs_fills_but_no_lookups_and_fills_go_on_when_there_is_room() {
    let test = std::env::current_exe().unwrap();
    // Passing the limit raises a signal that ends the process; if that is ignored, the write fails with an error.
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"trap '' XFSZ; exec "$@""#, "sh"]).arg(test).args(["--exact", CHILD, "--ignored"]);
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
#[ignore = "run by the test above, in a process of its own"]
async fn child_that_may_write_no_more_than_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let tier = Arc::new(SqliteTier::open(&SqliteConfig::new(directory.path().join("cache"))).unwrap());
    let cache = stack(tier, Duration::from_secs(10));
    let (before, after) = (keys("before", 20), keys("after", 60));
    let room = || getrlimit(Resource::Fsize).maximum;
    for key in &before {
        cache.put(*key, &value("kept"));
    }
    cache.flush(Duration::from_mins(1)).await.unwrap();

    setrlimit(Resource::Fsize, Rlimit { current: Some(1 << 20), maximum: room() }).unwrap();
    for key in &after {
        cache.put(*key, &large_value(100_000));
        cache.flush(Duration::from_mins(1)).await.unwrap();
        let found = cache.get_many(&before).await;
        assert!(found.iter().flatten().count() == before.len(), "all that was stored is still found");
    }
    let stats = cache.stats().tiers.remove(0);
    assert!(stats.lost.failed > 40 && stats.writes.errors >= 5, "{stats:?}");
    assert_eq!((stats.writes.breaker, stats.reads.breaker), (BreakerState::Open, BreakerState::Closed));
    assert_eq!((stats.reads.errors, stats.corrupt), (0, 0));

    setrlimit(Resource::Fsize, Rlimit { current: room(), maximum: room() }).unwrap();
    eventually("fills go on", async || {
        cache.put(after[59], &large_value(100_000));
        cache.flush(Duration::from_mins(1)).await.unwrap();
        cache.get(after[59], &[]).await.is_some()
    })
    .await;
    assert_eq!(cache.stats().tiers[0].writes.breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_file_at_its_bound_says_that_it_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let config = SqliteConfig { max_bytes: 1 << 20, ..SqliteConfig::new(directory.path().join("cache")) };
    let tier = SqliteTier::open(&config).unwrap();
    let error = tier.put_many(&[(key("large"), large_value(2 << 20))]).await.unwrap_err();
    assert!(matches!(error, TierError::Full), "{error}");
    tier.put_many(&[(key("small"), value("fits"))]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_holds_the_write_lock_for_five_seconds_delays_no_lookup() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache");
    let cache = stack(Arc::new(SqliteTier::open(&SqliteConfig::new(&path)).unwrap()), Duration::from_millis(100));
    let keys = keys("locked", 20);
    cache.put(keys[0], &value("kept"));
    cache.flush(Duration::from_mins(1)).await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let locked = Instant::now();
    let mut slowest = Duration::ZERO;
    for round in 0.. {
        if locked.elapsed() > Duration::from_secs(5) {
            break;
        }
        cache.put(keys[1 + round % 19], &value("later"));
        let started = Instant::now();
        assert!(cache.get(keys[0], &[]).await.is_some());
        slowest = slowest.max(started.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let stats = cache.stats().tiers.remove(0);
    assert!(stats.writes.timeouts > 0 && stats.writes.opened > 0, "{stats:?}");
    other.execute_batch("ROLLBACK").unwrap();
    eventually("fills go on", async || {
        cache.put(keys[19], &value("after"));
        cache.get(keys[19], &[]).await.is_some_and(|answer| answer.value == value("after"))
    })
    .await;
}

#[tokio::test]
async fn entries_are_there_when_the_file_is_opened_again_and_by_a_reader_without_threads() {
    let directory = tempfile::tempdir().unwrap();
    let config = SqliteConfig::new(directory.path().join("cache"));
    SqliteTier::open(&config).unwrap().put_many(&[(key("x"), value("x"))]).await.unwrap();
    let again = SqliteTier::open(&config).unwrap();
    assert_eq!(again.get_many(&[key("x")]).await.unwrap(), [Found::Hit(value("x"))]);
    let mut reader = SqliteReader::open(&config).unwrap();
    assert_eq!(reader.get_many(&[key("x"), key("y")]).unwrap(), [Found::Hit(value("x")), Found::Miss]);
}

#[tokio::test]
async fn what_waits_in_the_log_of_a_process_that_died_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let config = SqliteConfig::new(directory.path().join("cache"));
    let tier = SqliteTier::open(&config).unwrap();
    tier.put_many(&[(key("x"), value("x"))]).await.unwrap();
    // A crash leaves the files as they are while open, so a copy made now stands for it.
    let copy = tempfile::tempdir().unwrap();
    for name in ["cache", "cache-wal"] {
        std::fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
    }
    let recovered = SqliteTier::open(&SqliteConfig::new(copy.path().join("cache"))).unwrap();
    assert_eq!(recovered.get_many(&[key("x")]).await.unwrap(), [Found::Hit(value("x"))]);
}

#[tokio::test]
async fn a_damaged_file_costs_misses() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache");
    let config = SqliteConfig { mmap_bytes: 0, ..SqliteConfig::new(&path) };
    let keys = keys("damaged", 200);
    SqliteTier::open(&config)
        .unwrap()
        .put_many(&keys.iter().map(|key| (*key, large_value(2000))).collect::<Vec<_>>())
        .await
        .unwrap();
    // The last connection that closes moves the log into the file.
    eventually("the threads have ended", async || !directory.path().join("cache-wal").exists()).await;
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].chunks_mut(7).for_each(|chunk| chunk[0] ^= 0x55);
    std::fs::write(&path, bytes).unwrap();
    let cache = stack(Arc::new(SqliteTier::open(&config).unwrap()), Duration::from_secs(10));
    let mut hits = 0;
    for key in keys {
        if let Some(answer) = cache.get(key, &[]).await {
            assert!(answer.value == large_value(2000), "what is found is intact");
            hits += 1;
        }
    }
    let stats = cache.stats().tiers.remove(0);
    assert!(hits < 200 && stats.corrupt + stats.reads.errors + stats.misses > 0, "{stats:?}");
}

#[tokio::test]
async fn another_application_s_file_is_refused_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = SqliteTier::open(&SqliteConfig::new(&path)).err().unwrap();
    assert!(matches!(error, SqliteOpenError::Foreign { found: 0, .. }), "{error}");
    std::fs::write(directory.path().join("text"), "not a database at all, but long enough to be one ".repeat(40))
        .unwrap();
    let error = SqliteTier::open(&SqliteConfig::new(directory.path().join("text"))).err().unwrap();
    assert!(matches!(error, SqliteOpenError::Unusable { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
