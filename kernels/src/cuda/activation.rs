//! Activation functions applied to a product on a GPU, numbered as in `activation.cuh`.

use crate::bias_gelu::GeluForm;
use crate::linear;

/// The function applied to each output on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum DeviceActivation {
    Identity = 0,
    Relu = 1,
    GeluErf = 2,
    GeluTanh = 3,
    /// Only used by a classifier's pooler.
    Tanh = 4,
}

impl From<linear::Activation> for DeviceActivation {
    fn from(activation: linear::Activation) -> Self {
        match activation {
            linear::Activation::Identity => Self::Identity,
            linear::Activation::Relu => Self::Relu,
            linear::Activation::Gelu(GeluForm::Erf) => Self::GeluErf,
            linear::Activation::Gelu(GeluForm::Tanh) => Self::GeluTanh,
        }
    }
}
