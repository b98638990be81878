//! The batcher against other policies, in virtual time: the same code that device threads drive, and none of the noise
//! of a machine. `cargo bench -p sconce-benches --bench simulator` prints the table of `RESULTS.md`.
//!
//! One device whose batch of n items takes a + c·n; Open load is Poisson, and each request has 50 ms. Closed load is
//! clients that wait as long as it takes and come back 0.2 ms after each answer.

mod policy;
mod world;

use std::time::Duration;

use policy::{EarliestDeadlineFirst, Fifo, Policy, Sconce};
use world::{Cost, Load, Outcome, simulate};

const SLO: Duration = Duration::from_millis(50);
/// A fixed cost that batches share.
const GPU_LIKE: Cost = Cost { name: "GPU-like, 5 + 0.25 ms", fixed_us: 5000, per_item_us: 250 };
/// Batches hardly help.
const CPU_LIKE: Cost = Cost { name: "CPU-like, 1 + 4 ms", fixed_us: 1000, per_item_us: 4000 };
const MAX_BATCH_SIZE: usize = 128;

type Maker = fn() -> Box<dyn Policy>;

const POLICIES: [(&str, Maker); 4] = [
    ("first in, first out, when idle", || Box::new(Fifo::new(Duration::ZERO))),
    ("fixed timer of 2 ms", || Box::new(Fifo::new(Duration::from_millis(2)))),
    ("earliest deadline first", || Box::new(EarliestDeadlineFirst::default())),
    ("Sconce", || Box::new(Sconce::new())),
];

fn main() {
    // `cargo test` runs benches once, to see that they work.
    let requests = if std::env::args().any(|argument| argument == "--bench") { 60_000 } else { 6_000 };
    for cost in [GPU_LIKE, CPU_LIKE] {
        let capacity = cost.rate_of_batches_within(SLO / 2);
        println!("\n{}: {capacity:.0} requests/s in batches that take half of 50 ms", cost.name);
        println!(
            "| policy | max rate with 99 % in time, /s | in time at 120 % | mean at 5 %, ms | 2, 8, 32 clients, /s |"
        );
        println!("|---|---|---|---|---|");
        for (name, make) in POLICIES {
            let open = |rate: f64| run(make, cost, Load::Poisson { rate }, requests);
            let closed = [2, 8, 32].map(|clients| run(make, cost, Load::Closed { clients }, requests / 2).rate());
            println!(
                "| {name} | {:.0} | {:.1} % | {:.2} | {:.0}, {:.0}, {:.0} |",
                max_rate(&open, capacity),
                100.0 * open(1.2 * capacity).in_time(),
                open(0.05 * capacity).mean_latency().as_secs_f64() * 1e3,
                closed[0],
                closed[1],
                closed[2],
            );
        }
    }
}

fn run(make: Maker, cost: Cost, load: Load, requests: usize) -> Outcome {
    simulate(&mut *make(), cost, load, SLO, requests, 42)
}

/// The highest rate at which 99 of 100 requests are answered in time, by bisection to half a percent.
fn max_rate(open: &dyn Fn(f64) -> Outcome, capacity: f64) -> f64 {
    let (mut good, mut bad) = (0.0, 1.5 * capacity);
    while bad - good > 0.005 * capacity {
        let rate = f64::midpoint(good, bad);
        if open(rate).in_time() >= 0.99 { good = rate } else { bad = rate }
    }
    good
}
