//! A device's speed and memory, estimated from its specification. Costs learned from batches replace the estimate.

use crate::{DeviceName, Precision};

/// An estimate of a device's speed and memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Capability {
    /// The device's name.
    pub device: DeviceName,
    /// A description for listings.
    pub description: String,
    /// Floating-point operations per second in f32, sustained over matrix products of a model's size.
    pub flops: f64,
    /// Speeds of matrix products in other precisions, as multiples of the speed in f32, where known.
    pub speeds: Vec<(Precision, f64)>,
    /// Bytes of weights read per second.
    pub bandwidth: f64,
    /// Fixed cost of a batch of any size, in seconds.
    pub fixed: f64,
    /// Bytes of memory that models may take; `None` if no bound is known.
    pub memory: Option<u64>,
}

impl Capability {
    /// The speed of matrix products in a precision, as a multiple of the speed in f32; 1 if it is not known.
    #[must_use]
    pub fn speed(&self, precision: Precision) -> f64 {
        self.speeds.iter().find(|(known, _)| *known == precision).map_or(1.0, |(_, speed)| *speed)
    }
}
