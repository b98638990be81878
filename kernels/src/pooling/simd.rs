//! The implementation for all instruction sets.

use super::Pooling;
use crate::rows::Rows;
use crate::simd::{Kernel, Simd, Times, map};

/// Pools one sequence.
pub(super) struct Pool<'a> {
    pub(super) tokens: Rows<'a, f32>,
    pub(super) pooling: Pooling,
    pub(super) out: &'a mut [f32],
}

impl Kernel for Pool<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { tokens, pooling, out } = self;
        out.copy_from_slice(tokens.row(0));
        if pooling == Pooling::Mean {
            for row in 1..tokens.rows() {
                add(simd, out, tokens.row(row));
            }
            map(simd, out, Times((tokens.rows() as f32).recip()));
        }
    }
}

#[inline(always)]
fn add<S: Simd>(simd: S, sum: &mut [f32], row: &[f32]) {
    let (mut sums, mut rows) = (sum.chunks_exact_mut(S::LANES), row.chunks_exact(S::LANES));
    for (sum, row) in (&mut sums).zip(&mut rows) {
        simd.store(simd.add(simd.load(sum), simd.load(row)), sum);
    }
    let (sum, row) = (sums.into_remainder(), rows.remainder());
    simd.store_partial(simd.add(simd.load_partial(sum), simd.load_partial(row)), sum);
}

/// Divides a vector by its length.
pub(super) struct Normalize<'a>(pub(super) &'a mut [f32]);

impl Kernel for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut squares = simd.splat(0.0);
        let mut vectors = self.0.chunks_exact(S::LANES);
        for vector in &mut vectors {
            let x = simd.load(vector);
            squares = simd.mul_add(x, x, squares);
        }
        let x = simd.load_partial(vectors.remainder());
        let length = simd.sum(simd.mul_add(x, x, squares)).sqrt();
        if length > 0.0 {
            map(simd, self.0, Times(length.recip()));
        }
    }
}
