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
//! 4. Refuse early: an item that would miss its deadline behind all that waits is not let in.
//! 5. Early drop (Nexus, SOSP 2019): where one item's deadline would make a batch smaller than rule 3 does, and others
//!    wait, the item is dropped rather than the batch shrunk. Else an overloaded queue would serve every item a little
//!    too late.

mod forming;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use forming::{Forming, Next};

use crate::linger::Returns;
use crate::{BatcherConfig, ConfigError, CostModel, Error, Stats};

/// What waits, and the rules by which it becomes batches.
#[derive(Debug)]
pub struct Batcher<T> {
    config: BatcherConfig,
    /// In order of arrival, hence sorted by id.
    waiting: VecDeque<Entry<T>>,
    waiting_weight: usize,
    next_id: u64,
    closed: bool,
    /// When each batch that runs is expected to end, in the order in which they started.
    running: VecDeque<Instant>,
    cost: CostModel,
    returns: Returns,
    /// The time that entries with a deadline are given, averaged.
    typical_time: Option<Duration>,
    /// Until when an idle device waits for company, if one does.
    lingering_until: Option<Instant>,
    stats: Stats,
}

/// What became of a batch, for the rules to learn from.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// Items that ran: those of the batch but for the ones that were cancelled on the way.
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
            running: VecDeque::new(),
            cost: CostModel::default(),
            returns: Returns::default(),
            typical_time: None,
            lingering_until: None,
            stats: Stats::default(),
        })
    }

    /// Admits an item at the end of the queue.
    ///
    /// # Errors
    /// [`Refused`] hands the item back with [`Error::ShuttingDown`], [`Error::TooHeavy`],
    /// [`Error::DeadlineExceeded`], [`Error::QueueFull`], [`Error::QueueTooHeavy`] or [`Error::Overloaded`].
    pub fn offer(
        &mut self,
        now: Instant,
        payload: T,
        weight: usize,
        deadline: Option<Instant>,
    ) -> Result<EntryId, Refused<T>> {
        if let Some(error) = self.objection(now, weight, deadline) {
            self.stats.refuse(&error);
            return Err(Refused { payload, error });
        }
        let id = EntryId(self.next_id);
        self.next_id += 1;
        self.stats.admitted += 1;
        self.waiting_weight += weight;
        self.returns.arrived(now);
        let entry = Entry { id, payload, weight, arrived: now, deadline };
        // Those that give no time for any batch do not set the pace for the others.
        let leaves_half = |time: &Duration| self.cost.predict(weight).is_none_or(|alone| alone <= *time / 2);
        if let Some(time) = entry.time().filter(leaves_half) {
            self.typical_time = Some(self.typical_time.map_or(time, |typical| towards(typical, time)));
        }
        self.waiting.push_back(entry);
        Ok(id)
    }

    /// What an idle device thread is to do. Whatever is handed out has left the queue.
    pub fn poll(&mut self, now: Instant) -> Step<T> {
        let lingered = self.lingering_until.take().is_some();
        let mut dropped = Vec::new();
        let (len, full) = self.candidate(now, &mut dropped);
        if !dropped.is_empty() {
            self.stats.dropped += dropped.len() as u64;
            return Step::Expire(dropped);
        }
        if len == 0 {
            return if self.closed { Step::Finish } else { Step::Wait };
        }
        let ready_at = self.ready_at(now, len);
        if !full && !self.closed && now < ready_at {
            self.lingering_until = Some(ready_at);
            return Step::WaitUntil(ready_at);
        }
        self.stats.batch(len, lingered);
        let batch: Vec<_> = self.waiting.drain(..len).collect();
        let weight = batch.iter().map(|entry| entry.weight).sum::<usize>();
        self.waiting_weight -= weight;
        self.running.push_back(now + self.cost.predict(weight).unwrap_or_default());
        Step::Run(batch)
    }

    /// Whether an arrival at `now` is a reason to wake a device. It is not while one lingers, the batch has room, and
    /// more callers are expected: that device asks again by itself.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let (Some(until), Some(first), Some(last)) = (self.lingering_until, self.waiting.front(), self.waiting.back())
        else {
            return true;
        };
        let BatcherConfig { max_batch_size, max_batch_weight, max_queue_delay, .. } = self.config;
        let full = self.waiting.len() >= max_batch_size
            || self.waiting_weight >= max_batch_weight
            || self.half_time_weight().is_some_and(|max| self.waiting_weight >= max);
        let ready_at = self.returns.expected_until(now).unwrap_or(now).max(first.arrived + max_queue_delay);
        full || now >= until || ready_at < until || last.half_time_at().is_some_and(|half_time| half_time < until)
    }

    /// Learns from a batch that [`poll`](Self::poll) handed out; to be told of each.
    pub fn completed(&mut self, now: Instant, batch: Ran) {
        self.running.pop_front();
        match batch.run {
            Some(run) => {
                self.cost.observe(batch.weight, run);
                self.stats.run = self.stats.run.saturating_add(run);
            }
            None => self.stats.failed_batches += u64::from(batch.size > 0),
        }
        self.returns.completed(now, batch.size, self.cost.fixed());
    }

    /// Takes a waiting entry out of the queue; `None` if it has left already.
    pub fn cancel(&mut self, id: EntryId) -> Option<T> {
        let at = self.waiting.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.stats.cancelled += 1;
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

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
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
        let wait = self.expected_wait(now, weight)?;
        if deadline.is_some_and(|deadline| wait > deadline - now) {
            return Some(Error::Overloaded { wait });
        }
        None
    }

    /// How long an item that arrives now would wait for its answer, behind all that waits already; `None` as long as
    /// the cost of a batch is not learned, and where a device may be free: what is let in then corrects a wrong cost.
    fn expected_wait(&self, now: Instant, weight: usize) -> Option<Duration> {
        if self.waiting.is_empty() || self.lingering_until.is_some() {
            return None;
        }
        let devices = self.running.len();
        let free_in = self.running.front()?.saturating_duration_since(now);
        let full = self.full_batch_weight();
        let (batches_ahead, rest) = (self.waiting_weight / full, self.waiting_weight % full);
        let ahead = self.cost.predict(full)?.mul_f64(batches_ahead as f64 / devices as f64);
        Some(free_in + ahead + self.cost.predict(rest.saturating_add(weight))?)
    }

    /// What a batch weighs when enough waits to fill it.
    fn full_batch_weight(&self) -> usize {
        let by_size =
            self.waiting_weight.checked_div(self.waiting.len()).unwrap_or(1).saturating_mul(self.config.max_batch_size);
        let by_time = self.half_time_weight().unwrap_or(usize::MAX);
        self.config.max_batch_weight.min(by_size).min(by_time).max(1)
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
        if longer.len > 1 && self.half_time_weight().is_some_and(|max| longer.weight > max) {
            return Some(Next::Stays);
        }
        Some(if now.checked_add(run).is_some_and(|end| end <= deadline) {
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

    /// The weight of a batch that takes half of the time that items are given; `None` as long as that is not learned.
    fn half_time_weight(&self) -> Option<usize> {
        self.cost.weight_within(self.typical_time? / 2)
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

/// A running average: half of it is forgotten after some 40 values. Dividing first keeps the largest times from
/// overflowing.
fn towards(average: Duration, value: Duration) -> Duration {
    average / 64 * 63 + value / 64
}

#[cfg(test)]
mod tests;
