//! The devices of a queue that an entry must not run on.

/// Largest number of devices that can drain one queue: an entry's excluded devices are the bits of a word.
pub(crate) const MAX_DEVICES: usize = 32;

/// A set of devices that must not run an entry again: it did not fit their memory, or they were lost while they ran it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExcludedDevices(u32);

impl ExcludedDevices {
    /// Adds a device to the set.
    #[must_use]
    pub fn with(self, device: usize) -> Self {
        Self(self.0 | 1 << device)
    }

    pub(super) fn has(self, device: usize) -> bool {
        self.0 & (1 << device) != 0
    }

    pub(super) fn any(self) -> bool {
        self.0 != 0
    }
}
