//! The small encoder that all implementations are tested with.

#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    AttentionPositions, AttentionSpec, BlockSpec, Dense, EmbeddingSpec, Encoder, EncoderSpec, FeedForwardSpec,
    HeadSpec, InnerFunction, LayerWeights, Mask, NormKind, NormOrder, NormSpec, PackedParts, PositionTable,
};
use crate::bias_gelu::GeluForm;
use crate::embedding::{Embeddings, Table, TableFormat};
use crate::linear::{Activation, WeightFormat};
use crate::pooling::Pooling;
use crate::residual_norm::{LayerNorm, RowNorm};
use crate::{attention, linear, residual_norm};

pub(crate) const HIDDEN: usize = 64;
pub(crate) const INNER: usize = 96;
pub(crate) const HEADS: usize = 2;
pub(crate) const WORDS: usize = 50;
pub(crate) const POSITIONS: usize = 400;

/// The weights of a small encoder with two layers.
pub(crate) struct Parts {
    pub(crate) tables: [Vec<f32>; 3],
    /// Weights and biases of each layer's four products, in their order.
    pub(crate) linears: Vec<[(Vec<f32>, Vec<f32>); 4]>,
    pub(crate) norm: (Vec<f32>, Vec<f32>),
}

pub(crate) const SHAPES: [(usize, usize); 4] =
    [(HIDDEN, 3 * HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, INNER), (INNER, HIDDEN)];

pub(crate) fn parts() -> Parts {
    let mut random = StdRng::seed_from_u64(5);
    let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.random_range(-0.3..0.3)).collect() };
    let tables = [numbers(WORDS * HIDDEN), numbers(POSITIONS * HIDDEN), numbers(2 * HIDDEN)];
    let mut linears: Vec<_> =
        (0..2).map(|_| SHAPES.map(|(inputs, outputs)| (numbers(inputs * outputs), numbers(outputs)))).collect();
    for [query_key_value, ..] in &mut linears {
        // Small queries, so that softmax mixes keys instead of picking one.
        query_key_value.0[..HIDDEN * HIDDEN].iter_mut().for_each(|weight| *weight *= 0.1);
    }
    let norm = (numbers(HIDDEN).iter().map(|x| 1.0 + x).collect(), numbers(HIDDEN));
    Parts { tables, linears, norm }
}

/// The spec of an encoder of BERT's kind with blocks of these sizes.
pub(crate) fn bert([hidden, inner, heads, words, positions]: [usize; 5], blocks: usize) -> EncoderSpec {
    let norm = Some(NormSpec { kind: NormKind::Layer { bias: true }, eps: 1e-6 });
    let block = BlockSpec {
        order: NormOrder::Post,
        attention_norm: norm,
        output_norm: norm,
        attention: AttentionSpec {
            heads,
            key_value_heads: heads,
            head_size: hidden / heads,
            mask: Mask::Full,
            positions: AttentionPositions::None,
            head_norm: None,
            bias: true,
            output_bias: true,
        },
        feed_forward: FeedForwardSpec {
            inner,
            function: InnerFunction::Gelu(GeluForm::Erf),
            gated: false,
            bias: true,
            output_bias: true,
        },
    };
    EncoderSpec {
        hidden,
        embeddings: EmbeddingSpec {
            words,
            positions: Some(PositionTable { rows: positions, first: 0 }),
            segments: 2,
            norm,
            projected_from: None,
        },
        relative_bias: None,
        blocks: vec![block; blocks],
        block_runs: 1,
        final_norm: None,
        head: HeadSpec::pooled(Pooling::Mean),
    }
}

impl Parts {
    pub(crate) fn norm(&self) -> RowNorm {
        LayerNorm::new(self.norm.0.clone(), self.norm.1.clone(), 1e-6).unwrap().into()
    }

    pub(crate) fn encoder(&self, format: WeightFormat, table: TableFormat) -> Encoder {
        let spec = bert([HIDDEN, INNER, HEADS, WORDS, POSITIONS], self.linears.len());
        Encoder::new(&spec, self.packed(format, table)).unwrap()
    }

    pub(crate) fn packed(&self, format: WeightFormat, table: TableFormat) -> PackedParts {
        PackedParts {
            embeddings: self.embeddings(table),
            embedding_projection: None,
            relative_bias: None,
            layers: (0..self.linears.len()).map(|index| self.layer(index).pack(format).unwrap()).collect(),
            final_norm: None,
        }
    }

    pub(crate) fn layer(&self, index: usize) -> LayerWeights {
        let [query_key_value, attention_output, up, down] =
            self.linears[index].clone().map(|(weight, bias)| Dense { weight, bias });
        LayerWeights {
            query_key_value,
            head_norms: None,
            attention_output,
            attention_norm: Some(self.norm()),
            gate: None,
            up,
            down,
            output_norm: Some(self.norm()),
        }
    }

    pub(crate) fn embeddings(&self, format: TableFormat) -> Embeddings {
        let table = |values: Vec<f32>| Table::new(values, HIDDEN, format).unwrap();
        let [words, positions, segments] = self.tables.clone().map(table);
        Embeddings::new(words, Some(positions), Some(segments), Some(self.norm())).unwrap()
    }

    /// The formulas of the module's documentation in f64, rounded to f32 between the parts.
    pub(crate) fn reference(&self, ids: &[u32], segments: &[u32]) -> Vec<f32> {
        let rounded = |values: Vec<f64>| -> Vec<f32> { values.into_iter().map(|value| value as f32).collect() };
        let norm = |x: &[f32], residual: &[f32]| -> Vec<f32> {
            let rows = x.chunks_exact(HIDDEN).zip(residual.chunks_exact(HIDDEN));
            let (weight, bias) = &self.norm;
            rounded(rows.flat_map(|(x, r)| residual_norm::reference::residual_norm(x, r, weight, bias, 1e-6)).collect())
        };
        let [words, positions, kinds] = &self.tables;
        let row = |table: &[f32], row: usize| table[row * HIDDEN..][..HIDDEN].to_vec();
        let word: Vec<f32> = ids.iter().flat_map(|id| row(words, *id as usize)).collect();
        let rest = segments.iter().enumerate().flat_map(|(position, kind)| {
            row(positions, position).into_iter().zip(row(kinds, *kind as usize)).map(|(a, b)| a + b)
        });
        let mut x = norm(&word, &rest.collect::<Vec<_>>());
        for linears in &self.linears {
            let linear = |which: usize, x: &[f32], activation| {
                let (weight, bias) = &linears[which];
                rounded(linear::reference::linear(x, weight, bias, SHAPES[which].0, activation))
            };
            let packed = linear(0, &x, Activation::Identity);
            let size = HIDDEN / HEADS;
            let mut attended = vec![0.0; x.len()];
            for head in 0..HEADS {
                let part = |part: usize| -> Vec<f32> {
                    let first = part * HIDDEN + head * size;
                    packed.chunks_exact(3 * HIDDEN).flat_map(|row| row[first..first + size].to_vec()).collect()
                };
                let mixed = rounded(attention::reference::attention(&part(0), &part(1), &part(2), size));
                for (to, from) in attended.chunks_exact_mut(HIDDEN).zip(mixed.chunks_exact(size)) {
                    to[head * size..][..size].copy_from_slice(from);
                }
            }
            let a = norm(&linear(1, &attended, Activation::Identity), &x);
            let inner = linear(2, &a, Activation::Gelu(GeluForm::Erf));
            x = norm(&linear(3, &inner, Activation::Identity), &a);
        }
        x
    }
}

/// Varied ids and segments for sequences of these lengths.
pub(crate) fn batch(lengths: &[usize]) -> (Vec<u32>, Vec<u32>) {
    let tokens: usize = lengths.iter().sum();
    let ids = (0..tokens as u32).map(|token| token * 7919 % WORDS as u32).collect();
    (ids, (0..tokens as u32).map(|token| token / 3 % 2).collect())
}
