//! The devices that drain a queue, as its rules see them: the cost of batches on each, and the entries that each can take.

use std::time::{Duration, Instant};

use super::Batcher;
use super::excluded_devices::ExcludedDevices;
use super::waiting::Entry;
use crate::choice::{Candidate, Choice, choose, whom_to_wake};
use crate::saturate::{later, seconds};
use crate::{CostLine, CostModel, Error};

/// Time for which a device that ran out of memory is given batches no heavier than what it managed. Too short: it fails
/// again and again. Too long: its batches stay small after the memory is free again.
const REMEMBERS_OUT_OF_MEMORY: Duration = Duration::from_mins(1);

/// Number of entries that are looked at to learn whether a device is to take any.
const MAX_LOOKS: usize = 64;
/// The shortest time after which a device that left everything to others looks again.
const MIN_LOOK: Duration = Duration::from_millis(1);

/// Properties of a device that are known before it runs a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Profile {
    /// Estimated cost of batches, used until the cost is learned. If any device of a queue has one, batches go to the
    /// device that would complete them first; else devices count as alike, and an idle one takes the queued entries.
    pub estimate: Option<CostLine>,
    /// The batches that the device takes.
    pub role: Role,
}

/// The batches of a queue that a device takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Every batch that it would complete first.
    #[default]
    Serves,
    /// Only entries that no other device of the queue can run, because the others are lost or have too little memory.
    Standby,
}

/// The state of a device: whether it takes batches, and how heavy ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceState {
    /// The device takes batches.
    #[default]
    Ready,
    /// The device ran out of memory less than a minute ago, and takes lighter batches for now.
    ShortOfMemory {
        /// Weight of the heaviest batch that it is given; a single item may weigh more.
        max_weight: usize,
    },
    /// The device takes nothing, for ever or until it is worth another try.
    Lost,
}

/// A fault of a device while it ran a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFault {
    /// The device had no memory for a batch.
    OutOfMemory {
        /// Weight of the heaviest part of the batch that then ran; 0 if none did.
        managed: usize,
    },
    /// The device cannot run anything any more.
    Lost {
        /// Time until it is worth another try; `None` if it never is.
        retry_after: Option<Duration>,
    },
}

/// One of the devices of a queue.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueDevice {
    pub(super) profile: Profile,
    pub(super) cost: CostModel,
    /// Expected end of the running batch, which may be of another queue.
    busy_until: Option<Instant>,
    /// Weight of the heaviest batch that fits its memory, and the instant until which that is remembered.
    max_weight: Option<(usize, Instant)>,
    away: Option<Away>,
    /// Time of all batches that ended, and the beginning of the running one.
    busy: Duration,
    running_since: Option<Instant>,
}

/// An idle device's share of the queued entries.
pub(super) enum Share {
    /// The device takes entries.
    Takes,
    /// The device takes restricted entries only, and leaves the others to other devices.
    TakesRestricted,
    /// The device leaves the entries to others. If those have not taken them by this instant, it asks again.
    LeavesUntil(Instant),
    /// The device is lost, and worth another try at this instant.
    AwayUntil(Instant),
    /// The device takes nothing, and asks again after the next arrival.
    Leaves,
}

#[derive(Debug, Clone, Copy)]
enum Away {
    ForEver,
    Until(Instant),
}

impl QueueDevice {
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

    /// Returns true if entries may wait for this device, because it takes batches or will be worth another try. A
    /// closed queue waits for no device to come back.
    fn may_come(&self, now: Instant, closed: bool) -> bool {
        match self.away {
            None => true,
            Some(Away::ForEver) => false,
            Some(Away::Until(until)) => !closed || now >= until,
        }
    }

    /// The instant at which a device that is away is worth another try.
    fn back_at(&self, now: Instant) -> Option<Instant> {
        match self.away {
            Some(Away::Until(until)) if now < until => Some(until),
            _ => None,
        }
    }

    /// Expected cost of a batch: learned, else estimated.
    fn line(&self) -> Option<CostLine> {
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
    /// The state of a device: whether it takes batches now, and how heavy ones.
    #[must_use]
    pub fn device_state(&self, now: Instant, device: usize) -> DeviceState {
        self.devices[device].state(now)
    }

    /// The learned cost of batches on a device.
    #[must_use]
    pub fn cost_on(&self, device: usize) -> &CostModel {
        &self.devices[if self.chooses { device } else { 0 }].cost
    }

    /// Sets the cost of batches on a device to one that was learned before.
    pub fn learned(&mut self, device: usize, cost: CostModel) {
        self.devices[device].cost = cost;
    }

    /// Sets the expected end of the batch that each device runs, which may be of another queue. Needed before decisions
    /// where several devices drain the queue.
    pub fn observe_load(&mut self, busy_until: impl IntoIterator<Item = Option<Instant>>) {
        for (device, busy_until) in self.devices.iter_mut().zip(busy_until) {
            device.busy_until = busy_until;
        }
    }

    /// Chooses the sleeping device to wake for the queued entries, if any; the device that `looked` just now is awake.
    #[must_use]
    pub fn whom_to_wake(&self, now: Instant, looked: Option<usize>) -> Option<usize> {
        let sleeps = |device: &usize| Some(*device) != looked && self.devices[*device].busy_until.is_none();
        let asleep = || (0..self.devices.len()).filter(sleeps);
        if let Some(device) = asleep().find(|device| self.has_restricted_for(now, *device)) {
            return Some(device);
        }
        let candidates = self.candidates(now);
        let sleeping = asleep().filter(|device| self.is_wanted(now, *device));
        let unknown = |device: &usize| candidates[*device].is_none();
        if let Some(device) = whom_to_wake(now, &candidates, looked).or_else(|| sleeping.clone().find(unknown)) {
            return Some(device);
        }
        // Every sleeping device would leave the entries to a busy one; one of them has to check that the busy one takes
        // them.
        let is_watched = self.watched_until.is_some_and(|until| now < until);
        asleep().find(|device| self.may_take(now, *device)).filter(|_| !is_watched)
    }

    /// Takes note of a fault of a device. The caller must then answer the [`stranded`](Self::stranded) entries.
    pub fn report_fault(&mut self, now: Instant, device: usize, fault: DeviceFault) {
        match fault {
            DeviceFault::OutOfMemory { managed } => {
                self.stats.out_of_memory += 1;
                // If nothing ran, no weight is known to fit: an item that does not fit alone says nothing about others.
                if managed > 0 {
                    self.devices[device].max_weight = Some((managed, now + REMEMBERS_OUT_OF_MEMORY));
                }
            }
            DeviceFault::Lost { retry_after } => {
                self.stats.lost_devices += 1;
                let until = retry_after.and_then(|after| now.checked_add(after));
                self.devices[device].away = Some(until.map_or(Away::ForEver, Away::Until));
            }
        }
    }

    /// Returns true if another device, not excluded and not away, could run an entry that this one cannot.
    #[must_use]
    pub fn has_another(&self, now: Instant, device: usize, excluded: ExcludedDevices) -> bool {
        let could = |other: usize| other != device && !excluded.has(other) && !self.devices[other].is_away(now);
        (0..self.devices.len()).any(could)
    }

    /// Takes entries of a batch that a device could not run back into the queue, in their old places. The bounds of the
    /// queue do not apply to them, because they were admitted before. The caller must then answer the
    /// [`stranded`](Self::stranded) entries.
    pub fn give_back(&mut self, entries: impl IntoIterator<Item = Entry<T>>) {
        for entry in entries {
            self.stats.given_back += 1;
            self.waiting.push(entry);
        }
    }

    /// Takes out the entries that no device will run: every device that they do not exclude is lost for ever or, in a
    /// closed queue, away. They must be answered [`Error::DevicesLost`]. To be called after
    /// [`report_fault`](Self::report_fault), [`give_back`](Self::give_back) and [`close`](Self::close).
    pub fn stranded(&mut self, now: Instant) -> Vec<Entry<T>> {
        let gone = (0..self.devices.len()).filter(|device| !self.devices[*device].may_come(now, self.closed));
        let gone = gone.fold(ExcludedDevices::default(), ExcludedDevices::with);
        if !gone.any() {
            return Vec::new();
        }
        let is_stranded = |entry: &&Entry<T>| (0..self.devices.len()).all(|it| gone.has(it) || entry.excluded.has(it));
        let ids: Vec<_> = self.waiting.iter().filter(is_stranded).map(|entry| entry.id).collect();
        let stranded: Vec<_> = ids.into_iter().filter_map(|id| self.waiting.remove(id)).collect();
        self.stats.stranded += stranded.len() as u64;
        if !stranded.is_empty() {
            self.left();
        }
        stranded
    }

    /// The error to answer if every device is lost and none is worth another try before `deadline`.
    pub(super) fn no_device_before(&self, now: Instant, deadline: Option<Instant>) -> Option<Error> {
        if self.devices.iter().any(|device| !device.is_away(now)) {
            return None;
        }
        let back_at = self.first_back_at(now);
        let waits = back_at.is_some_and(|at| deadline.is_none_or(|deadline| at < deadline));
        (!waits).then(|| Error::DevicesLost { retry_after: back_at.map(|at| at - now) })
    }

    /// The instant at which the first of the devices that are away is worth another try; `None` if none ever is.
    pub(crate) fn first_back_at(&self, now: Instant) -> Option<Instant> {
        self.devices.iter().filter_map(|device| device.back_at(now)).min()
    }

    /// The instant at which a device that is away is worth another try and should poll again; arrivals do not change it.
    #[must_use]
    pub fn back_at(&self, now: Instant, device: usize) -> Option<Instant> {
        self.devices[device].back_at(now)
    }

    /// Returns true once the queue is closed and empty, and no entry can come back from a device.
    #[must_use]
    pub fn is_over(&self) -> bool {
        // Entries that another device runs may still be given back.
        self.closed && self.waiting.is_empty() && (self.devices.len() == 1 || self.running.is_empty())
    }

    /// Time for which a device has run batches, failed ones and the running one included.
    #[must_use]
    pub fn busy_on(&self, now: Instant, device: usize) -> Duration {
        let QueueDevice { busy, running_since, .. } = self.devices[device];
        busy + running_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Takes note that a device begins to run a batch.
    pub(super) fn begin(&mut self, now: Instant, device: usize, expected_end: Instant) {
        self.running.push_back((device, expected_end));
        self.devices[device].running_since = Some(now);
        self.devices[device].busy_until = Some(expected_end);
        self.watched_until = None;
    }

    /// Takes note that a device has ended its batch.
    pub(super) fn end(&mut self, now: Instant, device: usize) {
        if let Some(ended) = self.running.iter().position(|(running, _)| *running == device) {
            self.running.remove(ended);
        }
        let device = &mut self.devices[device];
        if let Some(since) = device.running_since.take() {
            device.busy = device.busy.saturating_add(now.saturating_duration_since(since));
        }
    }

    /// Expected time of a batch on a device: learned, else estimated.
    pub(super) fn expected_run(&self, device: usize, weight: usize) -> Option<Duration> {
        let estimated = || Some(seconds(self.devices[device].profile.estimate?.at(weight)));
        self.cost_on(device).predict(weight).or_else(estimated)
    }

    /// The cost model of the serving device on which a batch of `weight` is cheapest; that of the first device while none is
    /// learned, or if devices count as alike.
    pub(super) fn cheapest(&self, now: Instant, weight: usize) -> &CostModel {
        let serves = |device: &&QueueDevice| device.profile.role == Role::Serves && !device.is_away(now);
        let serving = self.devices.iter().filter(serves);
        let known = serving.filter_map(|device| Some((device.cost.predict(weight)?, &device.cost)));
        let cheapest = known.min_by_key(|(cost, _)| *cost).filter(|_| self.chooses);
        cheapest.map_or(&self.devices[0].cost, |(_, cost)| cost)
    }

    /// Weight of the heaviest batch for a device: the configured bound, or less if its memory holds less.
    pub(super) fn max_batch_weight_on(&self, now: Instant, device: usize) -> usize {
        let bound = self.config.max_batch_weight;
        self.devices[device].max_weight(now).map_or(bound, |weight| weight.min(bound))
    }

    /// An idle device's decision: take a batch, leave the queued entries to others, or wait until it is worth another
    /// try itself.
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
            Choice::LeaveUntil(_) if self.has_restricted_for(now, device) => Share::TakesRestricted,
            Choice::LeaveUntil(until) => Share::LeavesUntil(until),
        }
    }

    /// Returns true if a device must leave an entry to others: the entry excludes it, it is a standby while others can
    /// run the entry, or the entry would be late here and in time elsewhere.
    pub(super) fn is_for_others(&self, now: Instant, device: usize, entry: &Entry<T>) -> bool {
        self.devices.len() > 1
            && (!self.may_run(now, device, entry.excluded)
                || entry.deadline.is_some_and(|deadline| self.rescues(now, device, entry.weight, deadline)))
    }

    /// Returns true if an item would be late on this device and in time on another one.
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

    /// Returns true if a device may run entries that exclude these devices: it is not away, not excluded, and no
    /// standby while others can run them.
    fn may_run(&self, now: Instant, device: usize, excluded: ExcludedDevices) -> bool {
        let can = |device: usize| !self.devices[device].is_away(now) && !excluded.has(device);
        let serves = |device: &usize| self.devices[*device].profile.role == Role::Serves;
        can(device) && (serves(&device) || !(0..self.devices.len()).filter(serves).any(can))
    }

    /// Returns true if an entry is queued that a device is to run.
    pub(super) fn is_wanted(&self, now: Instant, device: usize) -> bool {
        let Some(head) = self.waiting.head() else { return false };
        if self.devices.len() == 1 {
            return !self.devices[0].is_away(now);
        }
        let takes = |entry: &Entry<T>| !self.is_for_others(now, device, entry);
        // Most of the time the first entry decides.
        takes(head)
            || self.may_run(now, device, ExcludedDevices::default()) && self.waiting.iter().take(MAX_LOOKS).any(takes)
            || self.waiting.restricted().any(takes)
    }

    /// Returns true if a device may run any queued entry, even one that it would run late and another in time.
    fn may_take(&self, now: Instant, device: usize) -> bool {
        // Restricted entries are rare: most of the time no entry needs to be looked at.
        !self.waiting.is_empty()
            && (self.may_run(now, device, ExcludedDevices::default())
                || self.waiting.restricted().any(|entry| self.may_run(now, device, entry.excluded)))
    }

    /// Returns true if a restricted entry is queued that this device is to run.
    fn has_restricted_for(&self, now: Instant, device: usize) -> bool {
        self.waiting.restricted().any(|entry| !self.is_for_others(now, device, entry))
    }

    /// The instant at which to look again whether the entries left to another device were taken: after half of the time
    /// to the earliest deadline, so that repeated looks come more and more often.
    fn rescue_fails_at(&self, now: Instant) -> Instant {
        let deadlines = self.waiting.iter().take(MAX_LOOKS).filter_map(|entry| entry.deadline);
        let left = deadlines.min().map_or(MIN_LOOK, |deadline| deadline.saturating_duration_since(now) / 2);
        later(now, left.max(MIN_LOOK))
    }

    /// The time that each device would need for the queued entries; `None` for a device that is not to run any, or
    /// whose cost is unknown.
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

/// The instant at which a device is expected to be free. A device that is overdue is expected to need as long again.
fn free_at(now: Instant, busy_until: Option<Instant>) -> Instant {
    busy_until.map_or(now, |until| later(until.max(now), now.saturating_duration_since(until)))
}
