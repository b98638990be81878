//! Single flight across replicas: two caches that share nothing but a Redis.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sconce_cache::{Cache, Failure, Key, Leases, MemoryConfig, ReplicaConfig, Source, SourcedValue, TierConfig, Value};

use crate::support::redis::{Clients as _, RedisServer};
use crate::support::{eventually, key, value};

type Outcome = Result<Value, Failure<&'static str>>;

/// A configuration with long times, so that no timeout disturbs a test.
fn patient() -> ReplicaConfig {
    let minute = Duration::from_mins(1);
    ReplicaConfig { lease: minute, max_wait: minute, budget: minute, ..ReplicaConfig::default() }
}

async fn replica(server: &RedisServer, config: ReplicaConfig) -> Arc<Cache<&'static str>> {
    let tier = server.tier().await;
    let budgets = TierConfig { get_budget: Duration::from_secs(10), ..TierConfig::default() };
    let stack = Cache::builder().memory(MemoryConfig::default()).tier(tier.clone(), budgets);
    Arc::new(stack.replicas(tier, config).build().expect("the server answers"))
}

fn lock_name(key: &Key) -> Vec<u8> {
    [b"sconce:lock:", &key.as_bytes()[..]].concat()
}

fn is_locked(server: &RedisServer, key: &Key) -> bool {
    redis::cmd("EXISTS").arg(lock_name(key)).query(&mut server.connection()).expect("the server answers")
}

/// Takes a lock, like a replica that then dies.
fn lock(server: &RedisServer, key: &Key, lease_ms: u64) {
    let mut command = redis::cmd("SET");
    command.arg(lock_name(key)).arg("somebody").arg("PX").arg(lease_ms);
    let () = command.query(&mut server.connection()).expect("the server answers");
}

async fn at_once() -> Outcome {
    Ok(value("computed"))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_one_computes_and_the_other_gets_its_value() {
    let server = RedisServer::start();
    let replicas = [replica(&server, patient()).await, replica(&server, patient()).await];
    let computed = Arc::new(AtomicUsize::new(0));
    for round in 0..10 {
        let key = key(&format!("both {round}"));
        let ask = |cache: &Arc<Cache<_>>| {
            let (cache, computed) = (Arc::clone(cache), Arc::clone(&computed));
            tokio::spawn(async move {
                let compute = || async {
                    computed.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    at_once().await
                };
                cache.get_or_compute(key, &[], compute).await.unwrap()
            })
        };
        let (first, second) = tokio::join!(ask(&replicas[0]), ask(&replicas[1]));
        let sources = [first, second].map(|answer| {
            let SourcedValue { value: got, source } = answer.unwrap();
            assert_eq!(got, value("computed"));
            source
        });
        assert!(sources.contains(&Source::Computed), "{sources:?}");
        assert!(!sources.contains(&Source::Shared), "{sources:?}");
        eventually("the lock is given back", async || !is_locked(&server, &key)).await;
    }
    assert_eq!(computed.load(Ordering::SeqCst), 10);
    assert!(replicas.iter().map(|cache| cache.stats().from_replicas).sum::<u64>() > 0);
}

#[tokio::test]
async fn when_the_replica_that_computes_dies_another_does_when_its_lease_is_over() {
    let server = RedisServer::start();
    let cache = replica(&server, patient()).await;
    lock(&server, &key("dead"), 500);
    let started = Instant::now();
    let answer = cache.get_or_compute(key("dead"), &[], at_once).await.unwrap();
    assert_eq!(answer.source, Source::Computed);
    assert!(started.elapsed() > Duration::from_millis(400), "it waited for the lease");
}

#[tokio::test]
async fn a_replica_waits_no_longer_than_its_bound_and_leaves_the_other_s_lock_alone() {
    let server = RedisServer::start();
    let cache = replica(&server, ReplicaConfig { max_wait: Duration::from_millis(100), ..patient() }).await;
    lock(&server, &key("slow"), 600_000);
    let started = Instant::now();
    let answer = cache.get_or_compute(key("slow"), &[], at_once).await.unwrap();
    assert_eq!(answer.source, Source::Computed);
    assert!(started.elapsed() < Duration::from_secs(10));
    cache.flush(Duration::from_mins(1)).await.unwrap();
    assert!(is_locked(&server, &key("slow")));
}

#[tokio::test]
async fn a_replica_that_fails_or_goes_away_gives_its_lock_back_at_once() {
    let server = RedisServer::start();
    let (first, second) = (replica(&server, patient()).await, replica(&server, patient()).await);
    let failed = first.get_or_compute(key("failed"), &[], || async { Err(Failure::Passing("no memory")) }).await;
    assert_eq!(*failed.unwrap_err(), "no memory");
    assert!(second.get_or_compute(key("failed"), &[], at_once).await.is_ok());

    let mut leaving = Box::pin(first.get_or_compute(key("left"), &[], || async { pending().await }));
    tokio::select! {
        _ = &mut leaving => panic!("it computes for ever"),
        () = eventually("it has the lock", async || is_locked(&server, &key("left"))) => {}
    }
    drop(leaving);
    assert!(second.get_or_compute(key("left"), &[], at_once).await.is_ok());
}

#[tokio::test]
async fn a_lock_is_given_back_by_its_holder_only() {
    let server = RedisServer::start();
    let tier = server.tier().await;
    let (key, lease) = (key("mine"), Duration::from_mins(1));
    assert!(tier.try_acquire(&key, [1; 16], lease).await.unwrap());
    assert!(!tier.try_acquire(&key, [2; 16], lease).await.unwrap());
    tier.release(&key, [2; 16]).await.unwrap();
    assert!(is_locked(&server, &key));
    let left_ms: i64 = redis::cmd("PTTL").arg(lock_name(&key)).query(&mut server.connection()).unwrap();
    assert!((1..=60_000).contains(&left_ms), "{left_ms}");
    tier.release(&key, [1; 16]).await.unwrap();
    assert!(!is_locked(&server, &key));
}

#[tokio::test]
async fn without_a_redis_that_answers_every_replica_computes() {
    let mut server = RedisServer::start();
    let config = ReplicaConfig { budget: Duration::from_millis(100), ..patient() };
    let cache = replica(&server, config).await;
    server.pause();
    // The lookup, which has a budget of its own, fails first.
    let answer = cache.get_or_compute(key("paused"), &[], at_once).await.unwrap();
    assert_eq!(answer.source, Source::Computed);
    server.resume();
    server.kill();
    let answer = cache.get_or_compute(key("killed"), &[], at_once).await.unwrap();
    assert_eq!(answer.source, Source::Computed);
}
