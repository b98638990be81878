//! The decisions, as a pure state machine: what to admit, when to run a batch, and which entries are in it.
//!
//! Nothing here sleeps, locks, sends or looks at a clock: `now` is an argument, so a simulation drives the same code
//! as a device thread. The rules:
//!
//! 1. First in, first out; batches bounded by count and weight.
//! 2. Dispatch when idle. The exceptions: `max_queue_delay`, as in Triton, and the moment in which the callers of the
//!    batch that just completed return (`linger.rs`).
//! 3. The cost of a batch is learned (`cost.rs`). With it, a batch takes no more than half of the time that its items
//!    were given, so that an item which just missed a batch still makes the next one.
//! 4. Early drop (Nexus, SOSP 2019): where one item's deadline would make a batch smaller than rule 3 does, and others
//!    wait, the item is dropped rather than the batch shrunk. Else an overloaded queue would serve every item a little
//!    too late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::linger::Returns;
use crate::{BatcherConfig, ConfigError, CostModel, Error};

/// What waits, and the rules by which it becomes batches.
#[derive(Debug)]
pub struct Batcher<T> {
    config: BatcherConfig,
    /// In order of arrival, hence sorted by id.
    waiting: VecDeque<Entry<T>>,
    waiting_weight: usize,
    next_id: u64,
    closed: bool,
    cost: CostModel,
    returns: Returns,
    /// The time that entries with a deadline are given, averaged.
    typical_time: Option<Duration>,
}

/// What became of a batch, for the rules to learn from.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// Items of the batch.
    pub size: usize,
    /// Their weight.
    pub weight: usize,
    /// How long the device took; `None` if the batch failed, for then its time says nothing about its cost.
    pub run: Option<Duration>,
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
    /// Answer these [`Error::DeadlineExceeded`], then ask again: their deadlines have passed or would be missed.
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
        Ok(Self {
            config,
            waiting: VecDeque::new(),
            waiting_weight: 0,
            next_id: 0,
            closed: false,
            cost: CostModel::default(),
            returns: Returns::default(),
            typical_time: None,
        })
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
        self.returns.arrived(now);
        if let Some(deadline) = deadline {
            let time = deadline - now;
            // Half of it is forgotten after some 40 entries.
            self.typical_time = Some(self.typical_time.map_or(time, |typical| (typical * 63 + time) / 64));
        }
        self.waiting.push_back(Entry { id, payload, weight, arrived: now, deadline });
        Ok(id)
    }

    /// What an idle device thread is to do. Whatever is handed out has left the queue.
    pub fn poll(&mut self, now: Instant) -> Step<T> {
        let mut dropped = Vec::new();
        let (len, full) = self.candidate(now, &mut dropped);
        if !dropped.is_empty() {
            return Step::Expire(dropped);
        }
        if len == 0 {
            return if self.closed { Step::Finish } else { Step::Wait };
        }
        let ready_at = self.ready_at(now, len);
        if !full && !self.closed && now < ready_at {
            return Step::WaitUntil(ready_at);
        }
        let batch: Vec<_> = self.waiting.drain(..len).collect();
        self.waiting_weight -= batch.iter().map(|entry| entry.weight).sum::<usize>();
        Step::Run(batch)
    }

    /// Learns from a batch that [`poll`](Self::poll) handed out.
    pub fn completed(&mut self, now: Instant, batch: Ran) {
        if let Some(run) = batch.run {
            self.cost.observe(batch.weight, run);
        }
        self.returns.completed(now, batch.size, self.cost.fixed());
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

    /// What batches cost, as far as it is learned.
    #[must_use]
    pub fn cost(&self) -> &CostModel {
        &self.cost
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

    /// How many entries at the head of the queue make the next batch, and whether no arrival could join it. Entries that
    /// must not run are moved to `dropped`; those further back cost nothing until they are reached.
    fn candidate(&mut self, now: Instant, dropped: &mut Vec<Entry<T>>) -> (usize, bool) {
        let BatcherConfig { max_batch_size, max_batch_weight, .. } = self.config;
        let mut batch = Forming::default();
        loop {
            match self.next(&batch, now) {
                None => return (batch.len, batch.len == max_batch_size || batch.weight == max_batch_weight),
                Some(Next::Joins) => batch = batch.with(&self.waiting[batch.len]),
                Some(Next::Stays) => return (batch.len, true),
                Some(Next::Drops(at)) => {
                    dropped.extend(self.remove(at));
                    let kept = batch.len - usize::from(at < batch.len);
                    batch = self.waiting.range(..kept).fold(Forming::default(), Forming::with);
                }
            }
        }
    }

    /// What becomes of the entry behind the batch; `None` if there is none.
    fn next(&self, batch: &Forming, now: Instant) -> Option<Next> {
        let BatcherConfig { max_batch_size, max_batch_weight, .. } = self.config;
        let entry = self.waiting.get(batch.len)?;
        if entry.deadline.is_some_and(|deadline| deadline <= now) {
            return Some(Next::Drops(batch.len));
        }
        let longer = batch.with(entry);
        if longer.len > max_batch_size || longer.weight > max_batch_weight {
            return Some(Next::Stays);
        }
        let (Some((deadline, tightest)), Some(run)) = (longer.tightest, self.cost.predict_with_margin(longer.weight))
        else {
            return Some(Next::Joins);
        };
        if longer.len > 1 && self.typical_time.is_some_and(|time| run > time / 2) {
            return Some(Next::Stays);
        }
        Some(if now + run <= deadline {
            Next::Joins
        } else if tightest == batch.len && tightest > 0 {
            // The newcomer is the one in a hurry; it may head the next batch.
            Next::Stays
        } else if self.waiting.len() == 1 {
            // Alone it runs, however late: something has to show what a batch costs by now.
            Next::Joins
        } else {
            Next::Drops(tightest)
        })
    }

    /// When a batch of the first `len` entries has waited long enough for more.
    fn ready_at(&self, now: Instant, len: usize) -> Instant {
        let batch = self.waiting.range(..len);
        let delay_end = batch.clone().map(|entry| entry.arrived + self.config.max_queue_delay).min().unwrap_or(now);
        let ready_at = delay_end.max(self.returns.expected_until(now).unwrap_or(now));
        // Nobody waits for company longer than half of the own time.
        batch.filter_map(Entry::half_time_at).fold(ready_at, Instant::min)
    }

    fn remove(&mut self, at: usize) -> Option<Entry<T>> {
        let entry = self.waiting.remove(at)?;
        self.waiting_weight -= entry.weight;
        Some(entry)
    }
}

impl<T> Entry<T> {
    /// The time it was given.
    fn time(&self) -> Option<Duration> {
        Some(self.deadline? - self.arrived)
    }

    fn half_time_at(&self) -> Option<Instant> {
        Some(self.arrived + self.time()? / 2)
    }
}

/// What becomes of the entry behind a batch that is being formed.
enum Next {
    Joins,
    /// It stays in the queue, and the batch is complete.
    Stays,
    /// The entry at this place, this one or one of the batch, is dropped.
    Drops(usize),
}

/// The beginning of the queue as far as it is in the batch.
#[derive(Debug, Clone, Copy, Default)]
struct Forming {
    len: usize,
    weight: usize,
    /// The earliest deadline, and whose it is.
    tightest: Option<(Instant, usize)>,
}

impl Forming {
    fn with<T>(self, entry: &Entry<T>) -> Self {
        let deadline = entry.deadline.map(|deadline| (deadline, self.len));
        Self {
            len: self.len + 1,
            weight: self.weight + entry.weight,
            tightest: [self.tightest, deadline].into_iter().flatten().min(),
        }
    }
}

#[cfg(test)]
mod tests;
