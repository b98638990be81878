//! The decisions, as a pure state machine: what to admit, when to run a batch, and which entries are in it.
//!
//! Nothing here sleeps, locks, sends or looks at a clock: `now` is an argument, so a simulation drives the same code
//! as a device thread. The rules:
//!
//! 1. First in, first out within a priority, and lower priorities age (`waiting.rs`); batches bounded by count and weight.
//!    Where an executor pads, a batch is made of items of like length.
//! 2. Dispatch when idle. The exceptions: `max_queue_delay`, as in Triton, and the moment in which the callers of the
//!    batch that just completed return (`linger.rs`).
//! 3. The cost of a batch is learned (`cost.rs`). With it, a batch takes no more than half of the time that its items
//!    were given, so that an item which just missed a batch still makes the next one (Clipper, NSDI 2017, sizes batches by the
//!    objective of latency; that batches of a linear cost want to be as large as it allows is in Inoue, arXiv 1912.06322).
//! 4. Refuse early: an item that would miss its deadline behind all that waits is not let in (`admission.rs`).
//! 5. Early drop (Nexus, SOSP 2019): where one item's deadline would make a batch smaller than rule 3 does, and others
//!    wait, the item is dropped rather than the batch shrunk. Else an overloaded queue would serve every item a little
//!    too late.

mod admission;
mod devices;
mod forming;
mod waiting;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use admission::{Pace, Turns};
pub(crate) use devices::MAX_DEVICES;
pub use devices::{Barred, DeviceState, Profile, Role, Trouble};
use devices::{Drain, Share};
use forming::{Forming, Member};
use waiting::Waiting;
pub use waiting::{Entry, EntryId};

use crate::linger::Returns;
use crate::saturate::later;
use crate::{BatcherConfig, ConfigError, CostModel, Error, Layout, Stats, Terms, Want};

/// What waits, and the rules by which it becomes batches.
#[derive(Debug)]
pub struct Batcher<T> {
    config: BatcherConfig,
    layout: Layout,
    waiting: Waiting<T>,
    /// What callers hold that wait for room.
    in_line: Group,
    closed: bool,
    /// On which device each batch runs and when it is expected to end, in the order in which they started.
    running: VecDeque<(usize, Instant)>,
    /// Those that drain the queue, the one to be preferred first.
    devices: Vec<Drain>,
    /// Whether devices differ, so that it matters which of them takes a batch.
    chooses: bool,
    /// Until when a device that left what waits to another watches whether that one takes it.
    watched_until: Option<Instant>,
    returns: Returns,
    pace: Pace,
    turns: Turns,
    /// The time that entries with a deadline are given, averaged.
    typical_time: Option<Duration>,
    /// Until when an idle device waits for company, if one does.
    lingering_until: Option<Instant>,
    /// Half of the time of the latest to be admitted, if it has a deadline.
    latest_half_time: Option<Instant>,
    /// Kept between batches for its memory.
    forming: Forming,
    stats: Stats,
}

/// What became of a batch, for the rules to learn from.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// Items that ran: those of the batch but for the ones that were cancelled on the way.
    pub size: usize,
    /// Their weight, padding included ([`Layout::batch_weight`]).
    pub weight: usize,
    /// How long the device took; `None` if the batch failed, for then its time says nothing about its cost.
    pub run: Option<Duration>,
}

/// Items that are admitted together or not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Group {
    /// Their number.
    pub items: usize,
    /// Their weight.
    pub weight: usize,
    /// The weight of the heaviest.
    pub heaviest: usize,
}

impl Group {
    /// A group of one.
    #[must_use]
    pub fn one(weight: usize) -> Self {
        Self { items: 1, weight, heaviest: weight }
    }
}

impl FromIterator<usize> for Group {
    /// From the weights of its items.
    fn from_iter<I: IntoIterator<Item = usize>>(weights: I) -> Self {
        weights.into_iter().fold(Self::default(), |group, weight| Self {
            items: group.items + 1,
            weight: group.weight.saturating_add(weight),
            heaviest: group.heaviest.max(weight),
        })
    }
}

/// The standing of an offer among callers that wait for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Behind all that wait for room: it is admitted only if there is room for them, too.
    Newcomer,
    /// The first of those that wait for room.
    FirstInLine,
}

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
    /// An empty batcher, for an executor that lays out its batches in this way.
    ///
    /// # Errors
    /// [`ConfigError`] for a value out of bounds.
    pub fn new(now: Instant, config: BatcherConfig, layout: Layout) -> Result<Self, ConfigError> {
        Self::on(now, config, layout, &[Profile::default()])
    }

    /// An empty batcher that several devices drain.
    ///
    /// # Errors
    /// [`ConfigError`] for a value out of bounds.
    ///
    /// # Panics
    /// Without a device, or with more than 32.
    pub fn on(now: Instant, config: BatcherConfig, layout: Layout, devices: &[Profile]) -> Result<Self, ConfigError> {
        assert!((1..=MAX_DEVICES).contains(&devices.len()), "{} devices; 1 to {MAX_DEVICES} can be", devices.len());
        config.validate()?;
        Ok(Self {
            layout,
            in_line: Group::default(),
            waiting: Waiting::new(now, layout, config.priority_ageing),
            config,
            closed: false,
            running: VecDeque::new(),
            devices: devices.iter().copied().map(Drain::new).collect(),
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

    /// As [`offer`](Self::offer), also for callers that waited for room.
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

    /// Why a group would not be admitted now; `None` if it would. Counts as a refusal: nothing needs to be offered any more.
    pub fn refusal(&mut self, now: Instant, group: Group, terms: Terms, standing: Standing) -> Option<Error> {
        let error = self.objection(now, group, terms, standing)?;
        self.stats.refuse(&error, group.items);
        Some(error)
    }

    /// One more caller waits for room, with this group.
    pub fn join_line(&mut self, group: Group) {
        self.in_line.items += group.items;
        self.in_line.weight = self.in_line.weight.saturating_add(group.weight);
    }

    /// A caller that [waited for room](Self::join_line) does so no more.
    pub fn leave_line(&mut self, group: Group) {
        self.in_line.items -= group.items;
        self.in_line.weight = self.in_line.weight.saturating_sub(group.weight);
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
        let barred = Barred::default();
        let entry = Entry { id, payload, weight, arrived: now, deadline, priority, barred };
        // Those that give no time for any batch do not set the pace for the others.
        let leaves_half =
            |time: &Duration| self.cheapest(now, weight).predict(weight).is_none_or(|alone| alone <= *time / 2);
        if let Some(time) = entry.time().filter(leaves_half) {
            self.typical_time = Some(self.typical_time.map_or(time, |typical| towards(typical, time)));
        }
        self.latest_half_time = Member::from(&entry).half_time_at();
        self.waiting.push(entry);
        id
    }

    /// What the first device, idle now, is to do. Whatever is handed out has left the queue.
    pub fn poll(&mut self, now: Instant) -> Step<T> {
        self.poll_on(now, 0)
    }

    /// What a device that is idle is to do. Whatever is handed out has left the queue.
    pub fn poll_on(&mut self, now: Instant, device: usize) -> Step<T> {
        if self.is_over() {
            return Step::Finish;
        }
        let only_barred = match self.share_of(now, device) {
            Share::Takes => false,
            Share::TakesBarred => true,
            Share::LeavesUntil(until) => {
                self.watched_until = Some(until);
                return Step::WaitUntil(until);
            }
            Share::AwayUntil(until) => return Step::WaitUntil(until),
            Share::Leaves => return Step::Wait,
        };
        let lingered = self.lingering_until.take().is_some();
        let mut forming = std::mem::take(&mut self.forming);
        self.form(now, device, only_barred, &mut forming);
        let step = self.step(now, device, &mut forming, lingered);
        self.forming = forming;
        step
    }

    /// What comes of the batch that has been formed.
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
        // Where entries were left to other devices company is there already.
        if !batch.full && !batch.passed_over && !self.closed && now < ready_at {
            self.lingering_until = Some(ready_at);
            return Step::WaitUntil(ready_at);
        }
        self.stats.batch(batch.shape.size, lingered);
        let run = self.expected_run(device, batch.shape.weight(self.layout));
        self.begin(device, later(now, run.unwrap_or_default()));
        self.turns.taken(now, lingered);
        Step::Run(batch.members.drain(..).filter_map(|member| self.waiting.remove(member.id)).collect())
    }

    /// What waits, at a glance, for a device that has to choose among queues; its cost is nothing as long as none is learned,
    /// and `None` says that nothing waits.
    #[must_use]
    pub fn want(&self) -> Option<Want> {
        self.want_of(0)
    }

    /// As [`want`](Self::want), for any device: `None` if it is not to run what waits.
    #[must_use]
    pub fn want_on(&self, now: Instant, device: usize) -> Option<Want> {
        self.is_wanted(now, device).then(|| self.want_of(device))?
    }

    fn want_of(&self, device: usize) -> Option<Want> {
        let since = self.waiting.head()?.arrived;
        let weight = self.waiting.weight().min(self.full_batch_weight(device));
        Some(Want { cost: self.cost_on(device).predict(weight).unwrap_or_default(), since })
    }

    /// When the batch that a device runs is expected to end.
    #[must_use]
    pub fn expected_end(&self, device: usize) -> Option<Instant> {
        self.running.iter().rev().find(|(running, _)| *running == device).map(|(_, end)| *end)
    }

    /// Whether an arrival at `now` is a reason to wake a device. It is not while one lingers, the batch has room, and
    /// more callers are expected: that device asks again by itself.
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

    /// Learns from a batch that [`poll`](Self::poll) handed out; to be told of each.
    pub fn completed(&mut self, now: Instant, batch: Ran) {
        self.completed_on(now, 0, batch);
    }

    /// Learns from a batch that [`poll_on`](Self::poll_on) handed out; to be told of each.
    pub fn completed_on(&mut self, now: Instant, device: usize, batch: Ran) {
        if let Some(ended) = self.running.iter().position(|(running, _)| *running == device) {
            self.running.remove(ended);
        }
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

    /// Takes a waiting entry out of the queue; `None` if it has left already.
    pub fn cancel(&mut self, id: EntryId) -> Option<T> {
        let entry = self.waiting.remove(id)?;
        self.stats.cancelled += 1;
        self.left();
        Some(entry.payload)
    }

    /// Whether an idle device waits for company, or for callers that are about to return.
    #[must_use]
    pub fn is_lingering(&self) -> bool {
        self.lingering_until.is_some()
    }

    /// The device that waited for company runs something else: another is to take what waits here.
    pub fn stop_lingering(&mut self) {
        self.lingering_until = None;
    }

    /// Admits nothing more. What waits is still run, without lingering. Then ask for the [`stranded`](Self::stranded) entries.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether it admits nothing more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
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
        self.waiting.weight()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What batches cost on the first device, as far as it is learned.
    #[must_use]
    pub fn cost(&self) -> &CostModel {
        self.cost_on(0)
    }

    /// The bounds it was made with.
    #[must_use]
    pub fn config(&self) -> &BatcherConfig {
        &self.config
    }

    /// How executors lay out its batches.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The weight of the largest batch by the time that items are given; `None` as long as that is not learned.
    fn half_time_weight(&self, device: usize) -> Option<usize> {
        self.cost_on(device).weight_for(self.typical_time?)
    }

    /// What a batch weighs when enough waits to fill it.
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

    /// When a batch has waited long enough for more.
    fn ready_at(&self, now: Instant, batch: &[Member]) -> Instant {
        let delay_end = batch.iter().map(|entry| entry.arrived + self.config.max_queue_delay).min().unwrap_or(now);
        let ready_at = delay_end.max(self.returns.expected_until(now).unwrap_or(now));
        // Nobody waits for company longer than half of the own time.
        batch.iter().filter_map(Member::half_time_at).fold(ready_at, Instant::min)
    }

    /// Entries left without a batch: nobody may be waiting for a turn any more.
    fn left(&mut self) {
        if self.waiting.is_empty() {
            self.turns.given_up();
        }
    }
}

/// A running average: half of it is forgotten after some 40 values. Dividing first keeps the largest times from
/// overflowing.
fn towards(average: Duration, value: Duration) -> Duration {
    average / 64 * 63 + value / 64
}

#[cfg(test)]
mod tests;
