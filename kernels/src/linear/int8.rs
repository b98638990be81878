//! Weights in int8, one scale per output; activations come quantised by [`crate::quantize`].
//!
//! With `x ≈ s·(q - z)` per row and `w ≈ t·v` per output, `Σ x·w ≈ s·t·(Σ q·v - z·Σ v)`. Both sums are exact in i32, so
//! their order does not matter.

use std::ops::Range;

use super::ProductEnd;
use super::tile::{PREFETCH_ROWS, next_rows};
use crate::aligned::Aligned;
use crate::quantize::QuantizedRows;
use crate::rows::RowsMut;
use crate::simd::{Isa, Kernel, PANEL_VECTORS, Simd};

/// Inputs that one instruction multiplies and adds.
pub(crate) const GROUP: usize = 4;
/// Bound on the inputs of a layer. More could overflow an i32: 255 · 127 · 65,536 is just below 2³¹.
pub(super) const MAX_INPUTS: usize = 1 << 16;
/// The largest weight.
const MAX_WEIGHT: f32 = 127.0;
/// Rows of x multiplied with one panel before the next.
const ROW_BLOCK: usize = 192;

/// Panel `p` holds outputs `p·PANEL` and on: for each [`GROUP`] of inputs, four weights of each output.
pub(super) struct PackedInt8 {
    isa: Isa,
    groups: usize,
    panels: Aligned<i8>,
    /// Scale of each output. Padded, like the following, to the width of all panels.
    scales: Aligned<f32>,
    /// `Σ v` of each output.
    sums: Aligned<i32>,
    bias: Aligned<f32>,
}

impl PackedInt8 {
    /// `weight` is `[outputs, inputs]`, all finite; `bias` has `outputs` elements.
    pub(super) fn new(isa: Isa, weight: &[f32], bias: &[f32], inputs: usize) -> Self {
        assert!(inputs <= MAX_INPUTS, "the caller checks");
        let (outputs, width, groups) = (bias.len(), isa.panel(), inputs.div_ceil(GROUP));
        let padded = outputs.next_multiple_of(width);
        let (mut panels, mut scales) = (Aligned::zeros(padded * groups * GROUP), Aligned::zeros(padded));
        let (mut sums, mut padded_bias) = (Aligned::zeros(padded), Aligned::zeros(padded));
        padded_bias[..outputs].copy_from_slice(bias);
        for (output, weights) in weight.chunks_exact(inputs).enumerate() {
            let panel = &mut panels[output / width * width * groups * GROUP..][..width * groups * GROUP];
            let column = output % width * GROUP;
            let scale = scale_of(weights);
            scales[output] = scale;
            for (input, weight) in weights.iter().enumerate() {
                let value = quantized(*weight, scale);
                sums[output] += i32::from(value);
                panel[input / GROUP * width * GROUP + column + input % GROUP] = value;
            }
        }
        Self { isa, groups, panels, scales, sums, bias: padded_bias }
    }

    pub(super) fn bytes(&self) -> usize {
        self.panels.bytes() + self.scales.bytes() + self.sums.bytes() + self.bias.bytes()
    }

    /// The outputs of `panels` for all rows of `x`; `y` has the columns of these panels.
    pub(super) fn forward(&self, x: QuantizedRows<'_>, panels: Range<usize>, y: RowsMut<'_, f32>, end: ProductEnd) {
        assert_eq!(x.values.columns(), self.groups * GROUP);
        self.isa.run(Int8Product { weights: self, x, panels, y, end });
    }
}

/// The scale that takes the largest weight of an output to 127; 1 if all are 0.
pub(crate) fn scale_of(weights: &[f32]) -> f32 {
    let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
    if largest > 0.0 { largest / MAX_WEIGHT } else { 1.0 }
}

/// The multiple of `scale` nearest to `weight`.
#[expect(clippy::cast_possible_truncation, reason = "bounded to 127 on the line")]
pub(crate) fn quantized(weight: f32, scale: f32) -> i8 {
    (weight / scale).round().clamp(-MAX_WEIGHT, MAX_WEIGHT) as i8
}

struct Int8Product<'a> {
    weights: &'a PackedInt8,
    x: QuantizedRows<'a>,
    panels: Range<usize>,
    y: RowsMut<'a, f32>,
    end: ProductEnd,
}

impl Kernel for Int8Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { weights, x, panels, mut y, end } = self;
        let (rows, columns, width) = (x.values.rows(), y.columns(), end.columns::<S>());
        for from in (0..rows).step_by(ROW_BLOCK) {
            let rows = from..rows.min(from + ROW_BLOCK);
            let x = x.part(rows.clone());
            for (index, panel) in panels.clone().enumerate() {
                let (first, last) = (index * width, columns.min((index + 1) * width));
                let y = y.part(rows.clone(), first..last);
                times_panel(simd, x, &PanelWeights::of(weights, panel, S::PANEL), y, end);
            }
        }
    }
}

/// Weights, scales, sums and biases of one panel.
struct PanelWeights<'a> {
    weights: &'a [i8],
    scales: &'a [f32],
    sums: &'a [i32],
    bias: &'a [f32],
}

impl<'a> PanelWeights<'a> {
    #[inline(always)]
    fn of(weights: &'a PackedInt8, panel: usize, width: usize) -> Self {
        let columns = panel * width..(panel + 1) * width;
        let bytes = width * GROUP * weights.groups;
        Self {
            weights: &weights.panels[panel * bytes..][..bytes],
            scales: &weights.scales[columns.clone()],
            sums: &weights.sums[columns.clone()],
            bias: &weights.bias[columns],
        }
    }
}

#[inline(always)]
fn times_panel<S: Simd>(
    simd: S,
    x: QuantizedRows<'_>,
    panel: &PanelWeights<'_>,
    mut y: RowsMut<'_, f32>,
    end: ProductEnd,
) {
    /// Numbers in a tile of the widest instruction set: 12 rows of 32.
    const MAX_TILE: usize = 12 * 32;
    let (rows, groups, stride) = (x.values.rows(), x.values.columns() / GROUP, x.values.stride());
    assert!(y.rows() == rows && y.columns() <= end.columns::<S>() && panel.weights.len() >= groups * GROUP * S::PANEL);
    let mut wide = [0.0; MAX_TILE];
    let mut row = 0;
    while row < rows {
        let count = next_rows(rows - row, S::MAX_DOT_ROWS);
        let whole = y.columns() == S::PANEL;
        // SAFETY: the rows from `row` on are within `x`, whose columns are whole groups; the panel holds as many
        // groups; the tile is written to `y` where it is as wide as the panel, else to `wide`.
        unsafe {
            let (to, to_stride) =
                if whole { (y.pointer().add(row * y.stride()), y.stride()) } else { (wide.as_mut_ptr(), S::PANEL) };
            let from = x.values.pointer().add(row * stride);
            let (scales, zeros) = (&x.scales[row..], &x.zeros[row..]);
            macro_rules! tile_of {
                ($($rows:literal)*) => {
                    match count {
                        $($rows if $rows <= S::MAX_DOT_ROWS => {
                            let sums = dots::<S, $rows>(simd, groups, from, stride, panel.weights.as_ptr());
                            store(simd, sums, scales, zeros, panel, to, to_stride);
                        })*
                        _ => unreachable!("at most MAX_DOT_ROWS rows"),
                    }
                };
            }
            tile_of!(1 2 3 4 5 6 7 8 9 10 11 12);
        }
        if !whole {
            for (at, from) in wide.chunks_exact(S::PANEL).take(count).enumerate() {
                end.move_row(simd, from, y.row(row + at));
            }
        }
        row += count;
    }
    end.finish(simd, y);
}

/// `Σ q·v` of a few rows and the outputs of one panel.
///
/// # Safety
/// `x` points to `ROWS` rows of `groups` groups, `weights` to as many groups of a panel.
#[inline(always)]
unsafe fn dots<S: Simd, const ROWS: usize>(
    simd: S,
    groups: usize,
    x: *const u8,
    x_stride: usize,
    weights: *const i8,
) -> [[S::I32; PANEL_VECTORS]; ROWS] {
    let mut sums = [[simd.splat_i32(0); PANEL_VECTORS]; ROWS];
    for group in 0..groups {
        // SAFETY: `group` is within both; the bytes of x need no alignment.
        unsafe {
            let weights = weights.add(group * GROUP * S::PANEL);
            let ahead = weights.wrapping_add(PREFETCH_ROWS * GROUP * S::PANEL).cast::<u8>();
            simd.prefetch(ahead);
            simd.prefetch(ahead.wrapping_add(64));
            let weights = [simd.load_bytes(weights), simd.load_bytes(weights.add(GROUP * S::LANES))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let four = x.add(row * x_stride + group * GROUP).cast::<i32>().read_unaligned();
                let four = simd.splat_i32(four);
                sums[0] = simd.dot(sums[0], four, weights[0]);
                sums[1] = simd.dot(sums[1], four, weights[1]);
            }
        }
    }
    sums
}

/// `s·t·(sum - z·Σ v) + bias`.
///
/// # Safety
/// `y` points to `ROWS` rows of a panel's width that nothing else accesses.
#[inline(always)]
unsafe fn store<S: Simd, const ROWS: usize>(
    simd: S,
    sums: [[S::I32; PANEL_VECTORS]; ROWS],
    scales: &[f32],
    zeros: &[i32],
    panel: &PanelWeights<'_>,
    y: *mut f32,
    y_stride: usize,
) {
    for vector in 0..PANEL_VECTORS {
        let lanes = vector * S::LANES;
        let (column_scale, bias) = (simd.load(&panel.scales[lanes..]), simd.load(&panel.bias[lanes..]));
        let column_sum = simd.load_i32(&panel.sums[lanes..]);
        for (row, sums) in sums.iter().enumerate() {
            let zero = simd.mul_i32(simd.splat_i32(zeros[row]), column_sum);
            let exact = simd.to_f32(simd.sub_i32(sums[vector], zero));
            let scale = simd.mul(simd.splat(scales[row]), column_scale);
            // SAFETY: the caller vouches for the rows of `y`.
            unsafe { simd.store_to(simd.mul_add(exact, scale, bias), y.add(row * y_stride + lanes)) };
        }
    }
}
