//! The batcher against other policies, in virtual time: the same code that devices drive, and none of the noise of a machine.
//! `cargo bench -p sconce-benches --bench simulator` prints the tables of `RESULTS.md`; with `-- --plot`, it draws them too.
//!
//! One device, shared by one or more models of equal cost: a batch of n items takes a + c·n. Open load is Poisson or comes in
//! bursts, and each request has 50 ms. Closed load is clients that wait as long as it takes and come back 0.2 ms after each
//! answer.

mod ideal;
mod policy;
mod world;

use std::time::{Duration, Instant};

use ideal::Ideal;
use policy::{EarliestDeadlineFirst, Fifo, Policy, Sconce};
use world::{Cost, Load, Outcome, Scenario, simulate};

const SLO: Duration = Duration::from_millis(50);
/// A fixed cost that batches share.
const GPU_LIKE: Cost = Cost { name: "GPU-like, 5 + 0.25 ms", fixed_us: 5000, per_item_us: 250 };
/// Batches hardly help.
const CPU_LIKE: Cost = Cost { name: "CPU-like, 1 + 4 ms", fixed_us: 1000, per_item_us: 4000 };
const MAX_BATCH_SIZE: usize = 128;

type Maker = fn(Scenario, Instant) -> Box<dyn Policy>;

const POLICIES: [(&str, Maker); 6] = [
    ("first in, first out, when idle", |scenario, _| Box::new(Fifo::new(scenario.models, Duration::ZERO))),
    ("fixed timer of 2 ms", |scenario, _| Box::new(Fifo::new(scenario.models, Duration::from_millis(2)))),
    ("fixed timer of 10 ms", |scenario, _| Box::new(Fifo::new(scenario.models, Duration::from_millis(10)))),
    ("earliest deadline first", |scenario, _| Box::new(EarliestDeadlineFirst::new(scenario.models))),
    ("**Sconce**", |scenario, now| Box::new(Sconce::new(scenario.models, now))),
    ("*ideal: knows costs and callers*", |scenario, _| Box::new(Ideal::new(scenario))),
];

fn main() {
    // `cargo test` runs benches once, to see that they work.
    let requests = if std::env::args().any(|argument| argument == "--bench") { 60_000 } else { 6_000 };
    for cost in [GPU_LIKE, CPU_LIKE] {
        for models in [1, 4, 16] {
            let capacity = cost.rate_of_batches_within(SLO / 2);
            println!("\n{}, {models} models: {capacity:.0} requests/s in batches that take half of 50 ms", cost.name);
            println!(
                "| policy | max rate with 99 % in time, /s | the same in bursts | in time at 120 % | let in, then dropped | \
                 fewest / most by model | mean at 5 %, ms | 2, 8, 32 clients, /s |"
            );
            println!("|---|---|---|---|---|---|---|---|");
            for (name, make) in POLICIES {
                let run = |load, requests| run(make, Scenario { cost, models, load, slo: SLO, requests, seed: 42 });
                let closed = [2, 8, 32].map(|clients| run(Load::Closed { clients }, requests / 2).rate());
                let overload = run(Load::Poisson { rate: 1.2 * capacity }, requests);
                println!(
                    "| {name} | {:.0} | {:.0} | {:.1} % | {:.1} % | {:.2} | {:.2} | {:.0}, {:.0}, {:.0} |",
                    max_rate(|rate| run(Load::Poisson { rate }, requests), capacity),
                    max_rate(|rate| run(Load::Bursty { rate }, requests), capacity),
                    100.0 * overload.in_time(),
                    100.0 * overload.dropped(),
                    overload.fairness(),
                    run(Load::Poisson { rate: 0.05 * capacity }, requests).mean_latency().as_secs_f64() * 1e3,
                    closed[0],
                    closed[1],
                    closed[2],
                );
            }
        }
    }
}

fn run(make: Maker, scenario: Scenario) -> Outcome {
    let now = Instant::now();
    simulate(&mut *make(scenario, now), scenario, now)
}

/// The highest rate at which 99 of 100 requests are answered in time, by bisection to half a percent.
fn max_rate(open: impl Fn(f64) -> Outcome, capacity: f64) -> f64 {
    let (mut good, mut bad) = (0.0, 1.5 * capacity);
    while bad - good > 0.005 * capacity {
        let rate = f64::midpoint(good, bad);
        if open(rate).in_time() >= 0.99 { good = rate } else { bad = rate }
    }
    good
}
