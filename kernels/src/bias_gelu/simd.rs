//! The implementation for all instruction sets.

use super::{GeluForm, gelu};
use crate::simd::{Kernel, Simd, Unary};

/// `gelu(x + bias)` over whole rows.
pub(super) struct BiasGelu<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) bias: &'a [f32],
    pub(super) form: GeluForm,
}

impl Kernel for BiasGelu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { values, bias, form } = self;
        match form {
            GeluForm::Erf => rows(simd, values, bias, gelu::Erf),
            GeluForm::Tanh => rows(simd, values, bias, gelu::Tanh),
        }
    }
}

#[inline(always)]
fn rows<S: Simd>(simd: S, values: &mut [f32], bias: &[f32], gelu: impl Unary) {
    for row in values.chunks_exact_mut(bias.len()) {
        let (mut vectors, mut biases) = (row.chunks_exact_mut(S::LANES), bias.chunks_exact(S::LANES));
        for (x, bias) in (&mut vectors).zip(&mut biases) {
            simd.store(gelu.of(simd, simd.add(simd.load(x), simd.load(bias))), x);
        }
        let (x, bias) = (vectors.into_remainder(), biases.remainder());
        simd.store_partial(gelu.of(simd, simd.add(simd.load_partial(x), simd.load_partial(bias))), x);
    }
}
