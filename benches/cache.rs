//! Costs of the cache: a key, a hit in memory, a read of SQLite, a batch of 32 from Redis. Needs `redis-server`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use sconce_cache::{
    Cache, Digest, Dtype, Found, Key, KeyFields, KeyTensor, MemoryConfig, Parameter, RedisConfig, RedisTier,
    SqliteConfig, SqliteReader, SqliteTier, TensorView, Tier, Value,
};
use sconce_test_servers::RedisServer;

/// Width of an embedding of MiniLM.
const DIMENSIONS: usize = 384;

fn key(number: u32) -> Key {
    Key::from_bytes(Digest::of(&number.to_le_bytes()).0)
}

fn value(number: u32) -> Value {
    let embedding: Vec<_> = (0..DIMENSIONS).flat_map(|place| (number as f32 + place as f32).to_le_bytes()).collect();
    let tensor = TensorView { name: "embedding", dtype: Dtype::F32, shape: &[1, DIMENSIONS], bytes: &embedding };
    Value::new("int8", &[tensor]).expect("shape and bytes agree")
}

fn keys_and_values(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache/key");
    let digest = Digest::of(b"weights");
    for bytes in [16, 128, 1024, 65_536] {
        let content = vec![7; bytes];
        let inputs = [KeyTensor { name: "text", dtype: Dtype::Bytes, shape: &[1], bytes: &content }];
        let fields = KeyFields {
            model: "minilm",
            weights: digest,
            precision: "int8",
            device_class: "cpu",
            processing: digest,
            parameters: &[("truncate", Parameter::Bool(true))],
            outputs: &["embedding"],
            inputs: &inputs,
        };
        let expected = fields.key();
        group.bench_function(format!("{bytes} bytes of input"), |bench| {
            bench.iter(|| assert_eq!(black_box(&fields).key(), expected));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("cache/value");
    let stored = value(1).encoded().clone();
    group.bench_function("decode 384 f32", |bench| {
        bench.iter(|| Value::decode(black_box(stored.clone())).expect("it is intact"));
    });
    let bytes = value(1).tensor("embedding").expect("it has one").bytes.to_vec();
    group.bench_function("encode 384 f32", |bench| {
        let tensor = TensorView { name: "embedding", dtype: Dtype::F32, shape: &[1, DIMENSIONS], bytes: &bytes };
        bench.iter(|| assert_eq!(*Value::new("int8", &[black_box(tensor)]).expect("it is good").encoded(), stored));
    });
    group.finish();
}

fn memory(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let cache: Cache<()> = Cache::builder().memory(MemoryConfig::default()).build().expect("a good configuration");
    let wanted: Vec<_> = (0..10_000).map(|number| (key(number), value(number))).collect();
    for (key, value) in &wanted {
        cache.put(*key, value);
    }
    let mut group = criterion.benchmark_group("cache/memory");
    group.bench_function("hit", |bench| {
        let mut next = wanted.iter().cycle();
        bench.iter_custom(|lookups| {
            runtime.block_on(async {
                let started = Instant::now();
                for _ in 0..lookups {
                    let (key, expected) = next.next().expect("it is a cycle");
                    let found = cache.get(*key, &[]).await.expect("it is there");
                    // The value itself that was put, not a copy; the tests check its bytes.
                    assert!(found.value.encoded().as_ptr() == expected.encoded().as_ptr());
                }
                started.elapsed()
            })
        });
    });
    group.finish();
}

/// 100,000 entries in the page cache, read in an order in which neighbours are far apart.
fn sqlite(criterion: &mut Criterion) {
    const ENTRIES: u32 = 100_000;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let config = SqliteConfig::new(directory.path().join("cache"));
    let tier = SqliteTier::open(&config).expect("a new file");
    for first in (0..ENTRIES).step_by(1000) {
        let entries: Vec<_> = (first..first + 1000).map(|number| (key(number), value(number))).collect();
        runtime.block_on(tier.put_many(&entries)).expect("the disk has room");
    }
    let mut group = criterion.benchmark_group("cache/sqlite");
    let mut reader = SqliteReader::open(&config).expect("the file is there");
    for batch in [1, 32_u32] {
        let mut last = 0;
        let mut numbers = move || {
            last = (last + batch) % ENTRIES;
            (last..last + batch).map(|number| number.wrapping_mul(7919) % ENTRIES).collect::<Vec<_>>()
        };
        group.throughput(Throughput::Elements(batch.into()));
        group.bench_function(format!("read {batch}, CPU of the thread"), |bench| {
            bench.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let numbers = numbers();
                    let keys: Vec<_> = numbers.iter().map(|number| key(*number)).collect();
                    let started = thread_time();
                    let found = reader.get_many(&keys).expect("the file can be read");
                    spent += thread_time().saturating_sub(started);
                    check(&found, &numbers);
                }
                spent
            });
        });
        group.bench_function(format!("read {batch}, handed to a thread and back"), |bench| {
            bench.iter_custom(|rounds| {
                runtime.block_on(timed(rounds, &tier, || {
                    let numbers = numbers();
                    (numbers.iter().map(|number| key(*number)).collect(), numbers)
                }))
            });
        });
    }
    group.finish();
}

fn redis(criterion: &mut Criterion) {
    let server = RedisServer::start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let tier = RedisTier::open(&RedisConfig::new(server.url())).expect("an address");
    runtime.block_on(tier.ping()).expect("it answers");
    let entries: Vec<_> = (0..1000).map(|number| (key(number), value(number))).collect();
    runtime.block_on(tier.put_many(&entries)).expect("it has room");
    let mut group = criterion.benchmark_group("cache/redis");
    for batch in [1, 32_u32] {
        group.throughput(Throughput::Elements(batch.into()));
        group.bench_function(format!("get {batch}"), |bench| {
            let mut first = 0;
            bench.iter_custom(|rounds| {
                runtime.block_on(timed(rounds, &tier, || {
                    first = (first + batch) % 900;
                    let numbers: Vec<_> = (first..first + batch).collect();
                    (numbers.iter().map(|number| key(*number)).collect(), numbers)
                }))
            });
        });
    }
    group.bench_function("put 32", |bench| {
        bench.iter_custom(|rounds| {
            runtime.block_on(async {
                let started = Instant::now();
                for _ in 0..rounds {
                    tier.put_many(&entries[..32]).await.expect("it has room");
                }
                started.elapsed()
            })
        });
    });
    group.finish();
}

/// Time of lookups one after the other; their answers are checked outside of that time.
async fn timed(rounds: u64, tier: &impl Tier, mut batch: impl FnMut() -> (Vec<Key>, Vec<u32>)) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        let (keys, numbers) = batch();
        let started = Instant::now();
        let found = tier.get_many(&keys).await.expect("the tier works");
        spent += started.elapsed();
        check(&found, &numbers);
    }
    spent
}

/// Checks the first element of each embedding, which identifies it; the tier has checked the checksum.
fn check(found: &[Found], numbers: &[u32]) {
    assert_eq!(found.len(), numbers.len());
    for (found, number) in found.iter().zip(numbers) {
        let Found::Hit(value) = found else { panic!("{number} is not there") };
        let bytes = value.tensor("embedding").expect("it has one").bytes;
        assert_eq!(bytes[..4], (*number as f32).to_le_bytes());
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("less than a second"))
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3));
    targets = keys_and_values, memory, sqlite, redis
}
criterion_main!(benches);
