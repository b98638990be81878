//! The forming of a batch from queued entries.

use std::time::Instant;

use super::Batcher;
use super::waiting::{Entry, EntryId};
use crate::{BatchLayout, Priority};

/// The verdict on the next entry in the order of the queue: whether it joins the batch that is being formed.
pub(super) enum JoinVerdict {
    /// The entry becomes a member of the batch.
    Joins,
    /// The entry stays in the queue, and the batch is complete.
    Stays,
    /// The member with this index is dropped, or, if it is the number of members, the entry itself.
    Drops(usize),
}

/// The batch that is being formed. Its entries are still in the queue.
#[derive(Debug, Default)]
pub(super) struct Forming {
    pub(super) members: Vec<Member>,
    /// Entries to drop: they must not run.
    pub(super) dropped: Vec<EntryId>,
    pub(super) shape: BatchShape,
    /// True if no new arrival could join the batch.
    pub(super) full: bool,
    /// True if entries were left to other devices.
    pub(super) passed_over: bool,
}

/// A copy of the fields of an entry that the rules need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) id: EntryId,
    pub(super) weight: usize,
    pub(super) arrived: Instant,
    pub(super) deadline: Option<Instant>,
    priority: Priority,
}

/// Size, weights and tightest deadline of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BatchShape {
    pub(super) size: usize,
    /// Weight of all members together.
    sum: usize,
    /// Weight of the heaviest member.
    max: usize,
    /// The earliest deadline, and the index of its member.
    pub(super) tightest: Option<(Instant, usize)>,
}

impl Forming {
    fn join(&mut self, member: Member) {
        self.shape = self.shape.with(&member);
        self.members.push(member);
    }

    fn drop_member(&mut self, at: usize) {
        self.dropped.push(self.members.remove(at).id);
        self.shape = self.members.iter().fold(BatchShape::default(), BatchShape::with);
    }
}

impl BatchShape {
    pub(super) fn with(self, member: &Member) -> Self {
        let deadline = member.deadline.map(|deadline| (deadline, self.size));
        Self {
            size: self.size + 1,
            sum: self.sum + member.weight,
            max: self.max.max(member.weight),
            tightest: [self.tightest, deadline].into_iter().flatten().min(),
        }
    }

    /// Weight that the executor has to run, padding included.
    pub(super) fn weight(self, layout: BatchLayout) -> usize {
        layout.batch_weight(self.size, self.sum, self.max)
    }
}

impl Member {
    /// The instant half-way from arrival to deadline.
    pub(super) fn half_time_at(&self) -> Option<Instant> {
        Some(self.arrived + (self.deadline? - self.arrived) / 2)
    }
}

impl<T> From<&Entry<T>> for Member {
    fn from(entry: &Entry<T>) -> Self {
        let &Entry { id, weight, arrived, deadline, priority, .. } = entry;
        Self { id, weight, arrived, deadline, priority }
    }
}

impl<T> Batcher<T> {
    /// Forms the next batch. Nothing leaves the queue yet, and entries further back cost nothing until they are reached.
    pub(super) fn form(&self, now: Instant, device: usize, only_restricted: bool, forming: &mut Forming) {
        forming.members.clear();
        forming.dropped.clear();
        (forming.shape, forming.full, forming.passed_over) = (BatchShape::default(), false, false);
        let mut behind = self.waiting.head();
        while let Some(entry) = behind {
            let candidate = Member::from(entry);
            if only_restricted && !entry.excluded.any() || self.is_for_others(now, device, entry) {
                forming.passed_over = true;
                behind = self.waiting.after(candidate.id);
                continue;
            }
            match self.join_verdict(forming, candidate, now, device) {
                JoinVerdict::Joins => forming.join(candidate),
                JoinVerdict::Stays => {
                    forming.full = true;
                    return;
                }
                JoinVerdict::Drops(at) if at < forming.shape.size => {
                    forming.drop_member(at);
                    continue;
                }
                JoinVerdict::Drops(_) => forming.dropped.push(candidate.id),
            }
            if forming.members.is_empty() && self.layout == BatchLayout::Padded {
                // The length of a padded batch is that of its head, so the dropped entries must leave before a head is
                // chosen.
                return;
            }
            behind = self.waiting.after(candidate.id);
        }
        forming.full = forming.shape.size == self.config.max_batch_size
            || forming.shape.weight(self.layout) >= self.max_batch_weight_on(now, device);
    }

    /// Decides whether an entry joins the batch.
    fn join_verdict(&self, batch: &Forming, entry: Member, now: Instant, device: usize) -> JoinVerdict {
        if entry.deadline.is_some_and(|deadline| deadline <= now) {
            return JoinVerdict::Drops(batch.shape.size);
        }
        let longer = batch.shape.with(&entry);
        let weight = longer.weight(self.layout);
        if longer.size > self.config.max_batch_size
            || weight > self.config.max_batch_weight
            || longer.size > 1 && weight > self.max_batch_weight_on(now, device)
            || !self.suits(&batch.members, entry, device)
        {
            return JoinVerdict::Stays;
        }
        let (Some((deadline, tightest)), Some(run)) =
            (longer.tightest, self.cost_on(device).predict_within(weight, self.typical_time))
        else {
            return JoinVerdict::Joins;
        };
        if longer.size > 1 && self.half_time_weight(device).is_some_and(|max| weight > max) {
            return JoinVerdict::Stays;
        }
        if now.checked_add(run).is_some_and(|end| end <= deadline) {
            JoinVerdict::Joins
        } else if tightest == batch.shape.size && tightest > 0 {
            // The new entry has the tightest deadline; it may head the next batch.
            JoinVerdict::Stays
        } else if batch.members.get(tightest).is_some_and(|member| member.priority < entry.priority) {
            // No member is dropped in favour of an entry of lower priority.
            JoinVerdict::Stays
        } else if self.waiting.len() - batch.dropped.len() == 1 {
            // The only queued entry runs, however late: were it dropped, a wrong cost would never be corrected.
            JoinVerdict::Joins
        } else {
            JoinVerdict::Drops(tightest)
        }
    }

    /// Returns true if an entry is of the length of the batch, or if padding it to that length is cheaper than a batch
    /// of its own.
    fn suits(&self, batch: &[Member], entry: Member, device: usize) -> bool {
        let Some(head) = batch.first().filter(|head| !head.id.shares_bucket(entry.id)) else {
            return true;
        };
        let Some(worth) = self.cost_on(device).fixed_in_weight() else { return false };
        let shorter = batch.iter().filter(|member| !head.id.shares_bucket(member.id)).chain([&entry]);
        let padding: usize = shorter.map(|member| head.weight.saturating_sub(member.weight)).sum();
        padding as f64 <= worth
    }
}
