//! Figures of the requests so far, for `ModelStatistics`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sconce::Timing;

use crate::metadata::VERSION;
use crate::proto::{InferBatchStatistics, InferStatistics, ModelStatistics, StatisticDuration};

/// Figures of each model, by name, since the service was made.
#[derive(Debug, Default)]
pub(crate) struct Statistics(Mutex<BTreeMap<String, Figures>>);

impl Statistics {
    /// Counts a request whose items took `timings`.
    pub(crate) fn succeeded<'a>(&self, model: &str, took: Duration, timings: impl Iterator<Item = &'a Timing> + Clone) {
        self.with(model, |figures| figures.succeeded(took, timings));
    }

    /// Counts a request that was refused or failed.
    pub(crate) fn failed(&self, model: &str, took: Duration) {
        self.with(model, |figures| figures.failed.add(took));
    }

    /// The figures of a model; zeros if it got no request.
    pub(crate) fn of(&self, model: &str) -> ModelStatistics {
        self.lock().get(model).cloned().unwrap_or_default().into_proto(model)
    }

    fn with(&self, model: &str, change: impl FnOnce(&mut Figures)) {
        let mut models = self.lock();
        if !models.contains_key(model) {
            models.insert(model.to_owned(), Figures::default());
        }
        if let Some(figures) = models.get_mut(model) {
            figures.last = Some(SystemTime::now());
            change(figures);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Figures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of events, and their time in all.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    count: u64,
    time: Duration,
}

/// The items that were answered in batches of one size.
#[derive(Debug, Clone, Copy, Default)]
struct OfSize {
    items: u64,
    /// Sum over the items of the time of the item's batch.
    run: Duration,
}

#[derive(Debug, Clone, Default)]
struct Figures {
    last: Option<SystemTime>,
    succeeded: Total,
    failed: Total,
    queue: Total,
    prepare: Total,
    run: Total,
    rest: Total,
    cached: Total,
    by_size: BTreeMap<usize, OfSize>,
}

impl Figures {
    fn succeeded<'a>(&mut self, took: Duration, timings: impl Iterator<Item = &'a Timing> + Clone) {
        if timings.clone().all(|timing| timing.batch_size == 0) && timings.clone().next().is_some() {
            self.succeeded.add(took);
            return self.cached.add(took);
        }
        let timings = timings.filter(|timing| timing.batch_size > 0);
        let total = |timing: &Timing| timing.prepare + timing.queue_wait + timing.run;
        let Some(slowest) = timings.clone().max_by_key(|timing| total(timing)) else { return };
        self.succeeded.add(took);
        self.prepare.add(slowest.prepare);
        self.queue.add(slowest.queue_wait);
        self.run.add(slowest.run);
        self.rest.add(took.saturating_sub(total(slowest)));
        for timing in timings {
            let of_size = self.by_size.entry(timing.batch_size).or_default();
            of_size.items += 1;
            of_size.run += timing.run;
        }
    }

    fn into_proto(self, model: &str) -> ModelStatistics {
        let since_1970 = self.last.and_then(|last| last.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let batch_stats: Vec<_> = self.by_size.iter().map(|(size, of_size)| of_size.into_proto(*size)).collect();
        let executions = |batch: &InferBatchStatistics| batch.compute_infer.map_or(0, |batches| batches.count);
        ModelStatistics {
            name: model.to_owned(),
            version: VERSION.into(),
            last_inference: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            inference_count: self.by_size.values().map(|of_size| of_size.items).sum(),
            execution_count: batch_stats.iter().map(executions).sum(),
            inference_stats: Some(InferStatistics {
                success: Some(self.succeeded.into()),
                fail: Some(self.failed.into()),
                queue: Some(self.queue.into()),
                compute_input: Some(self.prepare.into()),
                compute_infer: Some(self.run.into()),
                compute_output: Some(self.rest.into()),
                cache_hit: Some(self.cached.into()),
            }),
            batch_stats,
        }
    }
}

impl OfSize {
    /// Converts items to batches: an item counts as one `size`-th of a batch. Items of a batch that came by another
    /// protocol, or whose client left, are not counted here, so the number of batches is rounded up.
    fn into_proto(self, size: usize) -> InferBatchStatistics {
        let batch_size = size as u64;
        let batches = self.items.div_ceil(batch_size.max(1));
        let time = self.run.div_f64(size.max(1) as f64);
        InferBatchStatistics { batch_size, compute_infer: Some(Total { count: batches, time }.into()) }
    }
}

impl Total {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.time += time;
    }
}

impl From<Total> for StatisticDuration {
    fn from(total: Total) -> Self {
        Self { count: total.count, ns: u64::try_from(total.time.as_nanos()).unwrap_or(u64::MAX) }
    }
}
