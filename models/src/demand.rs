//! The memory and operations that a model needs, derived from its configuration before it is loaded.

use crate::Precision;

/// Tokens of the text for which the cost of a token is stated: attention's cost per token grows with the length of the
/// text.
pub(crate) const TYPICAL_TOKENS: usize = 128;

/// The memory and operations that a model needs. Placement compares it with each device's
/// [`Capability`](crate::Capability).
///
/// Each multiply-add counts as two operations. Biases, norms, activation functions, softmax and pooling are not counted:
/// together they are about 1 % of a MiniLM's operations, though more of the time on a device that starts a kernel for
/// each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Bytes of the weights in their precision.
    pub weight_bytes: u64,
    /// Floating-point operations per unit of weight: a token of a text, or an item of fixed size.
    pub flops_per_weight: f64,
    /// Bytes of intermediate results per unit of weight of a batch.
    pub bytes_per_weight: u64,
    /// The unit of weight: `token` or `item`.
    pub unit: &'static str,
}

impl Demand {
    /// A guess from the bytes of the weights alone: each weight is f32 and is used once per item.
    pub(crate) fn of_weights(bytes: u64) -> Self {
        Self { weight_bytes: bytes, flops_per_weight: 2.0 * (bytes / 4) as f64, bytes_per_weight: 4096, unit: "item" }
    }

    /// Bytes of device memory for the model's weights and a batch of this weight.
    #[must_use]
    pub fn bytes(&self, weight: usize) -> u64 {
        self.weight_bytes.saturating_add(self.bytes_per_weight.saturating_mul(weight as u64))
    }
}

/// Bytes of `count` weights of linear layers. The scales of `int8`, one f32 per output, are not counted: below 1 %.
pub(crate) fn linear_bytes(count: usize, precision: Precision) -> u64 {
    let bits = match precision {
        Precision::F32 => 64,
        Precision::F16 | Precision::Bf16 => 32,
        Precision::Int8 => 16,
        // All numbers are half bits. Q8_0: blocks of 32 with an f16 scale. Q4_K: blocks of 256 with scales and minima.
        Precision::Q8_0 => 17,
        Precision::Q4K => 9,
    };
    u64::try_from(count as u128 * bits / 16).unwrap_or(u64::MAX)
}

/// Bytes of a table of `count` numbers: in the precision itself if it is a float, else in int8.
pub(crate) fn table_bytes(count: usize, precision: Precision) -> u64 {
    let is_float = matches!(precision, Precision::F32 | Precision::F16 | Precision::Bf16);
    linear_bytes(count, if is_float { precision } else { Precision::Int8 })
}

/// Bytes of `count` weights that are f32 in every precision.
pub(crate) fn f32_bytes(count: usize) -> u64 {
    (count as u64).saturating_mul(4)
}

/// The product of sizes, `usize::MAX` if it overflows: weights of such sizes do not exist, so loading reports them.
pub(crate) fn product(sizes: &[usize]) -> usize {
    sizes.iter().copied().fold(1, usize::saturating_mul)
}

/// The sum of sizes, `usize::MAX` if it overflows.
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
