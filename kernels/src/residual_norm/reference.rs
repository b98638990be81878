//! The formula of the module's documentation in f64.

/// `layer_norm(x + residual)` of one row.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn residual_norm(x: &[f32], residual: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f64> {
    let sums: Vec<f64> = x.iter().zip(residual).map(|(x, r)| f64::from(*x) + f64::from(*r)).collect();
    let count = sums.len() as f64;
    let mean = sums.iter().sum::<f64>() / count;
    let variance = sums.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
    let deviation = (variance + f64::from(eps)).sqrt();
    let scaled = sums.iter().map(|v| (v - mean) / deviation);
    scaled.zip(weight.iter().zip(bias)).map(|(v, (w, b))| v * f64::from(*w) + f64::from(*b)).collect()
}

/// `v / √(mean(v²) + ε) · weight` of one row.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
    assert_eq!(x.len(), weight.len());
    let mean = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.len() as f64;
    let root = (mean + f64::from(eps)).sqrt();
    x.iter().zip(weight).map(|(v, w)| f64::from(*v) / root * f64::from(*w)).collect()
}
