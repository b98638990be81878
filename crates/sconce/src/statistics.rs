//! The requests of a model since it was loaded: how many were answered, how many were not, and where their time went. Every server
//! tells the same figures in the words of its protocol.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::Timing;

/// Figures of a model's requests since it was loaded. A request is one call, of one item or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestStats {
    /// The end of the last request.
    pub last: Option<SystemTime>,
    /// Requests that were answered, by their whole time.
    pub succeeded: Total,
    /// Requests that were refused or failed, by their whole time. Cancelled ones are not counted.
    pub failed: Total,
    /// Answered requests for which nothing was computed, by their whole time.
    pub cached: Total,
    /// Preparing, by the slowest item of each computed request.
    pub prepare: Total,
    /// Waiting in the queue, by the slowest item of each computed request.
    pub queue: Total,
    /// Running on a device, by the slowest item of each computed request.
    pub run: Total,
    /// Everything else, of each computed request: handing over, finishing.
    pub rest: Total,
    /// The computed items by the size of the batch that they were in.
    pub by_batch_size: BTreeMap<usize, BatchItems>,
}

/// A number of events and their time in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// Events.
    pub count: u64,
    /// The sum of their times.
    pub time: Duration,
}

/// Items that were computed in batches of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchItems {
    /// Items.
    pub items: u64,
    /// The batch's time, once for each of its items.
    pub run: Duration,
}

impl Total {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.time += time;
    }
}

impl BatchItems {
    /// The batches of `size` that these items were in, with their time. Items of a batch that others asked for are not seen: the
    /// last batch counts in full.
    #[must_use]
    pub fn batches(self, size: usize) -> Total {
        let count = self.items.div_ceil((size as u64).max(1));
        Total { count, time: self.run.div_f64(size.max(1) as f64) }
    }
}

/// [`RequestStats`] that requests share.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<RequestStats>);

impl Requests {
    /// Counts a request that was answered, by the timing of its items.
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
