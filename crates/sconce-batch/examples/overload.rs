//! A server at three times its capacity: it answers the requests that it admits in time, and refuses the others at once.
//!
//! ```sh
//! cargo run --release -p sconce-batch --example overload
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use sconce_batch::{BatcherConfig, Error, Queue, from_fn};
use tokio::task::JoinSet;

/// Time from each request to its deadline.
const SLO: Duration = Duration::from_millis(50);
/// Requests per second in batches of 80, which take half of the SLO each.
const CAPACITY_PER_SECOND: u32 = 3200;
const SECONDS: u32 = 3;

/// Runs a batch like a GPU: in 5 ms, and 0.25 ms more for each item.
fn device(batch: &[u32]) -> Vec<u32> {
    std::thread::sleep(Duration::from_micros(5000 + 250 * batch.len() as u64));
    batch.to_vec()
}

#[derive(Default)]
struct Tally {
    in_time: u32,
    late: u32,
    dropped: u32,
    refused: u32,
    slowest_refusal: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = BatcherConfig { max_batch_size: 128, ..BatcherConfig::default() };
    let queue = Arc::new(Queue::spawn("overloaded", config, [from_fn(|batch| Ok(device(batch)))])?);

    let mut callers = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let per_tick = 3 * CAPACITY_PER_SECOND / 1000;
    for _ in 0..SECONDS * 1000 {
        tick.tick().await;
        for request in 0..per_tick {
            let queue = Arc::clone(&queue);
            callers.spawn(async move {
                let sent = Instant::now();
                let answer = queue.try_call(request, Some(sent + SLO)).await;
                (answer.map(|done| assert_eq!(done.output, request)), sent.elapsed())
            });
        }
    }

    let mut tally = Tally::default();
    while let Some(caller) = callers.join_next().await {
        match caller? {
            (Ok(()), latency) if latency <= SLO => tally.in_time += 1,
            (Ok(()), _) => tally.late += 1,
            (Err(Error::DeadlineExceeded { .. }), _) => tally.dropped += 1,
            (Err(_), latency) => {
                tally.refused += 1;
                tally.slowest_refusal = tally.slowest_refusal.max(latency);
            }
        }
    }
    let Tally { in_time, late, dropped, refused, slowest_refusal } = tally;
    println!("{} requests in {SECONDS} s, three times the capacity:", in_time + late + dropped + refused);
    println!(
        "  {in_time} answered within {SLO:?}: {} % of the capacity",
        100 * in_time / (CAPACITY_PER_SECOND * SECONDS)
    );
    println!("  {late} answered late, {dropped} dropped after they were let in");
    println!("  {refused} refused, the slowest refusal after {slowest_refusal:?}");
    Ok(())
}
