//! Every choice of a spec against its formulas in f64, and the same bits however a batch is computed.

#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

pub(super) mod model;

use std::num::NonZeroUsize;

use super::cases::{batch, bert};
use super::{
    AttentionPositions, AttentionSpec, BlockSpec, Encoder, EncoderSpec, InnerFunction, Mask, NormKind, NormOrder,
    NormSpec, PackedTokens, PositionTable, RelativeBias, Rotary, Scratch,
};
use crate::Team;
use crate::bias_gelu::GeluForm;
use crate::embedding::TableFormat;
use crate::linear::{BlockFormat, WeightFormat};
use model::Model;

/// Most tokens of a sequence of the tests.
pub(super) const LONGEST: usize = 300;

const RMS: Option<NormSpec> = Some(NormSpec { kind: NormKind::Rms, eps: 1e-5 });
const NO_BIAS: Option<NormSpec> = Some(NormSpec { kind: NormKind::Layer { bias: false }, eps: 1e-5 });
const ROTARY: AttentionPositions = AttentionPositions::Rotary(Rotary { base: 10_000.0, divisor: 1.0 });

/// Specs that together have every choice, each with a name. Hidden, inner and head sizes are not multiples of a vector.
pub(super) fn specs() -> Vec<(&'static str, EncoderSpec)> {
    let with = |name, change: &dyn Fn(&mut EncoderSpec)| {
        let mut spec = bert([36, 50, 4, 60, LONGEST + 2], 2);
        change(&mut spec);
        (name, spec)
    };
    let blocks = |name, change: &dyn Fn(&mut BlockSpec)| with(name, &|spec| spec.blocks.iter_mut().for_each(change));
    vec![
        with("as BERT", &|_| {}),
        with("positions from 2, no segments", &|spec| {
            spec.embeddings.positions = Some(PositionTable { rows: LONGEST + 2, first: 2 });
            spec.embeddings.segments = 0;
        }),
        with("no norm of the embeddings, a relative bias", &|spec| {
            spec.embeddings.norm = None;
            spec.embeddings.positions = None;
            spec.relative_bias = Some(RelativeBias { buckets: 8, max_distance: 40 });
        }),
        with("narrow embeddings, one block three times", &|spec| {
            spec.embeddings.projected_from = Some(20);
            spec.block_runs = 3;
            spec.blocks.truncate(1);
        }),
        blocks("norms before, biases by distance", &|block| {
            block.order = NormOrder::Pre;
            block.attention.positions = AttentionPositions::Alibi;
        }),
        blocks("absent norms after", &|block| block.attention_norm = None),
        blocks("relu, no biases", &|block| {
            block.feed_forward.function = InnerFunction::Relu;
            (block.feed_forward.bias, block.feed_forward.output_bias) = (false, false);
            (block.attention.bias, block.attention.output_bias) = (false, false);
        }),
        blocks("gated gelu", &|block| block.feed_forward.gated = true),
        blocks("silu, a window", &|block| {
            block.feed_forward.function = InnerFunction::Silu;
            block.attention.mask = Mask::Window(7);
        }),
        with("blocks that differ, as ModernBERT", &|spec| {
            (spec.embeddings.positions, spec.embeddings.segments) = (None, 0);
            (spec.embeddings.norm, spec.final_norm) = (NO_BIAS, NO_BIAS);
            for (index, block) in spec.blocks.iter_mut().enumerate() {
                block.order = NormOrder::Pre;
                (block.attention_norm, block.output_norm) = (NO_BIAS.filter(|_| index > 0), NO_BIAS);
                block.attention.head_size = 10;
                block.attention.positions = ROTARY;
                block.feed_forward.function = InnerFunction::Gelu(GeluForm::Tanh);
                block.feed_forward.gated = true;
            }
            spec.blocks[1].attention.mask = Mask::Window(20);
            spec.blocks[1].attention.positions = AttentionPositions::Rotary(Rotary { base: 160_000.0, divisor: 2.0 });
            spec.blocks[1].feed_forward.inner = 23;
        }),
        with("as Qwen3", &|spec| {
            (spec.embeddings.positions, spec.embeddings.segments, spec.embeddings.norm) = (None, 0, None);
            spec.final_norm = RMS;
            for block in &mut spec.blocks {
                block.order = NormOrder::Pre;
                (block.attention_norm, block.output_norm) = (RMS, RMS);
                block.attention = AttentionSpec {
                    heads: 4,
                    key_value_heads: 2,
                    head_size: 14,
                    mask: Mask::Causal,
                    positions: ROTARY,
                    head_norm: RMS,
                    bias: false,
                    output_bias: false,
                };
                block.feed_forward.function = InnerFunction::Silu;
                block.feed_forward.gated = true;
            }
        }),
        with("no blocks, a final norm", &|spec| {
            spec.blocks.clear();
            spec.final_norm = RMS;
        }),
    ]
}

fn forward(
    encoder: &Encoder,
    threads: usize,
    scratch: &mut Scratch,
    ids: &[u32],
    segments: &[u32],
    lengths: &[usize],
) -> Vec<f32> {
    let team = Team::new(NonZeroUsize::new(threads).unwrap()).unwrap();
    let mut out = vec![f32::NAN; ids.len() * encoder.hidden()];
    encoder.forward(&team, scratch, PackedTokens { ids, segments, lengths }, &mut out).unwrap();
    out
}

/// Ids of a batch, and segments that the spec has.
pub(super) fn batch_for(spec: &EncoderSpec, lengths: &[usize]) -> (Vec<u32>, Vec<u32>) {
    let (ids, mut segments) = batch(lengths);
    if spec.embeddings.segments == 0 {
        segments.fill(0);
    }
    (ids, segments)
}

#[test]
fn every_choice_agrees_with_the_formulas_by_sequences_and_by_columns() {
    for (name, spec) in specs() {
        let model = Model::new(spec);
        let encoder = model.encoder(WeightFormat::F32, TableFormat::F32);
        for length in [1, 7, LONGEST] {
            let (ids, segments) = batch_for(&model.spec, &[length]);
            let expected = model.reference(&ids, &segments);
            for threads in [1, 2, 5] {
                let got = forward(&encoder, threads, &mut Scratch::default(), &ids, &segments, &[length]);
                // Not `f32::max`, which skips NaN.
                let gaps =
                    got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs() / expected.abs().max(1.0));
                let worst = gaps.fold(0.0, |worst: f32, gap| if gap <= worst { worst } else { gap });
                assert!(worst < 2e-5, "{name}: {length} tokens on {threads} threads: {worst:e}");
            }
        }
    }
}

#[test]
fn lower_precisions_of_every_choice_stay_near_the_formulas() {
    let formats = [
        (WeightFormat::Int8, 0.995), // the errors of a gate and of what it gates multiply
        (WeightFormat::Blocks(BlockFormat::Q8_0), 0.999),
        (WeightFormat::Blocks(BlockFormat::Q4K), 0.999), // 32 and 64 inputs: kept in Q8_0
    ];
    for (name, mut spec) in specs() {
        // Weights in blocks need whole blocks.
        spec.hidden = 64;
        spec.embeddings.projected_from = spec.embeddings.projected_from.map(|_| 32);
        for block in &mut spec.blocks {
            (block.attention.head_size, block.feed_forward.inner) = (16, 96);
        }
        let model = Model::new(spec);
        let (ids, segments) = batch_for(&model.spec, &[40]);
        let expected = model.reference(&ids, &segments);
        for (format, bound) in formats {
            let encoder = model.encoder(format, TableFormat::Int8);
            let got = forward(&encoder, 1, &mut Scratch::default(), &ids, &segments, &[40]);
            for (got, expected) in got.chunks_exact(64).zip(expected.chunks_exact(64)) {
                let dot =
                    |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let cosine = dot(got, expected) / (dot(got, got) * dot(expected, expected)).sqrt();
                assert!(cosine > bound, "{name} in {format:?}: {cosine}");
            }
        }
    }
}

#[test]
fn every_choice_gives_the_same_bits_in_every_batch_and_on_any_number_of_threads() {
    let lengths = [3, 70, 1, 130, 16, 16, LONGEST, 2];
    for (name, spec) in specs() {
        let (model, hidden) = (Model::new(spec), 36);
        let (ids, segments) = batch_for(&model.spec, &lengths);
        for (format, table) in [(WeightFormat::F32, TableFormat::F32), (WeightFormat::Int8, TableFormat::Int8)] {
            let encoder = model.encoder(format, table);
            let scratch = &mut Scratch::default(); // still holds numbers of earlier batches
            let mut alone = Vec::new();
            let mut first = 0;
            for length in lengths {
                let tokens = first..first + length;
                alone.extend(forward(&encoder, 1, scratch, &ids[tokens.clone()], &segments[tokens], &[length]));
                first += length;
            }
            for (threads, size) in [(1, 3), (2, 1), (2, 8), (3, 2), (5, 1)] {
                let mut first = 0;
                for lengths in lengths.chunks(size) {
                    let tokens = first..first + lengths.iter().sum::<usize>();
                    let (ids, segments) = (&ids[tokens.clone()], &segments[tokens.clone()]);
                    let got = forward(&encoder, threads, scratch, ids, segments, lengths);
                    let alone = &alone[tokens.start * hidden..tokens.end * hidden];
                    let same = got.iter().zip(alone).all(|(got, alone)| got.to_bits() == alone.to_bits());
                    assert!(same, "{name} in {format:?}: {lengths:?} on {threads} threads");
                    first = tokens.end;
                }
            }
        }
    }
}
