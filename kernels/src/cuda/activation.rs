//! The functions that follow a product, by the numbers of `activation.cuh`.

use crate::bias_gelu::GeluForm;
use crate::linear;

/// What is done to each output on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Function {
    Identity = 0,
    Relu = 1,
    GeluErf = 2,
    GeluTanh = 3,
    /// Of a classifier's pooler alone.
    Tanh = 4,
}

impl From<linear::Activation> for Function {
    fn from(activation: linear::Activation) -> Self {
        match activation {
            linear::Activation::Identity => Self::Identity,
            linear::Activation::Relu => Self::Relu,
            linear::Activation::Gelu(GeluForm::Erf) => Self::GeluErf,
            linear::Activation::Gelu(GeluForm::Tanh) => Self::GeluTanh,
        }
    }
}
