//! The formula of the module's documentation in f64.

/// `softmax(Q·Kᵀ)·V` of one head of one sequence; each matrix is rows of `size`.
///
/// # Panics
/// If the lengths do not fit.
#[must_use]
pub fn attention(query: &[f32], key: &[f32], value: &[f32], size: usize) -> Vec<f64> {
    biased_attention(query, key, value, size, &|_, _| Some(0.0))
}

/// `softmax(Q·Kᵀ + B)·V`, where `bias` gives the element of `B` for a query and a key, or `None` for a key that the query
/// does not see.
///
/// # Panics
/// If the lengths do not fit.
#[must_use]
pub fn biased_attention(
    query: &[f32],
    key: &[f32],
    value: &[f32],
    size: usize,
    bias: &dyn Fn(usize, usize) -> Option<f64>,
) -> Vec<f64> {
    let mut out = Vec::new();
    for (at, query) in query.chunks_exact(size).enumerate() {
        let score = |(other, key): (usize, &[f32])| {
            let product: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            bias(at, other).map_or(f64::NEG_INFINITY, |bias| product + bias)
        };
        let scores: Vec<f64> = key.chunks_exact(size).enumerate().map(score).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for column in 0..size {
            let mixed = weights.iter().zip(value.chunks_exact(size)).map(|(w, v)| w * f64::from(v[column]));
            out.push(mixed.sum::<f64>() / sum);
        }
    }
    out
}
