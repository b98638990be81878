//! What the batcher costs: requests through a queue in front of an executor that does nothing, in a closed loop.
//! The time per iteration is wall time per request, all callers together.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sconce_batch::{BatcherConfig, Executor, Queue, from_fn};

fn no_op(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a tokio runtime");
    let mut group = criterion.benchmark_group("batcher/no-op");
    group.throughput(Throughput::Elements(1));
    for callers in [1, 8, 32, 128] {
        let executor = from_fn(|batch: &[u64]| Ok(batch.to_vec()));
        let queue = Queue::spawn("no-op", BatcherConfig::default(), [executor]).expect("valid defaults");
        let queue = Arc::new(queue);
        group.bench_function(format!("{callers} callers"), |bench| {
            bench.iter_custom(|requests| runtime.block_on(closed_loop(&queue, callers, requests)));
        });
    }
    group.finish();
}

/// Each caller sends its share of `requests`, one after the other, and checks each answer.
async fn closed_loop<E>(queue: &Arc<Queue<E>>, callers: u64, requests: u64) -> Duration
where
    E: Executor<Item = u64, Output = u64>,
{
    let started = Instant::now();
    let callers: Vec<_> = (0..callers)
        .map(|caller| {
            let queue = Arc::clone(queue);
            let share = requests / callers + u64::from(caller < requests % callers);
            tokio::spawn(async move {
                for number in 0..share {
                    let completion = queue.call(black_box(number), None).await.expect("the queue has room");
                    assert_eq!(completion.output, number);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("a caller does not panic");
    }
    started.elapsed()
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(5));
    targets = no_op
}
criterion_main!(benches);
