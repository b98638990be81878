//! The implementation for all instruction sets.

use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernel, Simd};

/// Lanes of the widest instruction set.
const MAX_LANES: usize = 16;

/// Quantises each row of `x`.
pub(super) struct Quantize<'a> {
    pub(super) x: Rows<'a, f32>,
    /// At least as wide as `x`; the columns beyond it are set to 0.
    pub(super) values: RowsMut<'a, u8>,
    pub(super) scales: &'a mut [f32],
    pub(super) zeros: &'a mut [i32],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, mut values, scales, zeros } = self;
        assert!(values.rows() == x.rows() && values.columns() >= x.columns());
        for (row, (scale, zero)) in scales.iter_mut().zip(zeros).enumerate() {
            (*scale, *zero) = quantize_row(simd, x.row(row), values.row(row));
        }
    }
}

#[inline(always)]
fn quantize_row<S: Simd>(simd: S, x: &[f32], values: &mut [u8]) -> (f32, i32) {
    let (low, high) = range(simd, x);
    let largest = f32::from(S::MAX_U8);
    let scale = if high > low { (high - low) / largest } else { 1.0 };
    let inverse = scale.recip();
    let zero = (-low * inverse).round_ties_even();

    let (inverse, zeros) = (simd.splat(inverse), simd.splat(zero));
    let (to, padding) = values.split_at_mut(x.len());
    let (vectors, rest) = x.split_at(x.len() / S::LANES * S::LANES);
    let (to, to_rest) = to.split_at_mut(vectors.len());
    for (from, to) in vectors.chunks_exact(S::LANES).zip(to.chunks_exact_mut(S::LANES)) {
        simd.store_u8(quantize(simd, simd.load(from), inverse, zeros), to);
    }
    let mut last = [0; MAX_LANES];
    simd.store_u8(quantize(simd, simd.load_partial(rest), inverse, zeros), &mut last);
    to_rest.copy_from_slice(&last[..rest.len()]);
    padding.fill(0);
    #[expect(clippy::cast_possible_truncation, reason = "a whole number within 0 and 255")]
    (scale, zero as i32)
}

/// `round(x·inverse + zero)` within 0 and the largest byte.
#[inline(always)]
fn quantize<S: Simd>(simd: S, x: S::F32, inverse: S::F32, zero: S::F32) -> S::I32 {
    let value = simd.mul_add(x, inverse, zero);
    simd.round(simd.max(simd.splat(0.0), simd.min(simd.splat(f32::from(S::MAX_U8)), value)))
}

/// The smallest and the largest of the row and 0.
#[inline(always)]
fn range<S: Simd>(simd: S, x: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = (simd.splat(0.0), simd.splat(0.0));
    let mut vectors = x.chunks_exact(S::LANES);
    for vector in &mut vectors {
        let x = simd.load(vector);
        (low, high) = (simd.min(x, low), simd.max(x, high));
    }
    let x = simd.load_partial(vectors.remainder());
    (low, high) = (simd.min(x, low), simd.max(x, high));
    (-simd.max_lane(simd.sub(simd.splat(0.0), low)), simd.max_lane(high))
}
