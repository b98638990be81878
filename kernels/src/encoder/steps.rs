//! The steps of an encoder: a list, made once from its spec, that both plans of the CPU execute, and of which CUDA's
//! kernels make their launches (`cuda/launches.rs`).
//!
//! A step reads some matrices of one row per token and writes another. In the plan by columns, threads share the steps
//! that write a shared matrix ([`StepMatrix::is_shared`]), and each computes the others for itself.

use std::ops::Range;

use super::spec::{BlockSpec, EncoderSpec, InnerFunction, NormOrder};
use crate::linear::Activation;

/// A matrix that steps read and write, one row per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepMatrix {
    /// Rows of the tables, where a product makes vectors of `hidden` from them.
    Embedded,
    /// The tokens' vectors between blocks.
    X,
    /// The tokens' vectors in the middle of a block.
    Middle,
    /// A norm's output, where the norm comes before a half of a block.
    Normed,
    /// Query, key and value side by side.
    QueryKeyValue,
    /// The output of all heads.
    Attended,
    /// The output of a product before the residual connection.
    Projected,
    /// The inner vectors of the feed-forward network.
    Inner,
}

/// Number of matrices.
pub(super) const MATRICES: usize = 8;

impl StepMatrix {
    /// True for the matrices that all threads write parts of, in the plan by columns.
    pub(super) fn is_shared(self) -> bool {
        matches!(self, Self::QueryKeyValue | Self::Attended | Self::Projected | Self::Inner)
    }

    /// True for the matrices that hold a few rows at a time, in the plan by sequences.
    pub(super) fn is_by_rows(self) -> bool {
        matches!(self, Self::Middle | Self::Projected | Self::Inner)
    }
}

/// A step of the computation. Linear layers, norms and heads are numbers in the encoder's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EncoderStep {
    /// The sums of the rows of the tables.
    Embed { to: StepMatrix },
    /// `to = norm(x + residual)`
    Norm { x: StepMatrix, residual: Option<StepMatrix>, norm: Option<usize>, to: StepMatrix },
    /// `to = activation(x·Wᵀ + b)`
    Product { x: StepMatrix, linear: usize, activation: Activation, to: StepMatrix },
    /// Attention of every sequence, from [`StepMatrix::QueryKeyValue`] to [`StepMatrix::Attended`].
    Attend { heads: usize },
}

impl EncoderStep {
    /// The matrix that the step writes.
    pub(super) fn to(self) -> StepMatrix {
        match self {
            Self::Embed { to } | Self::Norm { to, .. } | Self::Product { to, .. } => to,
            Self::Attend { .. } => StepMatrix::Attended,
        }
    }
}

/// Consecutive steps that go through the rows in the same way, in the plan by sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StepRun {
    pub(super) steps: Range<usize>,
    /// True if a few rows go through all the steps before the next rows do; false if a step takes all rows of a part.
    pub(super) by_rows: bool,
}

/// The numbers of a layer's parts in the encoder's lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerNumbers {
    pub(super) query_key_value: usize,
    pub(super) heads: usize,
    pub(super) attention_output: usize,
    pub(super) attention_norm: Option<usize>,
    pub(super) up: usize,
    pub(super) down: usize,
    pub(super) output_norm: Option<usize>,
}

/// All steps from token ids to the last block's output, which is in [`StepMatrix::X`].
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) list: Vec<EncoderStep>,
    pub(super) runs: Vec<StepRun>,
}

impl Steps {
    /// The steps of an encoder with these layers, and the product after the tables.
    pub(super) fn new(spec: &EncoderSpec, projection: Option<usize>, layers: &[LayerNumbers]) -> Self {
        use StepMatrix::{Embedded, Projected, X};
        let mut steps = Self::default();
        if let Some(linear) = projection {
            steps.run(false, &[EncoderStep::Embed { to: Embedded }]);
            let product = EncoderStep::Product { x: Embedded, linear, activation: Activation::Identity, to: Projected };
            steps.run(true, &[product, EncoderStep::Norm { x: Projected, residual: None, norm: None, to: X }]);
        } else {
            steps.run(false, &[EncoderStep::Embed { to: X }]);
        }
        for (block, layer) in spec.blocks.iter().zip(layers) {
            for _ in 0..spec.block_runs {
                steps.block(block, *layer);
            }
        }
        steps
    }

    fn run(&mut self, by_rows: bool, steps: &[EncoderStep]) {
        let first = self.list.len();
        self.list.extend(steps);
        self.runs.push(StepRun { steps: first..self.list.len(), by_rows });
    }

    fn block(&mut self, block: &BlockSpec, layer: LayerNumbers) {
        use StepMatrix::{Attended, Inner, Middle, Normed, Projected, QueryKeyValue, X};
        let norm = |x, residual, norm, to| EncoderStep::Norm { x, residual, norm, to };
        let product = |x, linear, activation, to| EncoderStep::Product { x, linear, activation, to };
        let plain = Activation::Identity;
        let inner = activation(block.feed_forward.function);
        let attend = EncoderStep::Attend { heads: layer.heads };
        match block.order {
            NormOrder::Post => {
                self.run(false, &[product(X, layer.query_key_value, plain, QueryKeyValue), attend]);
                self.run(
                    true,
                    &[
                        product(Attended, layer.attention_output, plain, Projected),
                        norm(Projected, Some(X), layer.attention_norm, Middle),
                        product(Middle, layer.up, inner, Inner),
                        product(Inner, layer.down, plain, Projected),
                        norm(Projected, Some(Middle), layer.output_norm, X),
                    ],
                );
            }
            NormOrder::Pre => {
                // Without a norm, the product takes the vectors as they are.
                let normed = |of: Option<usize>, x| if of.is_some() { Normed } else { x };
                let before = |of: Option<usize>, x| of.map(|_| norm(x, None, of, Normed));
                let (first, second) = (layer.attention_norm, layer.output_norm);
                let query_key_value = product(normed(first, X), layer.query_key_value, plain, QueryKeyValue);
                let attention: Vec<_> = before(first, X).into_iter().chain([query_key_value, attend]).collect();
                self.run(false, &attention);
                let mut rest = vec![
                    product(Attended, layer.attention_output, plain, Projected),
                    norm(Projected, Some(X), None, Middle),
                ];
                rest.extend(before(second, Middle));
                rest.extend([
                    product(normed(second, Middle), layer.up, inner, Inner),
                    product(Inner, layer.down, plain, Projected),
                    norm(Projected, Some(Middle), None, X),
                ]);
                self.run(true, &rest);
            }
        }
    }
}

/// The function of a feed-forward network, as the end of a product.
fn activation(function: InnerFunction) -> Activation {
    match function {
        InnerFunction::Gelu(form) => Activation::Gelu(form),
        InnerFunction::Relu => Activation::Relu,
        InnerFunction::Silu => Activation::Silu,
    }
}
