//! End-to-end effect of the cache: callers in a closed loop ask a real model for texts, some far more often than others
//! (Zipf's law with exponent 1), without a cache and with each tier. `redis-server` has to be installed.
//!
//! `cargo bench -p sconce-benches --bench zipf` prints a table; `-- --plot FILE.png` plots it. The model is MiniLM if
//! `SCONCE_MINILM` is set, else encoder-mini. Every answer is compared, bit by bit, with that of the run without a cache.

mod load;

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Parser;
use sconce::cache::{MemoryConfig, RedisConfig, RedisTier, SqliteConfig, SqliteTier, TierConfig};
use sconce::{AnswerCache, Runtime};
use sconce_benches::python::Python;
use sconce_test_servers::RedisServer;
use serde::Serialize;

use load::{Answers, Load, Ran};

/// Asks for texts by Zipf's law, without a cache and with each tier, and prints the results of each
#[derive(Debug, Parser)]
#[command(name = "zipf")]
struct Args {
    /// Different texts
    #[arg(long, value_name = "N")]
    texts: Option<usize>,

    /// Requests of each run; a run begins with empty tiers
    #[arg(long, value_name = "N")]
    requests: Option<usize>,

    /// Callers, each of which sends its next request as soon as it has its answer
    #[arg(long, value_name = "N", default_value_t = 16)]
    callers: usize,

    /// Also plots the table, into this PNG; a relative path is below benches/
    #[arg(long, value_name = "FILE.png")]
    plot: Option<PathBuf>,

    /// The flag that cargo bench passes: measure instead of only checking that it works
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Serialize)]
struct Record {
    tiers: &'static str,
    hit_rate: f64,
    requests_per_second: f64,
    gain: f64,
    p50_ms: f64,
    p99_ms: f64,
}

type Fallible<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Fallible<()> {
    let args = Args::parse();
    let texts = args.texts.unwrap_or(if args.bench { 10_000 } else { 200 });
    let requests = args.requests.unwrap_or(if args.bench { 40_000 } else { 1000 });
    let load = Load::new(texts, requests, args.callers)?;
    let directory = tempfile::tempdir()?;
    let redis = RedisServer::start();
    let model = sconce_benches::minilm().unwrap_or_else(|| sconce_benches::zoo("encoder-mini"));

    println!("{texts} texts by Zipf(1.0), {requests} requests of {} callers, model {}", args.callers, model.display());
    println!(
        "| tiers | answered without computing | requests/s | gain | p50, ms | p99, ms |\n|---|---|---|---|---|---|"
    );
    let (mut records, mut answers) = (Vec::new(), Answers::default());
    for tiers in TIERS {
        let cache = tiers.cache(texts, &directory.path().join(tiers.file()), &redis)?;
        let builder = Runtime::builder().named_model("model", &model);
        let builder = cache.into_iter().fold(builder, sconce::RuntimeBuilder::cache);
        let runtime = builder.build()?;
        let ran = load.run(&runtime.model("model")?, &mut answers).await?;
        runtime.shutdown().await;
        let record = Record::new(tiers, &ran, records.first());
        println!("{}", record.row());
        records.push(record);
    }
    args.plot.map_or(Ok(()), |png| plot(&png, &records))
}

/// The tiers of a run.
#[derive(Debug, Clone, Copy)]
struct Tiers {
    name: &'static str,
    /// Size of the memory tier: room for one in this many texts.
    memory: Option<usize>,
    redis: bool,
    sqlite: bool,
    /// Identical requests in flight compute once.
    single_flight: bool,
}

const NONE: Tiers = Tiers { name: "none", memory: None, redis: false, sqlite: false, single_flight: false };
const FLIGHT: Tiers = Tiers { name: "single flight alone", single_flight: true, ..NONE };
const TIERS: [Tiers; 7] = [
    NONE,
    FLIGHT,
    Tiers { name: "memory for a tenth", memory: Some(10), ..FLIGHT },
    Tiers { name: "memory for all", memory: Some(1), ..FLIGHT },
    Tiers { name: "Redis", redis: true, ..FLIGHT },
    Tiers { name: "SQLite", sqlite: true, ..FLIGHT },
    Tiers { name: "memory for a tenth, SQLite", memory: Some(10), sqlite: true, ..FLIGHT },
];

impl Tiers {
    fn cache(self, texts: usize, database: &Path, redis: &RedisServer) -> Fallible<Option<AnswerCache>> {
        /// Bytes of a row of 384 f32 with its key and the overhead of keeping them.
        const BYTES: u64 = 2048;
        if !self.single_flight {
            return Ok(None);
        }
        let mut cache = AnswerCache::builder();
        if let Some(share) = self.memory {
            let max_bytes = BYTES * (texts / share) as u64;
            cache = cache.memory(MemoryConfig { max_bytes, ..MemoryConfig::default() });
        }
        if self.redis {
            cache = cache.tier(RedisTier::open(&RedisConfig::new(redis.url()))?, TierConfig::default());
        }
        if self.sqlite {
            cache = cache.tier(SqliteTier::open(&SqliteConfig::new(database))?, TierConfig::default());
        }
        Ok(Some(cache.build()?))
    }

    fn file(self) -> String {
        format!("{}.sqlite", self.name)
    }
}

impl Record {
    fn new(tiers: Tiers, ran: &Ran, first: Option<&Self>) -> Self {
        let requests_per_second = ran.rate();
        Self {
            tiers: tiers.name,
            hit_rate: ran.hit_rate(),
            requests_per_second,
            gain: first.map_or(1.0, |first| requests_per_second / first.requests_per_second),
            p50_ms: ran.latency(0.5).as_secs_f64() * 1e3,
            p99_ms: ran.latency(0.99).as_secs_f64() * 1e3,
        }
    }

    fn row(&self) -> String {
        let Self { tiers, hit_rate, requests_per_second, gain, p50_ms, p99_ms } = self;
        let hit_rate = 100.0 * hit_rate;
        format!("| {tiers} | {hit_rate:.1} % | {requests_per_second:.0} | {gain:.2} | {p50_ms:.2} | {p99_ms:.2} |")
    }
}

fn plot(png: &Path, records: &[Record]) -> Fallible<()> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let csv = target.with_file_name("zipf.csv");
    let mut writer = csv::Writer::from_path(&csv)?;
    records.iter().try_for_each(|record| writer.serialize(record))?;
    writer.flush()?;
    Python::find_or_make(&target.with_file_name("encoders"))?.run("zipf/plot.py", &[csv.as_path(), png])?;
    println!("\n{} and {}", png.display(), csv.display());
    Ok(())
}
