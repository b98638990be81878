#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use std::num::NonZeroUsize;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Encoder, EncoderLayer, PackedTokens, Scratch};
use crate::Team;
use crate::bias_gelu::GeluForm;
use crate::embedding::{Embeddings, Table, TableFormat};
use crate::linear::{Activation, BlockFormat, Linear, WeightFormat};
use crate::residual_norm::LayerNorm;
use crate::{attention, linear, residual_norm};

const HIDDEN: usize = 64;
const INNER: usize = 96;
const HEADS: usize = 2;
const WORDS: usize = 50;
const POSITIONS: usize = 400;

/// The weights of a small encoder with two layers.
struct Parts {
    tables: [Vec<f32>; 3],
    /// Per layer: weight and bias of the four products in their order.
    linears: Vec<[(Vec<f32>, Vec<f32>); 4]>,
    norm: (Vec<f32>, Vec<f32>),
}

const SHAPES: [(usize, usize); 4] = [(HIDDEN, 3 * HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, INNER), (INNER, HIDDEN)];

fn parts() -> Parts {
    let mut random = StdRng::seed_from_u64(5);
    let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.random_range(-0.3..0.3)).collect() };
    let tables = [numbers(WORDS * HIDDEN), numbers(POSITIONS * HIDDEN), numbers(2 * HIDDEN)];
    let mut linears: Vec<_> =
        (0..2).map(|_| SHAPES.map(|(inputs, outputs)| (numbers(inputs * outputs), numbers(outputs)))).collect();
    for [query_key_value, ..] in &mut linears {
        // Small queries, so that softmax mixes keys instead of picking one out.
        query_key_value.0[..HIDDEN * HIDDEN].iter_mut().for_each(|weight| *weight *= 0.1);
    }
    let norm = (numbers(HIDDEN).iter().map(|x| 1.0 + x).collect(), numbers(HIDDEN));
    Parts { tables, linears, norm }
}

impl Parts {
    fn norm(&self) -> LayerNorm {
        LayerNorm::new(self.norm.0.clone(), self.norm.1.clone(), 1e-6).unwrap()
    }

    fn encoder(&self, format: WeightFormat, table: TableFormat) -> Encoder {
        let [words, positions, segments] = self.tables.clone().map(|values| Table::new(values, HIDDEN, table).unwrap());
        let layers = self.linears.iter().map(|linears| {
            let mut made = linears.iter().zip(SHAPES).map(|((weight, bias), (inputs, outputs))| {
                Linear::new(weight, Some(bias), inputs, outputs, format).unwrap()
            });
            let mut next = || made.next().unwrap();
            EncoderLayer {
                query_key_value: next(),
                attention_output: next(),
                attention_norm: self.norm(),
                up: next(),
                activation: Activation::Gelu(GeluForm::Erf),
                down: next(),
                output_norm: self.norm(),
            }
        });
        let layers = layers.collect();
        Encoder::new(Embeddings::new(words, positions, segments, self.norm()).unwrap(), layers, HEADS).unwrap()
    }

    /// The formulas of the module's head in f64, rounded to f32 between the parts.
    fn reference(&self, ids: &[u32], segments: &[u32]) -> Vec<f32> {
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

/// Sequences of these lengths with ids and segments that differ.
fn batch(lengths: &[usize]) -> (Vec<u32>, Vec<u32>) {
    let tokens: usize = lengths.iter().sum();
    let ids = (0..tokens as u32).map(|token| token * 7919 % WORDS as u32).collect();
    (ids, (0..tokens as u32).map(|token| token / 3 % 2).collect())
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
    let mut out = vec![f32::NAN; ids.len() * HIDDEN];
    encoder.forward(&team, scratch, PackedTokens { ids, segments, lengths }, &mut out).unwrap();
    out
}

#[test]
fn it_agrees_with_the_reference_by_sequences_and_by_columns() {
    let parts = parts();
    let encoder = parts.encoder(WeightFormat::F32, TableFormat::F32);
    for length in [1, 5, 40, 300] {
        let (ids, segments) = batch(&[length]);
        let expected = parts.reference(&ids, &segments);
        for threads in [1, 2, 5] {
            let got = forward(&encoder, threads, &mut Scratch::default(), &ids, &segments, &[length]);
            let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-5, "{length} tokens on {threads} threads: {worst:e}");
        }
    }
}

#[test]
fn lower_precisions_stay_near_the_reference() {
    let parts = parts();
    let (ids, segments) = batch(&[40]);
    let expected = parts.reference(&ids, &segments);
    let cases = [
        (WeightFormat::Int8, 0.999),
        (WeightFormat::Blocks(BlockFormat::Q8_0), 0.9995),
        (WeightFormat::Blocks(BlockFormat::Q4K), 0.9995), // 64 and 96 inputs: kept in Q8_0
    ];
    for (format, bound) in cases {
        let encoder = parts.encoder(format, TableFormat::Int8);
        let got = forward(&encoder, 1, &mut Scratch::default(), &ids, &segments, &[40]);
        for (got, expected) in got.chunks_exact(HIDDEN).zip(expected.chunks_exact(HIDDEN)) {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let cosine = dot(got, expected) / (dot(got, got) * dot(expected, expected)).sqrt();
            assert!(cosine > bound, "{format:?}: {cosine}");
        }
    }
}

#[test]
fn a_sequence_gives_the_same_bits_in_every_batch_and_on_any_number_of_threads() {
    let lengths = [3, 70, 1, 64, 130, 16, 16, 9, 300, 2];
    let (ids, segments) = batch(&lengths);
    for (format, table) in [
        (WeightFormat::F32, TableFormat::F32),
        (WeightFormat::Int8, TableFormat::Int8),
        (WeightFormat::Blocks(BlockFormat::Q8_0), TableFormat::Int8),
    ] {
        let encoder = parts().encoder(format, table);
        let scratch = &mut Scratch::default(); // with what earlier batches left in it
        let mut alone = Vec::new();
        let mut first = 0;
        for length in lengths {
            let tokens = first..first + length;
            alone.extend(forward(&encoder, 1, scratch, &ids[tokens.clone()], &segments[tokens], &[length]));
            first += length;
        }
        for threads in 1..=4 {
            for size in [1, 2, 3, lengths.len()] {
                let mut first = 0;
                for lengths in lengths.chunks(size) {
                    let tokens = first..first + lengths.iter().sum::<usize>();
                    let got =
                        forward(&encoder, threads, scratch, &ids[tokens.clone()], &segments[tokens.clone()], lengths);
                    let alone = &alone[tokens.start * HIDDEN..tokens.end * HIDDEN];
                    let same = got.iter().zip(alone).all(|(got, alone)| got.to_bits() == alone.to_bits());
                    assert!(same, "{format:?} {lengths:?} on {threads} threads");
                    first = tokens.end;
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let encoder = parts().encoder(WeightFormat::F32, TableFormat::F32);
    let team = Team::alone();
    let mut out = vec![7.0; 2 * HIDDEN];
    let cases: [(&[u32], &[u32], &[usize]); 6] = [
        (&[1, 2], &[0, 0], &[1]),
        (&[1], &[0, 0], &[2]),
        (&[1, 2], &[0], &[2]),
        (&[1, WORDS as u32], &[0, 0], &[2]),
        (&[1, 2], &[0, 2], &[2]),
        (&[1, 2], &[0, 0], &[2, 0]),
    ];
    for (ids, segments, lengths) in cases {
        let tokens = PackedTokens { ids, segments, lengths };
        assert!(encoder.forward(&team, &mut Scratch::default(), tokens, &mut out).is_err(), "{tokens:?}");
    }
    assert!(out.iter().all(|x| x.to_bits() == 7.0_f32.to_bits()));
    assert!(forward(&encoder, 1, &mut Scratch::default(), &[], &[], &[]).is_empty());
}

#[test]
fn parts_of_another_width_are_refused_by_name() {
    let parts = parts();
    let mut layers = parts.encoder(WeightFormat::F32, TableFormat::F32).layers;
    layers[1].down = Linear::new(&[0.0; HIDDEN * HIDDEN], None, HIDDEN, HIDDEN, WeightFormat::F32).unwrap();
    let [words, positions, segments] = parts.tables.clone().map(|v| Table::new(v, HIDDEN, TableFormat::F32).unwrap());
    let embeddings = Embeddings::new(words, positions, segments, parts.norm()).unwrap();
    let refused = Encoder::new(embeddings, layers, HEADS).unwrap_err().to_string();
    assert!(refused.starts_with("layer 1: down must be 96 to 64"), "{refused}");
}
