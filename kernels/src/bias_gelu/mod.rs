//! `gelu(x + bias)` in one pass over the rows of a matrix, in place.
//!
//! The Gaussian error linear unit of Hendrycks and Gimpel (arXiv:1606.08415):
//!
//! - [`GeluForm::Erf`]: `gelu(x) = x·Φ(x) = x/2 · (1 + erf(x/√2))`
//! - [`GeluForm::Tanh`]: `gelu(x) = x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`
//!
//! The error against the formula in f64 is at most 1.5e-7 times the larger of 1 and |x + bias| (see `tests.rs`).
//! The limits hold: `gelu(∞) = ∞`, `gelu(-∞) = 0`; NaN stays NaN. An element's result depends on its value and bias
//! alone, never on its position or its neighbours.

#[cfg(test)]
pub(crate) mod cases;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod gelu;
pub mod reference;
mod simd;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, bail};

use crate::KernelError;
use crate::simd::Isa;

/// The formula of gelu that a model was trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeluForm {
    /// The exact form; `gelu` in Hugging Face's configurations.
    Erf,
    /// The approximation by tanh; `gelu_new` and `gelu_pytorch_tanh` there.
    Tanh,
}

/// Replaces each `x` of each row of `values` with `gelu(x + bias)`. A row is as long as `bias`.
///
/// # Errors
/// [`KernelError::RowLength`] if `values` is not a whole number of rows.
pub fn bias_gelu(values: &mut [f32], bias: &[f32], form: GeluForm) -> std::result::Result<(), KernelError> {
    let whole_rows = if bias.is_empty() { values.is_empty() } else { values.len().is_multiple_of(bias.len()) };
    if !whole_rows {
        return Err(KernelError::RowLength { values: values.len(), bias: bias.len() });
    }
    if !values.is_empty() {
        Isa::best().run(simd::BiasGelu { values, bias, form });
    }
    Ok(())
}

/// `gelu(values + bias)` over the last dimension of a tensor.
///
/// A contiguous f32 tensor on the CPU is overwritten, so pass one that is not used elsewhere, such as the fresh result
/// of a matrix product. Any other tensor goes through candle's own operations and is left as it was.
///
/// # Errors
/// If `bias` is not a vector as long as the last dimension of `values`, or candle fails.
pub fn bias_gelu_tensor(values: Tensor, bias: &Tensor, form: GeluForm) -> Result<Tensor> {
    if bias.rank() != 1 || values.dims().last() != bias.dims().last() {
        bail!("bias_gelu: a bias of shape {:?} does not fit values of shape {:?}", bias.dims(), values.dims());
    }
    let in_place = values.device().is_cpu() && values.dtype() == DType::F32 && values.is_contiguous();
    if in_place && bias.dtype() == DType::F32 && bias.is_contiguous() {
        values.inplace_op2(bias, &BiasGeluOp { form })?;
        return Ok(values);
    }
    let sum = values.broadcast_add(bias)?;
    match form {
        GeluForm::Erf => sum.gelu_erf(),
        GeluForm::Tanh => sum.gelu(),
    }
}

struct BiasGeluOp {
    form: GeluForm,
}

impl InplaceOp2 for BiasGeluOp {
    fn name(&self) -> &'static str {
        "bias_gelu"
    }

    fn cpu_fwd(
        &self,
        values: &mut CpuStorage,
        values_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(values), CpuStorage::F32(bias)) = (values, bias) else {
            bail!("bias_gelu: values and bias must be f32");
        };
        let (Some((from, to)), Some((bias_from, bias_to))) =
            (values_layout.contiguous_offsets(), bias_layout.contiguous_offsets())
        else {
            bail!("bias_gelu: values and bias must be contiguous");
        };
        bias_gelu(&mut values[from..to], &bias[bias_from..bias_to], self.form).map_err(candle_core::Error::wrap)
    }
}
