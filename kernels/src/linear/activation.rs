//! The last step of a product: an activation, or a gate.

use crate::bias_gelu::{GeluForm, gelu};
use crate::rows::RowsMut;
use crate::simd::math::exp;
use crate::simd::{Simd, Unary, map};

/// The function applied to each output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// `y`
    #[default]
    Identity,
    /// `max(y, 0)`
    Relu,
    /// `gelu(y)`, see [`crate::bias_gelu`].
    Gelu(GeluForm),
    /// `y / (1 + e⁻ʸ)`
    Silu,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, y: RowsMut<'_, f32>) {
        match self {
            Self::Identity => {}
            Self::Relu => map_rows(simd, y, Relu),
            Self::Gelu(GeluForm::Erf) => map_rows(simd, y, gelu::Erf),
            Self::Gelu(GeluForm::Tanh) => map_rows(simd, y, gelu::Tanh),
            Self::Silu => map_rows(simd, y, Silu),
        }
    }

    /// Writes `function(gate)·up` of one vector each; `y` may be shorter.
    #[inline(always)]
    fn gate<S: Simd>(self, simd: S, gate: &[f32], up: &[f32], y: &mut [f32]) {
        let (gate, up) = (simd.load(gate), simd.load(up));
        let gate = match self {
            Self::Identity => gate,
            Self::Relu => Relu.of(simd, gate),
            Self::Gelu(GeluForm::Erf) => gelu::Erf.of(simd, gate),
            Self::Gelu(GeluForm::Tanh) => gelu::Tanh.of(simd, gate),
            Self::Silu => Silu.of(simd, gate),
        };
        simd.store_partial(simd.mul(gate, up), y);
    }
}

/// The last step of a product, done panel by panel.
#[derive(Clone, Copy)]
pub(crate) enum ProductEnd {
    /// `activation(y)`
    Activation(Activation),
    /// `activation(gate)·up` of the two halves of a panel.
    Gate(Activation),
}

impl ProductEnd {
    /// Columns of `y` that a panel makes.
    #[inline(always)]
    pub(super) fn columns<S: Simd>(self) -> usize {
        match self {
            Self::Activation(_) => S::PANEL,
            Self::Gate(_) => S::LANES,
        }
    }

    /// Moves one row of a panel to `y`, which may have fewer columns. Activations alone are applied later, by
    /// [`Self::finish`], to whole panels.
    #[inline(always)]
    pub(super) fn move_row<S: Simd>(self, simd: S, panel: &[f32], y: &mut [f32]) {
        match self {
            Self::Activation(_) => y.copy_from_slice(&panel[..y.len()]),
            Self::Gate(activation) => activation.gate(simd, &panel[..S::LANES], &panel[S::LANES..], y),
        }
    }

    /// Applies the activation to the columns of a panel.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(self, simd: S, y: RowsMut<'_, f32>) {
        if let Self::Activation(activation) = self {
            activation.apply(simd, y);
        }
    }
}

#[inline(always)]
fn map_rows<S: Simd>(simd: S, mut y: RowsMut<'_, f32>, f: impl Unary) {
    for row in 0..y.rows() {
        map(simd, y.row(row), f);
    }
}

/// `max(x, 0)`; NaN stays NaN.
#[derive(Clone, Copy)]
struct Relu;

impl Unary for Relu {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        simd.max(simd.splat(0.0), x)
    }
}

/// `x / (1 + e⁻ˣ)`; NaN stays NaN.
#[derive(Clone, Copy)]
struct Silu;

impl Unary for Silu {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        let e = exp(simd, simd.sub(simd.splat(0.0), x));
        simd.div(x, simd.add(simd.splat(1.0), e))
    }
}
