//! The terms of a request: deadline and priority.

use std::time::Instant;

/// The terms of a request. An instant, or `None`, converts into terms with that deadline: `queue.call(item, None)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// Time after which the answer is no longer wanted.
    pub deadline: Option<Instant>,
    /// Priority of the item among the others of its queue.
    pub priority: Priority,
}

/// Priority of an item among the others of its queue.
///
/// An item of lower priority counts as having come [`priority_ageing`](crate::BatcherConfig::priority_ageing) later for
/// each step between the priorities. So only items that come within that time after it overtake it, and it is never
/// starved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// The highest priority.
    High,
    /// The default.
    #[default]
    Normal,
    /// The lowest priority.
    Low,
}

impl Priority {
    /// All priorities, from the highest to the lowest.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// Index of the priority in [`ALL`](Self::ALL): 0 for the highest.
    pub(crate) fn level(self) -> usize {
        self as usize
    }
}

impl From<Option<Instant>> for Terms {
    fn from(deadline: Option<Instant>) -> Self {
        Self { deadline, ..Self::default() }
    }
}

impl From<Instant> for Terms {
    fn from(deadline: Instant) -> Self {
        Some(deadline).into()
    }
}
