//! What a caller asks for beyond the output.

use std::time::Instant;

/// What a caller asks for beyond the output. `None` and a deadline turn into one: `queue.call(item, None)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// When the answer is no longer wanted.
    pub deadline: Option<Instant>,
    /// How soon it runs among others.
    pub priority: Priority,
}

/// How soon an item runs among others of its queue.
///
/// A lower priority counts as having come [`priority_ageing`](crate::BatcherConfig::priority_ageing) later for each step
/// between them. So it is overtaken by those alone that come within that time after it, and never for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Before all others.
    High,
    /// Where nothing is said.
    #[default]
    Normal,
    /// After all others.
    Low,
}

impl Priority {
    /// All of them, the first to run first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// 0 for the highest.
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
