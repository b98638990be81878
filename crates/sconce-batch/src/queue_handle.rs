//! A queue as its device sees it, whatever the types of its items and executor.

use std::time::Instant;

use crate::Want;

/// A queue together with the executor that runs its batches on one device.
pub(crate) trait QueueHandle: Send {
    /// Reports the queue's work to a device that has to choose among queues.
    fn outlook(&self) -> Outlook;
    /// Takes the next batch, to be run at once.
    fn take(&mut self) -> Taken;
    /// Runs the batch that was taken, and answers its callers.
    fn run(&mut self);
    /// Stops lingering, because the device runs another queue's batch: wakes another device for the queued entries.
    fn stop_lingering(&self);
    /// Drops the executor.
    fn end(self: Box<Self>);
}

/// The work of a queue, as far as one device may run it.
pub(crate) enum Outlook {
    Work(Want),
    /// Nothing to run, at least until this instant if one is given.
    Nothing(Option<Instant>),
    /// The queue is closed and empty.
    Over,
}

/// The result of [`QueueHandle::take`].
pub(crate) enum Taken {
    Batch {
        /// True if entries are left in the queue.
        leaves_work: bool,
    },
    /// No batch yet: ask again at this instant, or after the next arrival.
    NothingUntil(Instant),
    /// No batch: ask again after the next arrival.
    Nothing,
    /// The queue is closed and empty.
    Over,
}
