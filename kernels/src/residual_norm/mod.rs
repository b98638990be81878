//! `norm(x + residual)` in one pass over rows, either of the two optional.
//!
//! For each row `v` of `x + residual`:
//!
//! - [`LayerNorm`]: `y = (v - mean(v)) / √(var(v) + ε) · γ + β` (Ba et al., arXiv:1607.06450), with the variance of the
//!   population, taken from the centred values so that nothing cancels;
//! - [`RmsNorm`]: `y = v / √(mean(v²) + ε) · γ` (Zhang and Sennrich, arXiv:1910.07467).

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
        let (y, residual) = (RowsMut::new(x, rows, columns, columns), Rows::new(residual, rows, columns, columns));
        let x = Rows::new(&sum, rows, columns, columns);
        Isa::best().run(simd::ResidualNorm { norm: NormFormula::Layer(self), x, residual: Some(residual), y });
        Ok(())
    }
}

/// The parameters of a norm by the root of the mean of squares.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Vec<f32>,
    eps: f32,
}

impl RmsNorm {
    /// `weight` (γ) has one element per column.
    ///
    /// # Errors
    /// If it is empty.
    pub fn new(weight: Vec<f32>, eps: f32) -> Result<Self, KernelError> {
        if weight.is_empty() {
            return Err(KernelError::Mismatch { what: "an RMS norm without weights".to_owned() });
        }
        Ok(Self { weight, eps })
    }
}

/// A norm of rows by one of the two formulas.
#[derive(Debug, Clone)]
pub enum RowNorm {
    /// Layer normalisation.
    Layer(LayerNorm),
    /// Root mean square.
    Rms(RmsNorm),
}

impl RowNorm {
    /// Columns of a row.
    #[must_use]
    pub fn columns(&self) -> usize {
        match self {
            Self::Layer(norm) => norm.columns(),
            Self::Rms(norm) => norm.weight.len(),
        }
    }

    /// The norm whose outputs are these times `factor`.
    #[must_use]
    pub fn times(mut self, factor: f32) -> Self {
        let (weight, bias) = match &mut self {
            Self::Layer(norm) => (&mut norm.weight, &mut norm.bias[..]),
            Self::Rms(norm) => (&mut norm.weight, &mut [][..]),
        };
        weight.iter_mut().chain(bias).for_each(|x| *x *= factor);
        self
    }
}

impl From<LayerNorm> for RowNorm {
    fn from(norm: LayerNorm) -> Self {
        Self::Layer(norm)
    }
}

/// The formula that a row goes through.
#[derive(Clone, Copy)]
pub(crate) enum NormFormula<'a> {
    Identity,
    Layer(&'a LayerNorm),
    Rms(&'a RmsNorm),
}

impl<'a> NormFormula<'a> {
    pub(crate) fn of(norm: Option<&'a RowNorm>) -> Self {
        match norm {
            None => Self::Identity,
            Some(RowNorm::Layer(norm)) => Self::Layer(norm),
            Some(RowNorm::Rms(norm)) => Self::Rms(norm),
        }
    }
}

/// `y = norm(x + residual)`
pub(crate) fn norm_rows(
    isa: Isa,
    norm: Option<&RowNorm>,
    x: Rows<'_, f32>,
    residual: Option<Rows<'_, f32>>,
    y: RowsMut<'_, f32>,
) {
    isa.run(simd::ResidualNorm { norm: NormFormula::of(norm), x, residual, y });
}
