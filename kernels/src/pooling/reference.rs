//! The formulas of the module's documentation in f64.

use super::Pooling;

/// Pools one sequence, whose tokens are rows of `columns`.
///
/// # Panics
/// If there is no token.
#[must_use]
pub fn pool(tokens: &[f32], columns: usize, pooling: Pooling) -> Vec<f64> {
    let count = match pooling {
        Pooling::Mean => tokens.len() / columns,
        Pooling::Cls => 1,
    };
    let sum = |column| tokens.chunks_exact(columns).take(count).map(|row| f64::from(row[column])).sum::<f64>();
    (0..columns).map(|column| sum(column) / count as f64).collect()
}
