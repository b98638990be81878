//! The cases that every implementation is checked with.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::Activation;
use crate::bias_gelu::GeluForm;

pub(crate) const ACTIVATIONS: [Activation; 4] =
    [Activation::Identity, Activation::Relu, Activation::Gelu(GeluForm::Erf), Activation::Gelu(GeluForm::Tanh)];

/// A layer, and x of several numbers of rows.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) x: Vec<Vec<f32>>,
}

/// Shapes around every width of a register tile and a panel.
pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let shapes = [(1, 1), (3, 5), (16, 16), (31, 33), (64, 32), (100, 48), (128, 130), (384, 65)];
    shapes.into_iter().map(|shape| case(shape, &[0, 1, 2, 5, 6, 7, 11, 12, 13, 24, 25, 97]))
}

/// Shapes for bytes: also inputs that are not whole groups, and the inner size of a real model.
pub(crate) fn int8_cases() -> impl Iterator<Item = Case> {
    let shapes = [(1, 1), (4, 16), (5, 7), (63, 33), (100, 130), (384, 32), (1536, 40)];
    shapes.into_iter().map(|shape| case(shape, &[1, 3, 4, 6, 12, 13, 26, 70]))
}

fn case((inputs, outputs): (usize, usize), rows: &[usize]) -> Case {
    let mut random = StdRng::seed_from_u64((inputs * 1000 + outputs) as u64);
    let (weight, bias) = (numbers(&mut random, inputs * outputs), numbers(&mut random, outputs));
    let x = rows.iter().map(|rows| numbers(&mut random, rows * inputs)).collect();
    Case { inputs, outputs, weight, bias, x }
}

pub(crate) fn numbers(random: &mut StdRng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}
