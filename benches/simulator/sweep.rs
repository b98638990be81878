//! A plot of each policy's results by load.

use std::error::Error;
use std::path::Path;

use sconce_benches::python::Python;
use serde::Serialize;

use crate::world::{Load, Scenario};
use crate::{COSTS, MODELS, POLICIES, SLO, run};

/// Steps of the load, each of `STEP` percent of the capacity of the largest batches that take half of the deadline.
const LOADS: std::ops::RangeInclusive<usize> = 1..=30;
const STEP: usize = 5;

#[derive(Serialize)]
struct Record {
    cost: &'static str,
    models: usize,
    policy: &'static str,
    /// Share of the capacity of the largest batches that take half of the deadline.
    load: f64,
    rate: f64,
    in_time: f64,
    dropped: f64,
    mean_latency_ms: f64,
}

/// Writes a CSV into the target directory and plots it.
pub(crate) fn plot(png: &Path, requests: usize) -> Result<(), Box<dyn Error>> {
    let csv = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("simulator.csv");
    let mut writer = csv::Writer::from_path(&csv)?;
    for (cost, models) in COSTS.iter().flat_map(|cost| MODELS.map(|models| (*cost, models))) {
        for percent in LOADS.map(|step| step * STEP) {
            let load = percent as f64 / 100.0;
            let rate = load * cost.rate_of_batches_within(SLO / 2);
            let scenario = Scenario { cost, models, load: Load::Poisson { rate }, slo: SLO, requests, seed: 42 };
            for (policy, make) in POLICIES {
                let outcome = run(make, scenario);
                writer.serialize(Record {
                    cost: cost.name,
                    models,
                    policy: policy.trim_matches('*'),
                    load,
                    rate,
                    in_time: outcome.in_time(),
                    dropped: outcome.dropped(),
                    mean_latency_ms: outcome.mean_latency().as_secs_f64() * 1e3,
                })?;
            }
        }
    }
    writer.flush()?;
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("encoders");
    Python::find_or_make(&target)?.run("simulator/plot.py", &[&csv, png])?;
    println!("\n{} and {}", png.display(), csv.display());
    Ok(())
}
