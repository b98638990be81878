//! The decisions of a queue, as a pure state machine: admission, the time of each batch, and the entries in it.
//!
//! Nothing here sleeps, locks, sends or looks at a clock: `now` is an argument, so a simulation drives the same code
//! as a device thread. The rules:
//!
//! 1. First in, first out within a priority; lower priorities age (`waiting.rs`). Batches are bounded by count and weight.
//!    Where an executor pads, a batch is made of items of like length.
//! 2. Dispatch when idle. The exceptions: `max_queue_delay`, as in Triton, and the moment in which the callers of the
//!    batch that just completed return (`linger.rs`).
//! 3. The cost of a batch is learned (`cost.rs`). With it, a batch takes no more than half of the time from arrival to
//!    deadline of a typical item, so that an item which just missed a batch still makes the next one (Clipper, NSDI
//!    2017, sizes batches by the latency objective; Inoue, arXiv 1912.06322, shows that batches of a linear cost should
//!    be as large as it allows).
//! 4. Refuse early: an item that would miss its deadline behind the queued entries is not admitted (`admission.rs`).
//! 5. Early drop (Nexus, SOSP 2019): where one item's deadline would make a batch smaller than rule 3 does, and other
//!    entries are queued, the item is dropped rather than the batch shrunk. Otherwise an overloaded queue would serve
//!    every item a little too late.

mod admission;
mod devices;
mod excluded_devices;
mod forecast;
mod forming;
mod waiting;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use admission::{Pace, Turns};
pub use devices::{DeviceFault, DeviceState, Profile, Role};
use devices::{QueueDevice, Share};
pub use excluded_devices::ExcludedDevices;
pub(crate) use excluded_devices::MAX_DEVICES;
pub use forecast::Forecast;
use forming::{Forming, Member};
use waiting::Waiting;
pub use waiting::{Entry, EntryId};

use crate::linger::Returns;
use crate::saturate::later;
use crate::{BatchLayout, BatcherConfig, ConfigError, CostModel, Depth, Error, Stats, Terms, Want};

/// The queued entries, and the rules by which they become batches.
#[derive(Debug)]
pub struct Batcher<T> {
    config: BatcherConfig,
    layout: BatchLayout,
    waiting: Waiting<T>,
    /// Count and weight of all items in the admission queue, whose callers wait for room.
    admission_queue: Group,
    closed: bool,
    /// Device and expected end of each running batch, in the order in which they started.
    running: VecDeque<(usize, Instant)>,
    /// Devices that drain the queue, the preferred one first.
    devices: Vec<QueueDevice>,
    /// True if devices differ, so that it matters which of them takes a batch.
    chooses: bool,
    /// End of the wait of an idle device that left the queued entries to another and then looks whether that one took them.
    watched_until: Option<Instant>,
    returns: Returns,
    pace: Pace,
    turns: Turns,
    /// Running average of the time from arrival to deadline, over entries with a deadline.
    typical_time: Option<Duration>,
    /// End of the lingering of an idle device, if one lingers.
    lingering_until: Option<Instant>,
    /// Half-time of the latest entry to be admitted, if it has a deadline.
    latest_half_time: Option<Instant>,
    /// Kept between batches to reuse its memory.
    forming: Forming,
    stats: Stats,
}

/// The result of a batch, for the rules to learn from.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// Number of items that ran; items that were cancelled after leaving the queue did not.
    pub size: usize,
    /// Their weight, padding included ([`BatchLayout::batch_weight`]).
    pub weight: usize,
    /// Time that the device took; `None` if the batch failed, because then its time says nothing about its cost.
    pub run: Option<Duration>,
}

/// Items that are admitted together or not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Group {
    /// Number of items.
    pub items: usize,
    /// Weight of all items together.
    pub weight: usize,
    /// Weight of the heaviest item.
    pub heaviest: usize,
}

impl Group {
    /// Makes a group of one item.
    #[must_use]
    pub fn one(weight: usize) -> Self {
        Self { items: 1, weight, heaviest: weight }
    }
}

impl FromIterator<usize> for Group {
    /// Makes a group from the weights of its items.
    fn from_iter<I: IntoIterator<Item = usize>>(weights: I) -> Self {
        weights.into_iter().fold(Self::default(), |group, weight| Self {
            items: group.items + 1,
            weight: group.weight.saturating_add(weight),
            heaviest: group.heaviest.max(weight),
        })
    }
}

/// The standing of an offer towards the admission queue, in which callers wait for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Behind the admission queue: admitted only if there is room for all of that queue, too.
    Newcomer,
    /// The head of the admission queue.
    Head,
}

/// An item that was not admitted, handed back with the reason.
#[derive(Debug)]
pub struct Refused<T> {
    /// The offered item.
    pub payload: T,
    /// The reason.
    pub error: Error,
}

/// The next step of an idle device thread.
#[derive(Debug)]
pub enum Step<T> {
    /// Run this batch; it is never empty.
    Run(Vec<Entry<T>>),
    /// Answer these entries [`Error::DeadlineExceeded`], then ask again: their deadlines have passed or would be missed.
    Expire(Vec<Entry<T>>),
    /// Ask again at this instant, or after the next arrival.
    WaitUntil(Instant),
    /// Ask again after the next arrival.
    Wait,
    /// End: the queue is empty and no entries will come any more.
    Finish,
}

impl<T> Batcher<T> {
    /// Makes an empty batcher for one device, whose executor lays out its batches by `layout`.
    ///
    /// # Errors
    /// [`ConfigError`] for a value out of bounds.
    pub fn new(now: Instant, config: BatcherConfig, layout: BatchLayout) -> Result<Self, ConfigError> {
        Self::on(now, config, layout, &[Profile::default()])
    }

    /// Makes an empty batcher that several devices drain.
    ///
    /// # Errors
    /// [`ConfigError`] for a value out of bounds.
    ///
    /// # Panics
    /// If there is no device, or more than 32.
    pub fn on(
        now: Instant,
        config: BatcherConfig,
        layout: BatchLayout,
        devices: &[Profile],
    ) -> Result<Self, ConfigError> {
        assert!((1..=MAX_DEVICES).contains(&devices.len()), "{} devices; 1 to {MAX_DEVICES} can be", devices.len());
        config.validate()?;
        Ok(Self {
            layout,
            admission_queue: Group::default(),
            waiting: Waiting::new(now, layout, config.priority_ageing),
            config,
            closed: false,
            running: VecDeque::new(),
            devices: devices.iter().copied().map(QueueDevice::new).collect(),
            chooses: devices.iter().any(|device| device.estimate.is_some()),
            watched_until: None,
            returns: Returns::default(),
            pace: Pace::default(),
            turns: Turns::default(),
            typical_time: None,
            lingering_until: None,
            latest_half_time: None,
            forming: Forming::default(),
            stats: Stats::default(),
        })
    }

    /// Admits an item to the queue.
    ///
    /// # Errors
    /// [`Refused`] hands the item back with [`Error::ShuttingDown`], [`Error::TooHeavy`], [`Error::DevicesLost`],
    /// [`Error::DeadlineExceeded`], [`Error::QueueFull`], [`Error::QueueTooHeavy`] or [`Error::Overloaded`].
    pub fn offer(
        &mut self,
        now: Instant,
        payload: T,
        weight: usize,
        terms: impl Into<Terms>,
    ) -> Result<EntryId, Refused<T>> {
        self.offer_as(now, payload, weight, terms.into(), Standing::Newcomer)
    }

    /// Admits an item as [`offer`](Self::offer) does, also for callers of the admission queue.
    ///
    /// # Errors
    /// As [`offer`](Self::offer).
    pub fn offer_as(
        &mut self,
        now: Instant,
        payload: T,
        weight: usize,
        terms: Terms,
        standing: Standing,
    ) -> Result<EntryId, Refused<T>> {
        match self.refusal(now, Group::one(weight), terms, standing) {
            Some(error) => Err(Refused { payload, error }),
            None => Ok(self.admit(now, payload, weight, terms)),
        }
    }

    /// Admits all of these items, each with its weight, or none of them.
    ///
    /// # Errors
    /// As [`offer`](Self::offer), and [`Error::GroupTooLarge`].
    pub fn offer_many(
        &mut self,
        now: Instant,
        items: Vec<(T, usize)>,
        terms: Terms,
        standing: Standing,
    ) -> Result<Vec<EntryId>, Refused<Vec<(T, usize)>>> {
        let group = items.iter().map(|(_, weight)| *weight).collect();
        match self.refusal(now, group, terms, standing) {
            Some(error) => Err(Refused { payload: items, error }),
            None => Ok(items.into_iter().map(|(item, weight)| self.admit(now, item, weight, terms)).collect()),
        }
    }

    /// The error with which a group would be refused now; `None` if it would be admitted. An error counts as a refusal,
    /// so the group need not be offered any more.
    pub fn refusal(&mut self, now: Instant, group: Group, terms: Terms, standing: Standing) -> Option<Error> {
        let error = self.objection(now, group, terms, standing)?;
        self.stats.refuse(&error, group.items);
        Some(error)
    }

    /// Adds a caller that waits for room, with this group, to the admission queue.
    pub fn join_admission_queue(&mut self, group: Group) {
        self.admission_queue.items += group.items;
        self.admission_queue.weight = self.admission_queue.weight.saturating_add(group.weight);
    }

    /// Removes a caller that [joined](Self::join_admission_queue) the admission queue with this group.
    pub fn leave_admission_queue(&mut self, group: Group) {
        self.admission_queue.items -= group.items;
        self.admission_queue.weight = self.admission_queue.weight.saturating_sub(group.weight);
    }

    fn admit(&mut self, now: Instant, payload: T, weight: usize, terms: Terms) -> EntryId {
        let Terms { deadline, priority } = terms;
        self.stats.admitted += 1;
        self.returns.arrived(now);
        self.pace.arrived(now, weight);
        if self.running.is_empty() {
            self.turns.wanted(now);
        }
        let id = self.waiting.name(now, weight, priority);
        let excluded = ExcludedDevices::default();
        let entry = Entry { id, payload, weight, arrived: now, deadline, priority, excluded };
        // Entries that give no time for any batch do not count: they would make batches too small for the others.
        let leaves_half =
            |time: &Duration| self.cheapest(now, weight).predict(weight).is_none_or(|alone| alone <= *time / 2);
        if let Some(time) = entry.time().filter(leaves_half) {
            self.typical_time = Some(self.typical_time.map_or(time, |typical| towards(typical, time)));
        }
        self.latest_half_time = Member::from(&entry).half_time_at();
        self.waiting.push(entry);
        id
    }

    /// The next step of the first device, which is idle now. Entries that are handed out have left the queue.
    pub fn poll(&mut self, now: Instant) -> Step<T> {
        self.poll_on(now, 0)
    }

    /// The next step of an idle device. Entries that are handed out have left the queue.
    pub fn poll_on(&mut self, now: Instant, device: usize) -> Step<T> {
        if self.is_over() {
            return Step::Finish;
        }
        let only_restricted = match self.share_of(now, device) {
            Share::Takes => false,
            Share::TakesRestricted => true,
            Share::LeavesUntil(until) => {
                self.watched_until = Some(until);
                return Step::WaitUntil(until);
            }
            Share::AwayUntil(until) => return Step::WaitUntil(until),
            Share::Leaves => return Step::Wait,
        };
        let lingered = self.lingering_until.take().is_some();
        let mut forming = std::mem::take(&mut self.forming);
        self.form(now, device, only_restricted, &mut forming);
        let step = self.step(now, device, &mut forming, lingered);
        self.forming = forming;
        step
    }

    /// Turns the batch that has been formed into a step.
    fn step(&mut self, now: Instant, device: usize, batch: &mut Forming, lingered: bool) -> Step<T> {
        if !batch.dropped.is_empty() {
            self.stats.dropped += batch.dropped.len() as u64;
            let dropped = batch.dropped.drain(..).filter_map(|id| self.waiting.remove(id)).collect();
            self.left();
            return Step::Expire(dropped);
        }
        if batch.members.is_empty() {
            return Step::Wait;
        }
        let ready_at = self.ready_at(now, &batch.members);
        // Lingering would wait for more entries; if some were left to other devices, there are enough already.
        if !batch.full && !batch.passed_over && !self.closed && now < ready_at {
            self.lingering_until = Some(ready_at);
            return Step::WaitUntil(ready_at);
        }
        self.stats.batch(batch.shape.size, lingered);
        let run = self.expected_run(device, batch.shape.weight(self.layout));
        self.begin(now, device, later(now, run.unwrap_or_default()));
        self.turns.taken(now, lingered);
        Step::Run(batch.members.drain(..).filter_map(|member| self.waiting.remove(member.id)).collect())
    }

    /// The next batch in figures, for a device that has to choose among queues; `None` if the queue is empty. The cost
    /// is zero until it is learned.
    #[must_use]
    pub fn want(&self) -> Option<Want> {
        self.want_of(0)
    }

    /// The next batch in figures, as of [`want`](Self::want), for any device: `None` if it is not to run any queued entry.
    #[must_use]
    pub fn want_on(&self, now: Instant, device: usize) -> Option<Want> {
        self.is_wanted(now, device).then(|| self.want_of(device))?
    }

    fn want_of(&self, device: usize) -> Option<Want> {
        let since = self.waiting.head()?.arrived;
        let weight = self.waiting.weight().min(self.full_batch_weight(device));
        Some(Want { cost: self.cost_on(device).predict(weight).unwrap_or_default(), since })
    }

    /// The expected end of the batch that a device runs; `None` if it runs none of this queue.
    #[must_use]
    pub fn expected_end(&self, device: usize) -> Option<Instant> {
        self.running.iter().rev().find(|(running, _)| *running == device).map(|(_, end)| *end)
    }

    /// Returns true if an arrival at `now` is a reason to wake a device. It is not while a device lingers, the batch
    /// has room, and more callers are expected: that device asks again by itself.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let (Some(until), Some(head)) = (self.lingering_until, self.waiting.head()) else { return true };
        let BatcherConfig { max_batch_size, max_batch_weight, max_queue_delay, .. } = self.config;
        let full = self.waiting.len() >= max_batch_size
            || self.waiting.weight() >= max_batch_weight
            || self.half_time_weight(0).is_some_and(|max| self.waiting.weight() >= max);
        let ready_at = self.returns.expected_until(now).unwrap_or(now).max(head.arrived + max_queue_delay);
        full || now >= until || ready_at < until || self.latest_half_time.is_some_and(|half_time| half_time < until)
    }

    /// Learns from a batch that [`poll`](Self::poll) handed out. Must be called once for each.
    pub fn completed(&mut self, now: Instant, batch: Ran) {
        self.completed_on(now, 0, batch);
    }

    /// Learns from a batch that [`poll_on`](Self::poll_on) handed out. Must be called once for each.
    pub fn completed_on(&mut self, now: Instant, device: usize, batch: Ran) {
        self.end(now, device);
        let learner = if self.chooses { device } else { 0 };
        match batch.run {
            Some(run) => {
                self.devices[learner].cost.observe(batch.weight, run);
                self.stats.run = self.stats.run.saturating_add(run);
            }
            None => self.stats.failed_batches += u64::from(batch.size > 0),
        }
        self.returns.completed(now, batch.size, self.devices[learner].cost.fixed());
        if !self.waiting.is_empty() {
            self.turns.wanted(now);
        }
    }

    /// Takes an entry out of the queue; `None` if it has left already.
    pub fn cancel(&mut self, id: EntryId) -> Option<T> {
        let entry = self.waiting.remove(id)?;
        self.stats.cancelled += 1;
        self.left();
        Some(entry.payload)
    }

    /// Returns true if an idle device lingers: it waits for a fuller batch, or for callers that are about to return.
    #[must_use]
    pub fn is_lingering(&self) -> bool {
        self.lingering_until.is_some()
    }

    /// Ends the lingering of a device that now runs another queue's batch, so that another device takes the queued entries.
    pub fn stop_lingering(&mut self) {
        self.lingering_until = None;
    }

    /// Closes the queue: nothing more is admitted, and queued entries run without lingering. The caller must then answer the
    /// [`stranded`](Self::stranded) entries.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Returns true once the queue is closed and admits nothing more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Number of queued entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns true if no entry is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Weight of the queued entries.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.waiting.weight()
    }

    /// Number, weight and age of the queued entries. Looks at every one of them.
    #[must_use]
    pub fn depth(&self, now: Instant) -> Depth {
        let oldest = self.waiting.iter().map(|entry| entry.arrived).min();
        Depth {
            items: self.waiting.len(),
            weight: self.waiting.weight(),
            oldest_age: oldest.map(|arrived| now.saturating_duration_since(arrived)),
            waiting_for_room: self.admission_queue.items,
        }
    }

    /// Counts since the batcher was made.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The learned cost of batches on the first device.
    #[must_use]
    pub fn cost(&self) -> &CostModel {
        self.cost_on(0)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &BatcherConfig {
        &self.config
    }

    /// The layout of batches.
    #[must_use]
    pub fn layout(&self) -> BatchLayout {
        self.layout
    }

    /// Weight of the largest batch that takes half of the typical time; `None` until cost and time are learned.
    fn half_time_weight(&self, device: usize) -> Option<usize> {
        self.cost_on(device).weight_for(self.typical_time?)
    }

    /// Weight of a full batch of entries of the average weight.
    fn full_batch_weight(&self, device: usize) -> usize {
        let by_size = self
            .waiting
            .weight()
            .checked_div(self.waiting.len())
            .unwrap_or(1)
            .saturating_mul(self.config.max_batch_size);
        let by_time = self.half_time_weight(device).unwrap_or(usize::MAX);
        self.config.max_batch_weight.min(by_size).min(by_time).max(1)
    }

    /// The instant at which a batch has waited long enough for more entries.
    fn ready_at(&self, now: Instant, batch: &[Member]) -> Instant {
        let delay_end = batch.iter().map(|entry| entry.arrived + self.config.max_queue_delay).min().unwrap_or(now);
        let ready_at = delay_end.max(self.returns.expected_until(now).unwrap_or(now));
        // No entry lingers for longer than half of its own time.
        batch.iter().filter_map(Member::half_time_at).fold(ready_at, Instant::min)
    }

    /// Called when entries left the queue other than in a batch: if it is empty now, it no longer waits for a turn.
    fn left(&mut self) {
        if self.waiting.is_empty() {
            self.turns.given_up();
        }
    }
}

/// Moves a running average towards a value; half of it is forgotten after some 40 values. Dividing first keeps the
/// largest times from overflowing.
fn towards(average: Duration, value: Duration) -> Duration {
    average / 64 * 63 + value / 64
}

#[cfg(test)]
mod tests;
