//! The plan of a batch: threads take whole sequences, or share each product by its columns.

use std::ops::Range;

use super::spec::{AttentionSpec, BlockSpec, EncoderSpec};
use crate::MAX_THREADS;

/// The sizes that determine an encoder's cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Costs {
    /// Number of weights of all products.
    weights: usize,
    /// Number of multiply-adds of a token with each token of its sequence.
    attention: usize,
}

impl Costs {
    pub(super) fn new(spec: &EncoderSpec) -> Self {
        let mut costs = Self { weights: spec.embeddings.projected_from.unwrap_or(0) * spec.hidden, attention: 0 };
        for BlockSpec { attention, feed_forward, .. } in &spec.blocks {
            let AttentionSpec { heads, key_value_heads, head_size, .. } = *attention;
            let into_inner = if feed_forward.gated { 2 } else { 1 };
            let columns = 2 * (heads + key_value_heads) * head_size + (into_inner + 1) * feed_forward.inner;
            costs.weights += spec.block_runs * columns * spec.hidden;
            costs.attention += spec.block_runs * 2 * heads * head_size;
        }
        costs
    }

    /// Number of multiply-adds of one sequence, as if each token saw all others.
    fn of(self, length: usize) -> usize {
        length * (self.weights + length * self.attention)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// One thread runs each part through all layers, without waiting for others.
    Sequences,
    /// All threads share each product.
    Columns,
}

/// Consecutive sequences of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) sequences: Range<usize>,
    pub(super) tokens: Range<usize>,
}

/// Fewest tokens of a part, since each part reads all weights; less only if a thread would otherwise have no part.
const MIN_PART_TOKENS: usize = 64;
/// Most tokens of a part of several sequences, so that the matrices of a layer fit into the second-level cache.
const MAX_PART_TOKENS: usize = 192;
/// Largest share of the threads' time that may be idle with whole sequences; above it, threads share products by columns.
const MAX_IDLE: f64 = 0.25;

/// Cuts a batch into `parts` of whole sequences, which idle threads take in order, and chooses the plan.
pub(super) fn plan(lengths: &[usize], threads: usize, costs: Costs, parts: &mut Vec<Part>) -> Plan {
    let tokens: usize = lengths.iter().sum();
    // Two parts per thread, so that the others can take work from a thread that is held up.
    let least = tokens.div_ceil(threads).min(MIN_PART_TOKENS);
    let aim = (tokens / (2 * threads)).max(least).min(MAX_PART_TOKENS);
    parts.clear();
    let (mut sequence, mut token) = (0, 0);
    while sequence < lengths.len() {
        let (first, from) = (sequence, token);
        while sequence < lengths.len() && (sequence == first || token - from + lengths[sequence] <= aim) {
            token += lengths[sequence];
            sequence += 1;
        }
        parts.push(Part { sequences: first..sequence, tokens: from..token });
    }
    if threads > 1 && idle(lengths, threads, costs, parts) > MAX_IDLE { Plan::Columns } else { Plan::Sequences }
}

/// The share of the threads' time that is idle if each takes the next part when it is done with one.
fn idle(lengths: &[usize], threads: usize, costs: Costs, parts: &[Part]) -> f64 {
    let mut busy_until = [0_usize; MAX_THREADS];
    let busy_until = &mut busy_until[..threads];
    let mut total = 0;
    for part in parts {
        let cost: usize = lengths[part.sequences.clone()].iter().map(|length| costs.of(*length)).sum();
        let first_free = busy_until.iter_mut().min().expect("there is a thread");
        *first_free += cost;
        total += cost;
    }
    let end = busy_until.iter().copied().max().expect("there is a thread");
    1.0 - total as f64 / (end * busy_until.len()).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MiniLM's: 6 blocks of 384 and 1,536.
    const COSTS: Costs = Costs { weights: 6 * (4 * 384 * 384 + 2 * 384 * 1536), attention: 6 * 2 * 384 };

    fn planned(lengths: &[usize], threads: usize) -> (Plan, Vec<Part>) {
        let mut parts = Vec::new();
        let plan = plan(lengths, threads, COSTS, &mut parts);
        (plan, parts)
    }

    #[test]
    fn one_sequence_is_split_by_columns_among_several_threads_alone() {
        assert_eq!(planned(&[16], 2).0, Plan::Columns);
        assert_eq!(planned(&[16], 1).0, Plan::Sequences);
    }

    #[test]
    fn sequences_that_keep_all_threads_busy_stay_whole() {
        for lengths in [&[64; 8][..], &[32; 32], &[128; 8], &[16, 16]] {
            assert_eq!(planned(lengths, 2).0, Plan::Sequences, "{lengths:?}");
        }
        assert_eq!(planned(&[128, 16], 2).0, Plan::Columns);
        assert_eq!(planned(&[64; 8], 16).0, Plan::Columns);
    }

    #[test]
    fn parts_cover_the_batch_in_order_and_are_bounded_unless_one_sequence_is_longer() {
        let lengths = [5, 300, 64, 64, 64, 7, 7, 128, 500, 1];
        for threads in 1..5 {
            let (_, parts) = planned(&lengths, threads);
            let (mut sequence, mut token) = (0, 0);
            for part in &parts {
                assert_eq!((part.sequences.start, part.tokens.start), (sequence, token));
                assert!(part.tokens.len() <= MAX_PART_TOKENS || part.sequences.len() == 1, "{part:?}");
                sequence = part.sequences.end;
                token = part.tokens.end;
            }
            assert_eq!((sequence, token), (lengths.len(), lengths.iter().sum()));
        }
    }
}
