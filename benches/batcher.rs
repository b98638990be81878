//! Cost of the batcher: requests through a queue in front of an executor that does nothing, in a closed loop. The time per
//! iteration is wall or CPU time per request, all callers together. And the decisions alone, with many waiting entries.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use sconce_batch::{BatchLayout, Batcher, BatcherConfig, Executor, Queue, Ran, Step, from_fn};

const CALLERS: [u64; 5] = [1, 8, 32, 128, 10_000];

fn no_op(criterion: &mut Criterion) {
    per_request(criterion, "batcher/no-op", |spent| spent.wall);
}

/// Processor time of the whole process, callers and their runtime included.
fn no_op_cpu(criterion: &mut Criterion) {
    per_request(criterion, "batcher/no-op, CPU", |spent| spent.cpu);
}

fn per_request(criterion: &mut Criterion, name: &str, measure: fn(Spent) -> Duration) {
    let runtime = tokio::runtime::Runtime::new().expect("a tokio runtime");
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    for callers in CALLERS {
        let executor = from_fn(|batch: &[u64]| Ok(batch.to_vec()));
        let config = BatcherConfig { max_queue_size: 20_000, ..BatcherConfig::default() };
        let queue = Arc::new(Queue::spawn("no-op", config, [executor]).expect("a valid configuration"));
        group.bench_function(format!("{callers} callers"), |bench| {
            bench.iter_custom(|requests| measure(runtime.block_on(closed_loop(&queue, callers, requests))));
        });
    }
    group.finish();
}

/// The decisions alone: one item arrives and one leaves in a batch of one, while `len` wait; half of them have a deadline.
fn waiting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batcher/offer and poll");
    for len in [1_u64, 10, 100, 1000, 10_000] {
        for layout in [BatchLayout::Packed, BatchLayout::Padded] {
            group.bench_function(format!("{len} waiting, {layout:?}"), |bench| {
                let now = Instant::now();
                let config = BatcherConfig {
                    max_batch_size: 1,
                    max_queue_size: 20_000,
                    max_queue_weight: 20_000 * 500,
                    ..BatcherConfig::default()
                };
                let mut batcher = Batcher::new(now, config, layout).expect("a valid configuration");
                let deadline = |item: u64| item.is_multiple_of(2).then(|| now + Duration::from_hours(1));
                let weight = |item: u64| 1 + usize::try_from(item % 500).expect("a small number");
                let mut next = 0;
                let mut offer = |batcher: &mut Batcher<u64>| {
                    batcher.offer(now, next, weight(next), deadline(next)).expect("the queue has room");
                    next += 1;
                };
                (0..len).for_each(|_| offer(&mut batcher));
                bench.iter(|| {
                    offer(&mut batcher);
                    let Step::Run(batch) = batcher.poll(now) else { panic!("the device is idle and something waits") };
                    batcher.completed(now, Ran { size: 1, weight: batch[0].weight, run: None });
                    batch
                });
                assert_eq!(batcher.len(), usize::try_from(len).expect("a small number"));
            });
        }
    }
    group.finish();
}

/// Wall and CPU time of a run.
#[derive(Clone, Copy)]
struct Spent {
    wall: Duration,
    cpu: Duration,
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a time since the start of the process")
}

/// Each caller sends its share of `requests`, one after the other, and checks each answer.
async fn closed_loop<E>(queue: &Arc<Queue<E>>, callers: u64, requests: u64) -> Spent
where
    E: Executor<Item = u64, Output = u64>,
{
    let (started, cpu) = (Instant::now(), cpu_time());
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
    Spent { wall: started.elapsed(), cpu: cpu_time().saturating_sub(cpu) }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(5));
    targets = no_op, no_op_cpu, waiting
}
criterion_main!(benches);
