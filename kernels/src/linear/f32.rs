//! Weights in f32, packed once into panels.

use std::ops::Range;

use super::ProductEnd;
use super::tile::times_panel;
use crate::aligned::Aligned;
use crate::rows::{Rows, RowsMut};
use crate::simd::{Isa, Kernel, PANEL_VECTORS, Simd};

/// Rows of x multiplied with one panel before the next: together with the panel they fit a second-level cache.
const ROW_BLOCK: usize = 96;

/// Panel `p` holds outputs `p·PANEL` and on: for each input, the weights of all outputs of the panel side by side.
pub(super) struct PackedF32 {
    isa: Isa,
    inputs: usize,
    panels: Aligned<f32>,
    /// Padded to the width of all panels.
    bias: Aligned<f32>,
}

impl PackedF32 {
    /// `weight` is `[outputs, inputs]`; `bias` has `outputs` elements.
    pub(super) fn new(isa: Isa, weight: &[f32], bias: &[f32], inputs: usize) -> Self {
        let (outputs, width) = (bias.len(), isa.panel());
        let padded = outputs.next_multiple_of(width);
        let mut panels = Aligned::zeros(padded * inputs);
        for (output, weights) in weight.chunks_exact(inputs).enumerate() {
            let panel = &mut panels[output / width * width * inputs..][..width * inputs];
            for (slot, weight) in panel[output % width..].iter_mut().step_by(width).zip(weights) {
                *slot = *weight;
            }
        }
        let mut padded_bias = Aligned::zeros(padded);
        padded_bias[..outputs].copy_from_slice(bias);
        Self { isa, inputs, panels, bias: padded_bias }
    }

    pub(super) fn bytes(&self) -> usize {
        self.panels.bytes() + self.bias.bytes()
    }

    /// The outputs of `panels` for all rows of `x`; `y` has the columns of these panels.
    pub(super) fn forward(&self, x: Rows<'_, f32>, panels: Range<usize>, y: RowsMut<'_, f32>, end: ProductEnd) {
        assert_eq!(x.columns(), self.inputs);
        self.isa.run(F32Product { weights: self, x, panels, y, end });
    }
}

struct F32Product<'a> {
    weights: &'a PackedF32,
    x: Rows<'a, f32>,
    panels: Range<usize>,
    y: RowsMut<'a, f32>,
    end: ProductEnd,
}

impl Kernel for F32Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { weights, x, panels, mut y, end } = self;
        let (inputs, columns, width) = (weights.inputs, y.columns(), end.columns::<S>());
        for from in (0..x.rows()).step_by(ROW_BLOCK) {
            let rows = from..x.rows().min(from + ROW_BLOCK);
            let x = x.part(rows.clone(), 0..inputs);
            for (index, panel) in panels.clone().enumerate() {
                let (first, last) = (index * width, columns.min((index + 1) * width));
                let bias = &weights.bias[panel * S::PANEL..][..S::PANEL];
                let start: [S::F32; PANEL_VECTORS] = [simd.load(bias), simd.load(&bias[S::LANES..])];
                let weights = &weights.panels[panel * S::PANEL * inputs..][..S::PANEL * inputs];
                times_panel(simd, x, weights, start, y.part(rows.clone(), first..last), end);
            }
        }
    }
}
