//! One head's queries or keys, normalised and rotated, for all instruction sets.

use crate::residual_norm::simd::{apply, sum};
use crate::residual_norm::{NormFormula, RowNorm};
use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernel, Simd};

/// Copies the rows of one head, normalises each, and rotates it by its position (Su et al., arXiv:2104.09864).
pub(super) struct PrepareHead<'a> {
    pub(super) from: Rows<'a, f32>,
    pub(super) norm: Option<&'a RowNorm>,
    /// For each position the cosines of half the elements, then the sines.
    pub(super) rotation: Option<&'a [f32]>,
    pub(super) to: RowsMut<'a, f32>,
}

impl Kernel for PrepareHead<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { from, norm, rotation, mut to } = self;
        let (size, norm) = (from.columns(), NormFormula::of(norm));
        for row in 0..from.rows() {
            let to = to.row(row);
            to.copy_from_slice(from.row(row));
            let total = sum(simd, to);
            apply(simd, norm, total, to);
            if let Some(rotation) = rotation {
                rotate(simd, to, &rotation[row * size..(row + 1) * size]);
            }
        }
    }
}

/// Rotates elements `i` and `i + size/2` of a row by the angle `i`.
#[inline(always)]
fn rotate<S: Simd>(simd: S, row: &mut [f32], rotation: &[f32]) {
    let half = row.len() / 2;
    let ((a, b), (cosines, sines)) = (row.split_at_mut(half), rotation.split_at(half));
    let whole = half / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        let (x, y) = (simd.load(&a[at..]), simd.load(&b[at..]));
        let (x, y) = rotated(simd, x, y, simd.load(&cosines[at..]), simd.load(&sines[at..]));
        simd.store(x, &mut a[at..]);
        simd.store(y, &mut b[at..]);
    }
    let (x, y) = (simd.load_partial(&a[whole..]), simd.load_partial(&b[whole..]));
    let (x, y) = rotated(simd, x, y, simd.load_partial(&cosines[whole..]), simd.load_partial(&sines[whole..]));
    simd.store_partial(x, &mut a[whole..]);
    simd.store_partial(y, &mut b[whole..]);
}

#[inline(always)]
fn rotated<S: Simd>(simd: S, x: S::F32, y: S::F32, cosine: S::F32, sine: S::F32) -> (S::F32, S::F32) {
    let minus_y = simd.sub(simd.splat(0.0), y);
    (simd.mul_add(x, cosine, simd.mul(minus_y, sine)), simd.mul_add(y, cosine, simd.mul(x, sine)))
}
