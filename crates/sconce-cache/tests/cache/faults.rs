//! Servers that die, or take five seconds to answer, under load. In each case no lookup fails, none takes longer than the
//! budget of the tier, the breaker's state can be read, and a server that comes back is used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sconce_cache::{BreakerConfig, BreakerState, Cache, Failure, Source, Tier, TierConfig, TierStats};

use crate::support::postgres::{Clients as _, PostgresServer};
use crate::support::redis::{Clients as _, RedisServer};
use crate::support::{eventually, keys, value};

const BUDGET: Duration = Duration::from_millis(100);
/// Tolerance for lookups that wait for a processor on a busy machine.
const BUSY: Duration = Duration::from_millis(150);
const WORKERS: usize = 4;

/// Workers that each look up keys one after the other. Every lookup reaches the tier, because the stack has no memory tier.
struct Load {
    cache: Arc<Cache<&'static str>>,
    stop: Arc<AtomicBool>,
    workers: Vec<tokio::task::JoinHandle<Vec<Lookup>>>,
}

struct Lookup {
    at: Instant,
    took: Duration,
    from_tier: bool,
}

impl Load {
    async fn start(tier: impl Tier) -> Self {
        let breaker = BreakerConfig {
            cool_down: Duration::from_millis(200),
            max_cool_down: Duration::from_secs(1),
            max_failures: 5,
        };
        let config = TierConfig { get_budget: BUDGET, put_budget: BUDGET, breaker, ..TierConfig::default() };
        let cache = Arc::new(Cache::builder().tier(tier, config).build().expect("a good configuration"));
        for key in keys("load", 100) {
            cache.put(key, &value("kept"));
        }
        cache.flush(Duration::from_mins(1)).await.expect("a good configuration");
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |number| tokio::spawn(work(Arc::clone(&cache), Arc::clone(&stop), number));
        let workers = (0..WORKERS).map(worker).collect();
        Self { cache, stop, workers }
    }

    fn stats(&self) -> TierStats {
        self.cache.stats().tiers.remove(0)
    }

    async fn hits_more(&self) {
        let before = self.stats().hits;
        eventually("the tier is used", async || self.stats().hits > before + 100).await;
        assert_eq!(self.stats().reads.breaker, BreakerState::Closed);
    }

    async fn breaker_opens(&self) {
        let not_closed = async || self.stats().reads.breaker != BreakerState::Closed;
        eventually("the breaker opens", not_closed).await;
    }

    /// Stops the workers and returns all lookups. Panics if a worker saw a failure.
    async fn end(self) -> Vec<Lookup> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for worker in self.workers {
            all.extend(worker.await.expect("no lookup fails"));
        }
        all
    }
}

async fn work(cache: Arc<Cache<&'static str>>, stop: Arc<AtomicBool>, number: usize) -> Vec<Lookup> {
    let keys = keys("load", 100);
    let mut lookups = Vec::new();
    for round in number.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let at = Instant::now();
        let compute = || async { Ok::<_, Failure<_>>(value("kept")) };
        let answer =
            cache.get_or_compute(keys[round * WORKERS % 100], &[], compute).await.expect("a lookup never fails");
        assert_eq!(answer.value, value("kept"));
        lookups.push(Lookup { at, took: at.elapsed(), from_tier: matches!(answer.source, Source::Tier(_)) });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lookups
}

/// Checks the lookups of a load whose tier was gone from `from` to `until`.
fn no_lookup_was_slower_than_the_budget(name: &str, lookups: &[Lookup], from: Instant, until: Instant) {
    let mut took: Vec<_> =
        lookups.iter().filter(|lookup| lookup.at >= from && lookup.at < until).map(|lookup| lookup.took).collect();
    took.sort_unstable();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{name}: {} lookups without the tier, median {median:?}, slowest {slowest:?}", took.len());
    assert!(took.len() > 50, "the load went on");
    assert!(slowest <= BUDGET + BUSY, "{slowest:?}");
    assert!(median < Duration::from_millis(10), "an open breaker costs nothing: {median:?}");
    let after = lookups.iter().filter(|lookup| lookup.at >= until && lookup.from_tier).count();
    assert!(after > 50, "after it came back the tier answers: {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_redis_under_load_costs_misses_until_it_is_back() {
    let mut server = RedisServer::start();
    let load = Load::start(server.tier().await).await;
    load.hits_more().await;
    let from = Instant::now();
    server.kill();
    load.breaker_opens().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(load.stats().reads.skipped > 0);
    let until = Instant::now();
    server.restart();
    load.hits_more().await;
    no_lookup_was_slower_than_the_budget("redis killed", &load.end().await, from, until);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_takes_five_seconds_to_answer_costs_its_budget_a_few_times() {
    let server = RedisServer::start();
    let load = Load::start(server.tier().await).await;
    load.hits_more().await;
    let from = Instant::now();
    server.pause();
    load.breaker_opens().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let stats = load.stats();
    assert!(stats.reads.timeouts >= 5 && stats.reads.skipped > 100, "{stats:?}");
    let until = Instant::now();
    server.resume();
    load.hits_more().await;
    no_lookup_was_slower_than_the_budget("redis paused", &load.end().await, from, until);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_postgres_under_load_costs_misses_until_it_is_back() {
    let mut server = PostgresServer::start();
    let load = Load::start(server.tier().await).await;
    load.hits_more().await;
    let from = Instant::now();
    server.kill();
    load.breaker_opens().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let until = Instant::now();
    server.restart();
    load.hits_more().await;
    no_lookup_was_slower_than_the_budget("postgres killed", &load.end().await, from, until);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_takes_five_seconds_to_answer_costs_its_budget_a_few_times() {
    let server = PostgresServer::start();
    let load = Load::start(server.tier().await).await;
    load.hits_more().await;
    let from = Instant::now();
    server.pause();
    load.breaker_opens().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let stats = load.stats();
    assert!(stats.reads.timeouts >= 5 && stats.reads.skipped > 100, "{stats:?}");
    let until = Instant::now();
    server.resume();
    load.hits_more().await;
    no_lookup_was_slower_than_the_budget("postgres paused", &load.end().await, from, until);
}

#[tokio::test]
async fn tiers_that_are_not_there_when_the_stack_is_built_are_used_when_they_come() {
    let mut server = RedisServer::start();
    server.kill();
    let tier = sconce_cache::RedisTier::open(&server.config()).unwrap();
    let cache: Cache<()> = Cache::builder().tier(tier, TierConfig::default()).build().unwrap();
    let key = keys("late", 1)[0];
    assert_eq!(cache.get(key, &[]).await, None);
    server.restart();
    eventually("it is used", async || {
        cache.put(key, &value("late"));
        cache.get(key, &[]).await.is_some()
    })
    .await;
}
