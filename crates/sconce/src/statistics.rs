//! Statistics of a model's requests since it was loaded: how many were answered, how many failed, and where their time
//! went. Every server reports the same figures, in the terms of its protocol.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sconce_decide::CostOfBatch;
use sconce_models::Precision;
use sconce_watch::{Degradation, DegradationEvent, ModelWatch};

use crate::ladder::Rung;
use crate::latency::LatencyDistribution;
use crate::{Answer, AnswerSource, ErrorKind, Timing};

/// Statistics of a model's requests since it was loaded. A request is one call, of one item or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestStats {
    /// The time at which the last request ended.
    pub last: Option<SystemTime>,
    /// Answered requests and their whole time.
    pub succeeded: Total,
    /// Refused and failed requests and their whole time. Cancelled requests are not counted.
    pub failed: Total,
    /// Answered requests for which nothing was computed, and their whole time.
    pub cached: Total,
    /// Time of looking answers up in the cache, for the slowest item of each request that asked it.
    pub cache: Total,
    /// Time of preparing, for the slowest item of each computed request.
    pub prepare: Total,
    /// Time in the queue, for the slowest item of each computed request.
    pub queue: Total,
    /// Time of the batch on a device, for the slowest item of each computed request.
    pub run: Total,
    /// Time of making answers of the network's rows, for the slowest item of each request.
    pub finish: Total,
    /// Time of writing answers, as servers [report](crate::Model::record_serialise) it.
    pub serialise: Total,
    /// All other time of each computed request than preparing, queue and run: lookups, hand-offs, finishing.
    pub rest: Total,
    /// The computed items, by the size of their batch.
    pub by_batch_size: BTreeMap<usize, BatchItems>,
}

/// A number of events and the sum of their times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// Number of events.
    pub count: u64,
    /// Sum of the events' times.
    pub time: Duration,
}

/// Items that were computed in batches of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchItems {
    /// Number of items.
    pub items: u64,
    /// Time of the items' batches, counted once for each item.
    pub run: Duration,
    /// Time of preparing the items.
    pub prepare: Duration,
    /// Time of making the items' answers of the network's rows.
    pub finish: Duration,
}

impl Total {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.time += time;
    }
}

impl BatchItems {
    /// Number of batches of `size` that these items fill, rounded up, and their time. Items are counted when their
    /// request ends, so the last batch counts as one even if only a part of its items is counted yet.
    #[must_use]
    pub fn batches(self, size: usize) -> Total {
        let count = self.items.div_ceil((size as u64).max(1));
        Total { count, time: self.run.div_f64(size.max(1) as f64) }
    }

    /// The same batches, with the time of preparing their items.
    #[must_use]
    pub fn batches_prepared(self, size: usize) -> Total {
        Total { time: self.prepare, ..self.batches(size) }
    }

    /// The same batches, with the time of making their items' answers.
    #[must_use]
    pub fn batches_finished(self, size: usize) -> Total {
        Total { time: self.finish, ..self.batches(size) }
    }
}

/// A request's item that ended with an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndedItem {
    pub(crate) timing: Timing,
    /// Number of tokens, or 1.
    pub(crate) weight: usize,
    pub(crate) source: AnswerSource,
    pub(crate) precision: Precision,
}

impl EndedItem {
    pub(crate) fn of(answer: &Answer) -> Self {
        let Answer { timing, source, precision, .. } = *answer;
        Self { timing, weight: answer.tokens.unwrap_or(1), source, precision }
    }
}

/// Everything that is recorded of a model's requests, behind one lock: taking it once costs less than the dozen atomic
/// counters that a request would add to.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<Recorded>);

/// The figures of a model's requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorded {
    pub(crate) stats: RequestStats,
    pub(crate) distributions: Distributions,
    /// Failed requests, by kind.
    pub(crate) errors: [u64; ErrorKind::ALL.len()],
    /// Answers by source: the name of a tier, `computed`, `shared` or `replica`.
    pub(crate) sources: Vec<(&'static str, u64)>,
    /// Answers by the precision that made them.
    pub(crate) precisions: Vec<(&'static str, u64)>,
    /// The last traced request.
    pub(crate) exemplar: Option<TracedRequest>,
    watch: ModelWatch,
    /// The end of the last request; turned into a time of day when it is read, since that clock costs a call more.
    last: Option<Instant>,
}

/// A request whose trace was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracedRequest {
    /// The trace's identifier.
    pub trace_id: u128,
    /// The request's whole time.
    pub took: Duration,
    /// The time at which it ended.
    pub ended: SystemTime,
}

/// How often each stage took how long, for the requests that [`RequestStats`] counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Distributions {
    pub(crate) request: LatencyDistribution,
    pub(crate) cache: LatencyDistribution,
    pub(crate) prepare: LatencyDistribution,
    pub(crate) queue: LatencyDistribution,
    pub(crate) run: LatencyDistribution,
    pub(crate) finish: LatencyDistribution,
    pub(crate) serialise: LatencyDistribution,
}

impl Requests {
    /// Makes the figures of a model whose rung `home` answers when there is no load.
    pub(crate) fn of(rungs: &[Rung], home: usize) -> Self {
        let mut watch = ModelWatch::new().running_at_a_time(rungs[home].serving_devices());
        for rung in rungs {
            if let Some(decided) = rung.permission.decided() {
                let CostOfBatch { fixed, per_weight, .. } = decided.candidate.measured.cost;
                watch = watch.decided_on(rung.first_device, fixed, per_weight);
            }
        }
        Self(Mutex::new(Recorded { watch, ..Recorded::default() }))
    }

    /// Counts an answered request with its items; returns the degradations that begin or end with it.
    pub(crate) fn succeeded(
        &self,
        now: Instant,
        took: Duration,
        items: impl Iterator<Item = EndedItem> + Clone,
    ) -> Vec<DegradationEvent> {
        let mut recorded = self.lock();
        recorded.last = Some(now);
        recorded.count(took, items.clone());
        let mut events = Vec::new();
        for item in items {
            add_one(&mut recorded.sources, item.source.name());
            add_one(&mut recorded.precisions, item.precision.name());
            recorded.watch(now, item, &mut events);
        }
        events
    }

    /// Counts a request that was refused or failed; returns the degradations that begin or end with it.
    pub(crate) fn failed(&self, now: Instant, took: Duration, kind: ErrorKind) -> Vec<DegradationEvent> {
        let mut recorded = self.lock();
        recorded.last = Some(now);
        recorded.stats.failed.add(took);
        recorded.errors[kind.index()] += 1;
        let at_fault = matches!(kind, ErrorKind::Internal | ErrorKind::Unavailable);
        recorded.watch.answered(now, None, at_fault).into_iter().flatten().collect()
    }

    /// Counts the time that a server took to write an answer.
    pub(crate) fn serialised(&self, time: Duration) {
        let mut recorded = self.lock();
        recorded.stats.serialise.add(time);
        recorded.distributions.serialise.record(time);
    }

    /// Keeps a traced request in place of the last one.
    pub(crate) fn exemplar(&self, traced: TracedRequest) {
        self.lock().exemplar = Some(traced);
    }

    pub(crate) fn stats(&self) -> RequestStats {
        let recorded = self.lock();
        let last = recorded.last.and_then(|last| SystemTime::now().checked_sub(last.elapsed()));
        RequestStats { last, ..recorded.stats.clone() }
    }

    pub(crate) fn recorded(&self) -> Recorded {
        self.lock().clone()
    }

    pub(crate) fn degradations(&self) -> Vec<Degradation> {
        self.lock().watch.degradations()
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorded {
    fn count(&mut self, took: Duration, items: impl Iterator<Item = EndedItem> + Clone) {
        let Self { stats, distributions, .. } = self;
        stats.succeeded.add(took);
        distributions.request.record(took);
        let longest = |stage: fn(&Timing) -> Duration| items.clone().map(|item| stage(&item.timing)).max();
        if let Some(cache) = longest(|timing| timing.cache).filter(|cache| !cache.is_zero()) {
            stats.cache.add(cache);
            distributions.cache.record(cache);
        }
        if let Some(finish) = longest(|timing| timing.finish) {
            stats.finish.add(finish);
            distributions.finish.record(finish);
        }
        let computed = items.map(|item| item.timing).filter(|timing| timing.batch_size > 0);
        let total = |timing: &Timing| timing.prepare + timing.queue_wait + timing.run;
        let Some(slowest) = computed.clone().max_by_key(total) else {
            return stats.cached.add(took);
        };
        for (sum, distribution, time) in [
            (&mut stats.prepare, &mut distributions.prepare, slowest.prepare),
            (&mut stats.queue, &mut distributions.queue, slowest.queue_wait),
            (&mut stats.run, &mut distributions.run, slowest.run),
        ] {
            sum.add(time);
            distribution.record(time);
        }
        stats.rest.add(took.saturating_sub(total(&slowest)));
        for timing in computed {
            let of_size = stats.by_batch_size.entry(timing.batch_size).or_default();
            of_size.items += 1;
            of_size.run += timing.run;
            of_size.prepare += timing.prepare;
            of_size.finish += timing.finish;
        }
    }

    /// Gives an item's figures to the watch.
    fn watch(
        &mut self,
        now: Instant,
        EndedItem { timing, weight, source, .. }: EndedItem,
        events: &mut Vec<DegradationEvent>,
    ) {
        let Timing { cache, queue_wait, run, finish, batch_size, work, .. } = timing;
        let asked = !cache.is_zero();
        if asked {
            let of_source = self.sources.iter().position(|(name, _)| *name == source.name()).unwrap_or_default();
            events.extend(self.watch.looked_up(now, of_source, cache));
        }
        if let Some(prepare) = work.prepare {
            events.extend(self.watch.prepared(now, weight, prepare));
        }
        if let Some(batch_weight) = work.batch_weight {
            events.extend(self.watch.ran(now, work.device, batch_weight, run).into_iter().flatten());
        }
        if batch_size > 0 {
            events.extend(self.watch.waited(now, queue_wait, run));
        }
        events.extend(self.watch.finished(now, weight, finish));
        let hit = asked.then_some(matches!(source, AnswerSource::Cached(_)));
        events.extend(self.watch.answered(now, hit, false).into_iter().flatten());
    }
}

/// Adds one to the count of a name.
fn add_one(counts: &mut Vec<(&'static str, u64)>, name: &'static str) {
    match counts.iter_mut().find(|(known, _)| *known == name) {
        Some((_, count)) => *count += 1,
        None => counts.push((name, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn timing(prepare: u32, queue_wait: u32, run: u32, batch_size: usize) -> Timing {
        let mut timing = Timing::default();
        (timing.prepare, timing.queue_wait, timing.run) = (MS * prepare, MS * queue_wait, MS * run);
        timing.batch_size = batch_size;
        timing
    }

    fn ended<const N: usize>(timings: [Timing; N]) -> impl Iterator<Item = EndedItem> + Clone {
        timings.into_iter().map(|timing| EndedItem {
            timing,
            weight: 1,
            source: AnswerSource::Computed,
            precision: Precision::F32,
        })
    }

    #[test]
    fn a_request_counts_by_its_slowest_item_and_its_items_by_their_batches() {
        let requests = Requests::default();
        let now = Instant::now();
        requests.succeeded(now, MS * 20, ended([timing(1, 2, 3, 4), timing(1, 5, 3, 2), timing(0, 0, 0, 0)]));
        requests.succeeded(now, MS * 2, ended([timing(0, 0, 0, 0)]));
        requests.failed(now, MS * 7, ErrorKind::Overloaded);
        requests.serialised(MS);
        let stats = requests.stats();
        let once = |milliseconds: u32| Total { count: 1, time: MS * milliseconds };
        assert_eq!(stats.succeeded, Total { count: 2, time: MS * 22 });
        assert_eq!((stats.failed, stats.cached), (once(7), once(2)));
        assert_eq!((stats.prepare, stats.queue, stats.run, stats.rest), (once(1), once(5), once(3), once(11)));
        assert_eq!(stats.by_batch_size.keys().copied().collect::<Vec<_>>(), [2, 4]);
        assert_eq!(stats.by_batch_size[&4].batches(4), Total { count: 1, time: MS * 3 / 4 });
        assert_eq!(stats.by_batch_size[&4].batches_prepared(4), once(1));
        assert_eq!(stats.by_batch_size[&4].batches_finished(4), once(0));
        assert!(stats.last.is_some());
        let Recorded { distributions, errors, sources, precisions, .. } = requests.recorded();
        assert_eq!((distributions.request.count(), distributions.run.count(), stats.serialise), (2, 1, once(1)));
        assert_eq!((errors[ErrorKind::Overloaded.index()], errors.iter().sum()), (1, 1_u64));
        assert_eq!((&sources[..], &precisions[..]), (&[("computed", 4)][..], &[("f32", 4)][..]));
    }
}
