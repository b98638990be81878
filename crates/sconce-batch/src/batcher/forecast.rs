//! The forecast of a queue: the wait of an item that arrives now, and the speed of the queue's devices.

use std::time::{Duration, Instant};

use super::{Batcher, Group, Role};
use crate::{CostLine, DeviceState, Priority};

/// A queue's prospects for an item that arrives now, for callers that may give it to another queue.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Forecast {
    /// Expected time until the answer of an item that has to wait behind others, or the time for which the next entry has been
    /// queued already if that is longer. Zero if nothing is queued: the item is not late because of load then.
    pub wait: Duration,
    /// Average time from arrival to deadline, over entries that have one; `None` if none had.
    pub typical_time: Option<Duration>,
    /// Learned cost of batches on each device that takes them; empty until it is learned.
    pub costs: Vec<CostLine>,
}

impl<T> Batcher<T> {
    /// The forecast for an item of this weight and of normal priority.
    #[must_use]
    pub fn forecast(&self, now: Instant, weight: usize) -> Forecast {
        let predicted = self.expected_wait(now, Group::one(weight), Priority::Normal).unwrap_or_default();
        let queued = self.waiting.head().map_or(Duration::ZERO, |head| now.saturating_duration_since(head.arrived));
        let takes = |device: &usize| {
            self.devices[*device].profile.role == Role::Serves && self.device_state(now, *device) != DeviceState::Lost
        };
        let costs = (0..self.devices.len()).filter(takes).filter_map(|device| self.cost_on(device).line());
        Forecast { wait: predicted.max(queued), typical_time: self.typical_time, costs: costs.collect() }
    }
}
