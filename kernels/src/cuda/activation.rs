//! Activation functions applied to a product on a GPU, numbered as in `activation.cuh`.

use super::mismatch;
use crate::bias_gelu::GeluForm;
use crate::{KernelError, linear};

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

impl TryFrom<linear::Activation> for DeviceActivation {
    type Error = KernelError;

    fn try_from(activation: linear::Activation) -> Result<Self, KernelError> {
        Ok(match activation {
            linear::Activation::Identity => Self::Identity,
            linear::Activation::Relu => Self::Relu,
            linear::Activation::Gelu(GeluForm::Erf) => Self::GeluErf,
            linear::Activation::Gelu(GeluForm::Tanh) => Self::GeluTanh,
            linear::Activation::Silu => return Err(mismatch("a GPU has no SiLU".to_owned())),
        })
    }
}
