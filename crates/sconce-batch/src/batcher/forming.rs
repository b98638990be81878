//! A batch that is being formed.

use std::time::Instant;

use super::Batcher;
use super::waiting::{Entry, EntryId};
use crate::{Layout, Priority};

/// What becomes of the entry behind the batch that is being formed.
pub(super) enum Next {
    /// It becomes part of the batch.
    Joins,
    /// It stays in the queue, and the batch is complete.
    Stays,
    /// The member at this place, or the entry itself if it is the number of members, is dropped.
    Drops(usize),
}

/// The next batch. Its entries are still in the queue.
#[derive(Debug, Default)]
pub(super) struct Forming {
    pub(super) members: Vec<Member>,
    /// Those that must not run.
    pub(super) dropped: Vec<EntryId>,
    pub(super) shape: Shape,
    /// Whether no arrival could join it.
    pub(super) full: bool,
    /// Whether entries were left to other devices.
    pub(super) passed_over: bool,
}

/// What the rules need to know of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) id: EntryId,
    pub(super) weight: usize,
    pub(super) arrived: Instant,
    pub(super) deadline: Option<Instant>,
    priority: Priority,
}

/// What a batch amounts to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) size: usize,
    /// Of all members together.
    sum: usize,
    /// Of the heaviest.
    max: usize,
    /// The earliest deadline, and whose it is.
    pub(super) tightest: Option<(Instant, usize)>,
}

impl Forming {
    fn join(&mut self, member: Member) {
        self.shape = self.shape.with(&member);
        self.members.push(member);
    }

    fn drop_member(&mut self, at: usize) {
        self.dropped.push(self.members.remove(at).id);
        self.shape = self.members.iter().fold(Shape::default(), Shape::with);
    }
}

impl Shape {
    pub(super) fn with(self, member: &Member) -> Self {
        let deadline = member.deadline.map(|deadline| (deadline, self.size));
        Self {
            size: self.size + 1,
            sum: self.sum + member.weight,
            max: self.max.max(member.weight),
            tightest: [self.tightest, deadline].into_iter().flatten().min(),
        }
    }

    /// What the executor has to run, padding included.
    pub(super) fn weight(self, layout: Layout) -> usize {
        layout.batch_weight(self.size, self.sum, self.max)
    }
}

impl Member {
    /// When half of the time that it was given is over.
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
    pub(super) fn form(&self, now: Instant, device: usize, only_barred: bool, forming: &mut Forming) {
        forming.members.clear();
        forming.dropped.clear();
        (forming.shape, forming.full, forming.passed_over) = (Shape::default(), false, false);
        let mut behind = self.waiting.head();
        while let Some(entry) = behind {
            let candidate = Member::from(entry);
            if only_barred && !entry.barred.any() || self.is_for_others(now, device, entry) {
                forming.passed_over = true;
                behind = self.waiting.after(candidate.id);
                continue;
            }
            match self.next(forming, candidate, now, device) {
                Next::Joins => forming.join(candidate),
                Next::Stays => {
                    forming.full = true;
                    return;
                }
                Next::Drops(at) if at < forming.shape.size => {
                    forming.drop_member(at);
                    continue;
                }
                Next::Drops(_) => forming.dropped.push(candidate.id),
            }
            if forming.members.is_empty() && self.layout == Layout::Padded {
                // Who is the head now decides on the length of the batch, and those that are dropped leave first.
                return;
            }
            behind = self.waiting.after(candidate.id);
        }
        forming.full = forming.shape.size == self.config.max_batch_size
            || forming.shape.weight(self.layout) >= self.max_batch_weight_on(now, device);
    }

    /// What becomes of the entry behind the batch.
    fn next(&self, batch: &Forming, entry: Member, now: Instant, device: usize) -> Next {
        if entry.deadline.is_some_and(|deadline| deadline <= now) {
            return Next::Drops(batch.shape.size);
        }
        let longer = batch.shape.with(&entry);
        let weight = longer.weight(self.layout);
        if longer.size > self.config.max_batch_size
            || weight > self.config.max_batch_weight
            || longer.size > 1 && weight > self.max_batch_weight_on(now, device)
            || !self.suits(&batch.members, entry, device)
        {
            return Next::Stays;
        }
        let (Some((deadline, tightest)), Some(run)) =
            (longer.tightest, self.cost_on(device).predict_within(weight, self.typical_time))
        else {
            return Next::Joins;
        };
        if longer.size > 1 && self.half_time_weight(device).is_some_and(|max| weight > max) {
            return Next::Stays;
        }
        if now.checked_add(run).is_some_and(|end| end <= deadline) {
            Next::Joins
        } else if tightest == batch.shape.size && tightest > 0 {
            // The newcomer is the one in a hurry; it may head the next batch.
            Next::Stays
        } else if batch.members.get(tightest).is_some_and(|member| member.priority < entry.priority) {
            // Nobody is dropped for the sake of one of lower priority.
            Next::Stays
        } else if self.waiting.len() - batch.dropped.len() == 1 {
            // Alone it runs, however late: something has to show what a batch costs by now.
            Next::Joins
        } else {
            Next::Drops(tightest)
        }
    }

    /// Whether it is cheaper to pad a shorter entry to the length of the batch than to run it in a batch of its own.
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
