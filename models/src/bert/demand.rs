//! What a BERT asks of a device, from its configuration.
//!
//! Per layer, with hidden size h and inner size i: query, key, value and output are 4·h² weights, up and down 2·h·i; each is used
//! once per token, for 2 operations. Attention takes the products of each token with all L of its text twice (Q·Kᵀ and the mix of
//! V): 4·L·h operations per token.

use super::HeadKind;
use super::config::Config;
use crate::demand::{TYPICAL_TOKENS, f32_bytes, linear_bytes, table_bytes};
use crate::{Demand, Precision};

pub(super) fn demand(config: &Config, head: HeadKind, precision: Precision) -> Demand {
    let (hidden, inner, layers) = (config.hidden_size, config.intermediate_size, config.num_hidden_layers);
    let linear = 4 * hidden * hidden + 2 * hidden * inner;
    // Biases of the six linear layers, and two norms.
    let small = 4 * hidden + inner + hidden + 4 * hidden;
    let rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size;
    let head = match head {
        HeadKind::Mean | HeadKind::Cls => 0,
        HeadKind::Classifier { labels } => hidden * hidden + hidden + labels * (hidden + 1),
    };
    let length = TYPICAL_TOKENS.min(config.max_position_embeddings);
    let flops = layers * (2 * linear + 4 * length * hidden);
    Demand {
        weight_bytes: linear_bytes(layers * linear, precision)
            + table_bytes(rows * hidden, precision)
            + f32_bytes(layers * small + 2 * hidden + head),
        flops_per_weight: flops as f64,
        // Of one layer at a time: its input, query, key, value, what attention gives, the inner vector, its output; and the
        // scores of each head.
        bytes_per_weight: f32_bytes(6 * hidden + inner + config.num_attention_heads * length),
        unit: "token",
    }
}
