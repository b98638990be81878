//! The decisions, as a pure state machine: what to admit, when to run a batch, and which entries are in it.
//!
//! Nothing here sleeps, locks, sends or looks at a clock: `now` is an argument, so a simulation drives the same code
//! as a device thread. The rules: dispatch when idle (Triton calls the exception `max_queue_delay`), first in first
//! out, batches bounded by count and weight.

use std::collections::VecDeque;
use std::time::Instant;

use crate::{BatcherConfig, ConfigError, Error};

/// What waits, and the rules by which it becomes batches.
#[derive(Debug)]
pub struct Batcher<T> {
    config: BatcherConfig,
    /// In order of arrival, hence sorted by id.
    waiting: VecDeque<Entry<T>>,
    waiting_weight: usize,
    next_id: u64,
    closed: bool,
}

/// One admitted item with what the rules need to know of it.
#[derive(Debug)]
pub struct Entry<T> {
    /// Its name, for [`Batcher::cancel`].
    pub id: EntryId,
    /// What the driver keeps with it: the item and the way to answer.
    pub payload: T,
    /// Its share of a batch's weight.
    pub weight: usize,
    /// When it was admitted.
    pub arrived: Instant,
    /// When its answer is no longer wanted.
    pub deadline: Option<Instant>,
}

/// Names an entry of one batcher; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(u64);

/// An item that was not admitted, handed back with the reason.
#[derive(Debug)]
pub struct Refused<T> {
    /// What was offered.
    pub payload: T,
    /// Why it was not admitted.
    pub error: Error,
}

/// What an idle device thread is to do now.
#[derive(Debug)]
pub enum Step<T> {
    /// Run this batch; it is never empty.
    Run(Vec<Entry<T>>),
    /// Answer these [`Error::DeadlineExceeded`], then ask again.
    Expire(Vec<Entry<T>>),
    /// Ask again at this instant, or after the next arrival.
    WaitUntil(Instant),
    /// Ask again after the next arrival.
    Wait,
    /// Nothing waits and nothing more will come.
    Finish,
}

impl<T> Batcher<T> {
    /// An empty batcher.
    ///
    /// # Errors
    /// [`ConfigError`] for a value out of bounds.
    pub fn new(config: BatcherConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { config, waiting: VecDeque::new(), waiting_weight: 0, next_id: 0, closed: false })
    }

    /// Admits an item at the end of the queue.
    ///
    /// # Errors
    /// [`Refused`] hands the item back with [`Error::ShuttingDown`], [`Error::TooHeavy`],
    /// [`Error::DeadlineExceeded`], [`Error::QueueFull`] or [`Error::QueueTooHeavy`].
    pub fn offer(
        &mut self,
        now: Instant,
        payload: T,
        weight: usize,
        deadline: Option<Instant>,
    ) -> Result<EntryId, Refused<T>> {
        if let Some(error) = self.objection(now, weight, deadline) {
            return Err(Refused { payload, error });
        }
        let id = EntryId(self.next_id);
        self.next_id += 1;
        self.waiting_weight += weight;
        self.waiting.push_back(Entry { id, payload, weight, arrived: now, deadline });
        Ok(id)
    }

    /// What an idle device thread is to do. Whatever is handed out has left the queue.
    pub fn poll(&mut self, now: Instant) -> Step<T> {
        let Candidate { len, full, expired } = self.candidate(now);
        if !expired.is_empty() {
            return Step::Expire(expired);
        }
        let Some(ready_at) = self.waiting.range(..len).map(|entry| self.linger_end(entry)).min() else {
            return if self.closed { Step::Finish } else { Step::Wait };
        };
        if !full && !self.closed && now < ready_at {
            return Step::WaitUntil(ready_at);
        }
        let batch: Vec<_> = self.waiting.drain(..len).collect();
        self.waiting_weight -= batch.iter().map(|entry| entry.weight).sum::<usize>();
        Step::Run(batch)
    }

    /// Takes a waiting entry out of the queue; `None` if it has left already.
    pub fn cancel(&mut self, id: EntryId) -> Option<T> {
        let at = self.waiting.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.remove(at).map(|entry| entry.payload)
    }

    /// Admits nothing more. What waits is still run, without lingering.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Items that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Weight that waits.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.waiting_weight
    }

    /// The bounds it was made with.
    #[must_use]
    pub fn config(&self) -> &BatcherConfig {
        &self.config
    }

    // Reasons that no waiting can mend come first, so that nobody waits for room in vain.
    fn objection(&self, now: Instant, weight: usize, deadline: Option<Instant>) -> Option<Error> {
        let BatcherConfig { max_batch_weight, max_queue_size, max_queue_weight, .. } = self.config;
        if self.closed {
            return Some(Error::ShuttingDown);
        }
        if weight > max_batch_weight {
            return Some(Error::TooHeavy { weight, max: max_batch_weight });
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Some(Error::DeadlineExceeded);
        }
        if self.waiting.len() >= max_queue_size {
            return Some(Error::QueueFull { max: max_queue_size });
        }
        if weight > max_queue_weight - self.waiting_weight {
            return Some(Error::QueueTooHeavy { queued: self.waiting_weight, weight, max: max_queue_weight });
        }
        None
    }

    /// The longest beginning of the queue that fits a batch. Expired entries met on the way are taken out; those
    /// further back cost nothing until they are reached.
    fn candidate(&mut self, now: Instant) -> Candidate<T> {
        let mut expired = Vec::new();
        let (mut len, mut weight) = (0, 0);
        while let Some(entry) = self.waiting.get(len) {
            if entry.deadline.is_some_and(|deadline| deadline <= now) {
                expired.extend(self.remove(len));
                continue;
            }
            if len == self.config.max_batch_size || weight + entry.weight > self.config.max_batch_weight {
                return Candidate { len, full: true, expired };
            }
            weight += entry.weight;
            len += 1;
        }
        let full = len == self.config.max_batch_size || weight == self.config.max_batch_weight;
        Candidate { len, full, expired }
    }

    fn linger_end(&self, entry: &Entry<T>) -> Instant {
        let delay = self.config.max_queue_delay;
        let patience = entry.deadline.map_or(delay, |deadline| delay.min((deadline - entry.arrived) / 2));
        entry.arrived + patience
    }

    fn remove(&mut self, at: usize) -> Option<Entry<T>> {
        let entry = self.waiting.remove(at)?;
        self.waiting_weight -= entry.weight;
        Some(entry)
    }
}

struct Candidate<T> {
    /// Entries at the head of the queue that would make the batch.
    len: usize,
    /// Whether no further arrival could join it.
    full: bool,
    expired: Vec<Entry<T>>,
}

#[cfg(test)]
mod tests;
