//! The batcher against other policies, in virtual time: the code that devices run, without the noise of a machine.
//! `cargo bench -p sconce-benches --bench simulator` prints the tables of `RESULTS.md`; `-- --plot FILE.png` draws them.
//!
//! One device, shared by one or more models of equal cost: a batch of n items takes a + c·n. Open load is Poisson or comes
//! in bursts, and each request has 50 ms. Closed load is clients that wait without a deadline and come back 0.2 ms after
//! each answer.

mod ideal;
mod policy;
mod sweep;
mod table;
mod world;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;

use ideal::Ideal;
use policy::{EarliestDeadlineFirst, Fifo, Policy, Sconce};
use world::{Cost, Outcome, Scenario, simulate};

const SLO: Duration = Duration::from_millis(50);
/// A large fixed cost, shared by the items of a batch.
const GPU_LIKE: Cost =
    Cost { name: "GPU-like, 5 + 0.25 ms", fixed: Duration::from_millis(5), per_item: Duration::from_micros(250) };
/// A small fixed cost: batches hardly help.
const CPU_LIKE: Cost =
    Cost { name: "CPU-like, 1 + 4 ms", fixed: Duration::from_millis(1), per_item: Duration::from_millis(4) };
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

/// Costs, and numbers of models that share the device.
const COSTS: [Cost; 2] = [GPU_LIKE, CPU_LIKE];
const MODELS: [usize; 3] = [1, 4, 16];

/// Compares the batcher with other policies in virtual time: tables of their limits, and a plot
#[derive(Debug, Parser)]
#[command(name = "simulator")]
struct Args {
    /// Also plots the share answered in time by load, into this PNG; a relative path is below benches/
    #[arg(long, value_name = "FILE.png")]
    plot: Option<PathBuf>,

    /// Requests of each run, of which the first tenth, when policies learn, is not counted [default: 60000, or 6000 in a test]
    #[arg(long, value_name = "N")]
    requests: Option<usize>,

    /// The flag that cargo bench passes: measure instead of only checking that it works
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let requests = args.requests.unwrap_or(if args.bench { 60_000 } else { 6_000 });
    for cost in COSTS {
        for models in MODELS {
            table::print(cost, models, requests);
        }
    }
    args.plot.map_or(Ok(()), |png| sweep::plot(&png, requests))
}

fn run(make: Maker, scenario: Scenario) -> Outcome {
    let now = Instant::now();
    simulate(&mut *make(scenario, now), scenario, now)
}
