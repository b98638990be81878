//! What a model asks of whatever device runs it, told before it is loaded: by its configuration alone.

use crate::Precision;

/// The length of text for which the cost of a token is told: attention costs each token as much as its text is long.
pub(crate) const TYPICAL_TOKENS: usize = 128;

/// What a model asks of a device. Placement compares it with what devices can do.
///
/// Sums of products are counted as two operations each. What is left out costs little beside them: biases, norms, activation
/// functions, softmax, pooling (together about 1 % of a MiniLM's operations, though more of the time of a device that starts a
/// kernel for each).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Bytes of the weights in their precision.
    pub weight_bytes: u64,
    /// Floating-point operations for one unit of weight: a token of a text, or an item of fixed size.
    pub flops_per_weight: f64,
    /// Bytes of intermediate results for one unit of weight of a batch.
    pub bytes_per_weight: u64,
    /// What a unit of weight is: `token` or `item`.
    pub unit: &'static str,
}

impl Demand {
    /// A guess for a model of which nothing but the size of its weights is known: each is f32 and used once for an item.
    pub(crate) fn of_weights(bytes: u64) -> Self {
        Self { weight_bytes: bytes, flops_per_weight: 2.0 * (bytes / 4) as f64, bytes_per_weight: 4096, unit: "item" }
    }

    /// Bytes that a device needs for a batch of that weight, the weights included.
    #[must_use]
    pub fn bytes(&self, weight: usize) -> u64 {
        self.weight_bytes.saturating_add(self.bytes_per_weight.saturating_mul(weight as u64))
    }
}

/// Bytes of `count` weights of linear layers. The scales of `int8`, one f32 per output, are left out: below 1 %.
pub(crate) fn linear_bytes(count: usize, precision: Precision) -> u64 {
    let bits = match precision {
        Precision::F32 => 64,
        Precision::F16 | Precision::Bf16 => 32,
        Precision::Int8 => 16,
        // In halves of a bit: blocks of 32 with an f16 scale; blocks of 256 with scales and minima.
        Precision::Q8_0 => 17,
        Precision::Q4K => 9,
    };
    u64::try_from(count as u128 * bits / 16).unwrap_or(u64::MAX)
}

/// Bytes of a table of vectors, which is as the weights are in floats, and int8 in every lower precision.
pub(crate) fn table_bytes(count: usize, precision: Precision) -> u64 {
    let is_float = matches!(precision, Precision::F32 | Precision::F16 | Precision::Bf16);
    linear_bytes(count, if is_float { precision } else { Precision::Int8 })
}

/// Bytes of weights that are f32 in every precision.
pub(crate) fn f32_bytes(count: usize) -> u64 {
    (count as u64).saturating_mul(4)
}

/// A product of sizes, or the most there is: sizes that are too large together are for the weights to show, which do not fit them.
pub(crate) fn product(sizes: &[usize]) -> usize {
    sizes.iter().copied().fold(1, usize::saturating_mul)
}

/// A sum of sizes, or the most there is.
pub(crate) fn sum(sizes: &[usize]) -> usize {
    sizes.iter().copied().fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_takes_the_bits_of_its_precision() {
        let bytes = Precision::ALL.map(|precision| linear_bytes(256, precision));
        assert_eq!(bytes, [1024, 512, 512, 256, 272, 144], "f32, f16, bf16, int8, q8_0: 8.5 bits, q4k: 4.5 bits");
        assert_eq!(Precision::ALL.map(|precision| table_bytes(256, precision)), [1024, 512, 512, 256, 256, 256]);
    }
}
