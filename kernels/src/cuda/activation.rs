//! Activation functions applied to a product on a GPU, numbered as in `activation.cuh`.

use crate::bias_gelu::GeluForm;
use crate::encoder::HeadFunction;
use crate::linear;

/// The function applied to each output on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum DeviceActivation {
    Identity = 0,
    Relu = 1,
    GeluErf = 2,
    GeluTanh = 3,
    Tanh = 4,
    Silu = 5,
    Sigmoid = 6,
}

impl From<linear::Activation> for DeviceActivation {
    fn from(activation: linear::Activation) -> Self {
        match activation {
            linear::Activation::Identity => Self::Identity,
            linear::Activation::Relu => Self::Relu,
            linear::Activation::Gelu(GeluForm::Erf) => Self::GeluErf,
            linear::Activation::Gelu(GeluForm::Tanh) => Self::GeluTanh,
            linear::Activation::Silu => Self::Silu,
        }
    }
}

impl From<HeadFunction> for DeviceActivation {
    fn from(function: HeadFunction) -> Self {
        match function {
            HeadFunction::Identity => Self::Identity,
            HeadFunction::Tanh => Self::Tanh,
            HeadFunction::Relu => Self::Relu,
            HeadFunction::Gelu(GeluForm::Erf) => Self::GeluErf,
            HeadFunction::Gelu(GeluForm::Tanh) => Self::GeluTanh,
            HeadFunction::Silu => Self::Silu,
            HeadFunction::Sigmoid => Self::Sigmoid,
        }
    }
}
