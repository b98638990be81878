#![expect(clippy::cast_possible_truncation, reason = "references in f64")]

use std::num::NonZeroUsize;

use super::cases::{Case, TOLERANCE, cases, huge_scores, numbers};
use super::positions::{DistanceBias, HeadRotation, PositionKinds, PositionTables};
use super::reference::biased_attention;
use super::{AttentionHeads, Scratch, attend, attention};
use crate::encoder::{Mask, RelativeBias, Rotary, rows_of};
use crate::residual_norm::{LayerNorm, RmsNorm, RowNorm};
use crate::rows::{Rows, RowsMut};
use crate::{Isa, Team};

#[test]
fn every_instruction_set_agrees_with_the_reference_at_every_length_and_head_size() {
    let mut scratch = Scratch::default(); // used again with what earlier cases left in it
    for case in cases() {
        let expected = case.expected(&case.packed);
        for isa in Isa::available() {
            let got = run(*isa, &case, &mut scratch);
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let Case { lengths, heads, size, .. } = &case;
                let error = (f64::from(*got) - expected).abs();
                assert!(error < TOLERANCE, "{isa} {lengths:?}x{heads}x{size} at {at}: {got} {expected}");
            }
        }
    }
}

/// Runs each sequence by itself.
fn run(isa: Isa, case: &Case, scratch: &mut Scratch) -> Vec<f32> {
    let (tokens, heads, hidden) = (case.tokens(), case.heads, case.hidden());
    let mut out = vec![f32::NAN; tokens * hidden];
    let packed = Rows::new(&case.packed, tokens, 3 * hidden, 3 * hidden);
    let mut to = RowsMut::new(&mut out, tokens, hidden, hidden);
    for rows in rows_of(&case.lengths) {
        let out = to.part(rows.clone(), 0..hidden);
        let (spec, tables) = (AttentionHeads::full(heads, case.size), PositionTables::default());
        attend(isa, packed.part(rows, 0..3 * hidden), &spec, &tables, 0..heads, out, scratch);
    }
    out
}

/// The output of `heads` for one sequence of query, key and value side by side.
fn attended(
    isa: Isa,
    heads: &AttentionHeads,
    tables: &PositionTables,
    packed: &[f32],
    scratch: &mut Scratch,
) -> Vec<f32> {
    let (packed_columns, columns) = (heads.packed_columns(), heads.columns());
    let tokens = packed.len() / packed_columns;
    let mut out = vec![f32::NAN; tokens * columns];
    let to = RowsMut::new(&mut out, tokens, columns, columns);
    let packed = Rows::new(packed, tokens, packed_columns, packed_columns);
    attend(isa, packed, heads, tables, 0..heads.queries, to, scratch);
    out
}

fn assert_near(got: &[f32], expected: &[f64], what: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), expected.len());
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(*got) - expected).abs() < TOLERANCE, "{what:?} at {at}: {got} {expected}");
    }
}

/// Number `which` of the columns of heads in each row.
fn head_of(packed: &[f32], heads: &AttentionHeads, which: usize) -> Vec<f32> {
    let of_row = |row: &[f32]| row[which * heads.size..(which + 1) * heads.size].to_vec();
    packed.chunks_exact(heads.packed_columns()).flat_map(of_row).collect()
}

#[test]
fn masks_biases_and_shared_keys_agree_with_the_reference_on_every_instruction_set() {
    let relative = RelativeBias { buckets: 8, max_distance: 40 };
    let learned = numbers(8, 8 * 4, 2.0);
    let kinds = PositionKinds {
        biases: [(true, false), (false, true), (true, true)]
            .map(|(relative, alibi)| DistanceBias { heads: 4, relative, alibi })
            .into(),
        rotations: Vec::new(),
        relative: Some((relative, learned.clone())),
    };
    let slopes = [0.25, 0.0625, 0.015_625, 0.003_906_25];
    let (mut tables, mut scratch) = (PositionTables::default(), Scratch::default());
    let masks =
        [Mask::Full, Mask::Causal, Mask::Window(0), Mask::Window(3), Mask::Window(64), Mask::Window(usize::MAX)];
    for (tokens, size, keys) in [(1, 5, 4), (26, 8, 2), (300, 7, 1), (530, 32, 2)] {
        tables.reach(&kinds, tokens);
        for (mask, bias) in
            masks.into_iter().flat_map(|mask| [None, Some(0), Some(1), Some(2)].map(|bias| (mask, bias)))
        {
            let heads = AttentionHeads { keys, mask, bias, ..AttentionHeads::full(4, size) };
            let packed = numbers(tokens as u64, tokens * heads.packed_columns(), 1.5);
            let mut expected = vec![0.0; tokens * heads.columns()];
            for head in 0..4 {
                let (shared, kind) = (head / (4 / keys), bias.map(|bias| kinds.biases[bias]));
                let bias_of = |query: usize, key: usize| {
                    let distance = key.cast_signed() - query.cast_signed();
                    let sees = match mask {
                        Mask::Full => true,
                        Mask::Causal => distance <= 0,
                        Mask::Window(most) => distance.unsigned_abs() <= most,
                    };
                    let learned = f64::from(learned[relative.bucket(distance) * 4 + head]);
                    let bias = kind.map_or(0.0, |kind| {
                        let slope = if kind.alibi { slopes[head] } else { 0.0 };
                        (if kind.relative { learned } else { 0.0 }) - slope * distance.unsigned_abs() as f64
                    });
                    sees.then_some(bias)
                };
                let [query, key, value] = [head, 4 + shared, 4 + keys + shared].map(|at| head_of(&packed, &heads, at));
                let mixed = biased_attention(&query, &key, &value, size, &bias_of);
                for (to, from) in expected.chunks_exact_mut(4 * size).zip(mixed.chunks_exact(size)) {
                    to[head * size..][..size].copy_from_slice(from);
                }
            }
            for isa in Isa::available() {
                let got = attended(*isa, &heads, &tables, &packed, &mut scratch);
                assert_near(&got, &expected, &(isa, tokens, &heads));
            }
        }
    }
}

#[test]
fn queries_and_keys_are_normalised_and_rotated_by_head() {
    let (tokens, heads, keys) = (40, 4, 2);
    for (size, rotary) in [(6, Rotary { base: 10_000.0, divisor: 1.0 }), (64, Rotary { base: 500.0, divisor: 4.0 })] {
        let kinds = PositionKinds { rotations: vec![HeadRotation { rotary, head_size: size }], ..Default::default() };
        let mut tables = PositionTables::default();
        tables.reach(&kinds, tokens);
        let weights = [1, 2].map(|seed| numbers(seed, size, 1.5));
        let rms = || weights.clone().map(|weight| RowNorm::Rms(RmsNorm::new(weight, 1e-6).unwrap()));
        let layer =
            || weights.clone().map(|weight| RowNorm::Layer(LayerNorm::new(weight, vec![0.1; size], 1e-6).unwrap()));
        for (norms, rotation) in
            [(Some(rms()), None), (Some(layer()), Some(0)), (None, Some(0)), (Some(rms()), Some(0))]
        {
            let spec = AttentionHeads { keys, rotation, norms, ..AttentionHeads::full(heads, size) };
            let packed = numbers(5, tokens * spec.packed_columns(), 1.0);
            // The same numbers, prepared here by the formulas; attention without preparation is tested above.
            let mut prepared = packed.clone();
            for (position, row) in prepared.chunks_exact_mut(spec.packed_columns()).enumerate() {
                for (at, head) in row.chunks_exact_mut(size).take(heads + keys).enumerate() {
                    let zeros = vec![0.0; size];
                    let normed = match spec.norms.as_ref().map(|norms| &norms[usize::from(at >= heads)]) {
                        None => head.iter().map(|x| f64::from(*x)).collect(),
                        Some(RowNorm::Rms(_)) => {
                            let weight = &weights[usize::from(at >= heads)];
                            crate::residual_norm::reference::rms_norm(head, weight, 1e-6)
                        }
                        Some(RowNorm::Layer(_)) => {
                            let (weight, bias) = (&weights[usize::from(at >= heads)], vec![0.1; size]);
                            crate::residual_norm::reference::residual_norm(head, &zeros, weight, &bias, 1e-6)
                        }
                    };
                    for i in 0..size / 2 {
                        let angle = if rotation.is_some() { rotary.angle(position, i, size) } else { 0.0 };
                        let (sine, cosine) = angle.sin_cos();
                        let (x, y) = (normed[i], normed[i + size / 2]);
                        head[i] = (x * cosine - y * sine) as f32;
                        head[i + size / 2] = (y * cosine + x * sine) as f32;
                    }
                }
            }
            let plain = AttentionHeads { keys, ..AttentionHeads::full(heads, size) };
            for isa in Isa::available() {
                let got = attended(*isa, &spec, &tables, &packed, &mut Scratch::default());
                let expected = attended(*isa, &plain, &tables, &prepared, &mut Scratch::default());
                let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
                assert_near(&got, &expected, &(isa, &spec));
            }
        }
    }
}

#[test]
fn keys_far_outside_a_window_or_after_a_causal_query_are_never_touched() {
    let tokens = 700;
    for isa in Isa::available() {
        for (mask, poisoned, touched) in [(Mask::Window(5), 0, 0..100), (Mask::Causal, 699, 600..700)] {
            let heads = AttentionHeads { mask, ..AttentionHeads::full(1, 8) };
            let mut packed = numbers(6, tokens * 24, 1.0);
            packed[poisoned * 24 + 8..][..16].fill(f32::NAN);
            let out = attended(*isa, &heads, &PositionTables::default(), &packed, &mut Scratch::default());
            for (query, row) in out.chunks_exact(8).enumerate().filter(|(query, _)| !touched.contains(query)) {
                assert!(row.iter().all(|x| x.is_finite()), "{isa} {mask:?}: query {query}");
            }
        }
    }
}

#[test]
fn some_heads_give_the_same_bits_as_all_of_them() {
    let tokens = 33;
    let kinds = PositionKinds {
        rotations: vec![HeadRotation { rotary: Rotary { base: 10_000.0, divisor: 1.0 }, head_size: 10 }],
        ..Default::default()
    };
    let mut tables = PositionTables::default();
    tables.reach(&kinds, tokens);
    let heads = AttentionHeads { keys: 2, rotation: Some(0), mask: Mask::Causal, ..AttentionHeads::full(6, 10) };
    let packed = numbers(7, tokens * heads.packed_columns(), 1.0);
    let all = attended(Isa::best(), &heads, &tables, &packed, &mut Scratch::default());
    let rows = Rows::new(&packed, tokens, heads.packed_columns(), heads.packed_columns());
    for which in [0..1, 1..4, 4..6] {
        let columns = which.len() * 10;
        let mut out = vec![f32::NAN; tokens * columns];
        let to = RowsMut::new(&mut out, tokens, columns, columns);
        attend(Isa::best(), rows, &heads, &tables, which.clone(), to, &mut Scratch::default());
        for (some, all) in out.chunks_exact(columns).zip(all.chunks_exact(60)) {
            let all = &all[which.start * 10..which.end * 10];
            assert!(some.iter().zip(all).all(|(some, all)| some.to_bits() == all.to_bits()), "{which:?}");
        }
    }
}

#[test]
fn huge_scores_neither_overflow_nor_vanish() {
    for isa in Isa::available() {
        let out = run(*isa, &huge_scores(), &mut Scratch::default());
        assert!(
            out.chunks_exact(8).all(|row| (row[0] - 290.0).abs() < 1e-3 && row[1] == 0.0),
            "{isa}: {:?}",
            &out[..8]
        );
    }
}

#[test]
fn a_sequence_gives_the_same_bits_alone_and_beside_others_on_any_number_of_threads() {
    let lengths = [5, 1, 40, 300, 17];
    let (heads, hidden) = (4, 64);
    let tokens: usize = lengths.iter().sum();
    let packed = numbers(3, tokens * 3 * hidden, 1.0);
    let mut alone = Vec::new();
    let mut first = 0;
    for length in lengths {
        let mut out = vec![f32::NAN; length * hidden];
        let rows = &packed[first * 3 * hidden..(first + length) * 3 * hidden];
        attention(&Team::alone(), rows, &[length], heads, &mut out).unwrap();
        alone.extend(out);
        first += length;
    }
    for threads in [1, 2, 5] {
        let team = Team::new(NonZeroUsize::new(threads).unwrap()).unwrap();
        let mut out = vec![f32::NAN; tokens * hidden];
        attention(&team, &packed, &lengths, heads, &mut out).unwrap();
        assert!(out.iter().zip(&alone).all(|(out, alone)| out.to_bits() == alone.to_bits()), "{threads} threads");
    }
}

#[test]
fn lengths_and_heads_that_do_not_fit_are_refused() {
    let team = Team::alone();
    let mut out = [0.0; 12];
    for (packed, lengths, heads) in [(36, &[2, 2][..], 2), (35, &[3], 2), (36, &[3], 0), (36, &[3], 3), (36, &[], 1)] {
        assert!(
            attention(&team, &vec![0.0; packed], lengths, heads, &mut out).is_err(),
            "{packed} {lengths:?} {heads}"
        );
    }
    attention(&team, &[0.0; 36], &[1, 2], 2, &mut out).unwrap();
    attention(&team, &[], &[], 2, &mut []).unwrap();
}
