//! Rounds: shape by shape, the engines in shuffled order, each for a short burst.

use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::Result;
use crate::cli::Plan;
use crate::crew::{Calls, Crew};
use crate::engine::Engine;
use crate::shape::BatchShape;

/// One turn of one engine at one shape.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) shape: BatchShape,
    pub(crate) engine: Engine,
    pub(crate) round: usize,
    pub(crate) calls: Calls,
}

/// Runs all turns of all engines. A worker answers once its helper threads sleep, so the next one has the machine for
/// itself.
pub(crate) fn rounds(crew: &mut Crew, engines: &[Engine], plan: &Plan) -> Result<Vec<Burst>> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut order = engines.to_vec();
    let mut bursts = Vec::new();
    let progress = progress(plan.rounds * plan.shapes.len() * order.len());
    for round in 0..plan.rounds {
        for shape in &plan.shapes {
            order.shuffle(&mut rng);
            for engine in &order {
                progress.set_message(format!("round {} of {}, {shape}, {engine}", round + 1, plan.rounds));
                let calls = crew.member(*engine).run(*shape, plan.burst_ms, plan.min_calls)?;
                bursts.push(Burst { shape: *shape, engine: *engine, round, calls });
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok(bursts)
}

fn progress(turns: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("  {bar:30} {pos}/{len} turns, {eta} left: {msg}");
    ProgressBar::new(turns as u64).with_style(style.expect("the template is a literal of this file"))
}
