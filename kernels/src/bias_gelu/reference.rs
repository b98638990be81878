//! The formulas of the module's documentation in f64. Every implementation is checked against them.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use super::GeluForm;

/// `gelu(x)` in f64, with its limits at both infinities.
#[must_use]
pub fn gelu(x: f64, form: GeluForm) -> f64 {
    if x == f64::NEG_INFINITY {
        return 0.0; // the formulas give -∞ · 0
    }
    match form {
        // erfc(-z) is 1 + erf(z) without the cancellation below zero.
        GeluForm::Erf => x / 2.0 * libm::erfc(-x * FRAC_1_SQRT_2),
        GeluForm::Tanh => x / 2.0 * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
    }
}

/// `gelu(x + bias)` for each element of each row, the sum rounded to f32 as in the kernel's input.
///
/// # Panics
/// If there are values but no bias.
#[must_use]
pub fn bias_gelu(values: &[f32], bias: &[f32], form: GeluForm) -> Vec<f64> {
    values.iter().enumerate().map(|(at, x)| gelu(f64::from(x + bias[at % bias.len()]), form)).collect()
}
