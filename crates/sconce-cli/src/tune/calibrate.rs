//! Measures a model with each number of threads and in each precision that may be advised.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use sconce::{
    BatcherConfig, BuildError, DeviceName, LoadError, Model, ModelSource, Permission, Precision, Role, Runtime,
};
use sconce_trace::RequestTrace;

use super::samples::ServiceSamples;
use super::simulate::simulate;
use super::{Setting, TuneError, share_of_trace};
use crate::args::ComputeArgs;
use crate::error::Error;
use crate::progress;
use crate::replay::{PlannedRequest, ReplayPlan, ReplayedRequest, Replayer, SortedTimes, StageFigures};

/// Numbers of callers that send one request after the other. Together their batches have every weight up to the largest.
const CALLERS: [usize; 7] = [2, 4, 8, 16, 32, 64, 128];

/// Measurements that the replay of the load is as long as.
const TURNS_OF_LOAD: u32 = 8;

/// The largest load, as a share of the measured capacity, under which requests are measured.
const MAX_LOAD: f64 = 0.85;

/// Runs the model with settings.
pub(crate) struct Bench<'a> {
    pub(crate) name: &'a str,
    pub(crate) source: ModelSource,
    pub(crate) compute: &'a ComputeArgs,
    /// The bounds of batches, unless the model's `sconce.toml` sets them.
    pub(crate) batching: BatcherConfig,
    pub(crate) stop: &'a AtomicBool,
}

/// A model measured with a number of threads in a precision.
pub(crate) struct Calibrated {
    /// The settings that it was measured with.
    pub(crate) setting: Setting,
    pub(crate) samples: ServiceSamples,
    /// The factor by which measured latencies differ from simulated ones under the measured load.
    pub(crate) correction: Correction,
    /// Requests per second that many callers at once were answered.
    pub(crate) capacity: f64,
    /// Bytes of the weights, and of the intermediate results for each unit of weight of a batch.
    pub(crate) weight_bytes: u64,
    pub(crate) bytes_per_weight: u64,
    /// Weight of the heaviest input.
    pub(crate) heaviest: usize,
}

impl Bench<'_> {
    /// Starts the model with settings in place of the defaults.
    pub(crate) fn start(&self, setting: Option<&Setting>) -> Result<(Runtime, Model), BuildError> {
        let mut builder = self.compute.apply(Runtime::builder().batching(self.batching.clone()));
        let mut source = self.source.clone();
        if let Some(Setting { threads, precision, config }) = setting {
            builder = builder.cpu_threads(*threads);
            source = source.precision(*precision).batching(config.clone());
        }
        let runtime = builder.model(source).build()?;
        let model = runtime.model(self.name).expect("the runtime was built with this model");
        Ok((runtime, model))
    }

    /// The requests of a trace, as the model's queue counts them.
    pub(crate) fn plan(&self, trace: &RequestTrace) -> Result<Vec<PlannedRequest>, Error> {
        let (runtime, model) = self.start(None)?;
        let plan = ReplayPlan::new(trace, &model);
        runtime.shutdown_blocking();
        Ok(plan.requests)
    }

    /// Measures the default settings first, then other numbers of threads and precisions.
    pub(crate) async fn calibrate(&self, trace: &RequestTrace, turn: Duration) -> Result<Vec<Calibrated>, Error> {
        let (runtime, model) = self.start(None)?;
        let default = Setting {
            threads: runtime.cpu_threads(),
            precision: model.signature().precision,
            config: model.batcher_config().clone(),
        };
        check_devices(&model)?;
        let on_cpu = model.devices().first().is_some_and(|device| device.name == DeviceName::CPU);
        runtime.shutdown().await;
        let mut settings = Vec::new();
        for precision in self.precisions(default.precision)? {
            let threads = if on_cpu { self.threads(default.threads) } else { vec![default.threads] };
            settings.extend(threads.into_iter().map(|threads| Setting { threads, precision, ..default.clone() }));
        }
        let turns = settings.len() * (1 + CALLERS.len() + TURNS_OF_LOAD as usize);
        let bar = progress::count_bar(turns as u64, format!("measuring {}", self.name));
        let mut calibrated = Vec::new();
        for setting in settings {
            calibrated.push(self.measure(setting, trace, turn, &bar).await?);
        }
        bar.finish_and_clear();
        Ok(calibrated)
    }

    /// The default precision, and those that a decision allows, unless the command names one.
    fn precisions(&self, default: Precision) -> Result<Vec<Precision>, Error> {
        let mut precisions = vec![default];
        let others = Precision::ALL.into_iter().filter(|other| *other != default);
        for precision in others.filter(|_| self.compute_is_open()) {
            let source = self.source.clone().precision(precision);
            match self.compute.apply(Runtime::builder()).model(source).without_warm_up().build() {
                Ok(runtime) => {
                    let model = runtime.model(self.name).expect("the runtime was built with this model");
                    let allowed = matches!(model.permission(), Permission::Reference | Permission::Decided(_));
                    precisions.extend(allowed.then_some(precision));
                    runtime.shutdown_blocking();
                }
                Err(BuildError::Undecided { .. }) => {}
                Err(BuildError::Load { source, .. }) if matches!(*source, LoadError::UnsupportedPrecision { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(precisions)
    }

    /// Returns true unless the command names the precision.
    fn compute_is_open(&self) -> bool {
        self.source.precision.is_none()
    }

    /// The default number of threads first, then the powers of two up to the number of cores, unless the command names one.
    fn threads(&self, default: NonZeroUsize) -> Vec<NonZeroUsize> {
        let mut threads = vec![default];
        if self.compute.threads.is_none() {
            let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
            let powers = (0..usize::BITS).map(|power| 1_usize << power).take_while(|threads| *threads <= cores);
            threads.extend(powers.filter_map(NonZeroUsize::new).filter(|threads| *threads != default));
        }
        threads
    }

    async fn measure(
        &self,
        setting: Setting,
        trace: &RequestTrace,
        turn: Duration,
        bar: &ProgressBar,
    ) -> Result<Calibrated, Error> {
        let (runtime, model) = self.start(Some(&setting))?;
        let quiet = ProgressBar::hidden();
        let replayer = Replayer { model: &model, progress: &quiet, stop: self.stop };
        let plan = ReplayPlan::new(trace, &model);
        let alone = replayer.run_closed(&plan, 1, turn).await;
        bar.inc(1);
        let (mut closed, mut capacity) = (Vec::new(), 0.0_f64);
        for callers in CALLERS {
            let answered = replayer.run_closed(&plan, callers, turn).await;
            capacity = capacity.max(throughput(&answered, turn));
            closed.extend(answered);
            bar.inc(1);
        }
        let load = bearable(trace, capacity).busiest(turn * TURNS_OF_LOAD);
        let open_plan = ReplayPlan::new(&load, &model);
        let open = replayer.run(&open_plan).await;
        bar.inc(TURNS_OF_LOAD.into());
        let samples = ServiceSamples::of(&open, &alone, &closed);
        let samples = samples.ok_or_else(|| TuneError::TooFew { name: self.name.to_owned() })?;
        let correction = Correction::of(&open, &open_plan.requests, &setting.config, &samples);
        let weight_bytes = model.devices().first().map_or(0, |device| device.weight_bytes);
        let demand = model.decision().devices().find_map(|considered| considered.demand);
        runtime.shutdown().await;
        let heaviest = plan.requests.iter().flat_map(|request| &request.weights).max().map_or(1, |max| *max as usize);
        let bytes_per_weight = demand.map_or(0, |(_, demand)| demand.bytes_per_weight);
        Ok(Calibrated { setting, samples, correction, capacity, weight_bytes, bytes_per_weight, heaviest })
    }
}

/// The factors by which measured latencies differ from simulated ones. A simulation does not know all that delays requests: how
/// stalls of the machine hit threads together, for instance. So it is run over the load that was measured, and what it misses
/// there is expected elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Correction {
    /// At the median.
    pub(crate) median: f64,
    /// In the tail: over the slowest twentieth.
    pub(crate) tail: f64,
}

impl Correction {
    pub(crate) const NONE: Self = Self { median: 1.0, tail: 1.0 };
    /// Simulations that are averaged.
    const SEEDS: u64 = 7;
    /// Requests below which a tail says nothing.
    const MIN_REQUESTS: usize = 100;
    /// The largest correction, up or down: a larger one says that something else is wrong.
    const MAX: f64 = 3.0;

    fn of(
        open: &[ReplayedRequest],
        requests: &[PlannedRequest],
        config: &BatcherConfig,
        samples: &ServiceSamples,
    ) -> Self {
        let measured = StageFigures::of(open).latency;
        if measured.len() < Self::MIN_REQUESTS {
            return Self::NONE;
        }
        let runs = || (1..=Self::SEEDS).map(|seed| simulate(requests, config, samples, seed).latency);
        let ratio = |figure: &dyn Fn(&SortedTimes) -> f64| {
            let simulated = runs().map(|run| figure(&run)).sum::<f64>() / Self::SEEDS as f64;
            (figure(&measured) / simulated.max(1e-9)).clamp(1.0 / Self::MAX, Self::MAX)
        };
        let (median, tail) = (ratio(&|run| run.quantile(0.5).as_secs_f64()), ratio(&|run| run.mean_of_slowest(0.05)));
        Self { median, tail }
    }
}

/// The trace at a rate that the model can bear, as one of several replicas.
fn bearable(trace: &RequestTrace, capacity: f64) -> RequestTrace {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and it saturates")]
    let replicas = (trace.rate() / (capacity * MAX_LOAD).max(1e-9)).ceil() as usize;
    share_of_trace(trace, replicas.clamp(1, trace.len().max(1)))
}

fn throughput(replayed: &[ReplayedRequest], turn: Duration) -> f64 {
    let ended = replayed.iter().filter(|request| request.at + request.latency <= turn).count();
    ended as f64 / turn.as_secs_f64()
}

fn check_devices(model: &Model) -> Result<(), TuneError> {
    let serving: Vec<String> =
        model.devices().iter().filter(|it| it.role == Role::Serves).map(|it| it.name.to_string()).collect();
    if serving.len() > 1 {
        return Err(TuneError::SeveralDevices { name: model.name().to_owned(), devices: serving.join(" and ") });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::samples::tests::requests;
    use super::*;

    #[test]
    fn latencies_that_a_simulation_misses_are_corrected_for() {
        let mut open = requests(2.0, 0.1, 300);
        let mut planned = Vec::new();
        for (index, request) in open.iter_mut().enumerate() {
            request.at = Duration::from_millis(50 * index as u64);
            request.latency *= 2;
            let weight = u32::try_from(1 + index % 64).unwrap();
            planned.push(PlannedRequest::sized(request.at, vec![weight]));
        }
        let samples = ServiceSamples::of(&open, &open, &open).unwrap();
        let of = |open: &[ReplayedRequest]| Correction::of(open, &planned, &BatcherConfig::default(), &samples);
        let Correction { median, tail } = of(&open);
        assert!((median - 2.0).abs() < 0.1 && (tail - 2.0).abs() < 0.1, "{median} {tail}");
        assert_eq!(of(&open[..50]), Correction::NONE, "too few have no tail");
    }

    #[test]
    fn a_load_beyond_the_capacity_is_measured_as_that_of_one_of_several_replicas() {
        let at = |index: u64| sconce_trace::RecordedRequest::one(Duration::from_millis(index), 10);
        let trace = RequestTrace::new("a test", (0..1000).map(at).collect());
        assert_eq!(bearable(&trace, 5000.0).len(), 1000);
        assert_eq!(bearable(&trace, 300.0).len(), 250, "one of four");
        assert_eq!(bearable(&trace, 0.0).len(), 1);
    }
}
