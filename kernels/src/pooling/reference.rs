//! The formulas of the module's documentation in f64.

use super::Pooling;

/// Pools one sequence, whose tokens are rows of `columns`.
///
/// # Panics
/// If there is no token.
#[must_use]
pub fn pool(tokens: &[f32], columns: usize, pooling: Pooling) -> Vec<f64> {
    let rows: Vec<&[f32]> = tokens.chunks_exact(columns).collect();
    let count = rows.len() as f64;
    let pooled = |column: usize| {
        let column: Vec<f64> = rows.iter().map(|row| f64::from(row[column])).collect();
        match pooling {
            Pooling::Mean => column.iter().sum::<f64>() / count,
            Pooling::MeanSqrtLength => column.iter().sum::<f64>() / count.sqrt(),
            Pooling::WeightedMean => {
                let weighted = column.iter().zip(1..).map(|(x, weight)| x * f64::from(weight)).sum::<f64>();
                weighted / (1..=column.len()).map(|weight| weight as f64).sum::<f64>()
            }
            Pooling::Max => column.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Pooling::Cls => column[0],
            Pooling::Last => column[column.len() - 1],
        }
    };
    (0..columns).map(pooled).collect()
}
