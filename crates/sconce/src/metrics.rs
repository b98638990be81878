//! The figures of a runtime as values: what an operator watches. Every exporter and dashboard reads these; counts only
//! grow, so a rate is the difference of two snapshots.

mod since;

use std::time::{Duration, SystemTime};

use sconce_batch::{Depth, DeviceState, Refusals, Stats};
use sconce_cache::{FeatureStats, OperationStats, TierStats};
use sconce_models::Precision;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::ladder::{LadderSteps, Rung};
use crate::model::Inner;
use crate::shadow::{ShadowCheck, ShadowCounts};
use crate::statistics::{Distributions, Recorded};
use crate::{Degradation, ErrorKind, LatencyDistribution, Model, RequestStats, TracedRequest};

/// A snapshot of a runtime. Serialised, times are in seconds.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct RuntimeMetrics {
    /// Time since the runtime was built.
    #[serde(serialize_with = "seconds")]
    pub uptime: Duration,
    /// Number of servers' requests that are not answered yet.
    pub in_flight: usize,
    /// True once the runtime is about to stop.
    pub draining: bool,
    /// The models, each version for itself, in the order of their names.
    pub models: Vec<ModelMetrics>,
    /// The tiers of the cache, nearest first.
    pub tiers: Vec<TierMetrics>,
    /// The cache of prepared inputs, if there is one.
    pub prepared_inputs: Option<PreparedInputMetrics>,
    /// The threads that prepare long inputs.
    pub preparing: PreparingMetrics,
    /// Bytes of memory that the process has resident; `None` where the system does not tell.
    pub resident_bytes: Option<u64>,
}

/// A snapshot of a model.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ModelMetrics {
    /// The model's name.
    pub name: String,
    /// The model's version.
    pub version: String,
    /// The precision of answers to requests that ask for none.
    pub precision: &'static str,
    /// The decision by which it serves in that precision; `None` for f32.
    pub decision: Option<DecisionMetrics>,
    /// The decisions on all precisions below f32 that it is loaded in.
    pub decisions: Vec<DecisionMetrics>,
    /// Requests that were answered.
    pub succeeded: u64,
    /// Requests that were refused or failed.
    pub failed: u64,
    /// Failed requests by [`ErrorKind`].
    pub errors: Vec<Count>,
    /// Answered items by source: a tier's name, `computed`, `shared` or `replica`.
    pub answers: Vec<Count>,
    /// Answered items by the precision that made them.
    pub answer_precisions: Vec<Count>,
    /// Items that were refused, by reason.
    pub refusals: Vec<Count>,
    /// How long the stages of requests took.
    pub latency: StageLatencies,
    /// The last request whose trace was recorded, if there is one.
    #[serde(skip)]
    pub exemplar: Option<TracedRequest>,
    /// The queue.
    pub queue: QueueMetrics,
    /// Batches by number of items: the bounds are powers of two.
    pub batches: Vec<BatchCount>,
    /// Items that ran in batches.
    pub batched_items: u64,
    /// The devices, the preferred one first.
    pub devices: Vec<DeviceMetrics>,
    /// The stages that are worse than they were.
    pub degradations: Vec<DegradationMetrics>,
    /// The precisions of a model that has several.
    pub ladder: Option<LadderMetrics>,
    /// The check of lower precisions against f32, by precision; empty without one.
    pub shadow: Vec<ShadowMetrics>,
    /// Answers that were to be checked, and were not because the machine was busy.
    pub shadow_dropped: u64,
}

/// A snapshot of the check of answers in one precision against those in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShadowMetrics {
    /// The precision.
    pub precision: &'static str,
    /// Answers that were similar enough.
    pub alike: u64,
    /// Answers that were not.
    pub different: u64,
    /// True once too many were not: the model answers in a higher precision until it is loaded again.
    pub alarm: bool,
}

/// A snapshot of the precisions of a model that has several.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LadderMetrics {
    /// The precisions, the highest first; [`ModelMetrics::precision`] is the present one.
    pub precisions: Vec<&'static str>,
    /// Number of steps to a lower precision.
    pub steps_down: u64,
    /// Number of steps to a higher precision.
    pub steps_up: u64,
}

/// The decision by which a model serves in a precision below f32.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DecisionMetrics {
    /// The id of the record, or `undecided`.
    pub id: String,
    /// The precision.
    pub precision: &'static str,
    /// The last second at which the record counts, as Unix time.
    pub expires: Option<i64>,
    /// The learned time of a batch of usual weight, as a multiple of the record's: what was decided rests on 1.
    pub cost_ratio: Option<f64>,
}

/// A number of events of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The name.
    pub name: &'static str,
    /// The number.
    pub count: u64,
}

/// The distributions of the times that the stages of a model's requests took. A request of several items counts by its
/// slowest item.
///
/// Serialised, each stage has its count, its quantiles, and the sum of its times.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StageLatencies {
    /// Sums of the times, in seconds, in the order of [`stages`](Self::stages).
    sums: [f64; 7],
    /// Whole answered requests.
    pub request: LatencyDistribution,
    /// Lookups in the cache.
    pub cache: LatencyDistribution,
    /// Preparing.
    pub prepare: LatencyDistribution,
    /// Waiting in the queue.
    pub queue: LatencyDistribution,
    /// Batches on a device.
    pub run: LatencyDistribution,
    /// Finishing of outputs.
    pub finish: LatencyDistribution,
    /// Writing of answers by servers.
    pub serialise: LatencyDistribution,
}

/// A snapshot of a model's queue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct QueueMetrics {
    /// Number of queued items.
    pub items: usize,
    /// Their weight.
    pub weight: usize,
    /// Time for which the oldest has been queued; zero if none is.
    #[serde(serialize_with = "seconds")]
    pub oldest_age: Duration,
    /// Number of items whose callers wait for room in the queue.
    pub waiting_for_room: usize,
    /// Items that left the queue because their callers cancelled them.
    pub cancelled: u64,
    /// Items that left the queue because they would have missed their deadline.
    pub dropped: u64,
}

/// Number of batches of a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BatchCount {
    /// The largest number of items of these batches; `None` for all larger ones.
    pub max_size: Option<u64>,
    /// Number of batches.
    pub batches: u64,
}

/// A snapshot of a model on one of its devices.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DeviceMetrics {
    /// The device's name.
    pub name: String,
    /// The precision of the network.
    pub precision: &'static str,
    /// Time for which it has run this model's batches, the running one included. Its growth, divided by the time passed,
    /// is the utilisation.
    #[serde(serialize_with = "seconds")]
    pub busy: Duration,
    /// True unless the device is lost.
    pub available: bool,
    /// True if the network is in the device's memory.
    pub loaded: bool,
    /// Learned fixed cost of a batch in seconds; `None` until it is known.
    pub fixed_cost: Option<f64>,
    /// Learned cost of a unit of weight in seconds; `None` until it is known.
    pub cost_per_weight: Option<f64>,
}

/// A [`Degradation`] with its names, as exporters show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DegradationMetrics {
    /// The stage's name.
    pub stage: &'static str,
    /// The device's name, for a run and for a decision.
    pub device: Option<String>,
    /// The precision of the network there.
    pub precision: Option<&'static str>,
    /// The part of a batch's cost, for a run where it can be told.
    pub part: Option<&'static str>,
    /// The estimated beginning.
    #[serde(serialize_with = "unix_seconds")]
    pub since: SystemTime,
    /// The figure as a multiple of what it was.
    pub ratio: f64,
    /// The figure as it was; its unit as of [`Degradation::usual`].
    pub usual: f64,
    /// The figure as it is.
    pub present: f64,
}

/// A snapshot of a tier of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TierMetrics {
    /// The tier's name.
    pub tier: &'static str,
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Reads and writes that failed, took too long, or were not tried because too many had failed.
    pub failures: u64,
    /// Entries that were not stored.
    pub lost: u64,
    /// Bytes that the tier holds; known for the memory tier only.
    pub held_bytes: Option<u64>,
}

/// A snapshot of the cache of prepared inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PreparedInputMetrics {
    /// Lookups that found a prepared input, or waited for one.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Bytes that the cache holds.
    pub held_bytes: u64,
}

/// A snapshot of the threads that prepare long inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PreparingMetrics {
    /// Number of threads that may prepare at a time.
    pub threads: usize,
    /// Number of those that do.
    pub running: usize,
    /// Time for which all of them together have prepared. Its growth, divided by the time passed and by `threads`, is
    /// their utilisation.
    #[serde(serialize_with = "seconds")]
    pub busy: Duration,
}

impl Model {
    /// The figures of the model right now.
    #[must_use]
    pub fn metrics(&self) -> ModelMetrics {
        let Inner { rungs, shadow, requests, .. } = &*self.inner;
        let Recorded { stats, distributions, errors, sources, precisions, exemplar, .. } = requests.recorded();
        let (queue_stats, depth) = (rungs.stats(), rungs.depth());
        let (counts, shadow_dropped) = shadow.as_ref().map(ShadowCheck::counts).unwrap_or_default();
        let busy = rungs.all().iter().flat_map(|rung| (0..rung.devices.len()).map(|at| rung.queue.busy_on(at)));
        let device = |(busy, device): (Duration, crate::ModelDevice)| {
            let line = device.cost.line();
            DeviceMetrics {
                name: device.name.to_string(),
                precision: device.precision.name(),
                busy,
                available: device.state != DeviceState::Lost,
                loaded: device.loaded,
                fixed_cost: line.map(|line| line.fixed),
                cost_per_weight: line.map(|line| line.per_weight),
            }
        };
        ModelMetrics {
            name: self.name().to_owned(),
            version: self.version().to_string(),
            precision: self.precision().name(),
            decision: DecisionMetrics::of(rungs.active()),
            decisions: rungs.all().iter().filter_map(DecisionMetrics::of).collect(),
            succeeded: stats.succeeded.count,
            failed: stats.failed.count,
            errors: ErrorKind::ALL.map(|kind| Count { name: kind.name(), count: errors[kind.index()] }).into(),
            answers: sources.into_iter().map(|(name, count)| Count { name, count }).collect(),
            answer_precisions: precisions.into_iter().map(|(name, count)| Count { name, count }).collect(),
            refusals: refusals(queue_stats.refused),
            latency: StageLatencies::new(&stats, distributions),
            exemplar,
            queue: QueueMetrics::new(depth, &queue_stats),
            batches: batches(&queue_stats),
            batched_items: queue_stats.batched,
            devices: busy.zip(rungs.model_devices()).map(device).collect(),
            degradations: self.degradations().iter().map(|it| self.degradation_metrics(it)).collect(),
            ladder: rungs.ladder().map(|ladder| {
                let LadderSteps { down: steps_down, up: steps_up } = ladder.steps();
                let precisions = rungs.precisions().into_iter().map(Precision::name).collect();
                LadderMetrics { precisions, steps_down, steps_up }
            }),
            shadow: counts.iter().map(ShadowMetrics::of).collect(),
            shadow_dropped,
        }
    }

    fn degradation_metrics(&self, it: &Degradation) -> DegradationMetrics {
        DegradationMetrics {
            stage: it.stage.name(),
            device: it.device.map(|device| self.inner.rungs.device(device).1.to_string()),
            precision: it.device.map(|device| self.inner.rungs.device(device).0.name()),
            part: it.part.map(crate::CostPart::name),
            since: SystemTime::now().checked_sub(it.since.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH),
            ratio: it.ratio(),
            usual: it.usual,
            present: it.present,
        }
    }
}

impl DecisionMetrics {
    fn of(rung: &Rung) -> Option<Self> {
        let id = rung.permission.id()?.to_owned();
        let expires =
            rung.permission.decided().and_then(|decided| decided.record.expires_at()).map(jiff::Timestamp::as_second);
        Some(Self { id, precision: rung.precision.name(), expires, cost_ratio: rung.decided_cost_ratio() })
    }
}

impl ShadowMetrics {
    fn of(&ShadowCounts { precision, alike, different, alarm, .. }: &ShadowCounts) -> Self {
        Self { precision: precision.name(), alike, different, alarm }
    }
}

impl StageLatencies {
    fn new(stats: &RequestStats, distributions: Distributions) -> Self {
        let Distributions { request, cache, prepare, queue, run, finish, serialise } = distributions;
        let sums = [stats.succeeded, stats.cache, stats.prepare, stats.queue, stats.run, stats.finish, stats.serialise];
        let sums = sums.map(|total| total.time.as_secs_f64());
        Self { sums, request, cache, prepare, queue, run, finish, serialise }
    }

    /// The stages: each with its name, its distribution, and the sum of its times in seconds.
    #[must_use]
    pub fn stages(&self) -> [(&'static str, &LatencyDistribution, f64); 7] {
        let Self { sums, request, cache, prepare, queue, run, finish, serialise } = self;
        [
            ("request", request, sums[0]),
            ("cache", cache, sums[1]),
            ("prepare", prepare, sums[2]),
            ("queue", queue, sums[3]),
            ("run", run, sums[4]),
            ("finish", finish, sums[5]),
            ("serialise", serialise, sums[6]),
        ]
    }
}

impl Serialize for StageLatencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Stage<'a> {
            sum: f64,
            #[serde(flatten)]
            times: &'a LatencyDistribution,
        }
        let stages = self.stages();
        let mut map = serializer.serialize_map(Some(stages.len()))?;
        for (name, times, sum) in stages {
            map.serialize_entry(name, &Stage { sum, times })?;
        }
        map.end()
    }
}

impl QueueMetrics {
    fn new(depth: Depth, stats: &Stats) -> Self {
        Self {
            items: depth.items,
            weight: depth.weight,
            oldest_age: depth.oldest_age.unwrap_or_default(),
            waiting_for_room: depth.waiting_for_room,
            cancelled: stats.cancelled,
            dropped: stats.dropped,
        }
    }
}

impl From<TierStats> for TierMetrics {
    fn from(stats: TierStats) -> Self {
        let failures = |it: OperationStats| it.errors + it.timeouts + it.skipped;
        Self {
            tier: stats.tier,
            hits: stats.hits,
            misses: stats.misses,
            failures: failures(stats.reads) + failures(stats.writes),
            lost: stats.lost.queue_full + stats.lost.too_large + stats.lost.failed,
            held_bytes: stats.held_bytes,
        }
    }
}

impl From<FeatureStats> for PreparedInputMetrics {
    fn from(stats: FeatureStats) -> Self {
        Self { hits: stats.hits + stats.shared, misses: stats.misses, held_bytes: stats.held_bytes }
    }
}

fn refusals(refused: Refusals) -> Vec<Count> {
    [
        ("queue_full", refused.queue_full),
        ("queue_too_heavy", refused.queue_too_heavy),
        ("too_heavy", refused.too_heavy),
        ("overloaded", refused.overloaded),
        ("deadline_exceeded", refused.deadline_exceeded),
        ("devices_lost", refused.devices_lost),
        ("shutting_down", refused.shutting_down),
    ]
    .map(|(name, count)| Count { name, count })
    .into()
}

fn batches(stats: &Stats) -> Vec<BatchCount> {
    let last = stats.batch_sizes.len() - 1;
    let count = |(at, batches): (usize, &u64)| BatchCount { max_size: (at < last).then(|| 1 << at), batches: *batches };
    stats.batch_sizes.iter().enumerate().map(count).collect()
}

/// Bytes of memory that the process has resident, as Linux tells it.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn unix_seconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_f64(since.as_secs_f64())
}
