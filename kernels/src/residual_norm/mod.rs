//! `layer_norm(x + residual)` in one pass over rows: Ba et al., arXiv:1607.06450.
//!
//! `y = (v - mean(v)) / √(var(v) + ε) · γ + β` for each row `v` of `x + residual`, with the variance of the population,
//! taken from the centred values so that nothing cancels.

#[cfg(test)]
pub(crate) mod cases;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod reference;
pub(crate) mod simd;
#[cfg(test)]
mod tests;

use crate::KernelError;
use crate::rows::{Rows, RowsMut};
use crate::simd::Isa;

/// The parameters of a layer norm.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl LayerNorm {
    /// `weight` (γ) and `bias` (β) have one element per column.
    ///
    /// # Errors
    /// If they are empty or of different lengths.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, eps: f32) -> Result<Self, KernelError> {
        if weight.is_empty() || weight.len() != bias.len() {
            let what = format!("a layer norm of {} weights and {} biases", weight.len(), bias.len());
            return Err(KernelError::Mismatch { what });
        }
        Ok(Self { weight, bias, eps })
    }

    /// Columns of a row.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.weight.len()
    }

    /// Replaces each row of `x` with `layer_norm(x + residual)`.
    ///
    /// # Errors
    /// If `x` is not a whole number of rows, or `residual` is not as long.
    pub fn forward(&self, x: &mut [f32], residual: &[f32]) -> Result<(), KernelError> {
        let columns = self.columns();
        if !x.len().is_multiple_of(columns) || residual.len() != x.len() {
            let what = format!("{} values and {} residuals for rows of {columns}", x.len(), residual.len());
            return Err(KernelError::Mismatch { what });
        }
        let rows = x.len() / columns;
        let sum = x.to_vec();
        let (x, residual) = (RowsMut::new(x, rows, columns, columns), Rows::new(residual, rows, columns, columns));
        self.forward_rows(Isa::best(), Rows::new(&sum, rows, columns, columns), residual, x);
        Ok(())
    }

    /// `y = layer_norm(x + residual)`
    pub(crate) fn forward_rows(&self, isa: Isa, x: Rows<'_, f32>, residual: Rows<'_, f32>, y: RowsMut<'_, f32>) {
        isa.run(simd::ResidualNorm { norm: self, x, residual, y });
    }
}
