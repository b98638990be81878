//! A batch while it is put together from the head of the queue.

use std::time::Instant;

use super::Entry;

/// What becomes of the entry behind a batch that is being formed.
pub(super) enum Next {
    /// It becomes part of the batch.
    Joins,
    /// It stays in the queue, and the batch is complete.
    Stays,
    /// The entry at this place, this one or one of the batch, is dropped.
    Drops(usize),
}

/// The beginning of the queue as far as it is in the batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Forming {
    pub(super) len: usize,
    pub(super) weight: usize,
    /// The earliest deadline, and whose it is.
    pub(super) tightest: Option<(Instant, usize)>,
}

impl Forming {
    pub(super) fn with<T>(self, entry: &Entry<T>) -> Self {
        let deadline = entry.deadline.map(|deadline| (deadline, self.len));
        Self {
            len: self.len + 1,
            weight: self.weight + entry.weight,
            tightest: [self.tightest, deadline].into_iter().flatten().min(),
        }
    }
}
