//! The memory and operations that an encoder needs, derived from its spec.
//!
//! Each weight of a product is used once per token, for 2 operations. Attention multiplies each token with all L tokens
//! of its text twice (Q·Kᵀ, and the weighted sum of V): 4·L operations per token for each element of the queries.

use sconce_kernels::encoder::{BlockSpec, EncoderSpec, HeadRows, HeadSpec, HeadStep, NormKind, NormSpec};

use crate::demand::{TYPICAL_TOKENS, f32_bytes, linear_bytes, product, sum, table_bytes};
use crate::{Demand, Precision};

pub(crate) fn demand(spec: &EncoderSpec, precision: Precision) -> Demand {
    let EncoderSpec { hidden, embeddings, blocks, final_norm, head, block_runs, .. } = spec;
    let length = spec.max_tokens().map_or(TYPICAL_TOKENS, |most| most.min(TYPICAL_TOKENS));
    let costs = blocks.iter().map(|block| BlockCost::new(*hidden, block));
    let linear = sum(&costs.clone().map(|cost| cost.linear).collect::<Vec<_>>());
    let small = sum(&costs.clone().map(|cost| cost.small).collect::<Vec<_>>());
    let queries = sum(&costs.map(|cost| cost.queries).collect::<Vec<_>>());
    let columns = spec.embedding_size();
    let rows = sum(&[embeddings.words, embeddings.positions.map_or(0, |table| table.rows), embeddings.segments]);
    let projection = embeddings.projected_from.map_or(0, |columns| product(&[*hidden, columns]));
    let norms = [embeddings.norm, *final_norm].into_iter().flatten().map(|norm| of_norm(*hidden, norm)).sum();
    let of_head = weights_of_head(head, *hidden);
    let widest = blocks.iter().map(|block| {
        let gate = if block.feed_forward.gated { block.feed_forward.inner } else { 0 };
        sum(&[product(&[6, *hidden]), block.feed_forward.inner, gate, product(&[block.attention.heads, length])])
    });
    let products = linear as f64 * *block_runs as f64 + projection as f64;
    let per_token = if matches!(head.rows, HeadRows::Pooled(_)) { 0 } else { of_head };
    Demand {
        weight_bytes: linear_bytes(sum(&[linear, projection]), precision)
            .saturating_add(table_bytes(product(&[rows, columns]), precision))
            .saturating_add(f32_bytes(sum(&[small, norms, of_head]))),
        flops_per_weight: 2.0 * (products + per_token as f64)
            + 4.0 * length as f64 * queries as f64 * *block_runs as f64,
        // One block at a time: its input, query, key, value, attended vector and output; the inner vector; each head's
        // scores.
        bytes_per_weight: f32_bytes(widest.max().unwrap_or(*hidden)),
        unit: "token",
    }
}

/// Weights of the steps of a head.
fn weights_of_head(head: &HeadSpec, hidden: usize) -> usize {
    let mut inputs = head.inputs(hidden);
    let of_step = |step: &HeadStep| match step {
        HeadStep::Product { outputs, bias, .. } => {
            let weights = product(&[*outputs, inputs + usize::from(*bias)]);
            inputs = *outputs;
            weights
        }
        HeadStep::Norm(norm) => of_norm(inputs, *norm),
    };
    sum(&head.steps.iter().map(of_step).collect::<Vec<_>>())
}

/// Counts of numbers in one block.
struct BlockCost {
    /// Weights of its products.
    linear: usize,
    /// Biases and norms.
    small: usize,
    /// Elements of the queries.
    queries: usize,
}

impl BlockCost {
    fn new(hidden: usize, block: &BlockSpec) -> Self {
        let BlockSpec { attention, feed_forward, attention_norm, output_norm, .. } = block;
        let queries = product(&[attention.heads, attention.head_size]);
        let keys = product(&[attention.key_value_heads, attention.head_size]);
        let into_inner = if feed_forward.gated { 2 } else { 1 };
        let linear = sum(&[
            product(&[hidden, sum(&[2 * queries, 2 * keys])]),
            product(&[hidden, feed_forward.inner, into_inner + 1]),
        ]);
        let biases = [
            (attention.bias, sum(&[queries, 2 * keys])),
            (attention.output_bias, hidden),
            (feed_forward.bias, into_inner * feed_forward.inner),
            (feed_forward.output_bias, hidden),
        ];
        let biases: usize = biases.iter().filter(|(has, _)| *has).map(|(_, count)| count).sum();
        let norms: usize = [attention_norm, output_norm].into_iter().flatten().map(|norm| of_norm(hidden, *norm)).sum();
        Self { linear, small: sum(&[biases, norms]), queries }
    }
}

fn of_norm(hidden: usize, norm: NormSpec) -> usize {
    match norm.kind {
        NormKind::Layer { bias: true } => 2 * hidden,
        NormKind::Layer { bias: false } | NormKind::Rms => hidden,
    }
}
