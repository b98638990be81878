//! The inner loop of every f32 product: a few rows times one panel of packed weights.

use super::ProductEnd;
use crate::rows::{Rows, RowsMut};
use crate::simd::{PANEL_VECTORS, Simd};

/// Rows of a panel prefetched ahead of their use: the processor's own prefetching stops at the end of a page. Measured: a
/// fifth less time where the weights are not in the second-level cache.
pub(crate) const PREFETCH_ROWS: usize = 32;

/// `y = end(x·P + start)` for all rows of `x` and one panel `P` of `x.columns()` rows of `S::PANEL` numbers.
/// `y` may have fewer columns than the panel makes; the panel's others are not written.
///
/// The sum over the inner dimension runs from first to last in every element, whichever rows lie beside it.
#[inline(always)]
pub(crate) fn times_panel<S: Simd>(
    simd: S,
    x: Rows<'_, f32>,
    panel: &[f32],
    start: [S::F32; PANEL_VECTORS],
    mut y: RowsMut<'_, f32>,
    end: ProductEnd,
) {
    assert!(panel.len() >= x.columns() * S::PANEL && x.rows() == y.rows() && y.columns() <= end.columns::<S>());
    if y.columns() == S::PANEL {
        all_rows(simd, x, panel, start, y.reborrow());
    } else {
        narrow(simd, x, panel, start, y.reborrow(), end);
    }
    end.finish(simd, y);
}

/// The product for a panel that makes fewer columns than its own.
#[inline(always)]
fn narrow<S: Simd>(
    simd: S,
    x: Rows<'_, f32>,
    panel: &[f32],
    start: [S::F32; PANEL_VECTORS],
    mut y: RowsMut<'_, f32>,
    end: ProductEnd,
) {
    /// Numbers in a tile of the widest instruction set: 12 rows of 32.
    const MAX_TILE: usize = 12 * 32;
    let mut wide = [0.0; MAX_TILE];
    let mut from = 0;
    while from < x.rows() {
        let rows = next_rows(x.rows() - from, S::MAX_ROWS);
        let tile = RowsMut::new(&mut wide, rows, S::PANEL, S::PANEL);
        all_rows(simd, x.part(from..from + rows, 0..x.columns()), panel, start, tile);
        for row in 0..rows {
            end.move_row(simd, &wide[row * S::PANEL..][..S::PANEL], y.row(from + row));
        }
        from += rows;
    }
}

#[inline(always)]
fn all_rows<S: Simd>(
    simd: S,
    x: Rows<'_, f32>,
    panel: &[f32],
    start: [S::F32; PANEL_VECTORS],
    mut y: RowsMut<'_, f32>,
) {
    let (inner, x_stride, y_stride) = (x.columns(), x.stride(), y.stride());
    let mut row = 0;
    while row < x.rows() {
        let rows = next_rows(x.rows() - row, S::MAX_ROWS);
        // SAFETY: the rows from `row` on are within both rectangles, the panel holds `inner` rows (the caller has
        // asserted it), and `y` is as wide as the panel.
        unsafe {
            let (x, y) = (x.pointer().add(row * x_stride), y.pointer().add(row * y_stride));
            macro_rules! tile_of {
                ($($rows:literal)*) => {
                    match rows {
                        $($rows if $rows <= S::MAX_ROWS =>
                            tile::<S, $rows>(simd, inner, x, x_stride, panel.as_ptr(), start, y, y_stride),)*
                        _ => unreachable!("at most MAX_ROWS rows"),
                    }
                };
            }
            tile_of!(1 2 3 4 5 6 7 8 9 10 11 12);
        }
        row += rows;
    }
}

/// Rows of the next tile when `left` rows remain: as many as there are registers for; the last two tiles share evenly.
#[inline(always)]
pub(crate) fn next_rows(left: usize, max_rows: usize) -> usize {
    if left >= 2 * max_rows || left <= max_rows { left.min(max_rows) } else { left.div_ceil(2) }
}

/// # Safety
/// `x` points to `ROWS` rows of `inner` numbers, `panel` to `inner` rows of a panel, `y` to `ROWS` rows of a panel's
/// width that nothing else accesses.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "an inner loop in registers")]
unsafe fn tile<S: Simd, const ROWS: usize>(
    simd: S,
    inner: usize,
    x: *const f32,
    x_stride: usize,
    panel: *const f32,
    start: [S::F32; PANEL_VECTORS],
    y: *mut f32,
    y_stride: usize,
) {
    let mut sums = [start; ROWS];
    for k in 0..inner {
        // SAFETY: `k` is within the inner dimension of both.
        unsafe {
            let weights = panel.add(k * S::PANEL);
            let ahead = weights.wrapping_add(PREFETCH_ROWS * S::PANEL).cast::<u8>();
            simd.prefetch(ahead);
            simd.prefetch(ahead.wrapping_add(64));
            let weights = [simd.load_from(weights), simd.load_from(weights.add(S::LANES))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = simd.splat(*x.add(row * x_stride + k));
                sums[0] = simd.mul_add(x, weights[0], sums[0]);
                sums[1] = simd.mul_add(x, weights[1], sums[1]);
            }
        }
    }
    for (row, sums) in sums.into_iter().enumerate() {
        // SAFETY: the caller vouches for the rows of `y`.
        unsafe {
            let y = y.add(row * y_stride);
            simd.store_to(sums[0], y);
            simd.store_to(sums[1], y.add(S::LANES));
        }
    }
}
