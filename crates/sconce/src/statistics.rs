//! Statistics of a model's requests since it was loaded: how many were answered, how many failed, and where their time
//! went. Every server reports the same figures, in the terms of its protocol.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::Timing;

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
    /// Time of preparing, for the slowest item of each computed request.
    pub prepare: Total,
    /// Time in the queue, for the slowest item of each computed request.
    pub queue: Total,
    /// Time of the batch on a device, for the slowest item of each computed request.
    pub run: Total,
    /// All other time of each computed request: hand-offs, finishing.
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
}

/// [`RequestStats`] behind a lock, which all requests of a model update.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<RequestStats>);

impl Requests {
    /// Counts an answered request, with the timings of its items.
    pub(crate) fn succeeded<'a>(&self, took: Duration, timings: impl Iterator<Item = &'a Timing> + Clone) {
        let mut stats = self.now();
        stats.succeeded.add(took);
        let computed = timings.filter(|timing| timing.batch_size > 0);
        let total = |timing: &Timing| timing.prepare + timing.queue_wait + timing.run;
        let Some(slowest) = computed.clone().max_by_key(|timing| total(timing)) else {
            return stats.cached.add(took);
        };
        stats.prepare.add(slowest.prepare);
        stats.queue.add(slowest.queue_wait);
        stats.run.add(slowest.run);
        stats.rest.add(took.saturating_sub(total(slowest)));
        for timing in computed {
            let of_size = stats.by_batch_size.entry(timing.batch_size).or_default();
            of_size.items += 1;
            of_size.run += timing.run;
        }
    }

    /// Counts a request that was refused or failed.
    pub(crate) fn failed(&self, took: Duration) {
        self.now().failed.add(took);
    }

    pub(crate) fn stats(&self) -> RequestStats {
        self.lock().clone()
    }

    fn now(&self) -> MutexGuard<'_, RequestStats> {
        let mut stats = self.lock();
        stats.last = Some(SystemTime::now());
        stats
    }

    fn lock(&self) -> MutexGuard<'_, RequestStats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_request_counts_by_its_slowest_item_and_its_items_by_their_batches() {
        let requests = Requests::default();
        requests.succeeded(MS * 20, [timing(1, 2, 3, 4), timing(1, 5, 3, 2), timing(0, 0, 0, 0)].iter());
        requests.succeeded(MS * 2, [timing(0, 0, 0, 0)].iter());
        requests.failed(MS * 7);
        let stats = requests.stats();
        let once = |milliseconds: u32| Total { count: 1, time: MS * milliseconds };
        assert_eq!(stats.succeeded, Total { count: 2, time: MS * 22 });
        assert_eq!((stats.failed, stats.cached), (once(7), once(2)));
        assert_eq!((stats.prepare, stats.queue, stats.run, stats.rest), (once(1), once(5), once(3), once(11)));
        assert_eq!(stats.by_batch_size.keys().copied().collect::<Vec<_>>(), [2, 4]);
        assert_eq!(stats.by_batch_size[&4].batches(4), Total { count: 1, time: MS * 3 / 4 });
        assert!(stats.last.is_some());
    }
}
