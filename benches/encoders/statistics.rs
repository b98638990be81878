//! Medians, quartiles and ratios of bursts. Ratios are formed within a round, where both engines had the same noise.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use crate::crew::Calls;
use crate::engine::{BASELINES, CONTESTS, Engine};
use crate::measure::Burst;
use crate::model::ModelName;
use crate::shape::BatchShape;

/// Results of one model with one number of threads.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) model: ModelName,
    pub(crate) threads: NonZeroUsize,
    pub(crate) rounds: usize,
    /// The engine whose time is 1.
    pub(crate) baseline: Engine,
    pub(crate) cells: Vec<Cell>,
    pub(crate) contests: Vec<Contest>,
}

/// One engine at one shape.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) engine: Engine,
    pub(crate) shape: BatchShape,
    /// The lowest cosine over all rows of all shapes.
    pub(crate) cosine: f64,
    pub(crate) calls: usize,
    pub(crate) fastest_ms: f64,
    pub(crate) wall_ms: Quartiles,
    pub(crate) cpu_ms: Quartiles,
    pub(crate) ratios: Ratios,
}

/// Another engine's time divided by this one's: larger is faster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratios {
    /// Ratios of medians, formed in each round.
    pub(crate) wall: Quartiles,
    pub(crate) cpu: Quartiles,
    /// Ratio of the fastest calls of the whole run, in wall time: free of any disturbance.
    pub(crate) fastest: f64,
}

/// One of our engines against the better of its rivals at one shape.
#[derive(Debug)]
pub(crate) struct Contest {
    pub(crate) engine: Engine,
    pub(crate) rivals: &'static str,
    pub(crate) shape: BatchShape,
    pub(crate) ratios: Ratios,
}

/// Quartiles of some figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quartiles {
    pub(crate) p25: f64,
    pub(crate) median: f64,
    pub(crate) p75: f64,
}

impl Quartiles {
    /// Interpolated linearly between neighbours; NaN if there are no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
            let place = share * last as f64;
            let (below, above) = (place.floor(), place.ceil());
            let value = |place: f64| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a place between 0 and last"
                )]
                values[place as usize]
            };
            value(below) + (place - below) * (value(above) - value(below))
        };
        Self { p25: at(0.25), median: at(0.5), p75: at(0.75) }
    }
}

/// Cells and contests of a run, in the order of `shapes`.
pub(crate) fn summarise(
    model: ModelName,
    threads: NonZeroUsize,
    shapes: &[BatchShape],
    cosines: &BTreeMap<Engine, f64>,
    bursts: &[Burst],
) -> Run {
    let present = |engine: &Engine| cosines.contains_key(engine);
    let baseline =
        BASELINES.into_iter().find(present).expect("answers were checked, with stock candle if nothing else");
    let (mut cells, mut contests) = (Vec::new(), Vec::new());
    for shape in shapes {
        let turns = Turns::of(*shape, bursts);
        cells.extend(cosines.iter().map(|(engine, cosine)| turns.cell(*engine, *cosine, baseline)));
        for (engine, rivals, name) in CONTESTS {
            // Better by the median over the whole run: the better one of each round would be a matter of luck.
            let faster = |a: &Engine, b: &Engine| turns.median(*a).total_cmp(&turns.median(*b));
            let better = rivals.into_iter().filter(present).min_by(faster);
            if let (true, Some(rival)) = (present(&engine), better) {
                contests.push(Contest { engine, rivals: name, shape: *shape, ratios: turns.ratios(rival, engine) });
            }
        }
    }
    let rounds = bursts.iter().map(|burst| burst.round + 1).max().unwrap_or(0);
    Run { model, threads, rounds, baseline, cells, contests }
}

/// All turns at one shape.
struct Turns<'a> {
    shape: BatchShape,
    bursts: Vec<&'a Burst>,
}

impl<'a> Turns<'a> {
    fn of(shape: BatchShape, bursts: &'a [Burst]) -> Self {
        Self { shape, bursts: bursts.iter().filter(|burst| burst.shape == shape).collect() }
    }

    fn cell(&self, engine: Engine, cosine: f64, baseline: Engine) -> Cell {
        let wall_ms = self.calls(engine, |calls| &calls.wall_ms);
        Cell {
            engine,
            shape: self.shape,
            cosine,
            calls: wall_ms.len(),
            fastest_ms: fastest(&wall_ms),
            wall_ms: Quartiles::of(wall_ms),
            cpu_ms: Quartiles::of(self.calls(engine, |calls| &calls.cpu_ms)),
            ratios: self.ratios(baseline, engine),
        }
    }

    fn ratios(&self, rival: Engine, engine: Engine) -> Ratios {
        let fastest = |engine| fastest(&self.calls(engine, |calls| &calls.wall_ms));
        Ratios {
            wall: self.ratio(rival, engine, |calls| &calls.wall_ms),
            cpu: self.ratio(rival, engine, |calls| &calls.cpu_ms),
            fastest: fastest(rival) / fastest(engine),
        }
    }

    /// `rival`'s median divided by `engine`'s, round by round.
    fn ratio(&self, rival: Engine, engine: Engine, clock: Clock) -> Quartiles {
        let medians = |engine| {
            self.of_engine(engine).map(|burst| (burst.round, Quartiles::of(clock(&burst.calls).clone()).median))
        };
        let rival: BTreeMap<usize, f64> = medians(rival).collect();
        Quartiles::of(medians(engine).filter_map(|(round, time)| Some(rival.get(&round)? / time)).collect())
    }

    fn median(&self, engine: Engine) -> f64 {
        Quartiles::of(self.calls(engine, |calls| &calls.wall_ms)).median
    }

    fn calls(&self, engine: Engine, clock: Clock) -> Vec<f64> {
        self.of_engine(engine).flat_map(|burst| clock(&burst.calls).iter().copied()).collect()
    }

    fn of_engine(&self, engine: Engine) -> impl Iterator<Item = &'a Burst> {
        self.bursts.iter().copied().filter(move |burst| burst.engine == engine)
    }
}

/// Wall or CPU time.
type Clock = fn(&Calls) -> &Vec<f64>;

fn fastest(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}
