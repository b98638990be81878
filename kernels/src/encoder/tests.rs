#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use std::num::NonZeroUsize;

use super::cases::{HEADS, HIDDEN, INNER, POSITIONS, WORDS, batch, bert, parts};
use super::{Encoder, PackedParts, PackedTokens, Scratch};
use crate::Team;
use crate::embedding::TableFormat;
use crate::linear::{BlockFormat, Linear, WeightFormat};
use crate::residual_norm::{RmsNorm, RowNorm};

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
        let scratch = &mut Scratch::default(); // still holds numbers of earlier batches
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
    let spec = bert([HIDDEN, INNER, HEADS, WORDS, POSITIONS], 2);
    let refused = |change: &dyn Fn(&mut PackedParts)| {
        let mut packed = parts.packed(WeightFormat::F32, TableFormat::F32);
        change(&mut packed);
        Encoder::new(&spec, packed).unwrap_err().to_string()
    };
    let square = || Linear::new(&[0.0; HIDDEN * HIDDEN], None, HIDDEN, HIDDEN, WeightFormat::F32).unwrap();
    let gated = || {
        let (weight, bias) = (&vec![0.0; HIDDEN * INNER][..], &[0.0; INNER][..]);
        Linear::gated([(weight, bias); 2], HIDDEN, INNER, WeightFormat::F32).unwrap()
    };
    let rms = || Some(RowNorm::Rms(RmsNorm::new(vec![1.0; HIDDEN], 1e-6).unwrap()));
    for (change, expected) in [
        (
            &(|packed: &mut PackedParts| packed.layers[1].down = square()) as &dyn Fn(&mut PackedParts),
            "layer 1: down must be 96 to 64",
        ),
        (&|packed| packed.layers[0].up = gated(), "layer 0: up must be 64 to 96, but is Linear(64 to 96, gated"),
        (&|packed| packed.layers[0].output_norm = None, "layer 0: output_norm is absent"),
        (&|packed| packed.layers[0].attention_norm = rms(), "layer 0: attention_norm is an RMS norm"),
        (&|packed| packed.final_norm = rms(), "final_norm is an RMS norm"),
        (&|packed| packed.embedding_projection = Some(square()), "embedding_projection is Some"),
        (&|packed| packed.relative_bias = Some(vec![0.0; 4]), "relative_bias has Some(4)"),
        (&|packed| packed.layers.truncate(1), "1 layers for 2 blocks"),
    ] {
        let refused = refused(change);
        assert!(refused.starts_with(expected), "{refused}");
    }
}
