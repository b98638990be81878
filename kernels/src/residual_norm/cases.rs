//! The cases that every implementation is checked with.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{LayerNorm, reference};

/// Rows of each case.
pub(crate) const ROWS: usize = 3;

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) eps: f32,
    pub(crate) x: Vec<f32>,
    pub(crate) residual: Vec<f32>,
}

/// Columns around every width of a vector, and those of real models.
pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let mut random = StdRng::seed_from_u64(1);
    let mut numbers = move |count: usize| -> Vec<f32> { (0..count).map(|_| random.random_range(-3.0..3.0)).collect() };
    [1, 2, 7, 8, 9, 16, 17, 31, 128, 384, 768].into_iter().map(move |columns| Case {
        weight: numbers(columns),
        bias: numbers(columns),
        eps: 1e-5,
        x: numbers(ROWS * columns),
        residual: numbers(ROWS * columns),
    })
}

impl Case {
    pub(crate) fn columns(&self) -> usize {
        self.weight.len()
    }

    pub(crate) fn norm(&self) -> LayerNorm {
        LayerNorm::new(self.weight.clone(), self.bias.clone(), self.eps).unwrap()
    }

    /// The expected output for these rows, which may be the case's, rounded.
    pub(crate) fn expected(&self, x: &[f32], residual: &[f32]) -> Vec<f64> {
        let rows = x.chunks_exact(self.columns()).zip(residual.chunks_exact(self.columns()));
        rows.flat_map(|(x, r)| reference::residual_norm(x, r, &self.weight, &self.bias, self.eps)).collect()
    }
}
