//! What a device can do, estimated from what it tells of itself. Once batches have run, what was learned takes its place.

use crate::{DeviceName, Precision};

/// An estimate of what a device can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Capability {
    /// Its name.
    pub device: DeviceName,
    /// Its description, in the words of a listing.
    pub description: String,
    /// Floating-point operations a second in f32, as products of a model's size sustain.
    pub flops: f64,
    /// How many times faster than in f32 products are in other precisions, where that is known.
    pub speeds: Vec<(Precision, f64)>,
    /// Bytes a second at which weights are read.
    pub bandwidth: f64,
    /// Seconds that a batch costs however small it is.
    pub fixed: f64,
    /// Bytes that models may take; `None`: no bound is known.
    pub memory: Option<u64>,
}

impl Capability {
    /// How many times faster than in f32 products are in a precision; 1 where that is not known.
    #[must_use]
    pub fn speed(&self, precision: Precision) -> f64 {
        self.speeds.iter().find(|(known, _)| *known == precision).map_or(1.0, |(_, speed)| *speed)
    }
}
