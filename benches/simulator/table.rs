//! A table of the limits of each policy.

use crate::world::{Cost, Load, Outcome, Scenario};
use crate::{Maker, POLICIES, SLO, run};

/// Prints a table of all policies.
pub(crate) fn print(cost: Cost, models: usize, requests: usize) {
    let capacity = cost.rate_of_batches_within(SLO / 2);
    println!("\n{}, {models} model(s): {capacity:.0} requests/s in batches that take half of 50 ms", cost.name);
    println!(
        "| policy | max rate with 99 % in time, /s | the same in bursts | in time at 120 % | let in, then dropped | \
         fewest / most by model | mean at 5 %, ms | 2, 8, 32 clients, /s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, make) in POLICIES {
        println!("{}", row(name, make, cost, models, requests));
    }
}

fn row(name: &str, make: Maker, cost: Cost, models: usize, requests: usize) -> String {
    let capacity = cost.rate_of_batches_within(SLO / 2);
    let run = |load, requests| run(make, Scenario { cost, models, load, slo: SLO, requests, seed: 42 });
    let open = |load| run(load, requests);
    let closed = |clients| run(Load::Closed { clients }, requests / 2).rate();
    let overload = open(Load::Poisson { rate: 1.2 * capacity });
    format!(
        "| {name} | {:.0} | {:.0} | {:.1} % | {:.1} % | {} | {:.2} | {:.0}, {:.0}, {:.0} |",
        max_rate(|rate| open(Load::Poisson { rate }), capacity),
        max_rate(|rate| open(Load::Bursty { rate }), capacity),
        100.0 * overload.in_time(),
        100.0 * overload.dropped(),
        overload.fairness().map_or_else(|| "–".to_owned(), |fairness| format!("{fairness:.2}")),
        open(Load::Poisson { rate: 0.05 * capacity }).mean_latency().as_secs_f64() * 1e3,
        closed(2),
        closed(8),
        closed(32),
    )
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
