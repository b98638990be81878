//! The formulas of the module's documentation in f64, as they are written there.

use super::Activation;
use crate::bias_gelu::reference::gelu;

/// `activation(x·Wᵀ + b)`, with `weight` as `[outputs, inputs]` and x as rows of `inputs`.
///
/// # Panics
/// If the lengths do not fit.
#[must_use]
pub fn linear(x: &[f32], weight: &[f32], bias: &[f32], inputs: usize, activation: Activation) -> Vec<f64> {
    let mut y = Vec::new();
    for row in x.chunks_exact(inputs) {
        for (weights, bias) in weight.chunks_exact(inputs).zip(bias) {
            let products = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w));
            y.push(activate(products.sum::<f64>() + f64::from(*bias), activation));
        }
    }
    y
}

/// [`linear`] with both sides quantised: `s·t·Σ (q - z)·v + b`, the sum exact.
///
/// # Panics
/// If the lengths do not fit.
#[must_use]
pub fn linear_int8(x: &[f32], weight: &[f32], bias: &[f32], inputs: usize, max_activation: u8) -> Vec<f64> {
    let mut y = Vec::new();
    for row in x.chunks_exact(inputs) {
        let (values, scale, zero) = crate::quantize::reference::quantize_row(row, max_activation);
        for (weights, bias) in weight.chunks_exact(inputs).zip(bias) {
            let weight_scale = super::int8::scale_of(weights);
            let exact: i64 = values
                .iter()
                .zip(weights)
                .map(|(q, w)| (i64::from(*q) - i64::from(zero)) * i64::from(super::int8::quantized(*w, weight_scale)))
                .sum();
            y.push(exact as f64 * f64::from(scale) * f64::from(weight_scale) + f64::from(*bias));
        }
    }
    y
}

pub(crate) fn activate(y: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Identity => y,
        Activation::Relu => y.max(0.0),
        Activation::Gelu(form) => gelu(y, form),
        Activation::Silu => y / (1.0 + (-y).exp()),
    }
}
