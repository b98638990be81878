//! Weight-only blocks: llama.cpp's formats, packed and unpacked by candle.
//!
//! A panel is unpacked into f32 before the rows of x pass by, so that its cost is shared by all rows of a batch.

use std::ops::Range;

use candle_core::quantized::k_quants::{BlockQ4K, BlockQ8_0, GgmlType};

use super::ProductEnd;
use super::tile::times_panel;
use crate::KernelError;
use crate::aligned::Aligned;
use crate::rows::{Rows, RowsMut};
use crate::simd::{Isa, Kernel, PANEL_VECTORS, Simd};

/// A block format of llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockFormat {
    /// 32 weights of 8 bits with one f16 scale: 8.5 bits a weight.
    Q8_0,
    /// 256 weights of 4 bits in eight sub-blocks with scale and minimum: 4.5 bits a weight. A layer whose inputs are
    /// not a multiple of 256 is kept in `Q8_0`.
    Q4K,
}

pub(super) struct PackedBlocks {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    blocks: Blocks,
    bias: Aligned<f32>,
}

enum Blocks {
    Q8_0(Vec<BlockQ8_0>),
    Q4K(Vec<BlockQ4K>),
}

impl PackedBlocks {
    /// `weight` is `[outputs, inputs]`; `bias` has `outputs` elements.
    pub(super) fn new(
        isa: Isa,
        weight: &[f32],
        bias: &[f32],
        inputs: usize,
        format: BlockFormat,
    ) -> Result<Self, KernelError> {
        if !inputs.is_multiple_of(BlockQ8_0::BLCK_SIZE) {
            return Err(KernelError::NotWholeBlocks { inputs, block: BlockQ8_0::BLCK_SIZE });
        }
        let blocks = if format == BlockFormat::Q4K && inputs.is_multiple_of(BlockQ4K::BLCK_SIZE) {
            Blocks::Q4K(pack(weight))
        } else {
            Blocks::Q8_0(pack(weight))
        };
        let outputs = bias.len();
        let mut padded_bias = Aligned::zeros(outputs.next_multiple_of(isa.panel()));
        padded_bias[..outputs].copy_from_slice(bias);
        Ok(Self { isa, inputs, outputs, blocks, bias: padded_bias })
    }

    pub(super) fn bytes(&self) -> usize {
        let blocks = match &self.blocks {
            Blocks::Q8_0(blocks) => size_of_val(blocks.as_slice()),
            Blocks::Q4K(blocks) => size_of_val(blocks.as_slice()),
        };
        blocks + self.bias.bytes()
    }

    pub(super) fn forward(
        &self,
        x: Rows<'_, f32>,
        panels: Range<usize>,
        mut y: RowsMut<'_, f32>,
        end: ProductEnd,
        scratch: &mut Aligned<f32>,
    ) {
        let width = self.isa.panel();
        scratch.grow(width * self.inputs);
        let columns = match end {
            ProductEnd::Activation(_) => width,
            ProductEnd::Gate(_) => width / PANEL_VECTORS,
        };
        let panel_weights = &mut scratch[..width * self.inputs];
        for (index, panel) in panels.enumerate() {
            let (first, last) = (index * columns, y.columns().min((index + 1) * columns));
            self.unpack(panel, panel_weights);
            let y = y.part(0..x.rows(), first..last);
            let bias = &self.bias[panel * width..][..width];
            self.isa.run(UnpackedProduct { x, panel: panel_weights, bias, y, end });
        }
    }

    /// Unpacks the weights of a panel into the layout of [`times_panel`].
    fn unpack(&self, panel: usize, to: &mut [f32]) {
        let width = self.isa.panel();
        let outputs = panel * width..self.outputs.min((panel + 1) * width);
        match &self.blocks {
            Blocks::Q8_0(blocks) => unpack(blocks, self.inputs, outputs, width, to),
            Blocks::Q4K(blocks) => unpack(blocks, self.inputs, outputs, width, to),
        }
    }
}

fn pack<B: GgmlType>(weight: &[f32]) -> Vec<B> {
    let mut blocks = vec![B::zeros(); weight.len() / B::BLCK_SIZE];
    B::from_float(weight, &mut blocks);
    blocks
}

/// Unpacks block by block, each for all outputs, so that writes stay close together.
fn unpack<B: GgmlType>(blocks: &[B], inputs: usize, outputs: Range<usize>, width: usize, to: &mut [f32]) {
    /// Weights of the largest block.
    const MAX_BLOCK: usize = 256;
    let mut weights = [0.0; MAX_BLOCK];
    let weights = &mut weights[..B::BLCK_SIZE];
    let per_output = inputs / B::BLCK_SIZE;
    for (block, to) in to.chunks_exact_mut(B::BLCK_SIZE * width).enumerate() {
        for (column, output) in outputs.clone().enumerate() {
            let from = output * per_output + block;
            B::to_float(&blocks[from..=from], weights);
            for (slot, weight) in to[column..].iter_mut().step_by(width).zip(&*weights) {
                *slot = *weight;
            }
        }
    }
}

struct UnpackedProduct<'a> {
    x: Rows<'a, f32>,
    panel: &'a [f32],
    bias: &'a [f32],
    y: RowsMut<'a, f32>,
    end: ProductEnd,
}

impl Kernel for UnpackedProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let start: [S::F32; PANEL_VECTORS] = [simd.load(self.bias), simd.load(&self.bias[S::LANES..])];
        times_panel(simd, self.x, self.panel, start, self.y, self.end);
    }
}
