//! Linear layers, `y = activation(x·Wᵀ + b)`, with weights packed once when a model is loaded.
//!
//! `x` is `[rows, inputs]`, `W` is `[outputs, inputs]` as Hugging Face ships it, `y` is `[rows, outputs]`, all row-major
//! f32 outside. Three formats of weights:
//!
//! - [`WeightFormat::F32`];
//! - [`WeightFormat::Int8`]: one scale per output; each row of x is quantised when it comes (dynamic quantisation, as
//!   in Jacob et al., arXiv:1712.05877, with ONNX Runtime's asymmetric activations); sums are exact in i32;
//! - [`WeightFormat::Blocks`]: llama.cpp's weight-only blocks, unpacked into f32 panel by panel as they are used: they
//!   save memory, not time.
//!
//! A row of `y` depends on its row of `x` alone, to the bit: the sum over inputs runs in the same order whichever rows
//! lie beside it and however columns are split among threads.
//!
//! Panels and register tiles follow Goto and van de Geijn (Anatomy of High-Performance Matrix Multiplication, 2008)
//! without the packing of x: at the sizes of encoders it fits the second-level cache as it is.

mod blocks;
#[cfg(test)]
pub(crate) mod cases;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod f32;
pub(crate) mod int8;
pub mod reference;
mod tensor;
#[cfg(test)]
mod tests;
pub(crate) mod tile;

use std::ops::Range;

use blocks::PackedBlocks;
use f32::PackedF32;
use int8::PackedInt8;

pub use blocks::BlockFormat;
pub use tensor::linear_tensor;

use crate::aligned::Aligned;
use crate::bias_gelu::{GeluForm, gelu};
use crate::quantize::{Quantized, QuantizedRows};
use crate::rows::{Rows, RowsMut};
use crate::simd::{Isa, Simd, Unary, map};
use crate::{KernelError, Team};

/// The function applied to each output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// `y`
    #[default]
    Identity,
    /// `max(y, 0)`
    Relu,
    /// `gelu(y)`, see [`crate::bias_gelu`].
    Gelu(GeluForm),
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, y: RowsMut<'_, f32>) {
        match self {
            Self::Identity => {}
            Self::Relu => map_rows(simd, y, Relu),
            Self::Gelu(GeluForm::Erf) => map_rows(simd, y, gelu::Erf),
            Self::Gelu(GeluForm::Tanh) => map_rows(simd, y, gelu::Tanh),
        }
    }
}

#[inline(always)]
fn map_rows<S: Simd>(simd: S, mut y: RowsMut<'_, f32>, f: impl Unary) {
    for row in 0..y.rows() {
        map(simd, y.row(row), f);
    }
}

/// `max(x, 0)`; NaN stays NaN.
#[derive(Clone, Copy)]
struct Relu;

impl Unary for Relu {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        simd.max(simd.splat(0.0), x)
    }
}

/// Multiplications that are worth waking a helper for: about 10 µs of work, as long as it takes to wake.
const PRODUCTS_PER_HELPER: usize = 1 << 20;

/// Storage format of a layer's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightFormat {
    /// 4 bytes per weight.
    #[default]
    F32,
    /// 1 byte per weight; activations are quantised too.
    Int8,
    /// 34 or 18 bytes for 32 weights; activations stay f32.
    Blocks(BlockFormat),
}

/// A linear layer with its weights packed for one instruction set.
pub struct Linear {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    weights: PackedWeights,
}

enum PackedWeights {
    F32(PackedF32),
    Int8(PackedInt8),
    Blocks(PackedBlocks),
}

/// Rows of x in the formats that layers take.
#[derive(Clone, Copy)]
pub(crate) struct LinearInput<'a> {
    pub(crate) values: Rows<'a, f32>,
    /// The same rows quantised; layers in int8 need them.
    pub(crate) quantized: Option<QuantizedRows<'a>>,
}

impl Linear {
    /// Packs `weight`, which is `[outputs, inputs]`, for this processor. A missing bias counts as 0.
    ///
    /// # Errors
    /// If the lengths do not fit together or, in int8, a weight is not finite or there are more than 65,536 inputs.
    pub fn new(
        weight: &[f32],
        bias: Option<&[f32]>,
        inputs: usize,
        outputs: usize,
        format: WeightFormat,
    ) -> Result<Self, KernelError> {
        Self::for_isa(Isa::best(), weight, bias, inputs, outputs, format)
    }

    pub(crate) fn for_isa(
        isa: Isa,
        weight: &[f32],
        bias: Option<&[f32]>,
        inputs: usize,
        outputs: usize,
        format: WeightFormat,
    ) -> Result<Self, KernelError> {
        let zeros;
        let bias = if let Some(bias) = bias {
            bias
        } else {
            zeros = vec![0.0; outputs];
            &zeros
        };
        if inputs == 0 || outputs == 0 || Some(weight.len()) != inputs.checked_mul(outputs) || bias.len() != outputs {
            return Err(KernelError::WeightShape { weights: weight.len(), bias: bias.len(), inputs, outputs });
        }
        let weights = match format {
            WeightFormat::F32 => PackedWeights::F32(PackedF32::new(isa, weight, bias, inputs)),
            WeightFormat::Int8 => {
                if inputs > int8::MAX_INPUTS {
                    return Err(KernelError::TooManyInputs { inputs, max: int8::MAX_INPUTS });
                }
                if let Some(at) = weight.iter().position(|weight| !weight.is_finite()) {
                    return Err(KernelError::NotFinite { at, value: weight[at].to_string() });
                }
                PackedWeights::Int8(PackedInt8::new(isa, weight, bias, inputs))
            }
            WeightFormat::Blocks(format) => {
                PackedWeights::Blocks(PackedBlocks::new(isa, weight, bias, inputs, format)?)
            }
        };
        Ok(Self { isa, inputs, outputs, weights })
    }

    /// Columns of x.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Columns of y.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of memory that the packed weights hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.weights {
            PackedWeights::F32(weights) => weights.bytes(),
            PackedWeights::Int8(weights) => weights.bytes(),
            PackedWeights::Blocks(weights) => weights.bytes(),
        }
    }

    /// `y = activation(x·Wᵀ + b)` for all rows of `x`, its columns split among the threads of `team`.
    ///
    /// # Errors
    /// If `x` is not a whole number of rows, or `y` does not hold as many rows. Nothing is written then.
    pub fn forward(&self, team: &Team, x: &[f32], y: &mut [f32], activation: Activation) -> Result<(), KernelError> {
        if !x.len().is_multiple_of(self.inputs) {
            return Err(self.matrix_shape(x, y));
        }
        self.forward_windows(team, x, self.inputs, y, activation)
    }

    /// A convolution without padding over the positions of `x`, `step` elements each: one row of `y` per window of
    /// `inputs` elements, where the weights are `[outputs, taps, step]`. The windows overlap in memory; nothing is copied.
    ///
    /// # Errors
    /// If `step` is 0, or `y` does not hold one row per window. Nothing is written then.
    pub fn forward_windows(
        &self,
        team: &Team,
        x: &[f32],
        step: usize,
        y: &mut [f32],
        activation: Activation,
    ) -> Result<(), KernelError> {
        if step == 0 {
            return Err(self.matrix_shape(x, y));
        }
        let x_rows = Rows::windows(x, self.inputs, step);
        let rows = x_rows.rows();
        if y.len() != rows * self.outputs {
            return Err(self.matrix_shape(x, y));
        }
        let mut quantized = Quantized::default();
        let quantized = self.wants_quantized().then(|| {
            quantized.resize(rows, self.inputs);
            quantized.quantize(self.isa, x_rows, 0..rows);
            quantized.rows(0..rows, self.inputs)
        });
        let input = LinearInput { values: x_rows, quantized };
        let useful_threads = 1 + y.len().saturating_mul(self.inputs) / PRODUCTS_PER_HELPER;
        let y = RowsMut::new(y, rows, self.outputs, self.outputs).share();
        let parts = parts(team.threads().get().min(useful_threads), self.panels());
        team.run(parts, &|part| {
            let panels = share_of(self.panels(), part, parts);
            // SAFETY: each part is run once, and the columns of different parts do not overlap.
            let y = unsafe { y.part(0..rows, self.columns_of(panels.clone())) };
            self.forward_panels(input, panels, y, activation, &mut Aligned::zeros(0));
        });
        Ok(())
    }

    fn matrix_shape(&self, x: &[f32], y: &[f32]) -> KernelError {
        KernelError::MatrixShape { x: x.len(), y: y.len(), inputs: self.inputs, outputs: self.outputs }
    }

    pub(crate) fn wants_quantized(&self) -> bool {
        matches!(self.weights, PackedWeights::Int8(_))
    }

    /// Elements of `scratch` that [`Linear::forward_panels`] needs.
    pub(crate) fn scratch(&self) -> usize {
        match self.weights {
            PackedWeights::F32(_) | PackedWeights::Int8(_) => 0,
            PackedWeights::Blocks(_) => self.isa.panel() * self.inputs,
        }
    }

    /// Number of panels, each of which can be computed by itself.
    pub(crate) fn panels(&self) -> usize {
        self.outputs.div_ceil(self.isa.panel())
    }

    /// Range of the outputs that these panels compute.
    pub(crate) fn columns_of(&self, panels: Range<usize>) -> Range<usize> {
        let width = self.isa.panel();
        (panels.start * width).min(self.outputs)..(panels.end * width).min(self.outputs)
    }

    /// Computes the outputs of `panels`; `y` has these columns. `scratch` is room for unpacked weights.
    pub(crate) fn forward_panels(
        &self,
        x: LinearInput<'_>,
        panels: Range<usize>,
        y: RowsMut<'_, f32>,
        activation: Activation,
        scratch: &mut Aligned<f32>,
    ) {
        assert_eq!((x.values.rows(), self.columns_of(panels.clone()).len()), (y.rows(), y.columns()));
        match &self.weights {
            PackedWeights::F32(weights) => weights.forward(x.values, panels, y, activation),
            PackedWeights::Int8(weights) => {
                let x = x.quantized.expect("the caller quantises where `wants_quantized`");
                weights.forward(x, panels, y, activation);
            }
            PackedWeights::Blocks(weights) => weights.forward(x.values, panels, y, activation, scratch),
        }
    }
}

impl std::fmt::Debug for Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let format = match self.weights {
            PackedWeights::F32(_) => "f32",
            PackedWeights::Int8(_) => "int8",
            PackedWeights::Blocks(_) => "blocks",
        };
        let Self { inputs, outputs, isa, .. } = self;
        write!(f, "Linear({inputs} to {outputs}, {format}, {isa})")
    }
}

/// Number of parts into which `panels` are split for this number of threads.
pub(crate) fn parts(threads: usize, panels: usize) -> usize {
    threads.min(panels).max(1)
}

/// Part `part` of `parts` when `count` things are split as evenly as possible.
pub(crate) fn share_of(count: usize, part: usize, parts: usize) -> Range<usize> {
    count * part / parts..count * (part + 1) / parts
}
