//! The devices that drain a queue, as its rules see them: what batches cost on each, and what each can take.

use std::time::{Duration, Instant};

use super::Batcher;
use super::waiting::Entry;
use crate::choice::{Candidate, Choice, choose, whom_to_wake};
use crate::saturate::{later, seconds};
use crate::{CostModel, Error, Line};

/// How long a device that ran out of memory is given batches of no more than what it managed. Too short: it fails again and again.
/// Too long: its batches stay small after whatever took the memory is gone.
const REMEMBERS_OUT_OF_MEMORY: Duration = Duration::from_mins(1);

/// Entries that are looked at to learn whether a device is to take any.
const MAX_LOOKS: usize = 64;
/// The shortest time after which a device that left everything to others looks again.
const MIN_LOOK: Duration = Duration::from_millis(1);

/// More devices than this cannot drain one queue: an entry remembers in a word which of them it does not fit on.
pub(crate) const MAX_DEVICES: usize = 32;

/// What is known beforehand of a device that drains a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Profile {
    /// What batches are expected to cost there until that is learned. If it is given for any device of a queue, batches go to the
    /// device that would complete them first; else devices count as alike, and whoever is idle takes what waits.
    pub estimate: Option<Line>,
    /// When it takes batches.
    pub role: Role,
}

/// When a device takes the batches of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Whenever it would complete them first.
    #[default]
    Serves,
    /// Only what no other device of the queue can run: because they are lost, or it does not fit their memory.
    Standby,
}

/// Whether a device takes batches, and of which size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceState {
    /// It takes batches.
    #[default]
    Ready,
    /// It ran out of memory, and takes batches of this weight at most, for now.
    ShortOfMemory {
        /// The heaviest batch that it is given; single items may weigh more.
        max_weight: usize,
    },
    /// It takes nothing, for ever or until it is worth another try.
    Lost,
}

/// What went wrong on a device while it ran a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It had no memory for a batch, and this is the weight of the heaviest that it then managed; 0 if none.
    OutOfMemory {
        /// Of the heaviest part of the batch that ran.
        managed: usize,
    },
    /// It cannot run anything any more.
    Lost {
        /// Until it is worth another try; `None`: never.
        retry_after: Option<Duration>,
    },
}

/// One of the devices of a queue.
#[derive(Debug, Clone, Default)]
pub(super) struct Drain {
    pub(super) profile: Profile,
    pub(super) cost: CostModel,
    /// When what runs there is expected to end, batches of other queues included.
    busy_until: Option<Instant>,
    max_weight: Option<(usize, Instant)>,
    away: Option<Away>,
}

/// An idle device's part in the queued entries.
pub(super) enum Share {
    Takes,
    /// It takes those alone that do not fit elsewhere: the rest is for others.
    TakesBarred,
    /// It is for others; if they have not taken it by then, the device asks again.
    LeavesUntil(Instant),
    /// The device is lost, and worth another try then.
    AwayUntil(Instant),
    Leaves,
}

#[derive(Debug, Clone, Copy)]
enum Away {
    ForEver,
    Until(Instant),
}

impl Drain {
    pub(super) fn new(profile: Profile) -> Self {
        Self { profile, ..Self::default() }
    }

    fn is_away(&self, now: Instant) -> bool {
        match self.away {
            None => false,
            Some(Away::ForEver) => true,
            Some(Away::Until(until)) => now < until,
        }
    }

    /// Whether entries may wait for this device: it takes batches, or will. A closing queue waits for no device to come back.
    fn may_come(&self, now: Instant, closed: bool) -> bool {
        match self.away {
            None => true,
            Some(Away::ForEver) => false,
            Some(Away::Until(until)) => !closed || now >= until,
        }
    }

    /// When a device that is away is worth another try.
    fn back_at(&self, now: Instant) -> Option<Instant> {
        match self.away {
            Some(Away::Until(until)) if now < until => Some(until),
            _ => None,
        }
    }

    /// What a batch is expected to cost: learned, else estimated.
    fn line(&self) -> Option<Line> {
        self.cost.line().or(self.profile.estimate)
    }

    fn max_weight(&self, now: Instant) -> Option<usize> {
        self.max_weight.filter(|(_, until)| now < *until).map(|(weight, _)| weight)
    }

    fn state(&self, now: Instant) -> DeviceState {
        match self.max_weight(now) {
            _ if self.is_away(now) => DeviceState::Lost,
            Some(max_weight) => DeviceState::ShortOfMemory { max_weight },
            None => DeviceState::Ready,
        }
    }
}

impl<T> Batcher<T> {
    /// Whether a device takes batches now.
    #[must_use]
    pub fn device_state(&self, now: Instant, device: usize) -> DeviceState {
        self.devices[device].state(now)
    }

    /// What batches cost on a device, as far as it is learned.
    #[must_use]
    pub fn cost_on(&self, device: usize) -> &CostModel {
        &self.devices[if self.chooses { device } else { 0 }].cost
    }

    /// Begins with what was learned of a device before.
    pub fn learned(&mut self, device: usize, cost: CostModel) {
        self.devices[device].cost = cost;
    }

    /// Says when what runs on each device is expected to end, batches of other queues included; asked for by those that choose.
    pub fn observe_load(&mut self, busy_until: impl IntoIterator<Item = Option<Instant>>) {
        for (device, busy_until) in self.devices.iter_mut().zip(busy_until) {
            device.busy_until = busy_until;
        }
    }

    /// Which sleeping device is to be woken for what waits, if any; the one that `looked` just now is awake.
    #[must_use]
    pub fn whom_to_wake(&self, now: Instant, looked: Option<usize>) -> Option<usize> {
        let sleeps = |device: &usize| Some(*device) != looked && self.devices[*device].busy_until.is_none();
        let asleep = || (0..self.devices.len()).filter(sleeps);
        if let Some(device) = asleep().find(|device| self.has_barred_for(now, *device)) {
            return Some(device);
        }
        let candidates = self.candidates(now);
        let sleeping = asleep().filter(|device| self.is_wanted(now, *device));
        let unknown = |device: &usize| candidates[*device].is_none();
        if let Some(device) = whom_to_wake(now, &candidates, looked).or_else(|| sleeping.clone().find(unknown)) {
            return Some(device);
        }
        // All that sleep would leave it to one that is busy; one of them watches whether that comes true.
        let is_watched = self.watched_until.is_some_and(|until| now < until);
        asleep().find(|device| self.may_take(now, *device)).filter(|_| !is_watched)
    }

    /// A device ran into trouble. Then ask for the [`stranded`](Self::stranded) entries.
    pub fn trouble(&mut self, now: Instant, device: usize, trouble: Trouble) {
        match trouble {
            Trouble::OutOfMemory { managed } => {
                self.stats.out_of_memory += 1;
                // Where nothing ran no weight is known to fit: an item that does not fit alone says nothing of others.
                if managed > 0 {
                    self.devices[device].max_weight = Some((managed, now + REMEMBERS_OUT_OF_MEMORY));
                }
            }
            Trouble::Lost { retry_after } => {
                self.stats.lost_devices += 1;
                let until = retry_after.and_then(|after| now.checked_add(after));
                self.devices[device].away = Some(until.map_or(Away::ForEver, Away::Until));
            }
        }
    }

    /// Whether another device could run what this one cannot.
    #[must_use]
    pub fn has_another(&self, now: Instant, device: usize, barred: Barred) -> bool {
        let could = |other: usize| other != device && !barred.has(other) && !self.devices[other].is_away(now);
        (0..self.devices.len()).any(could)
    }

    /// Takes entries back into the queue, in their old places; they were in batches that a device could not run. Bounds of the
    /// queue do not count for them: they were admitted. Then ask for the [`stranded`](Self::stranded) entries.
    pub fn give_back(&mut self, entries: impl IntoIterator<Item = Entry<T>>) {
        for entry in entries {
            self.stats.given_back += 1;
            self.waiting.push(entry);
        }
    }

    /// Takes out the entries that no device will run: all on which they fit are lost, or, in a closed queue, away. Answer them
    /// [`Error::DevicesLost`]. To be asked for after [`trouble`](Self::trouble), [`give_back`](Self::give_back) and
    /// [`close`](Self::close).
    pub fn stranded(&mut self, now: Instant) -> Vec<Entry<T>> {
        let gone = (0..self.devices.len()).filter(|device| !self.devices[*device].may_come(now, self.closed));
        let gone = gone.fold(Barred::default(), Barred::with);
        if !gone.any() {
            return Vec::new();
        }
        let is_stranded = |entry: &&Entry<T>| (0..self.devices.len()).all(|it| gone.has(it) || entry.barred.has(it));
        let ids: Vec<_> = self.waiting.iter().filter(is_stranded).map(|entry| entry.id).collect();
        let stranded: Vec<_> = ids.into_iter().filter_map(|id| self.waiting.remove(id)).collect();
        self.stats.stranded += stranded.len() as u64;
        if !stranded.is_empty() {
            self.left();
        }
        stranded
    }

    /// Why nothing can run before `deadline`, if that is so: every device is lost.
    pub(super) fn no_device_before(&self, now: Instant, deadline: Option<Instant>) -> Option<Error> {
        if self.devices.iter().any(|device| !device.is_away(now)) {
            return None;
        }
        let back_at = self.first_back_at(now);
        let waits = back_at.is_some_and(|at| deadline.is_none_or(|deadline| at < deadline));
        (!waits).then(|| Error::DevicesLost { retry_after: back_at.map(|at| at - now) })
    }

    /// When the first of the devices that are away is worth another try; `None`: none ever is.
    pub(crate) fn first_back_at(&self, now: Instant) -> Option<Instant> {
        self.devices.iter().filter_map(|device| device.back_at(now)).min()
    }

    /// When a device that is away is worth another try; to be asked again then, also for what comes to wait meanwhile.
    #[must_use]
    pub fn back_at(&self, now: Instant, device: usize) -> Option<Instant> {
        self.devices[device].back_at(now)
    }

    /// Whether nothing waits and nothing will.
    #[must_use]
    pub fn is_over(&self) -> bool {
        // What another device runs may still come back.
        self.closed && self.waiting.is_empty() && (self.devices.len() == 1 || self.running.is_empty())
    }

    /// A device begins with a batch.
    pub(super) fn begin(&mut self, device: usize, expected_end: Instant) {
        self.running.push_back((device, expected_end));
        self.devices[device].busy_until = Some(expected_end);
        self.watched_until = None;
    }

    /// How long a batch is expected to take on a device: learned, else estimated.
    pub(super) fn expected_run(&self, device: usize, weight: usize) -> Option<Duration> {
        let estimated = || Some(seconds(self.devices[device].profile.estimate?.at(weight)));
        self.cost_on(device).predict(weight).or_else(estimated)
    }

    /// What is best known of the cost of a batch of `weight`: that of the device on which it is cheapest.
    pub(super) fn cheapest(&self, now: Instant, weight: usize) -> &CostModel {
        let serves = |device: &&Drain| device.profile.role == Role::Serves && !device.is_away(now);
        let serving = self.devices.iter().filter(serves);
        let known = serving.filter_map(|device| Some((device.cost.predict(weight)?, &device.cost)));
        let cheapest = known.min_by_key(|(cost, _)| *cost).filter(|_| self.chooses);
        cheapest.map_or(&self.devices[0].cost, |(_, cost)| cost)
    }

    /// The heaviest batch for a device: its configured bound, or what its memory holds.
    pub(super) fn max_batch_weight_on(&self, now: Instant, device: usize) -> usize {
        let bound = self.config.max_batch_weight;
        self.devices[device].max_weight(now).map_or(bound, |weight| weight.min(bound))
    }

    /// An idle device's decision: take a batch, or leave what waits to others, or until it is worth another try itself.
    pub(super) fn share_of(&self, now: Instant, device: usize) -> Share {
        let is_away = self.devices[device].is_away(now);
        if self.devices.len() == 1 && !is_away {
            return Share::Takes;
        }
        if is_away || !self.may_take(now, device) {
            return self.back_at(now, device).map_or(Share::Leaves, Share::AwayUntil);
        }
        if !self.is_wanted(now, device) {
            return Share::LeavesUntil(self.rescue_fails_at(now));
        }
        if !self.chooses {
            return Share::Takes;
        }
        match choose(now, device, &self.candidates(now)) {
            Choice::Take => Share::Takes,
            Choice::LeaveUntil(_) if self.has_barred_for(now, device) => Share::TakesBarred,
            Choice::LeaveUntil(until) => Share::LeavesUntil(until),
        }
    }

    /// Whether a device is not to run an entry: it does not fit there, it is for others that can, or it would be late here and in
    /// time elsewhere.
    pub(super) fn is_for_others(&self, now: Instant, device: usize, entry: &Entry<T>) -> bool {
        self.devices.len() > 1
            && (!self.may_run(now, device, entry.barred)
                || entry.deadline.is_some_and(|deadline| self.rescues(now, device, entry.weight, deadline)))
    }

    /// Whether an item would be late on this device, but not on another one.
    fn rescues(&self, now: Instant, device: usize, weight: usize, deadline: Instant) -> bool {
        let in_time = |device: usize, free: Instant| {
            let run = self.devices[device].cost.predict_with_margin(weight);
            run.is_some_and(|run| free.checked_add(run).is_some_and(|end| end <= deadline))
        };
        let late_here = self.devices[device].cost.is_known() && !in_time(device, now);
        let others = |other: usize| {
            let state = &self.devices[other];
            other != device
                && state.profile.role == Role::Serves
                && !state.is_away(now)
                && in_time(other, free_at(now, state.busy_until))
        };
        self.chooses && deadline > now && late_here && (0..self.devices.len()).any(others)
    }

    /// Whether a device may run entries with these bars: it is there, they fit, and it is no standby for others that can.
    fn may_run(&self, now: Instant, device: usize, barred: Barred) -> bool {
        let can = |device: usize| !self.devices[device].is_away(now) && !barred.has(device);
        let serves = |device: &usize| self.devices[*device].profile.role == Role::Serves;
        can(device) && (serves(&device) || !(0..self.devices.len()).filter(serves).any(can))
    }

    /// Whether anything waits that a device may run.
    pub(super) fn is_wanted(&self, now: Instant, device: usize) -> bool {
        let Some(head) = self.waiting.head() else { return false };
        if self.devices.len() == 1 {
            return !self.devices[0].is_away(now);
        }
        let takes = |entry: &Entry<T>| !self.is_for_others(now, device, entry);
        // Most of the time the first entry decides.
        takes(head)
            || self.may_run(now, device, Barred::default()) && self.waiting.iter().take(MAX_LOOKS).any(takes)
            || self.waiting.barred().any(takes)
    }

    /// Whether a device may run anything that waits, though another may be in time where it is late.
    fn may_take(&self, now: Instant, device: usize) -> bool {
        // Bars are rare: most of the time nothing needs to be looked at.
        !self.waiting.is_empty()
            && (self.may_run(now, device, Barred::default())
                || self.waiting.barred().any(|entry| self.may_run(now, device, entry.barred)))
    }

    /// Whether something waits that is not to run on another device, and that this one takes.
    fn has_barred_for(&self, now: Instant, device: usize) -> bool {
        self.waiting.barred().any(|entry| !self.is_for_others(now, device, entry))
    }

    /// When to look again whether the device that would be in time is: after half of the time that is left, again and again.
    fn rescue_fails_at(&self, now: Instant) -> Instant {
        let deadlines = self.waiting.iter().take(MAX_LOOKS).filter_map(|entry| entry.deadline);
        let left = deadlines.min().map_or(MIN_LOOK, |deadline| deadline.saturating_duration_since(now) / 2);
        later(now, left.max(MIN_LOOK))
    }

    /// What each device would need for what waits.
    fn candidates(&self, now: Instant) -> Vec<Option<Candidate>> {
        let candidate = |device: usize| {
            let state = &self.devices[device];
            let line = state.line().filter(|_| self.is_wanted(now, device))?;
            let waiting = self.waiting.weight();
            let full = self.full_batch_weight(device).min(self.max_batch_weight_on(now, device)).max(1);
            let time = |weight| if weight == 0 { Duration::ZERO } else { seconds(line.at(weight)) };
            let batches = u32::try_from(waiting / full).unwrap_or(u32::MAX);
            let all = time(full).saturating_mul(batches).saturating_add(time(waiting % full));
            Some(Candidate { busy_until: state.busy_until, batch: time(waiting.min(full)), all })
        };
        (0..self.devices.len()).map(candidate).collect()
    }
}

/// When a device is expected to be free. One that is overdue is expected to need as long again.
fn free_at(now: Instant, busy_until: Option<Instant>) -> Instant {
    busy_until.map_or(now, |until| later(until.max(now), now.saturating_duration_since(until)))
}

/// The devices that an entry is not to run on again: it does not fit there, or the device was lost while it ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Barred(u32);

impl Barred {
    /// Bars one more.
    #[must_use]
    pub fn with(self, device: usize) -> Self {
        Self(self.0 | 1 << device)
    }

    fn has(self, device: usize) -> bool {
        self.0 & (1 << device) != 0
    }

    pub(super) fn any(self) -> bool {
        self.0 != 0
    }
}
