//! Counts of a queue since it was made, as values that any exporter can read.

use std::time::Duration;

use crate::Error;

/// Number of buckets of [`Stats::batch_sizes`].
pub const BATCH_SIZE_BUCKETS: usize = 12;

/// Counts of a queue since it was made. They only grow; each item that was admitted or given back is either queued or
/// counted in `cancelled`, `dropped`, `stranded` or `batched`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Items that were admitted.
    pub admitted: u64,
    /// Items that were refused, by reason.
    pub refused: Refusals,
    /// Items that left the queue because their callers cancelled them.
    pub cancelled: u64,
    /// Items that left the queue because their deadline had passed or would have been missed.
    pub dropped: u64,
    /// Items that left the queue because every device that could have run them was lost.
    pub stranded: u64,
    /// Items that left the queue in a batch.
    pub batched: u64,
    /// Batches that were handed to a device.
    pub batches: u64,
    /// Batches for which an idle device lingered.
    pub lingered_batches: u64,
    /// Batches that failed, whether or not they were retried.
    pub failed_batches: u64,
    /// Items that left the queue in a batch and came back, because the device could not run them; they leave it once more.
    pub given_back: u64,
    /// Batches for which a device had no memory; they ran in parts.
    pub out_of_memory: u64,
    /// Times that a device was lost.
    pub lost_devices: u64,
    /// Total time for which devices ran batches that did not fail.
    pub run: Duration,
    /// Batches by size: 1, 2, 3–4, 5–8, …; each bucket ends at a power of two, and the last has all larger batches.
    pub batch_sizes: [u64; BATCH_SIZE_BUCKETS],
}

/// Items that were refused, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusals {
    /// [`Error::QueueFull`]; a caller that waits for room counts each time it finds none.
    pub queue_full: u64,
    /// [`Error::QueueTooHeavy`]; a caller that waits for room counts each time it finds none.
    pub queue_too_heavy: u64,
    /// [`Error::TooHeavy`] and [`Error::GroupTooLarge`].
    pub too_heavy: u64,
    /// [`Error::Overloaded`].
    pub overloaded: u64,
    /// [`Error::DeadlineExceeded`].
    pub deadline_exceeded: u64,
    /// [`Error::DevicesLost`].
    pub devices_lost: u64,
    /// [`Error::ShuttingDown`].
    pub shutting_down: u64,
}

impl Stats {
    /// The counts of two queues together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mut batch_sizes = self.batch_sizes;
        batch_sizes.iter_mut().zip(other.batch_sizes).for_each(|(count, more)| *count += more);
        Self {
            admitted: self.admitted + other.admitted,
            refused: self.refused.plus(other.refused),
            cancelled: self.cancelled + other.cancelled,
            dropped: self.dropped + other.dropped,
            stranded: self.stranded + other.stranded,
            batched: self.batched + other.batched,
            batches: self.batches + other.batches,
            lingered_batches: self.lingered_batches + other.lingered_batches,
            failed_batches: self.failed_batches + other.failed_batches,
            given_back: self.given_back + other.given_back,
            out_of_memory: self.out_of_memory + other.out_of_memory,
            lost_devices: self.lost_devices + other.lost_devices,
            run: self.run.saturating_add(other.run),
            batch_sizes,
        }
    }

    /// Counts `items` refused items under their reason.
    pub(crate) fn refuse(&mut self, error: &Error, items: usize) {
        let Refusals {
            queue_full,
            queue_too_heavy,
            too_heavy,
            overloaded,
            deadline_exceeded,
            devices_lost,
            shutting_down,
        } = &mut self.refused;
        let count = match error {
            Error::QueueFull { .. } => queue_full,
            Error::QueueTooHeavy { .. } => queue_too_heavy,
            Error::TooHeavy { .. } | Error::GroupTooLarge { .. } => too_heavy,
            Error::Overloaded { .. } => overloaded,
            Error::DeadlineExceeded { .. } => deadline_exceeded,
            Error::DevicesLost { .. } => devices_lost,
            Error::ShuttingDown => shutting_down,
            Error::Executor(_) => unreachable!("an executor fails after admission"),
        };
        *count += items as u64;
    }

    pub(crate) fn batch(&mut self, size: usize, lingered: bool) {
        self.batched += size as u64;
        self.batches += 1;
        self.lingered_batches += u64::from(lingered);
        self.batch_sizes[bucket(size)] += 1;
    }
}

impl Refusals {
    fn plus(self, other: Self) -> Self {
        Self {
            queue_full: self.queue_full + other.queue_full,
            queue_too_heavy: self.queue_too_heavy + other.queue_too_heavy,
            too_heavy: self.too_heavy + other.too_heavy,
            overloaded: self.overloaded + other.overloaded,
            deadline_exceeded: self.deadline_exceeded + other.deadline_exceeded,
            devices_lost: self.devices_lost + other.devices_lost,
            shutting_down: self.shutting_down + other.shutting_down,
        }
    }
}

/// Index of the first bucket whose upper bound, a power of two, is not below `size`.
fn bucket(size: usize) -> usize {
    (size.next_power_of_two().trailing_zeros() as usize).min(BATCH_SIZE_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_two_queues_add_up() {
        let mut stats = Stats::default();
        stats.batch(3, true);
        stats.refuse(&Error::ShuttingDown, 2);
        let both = stats.plus(stats);
        assert_eq!((both.batched, both.batches, both.lingered_batches), (6, 2, 2));
        assert_eq!((both.refused.shutting_down, both.batch_sizes[2]), (4, 2));
    }

    #[test]
    fn each_bucket_ends_at_a_power_of_two() {
        let table = [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (2048, 11), (2049, 11), (1 << 40, 11)];
        for (size, expected) in table {
            assert_eq!(bucket(size), expected, "{size}");
        }
    }
}
