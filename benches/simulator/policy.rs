//! The policies that are compared. Each decides what an idle device does.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use sconce_batch::{Batcher, BatcherConfig, Ran, Step};

use crate::MAX_BATCH_SIZE;

/// What an idle device does.
pub(crate) enum Decision {
    Run(Vec<usize>),
    /// These will not be answered.
    Drop(Vec<usize>),
    WaitUntil(Instant),
    Wait,
}

pub(crate) trait Policy {
    /// Whether the item is let in.
    fn offer(&mut self, now: Instant, item: usize, deadline: Option<Instant>) -> bool;
    /// Whether an arrival is a reason to ask again.
    fn is_due(&self, _now: Instant) -> bool {
        true
    }

    fn decide(&mut self, now: Instant) -> Decision;

    fn completed(&mut self, _now: Instant, _size: usize, _run: Duration) {}
}

/// In order of arrival, and never dropped; `delay` after the first arrival, or as soon as the batch is full.
pub(crate) struct Fifo {
    delay: Duration,
    waiting: VecDeque<(Instant, usize)>,
}

impl Fifo {
    pub(crate) fn new(delay: Duration) -> Self {
        Self { delay, waiting: VecDeque::new() }
    }
}

impl Policy for Fifo {
    fn offer(&mut self, now: Instant, item: usize, _: Option<Instant>) -> bool {
        self.waiting.push_back((now, item));
        true
    }

    fn decide(&mut self, now: Instant) -> Decision {
        let Some(&(first, _)) = self.waiting.front() else { return Decision::Wait };
        let ready_at = first + self.delay;
        if self.waiting.len() < MAX_BATCH_SIZE && now < ready_at {
            return Decision::WaitUntil(ready_at);
        }
        let len = self.waiting.len().min(MAX_BATCH_SIZE);
        Decision::Run(self.waiting.drain(..len).map(|(_, item)| item).collect())
    }
}

/// Further away than any simulation lasts.
const NEVER: Duration = Duration::from_hours(1);

/// The most urgent first; those whose deadline has passed are dropped.
#[derive(Default)]
pub(crate) struct EarliestDeadlineFirst {
    waiting: BTreeSet<(Instant, usize)>,
}

impl Policy for EarliestDeadlineFirst {
    fn offer(&mut self, now: Instant, item: usize, deadline: Option<Instant>) -> bool {
        self.waiting.insert((deadline.unwrap_or(now + NEVER), item))
    }

    fn decide(&mut self, now: Instant) -> Decision {
        let in_time = self.waiting.split_off(&(now, usize::MAX));
        let late = std::mem::replace(&mut self.waiting, in_time);
        if !late.is_empty() {
            return Decision::Drop(late.into_iter().map(|(_, item)| item).collect());
        }
        let batch: Vec<usize> =
            (0..MAX_BATCH_SIZE).map_while(|_| self.waiting.pop_first()).map(|(_, item)| item).collect();
        if batch.is_empty() { Decision::Wait } else { Decision::Run(batch) }
    }
}

/// The batcher that ships.
pub(crate) struct Sconce {
    batcher: Batcher<usize>,
}

impl Sconce {
    pub(crate) fn new() -> Self {
        let config = BatcherConfig { max_batch_size: MAX_BATCH_SIZE, ..BatcherConfig::default() };
        Self { batcher: Batcher::new(config).expect("valid bounds") }
    }
}

impl Policy for Sconce {
    fn offer(&mut self, now: Instant, item: usize, deadline: Option<Instant>) -> bool {
        self.batcher.offer(now, item, 1, deadline).is_ok()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.batcher.is_due(now)
    }

    fn decide(&mut self, now: Instant) -> Decision {
        let items = |entries: Vec<sconce_batch::Entry<usize>>| entries.into_iter().map(|entry| entry.payload).collect();
        match self.batcher.poll(now) {
            Step::Run(batch) => Decision::Run(items(batch)),
            Step::Expire(entries) => Decision::Drop(items(entries)),
            Step::WaitUntil(at) => Decision::WaitUntil(at),
            Step::Wait | Step::Finish => Decision::Wait,
        }
    }

    fn completed(&mut self, now: Instant, size: usize, run: Duration) {
        self.batcher.completed(now, Ran { size, weight: size, run: Some(run) });
    }
}
