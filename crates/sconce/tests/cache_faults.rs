//! A runtime under load with a failing cache: servers die or take five seconds to answer, or the disk is full. In each
//! case no request fails, the 99th percentile of latency grows by at most the tier's time budget, and the breaker's
//! state is reported.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sconce::cache::{
    BreakerConfig, BreakerState, PostgresConfig, PostgresTier, RedisConfig, RedisTier, SqliteConfig, SqliteTier, Tier,
    TierConfig, TierStats,
};
use sconce::{AnswerCache, Model, Runtime};
use sconce_test_servers::{PostgresServer, RedisServer};
use tokio::task::JoinHandle;

const BUDGET: Duration = Duration::from_millis(100);
const FOR_A_WHILE: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_secs(5);
const WORKERS: usize = 4;
/// Number of texts in the tier; half of the requests are for one of them, half for a new text.
const KEPT: usize = 100;
const CHILD: &str = "child_whose_files_may_not_grow";

struct Load {
    runtime: Arc<Runtime>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Vec<(Instant, Duration)>>>,
}

impl Load {
    async fn start(tier: impl Tier) -> Self {
        let cool_down = Duration::from_millis(200);
        let breaker = BreakerConfig { cool_down, max_cool_down: Duration::from_secs(1), max_failures: 5 };
        let config = TierConfig { get_budget: BUDGET, put_budget: BUDGET, breaker, ..TierConfig::default() };
        let cache = AnswerCache::builder().tier(tier, config).build().expect("good bounds");
        let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo/tiny-bert-sentiment");
        let runtime = Arc::new(Runtime::builder().model(zoo).cache(cache).build().expect("it loads"));
        let model = runtime.models().remove(0);
        for number in 0..KEPT {
            model.infer(kept(number)).await.expect("a good request");
        }
        let cache = runtime.cache().expect("it has one");
        cache.flush(Duration::from_mins(1)).await.expect("the tier takes what it is given");
        let (stop, fresh) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let worker = |_| tokio::spawn(work(model.clone(), Arc::clone(&stop), Arc::clone(&fresh)));
        let workers = (0..WORKERS).map(worker).collect();
        Self { runtime, stop, workers }
    }

    fn stats(&self) -> TierStats {
        self.runtime.cache().expect("it has one").stats().tiers.remove(0)
    }

    /// Waits until the tier has answered 300 more requests and its read breaker is closed.
    async fn is_answered_by_the_tier(&self) {
        let before = self.stats().hits;
        let trusted = || self.stats().reads.breaker == BreakerState::Closed;
        eventually("the tier answers", || self.stats().hits > before + 300 && trusted()).await;
    }

    async fn breaker_opens(&self) {
        eventually("the breaker opens", || self.stats().reads.breaker == BreakerState::Open).await;
    }

    /// Asserts that no worker saw an error, and that the fault from `from` to `until` cost at most the time budget.
    async fn ends_well(self, name: &str, from: Instant, until: Instant) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut before, mut during) = (Vec::new(), Vec::new());
        for worker in self.workers {
            for (at, took) in worker.await.expect("no request fails") {
                if at < from {
                    before.push(took);
                } else if at < until {
                    during.push(took);
                }
            }
        }
        let (usual, slow) = (p99(&mut before), p99(&mut during));
        println!("{name}: p99 {usual:?} of {} before, {slow:?} of {} during", before.len(), during.len());
        assert!(during.len() > 300, "the load went on: {}", during.len());
        assert!(slow <= usual + BUDGET, "{name}: {usual:?} before, {slow:?} during");
    }
}

fn kept(number: usize) -> String {
    format!("text {} is kept", number % KEPT)
}

async fn work(model: Model, stop: Arc<AtomicBool>, fresh: Arc<AtomicUsize>) -> Vec<(Instant, Duration)> {
    let mut requests = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = fresh.fetch_add(1, Ordering::Relaxed);
        let text = if number.is_multiple_of(2) { kept(number / 2) } else { format!("text {number} is new") };
        let at = Instant::now();
        model.infer(text).await.expect("no request fails");
        requests.push((at, at.elapsed()));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    requests
}

fn p99(latencies: &mut [Duration]) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_mins(1), "after a minute still not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn redis(server: &RedisServer) -> RedisTier {
    RedisTier::open(&RedisConfig::new(server.url())).expect("an address")
}

fn postgres(server: &PostgresServer) -> PostgresTier {
    PostgresTier::open(&PostgresConfig::new(server.url())).expect("an address")
}

/// A fault of a server: how to begin it, its duration, and how to end it.
struct Fault<S> {
    begins: fn(&mut S),
    lasts: Duration,
    ends: fn(&mut S),
}

/// Breaks the server of a tier under load, repairs it after a while, and checks the cost.
async fn costs_computations<S>(name: &str, mut server: S, tier: impl Tier, fault: Fault<S>) {
    let load = Load::start(tier).await;
    load.is_answered_by_the_tier().await;
    let from = Instant::now();
    (fault.begins)(&mut server);
    load.breaker_opens().await;
    tokio::time::sleep(fault.lasts).await;
    let until = Instant::now();
    (fault.ends)(&mut server);
    load.is_answered_by_the_tier().await;
    load.ends_well(name, from, until).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_costs_computations() {
    let server = RedisServer::start();
    let tier = redis(&server);
    let killed = Fault { begins: RedisServer::kill, lasts: FOR_A_WHILE, ends: RedisServer::restart };
    costs_computations("redis killed", server, tier, killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_costs_computations() {
    let server = PostgresServer::start();
    let tier = postgres(&server);
    let killed = Fault { begins: PostgresServer::kill, lasts: FOR_A_WHILE, ends: PostgresServer::restart };
    costs_computations("postgres killed", server, tier, killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_takes_five_seconds_costs_computations() {
    let server = RedisServer::start();
    let tier = redis(&server);
    let slow = Fault { begins: |server: &mut RedisServer| server.pause(), lasts: SLOW, ends: |server| server.resume() };
    costs_computations("redis takes 5 s", server, tier, slow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_takes_five_seconds_costs_computations() {
    let server = PostgresServer::start();
    let tier = postgres(&server);
    let slow =
        Fault { begins: |server: &mut PostgresServer| server.pause(), lasts: SLOW, ends: |server| server.resume() };
    costs_computations("postgres takes 5 s", server, tier, slow).await;
}

/// A limit of the operating system on the size of files stands for a full disk. It holds for a whole process, so the
/// test starts a child.
#[test]
fn a_full_disk_costs_what_would_have_been_stored() {
    let test = std::env::current_exe().unwrap();
    // A write beyond the limit sends a signal that ends the process; if the signal is ignored, the write fails instead.
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"trap '' XFSZ; exec "$@""#, "sh"]).arg(test).args([
        "--exact",
        CHILD,
        "--ignored",
        "--nocapture",
    ]);
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above, in a process of its own"]
async fn child_whose_files_may_not_grow() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("answers");
    let load = Load::start(SqliteTier::open(&SqliteConfig::new(path)).unwrap()).await;
    load.is_answered_by_the_tier().await;
    let room = getrlimit(Resource::Fsize);
    let from = Instant::now();
    setrlimit(Resource::Fsize, Rlimit { current: Some(1 << 14), maximum: room.maximum }).unwrap();
    eventually("the breaker of writes opens", || load.stats().writes.breaker == BreakerState::Open).await;
    let hits = load.stats().hits;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(load.stats().hits > hits + 300, "what was stored is still found");
    assert_eq!(load.stats().reads.breaker, BreakerState::Closed);
    let until = Instant::now();
    setrlimit(Resource::Fsize, room).unwrap();
    eventually("answers are stored again", || load.stats().writes.breaker == BreakerState::Closed).await;
    load.ends_well("disk full", from, until).await;
}
