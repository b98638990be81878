use super::*;
use crate::Team;
use crate::cuda::tests::each_new_gpu;
use crate::embedding::TableFormat;
use crate::encoder::Scratch;
use crate::encoder::cases::{HEADS, HIDDEN, INNER, POSITIONS, Parts, WORDS, batch, bert, parts};
use crate::encoder::choices::{LONGEST, batch_for, model::Model, specs};
use crate::encoder::{HeadFunction, HeadSpec, Mask, NormKind, NormSpec};
use crate::linear::{self, WeightFormat};
use crate::pooling::Pooling;
use crate::residual_norm::{LayerNorm, reference};

const PRECISIONS: [CudaPrecision; 4] =
    [CudaPrecision::F32, CudaPrecision::F16, CudaPrecision::Bf16, CudaPrecision::Int8];

/// The precisions that the device has.
fn precisions(open: &dyn Fn() -> Gpu) -> impl Iterator<Item = CudaPrecision> {
    let bf16 = open().has_bf16();
    PRECISIONS.into_iter().filter(move |precision| bf16 || *precision != CudaPrecision::Bf16)
}

/// The spec of [`Parts`] with this head.
fn spec_with(head: HeadSpec) -> EncoderSpec {
    EncoderSpec { head, ..bert([HIDDEN, INNER, HEADS, WORDS, POSITIONS], 2) }
}

impl Parts {
    fn outer(&self, head: Vec<HeadWeights>) -> OuterWeights {
        OuterWeights {
            embeddings: self.embeddings(TableFormat::F32),
            embedding_projection: None,
            relative_bias: None,
            final_norm: None,
            head,
        }
    }

    fn on(&self, gpu: Gpu, precision: CudaPrecision, pooling: Pooling) -> CudaEncoder {
        self.with_head(gpu, precision, HeadSpec::pooled(pooling), Vec::new())
    }

    fn with_head(&self, gpu: Gpu, precision: CudaPrecision, head: HeadSpec, weights: Vec<HeadWeights>) -> CudaEncoder {
        let mut encoder = CudaEncoder::new(gpu, precision, &spec_with(head), self.outer(weights)).unwrap();
        for index in 0..self.linears.len() {
            encoder.push(&self.layer(index)).unwrap();
        }
        encoder
    }

    /// The token vectors of the CPU's encoder.
    fn on_cpu(&self, format: WeightFormat, tokens: PackedTokens<'_>) -> Vec<f32> {
        let table = if format == WeightFormat::F32 { TableFormat::F32 } else { TableFormat::Int8 };
        let mut out = vec![0.0; tokens.ids.len() * HIDDEN];
        self.encoder(format, table).forward(&Team::alone(), &mut Scratch::default(), tokens, &mut out).unwrap();
        out
    }
}

/// The largest difference, divided by the expected value if that is above 1.
fn largest_gap(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let gap = |(got, expected): (&f32, &f32)| (got - expected).abs() / expected.abs().max(1.0);
    // Not `f32::max`, which skips NaN.
    got.iter().zip(expected).map(gap).fold(0.0, |worst, gap| if gap <= worst { worst } else { gap })
}

/// The root of the mean square of the differences.
fn deviation(got: &[f32], expected: &[f32]) -> f32 {
    let squares = got.iter().zip(expected).map(|(got, expected)| (got - expected).powi(2)).sum::<f32>();
    (squares / got.len() as f32).sqrt()
}

fn pooled(tokens: &[f32], lengths: &[usize], pooling: Pooling) -> Vec<f32> {
    let mut out = vec![0.0; lengths.len() * HIDDEN];
    crate::pooling::pool(tokens, lengths, HIDDEN, pooling, &mut out).unwrap();
    out
}

#[test]
fn every_version_and_precision_agrees_with_the_cpu() {
    let (parts, lengths) = (parts(), [3, 40, 1, 64, 130]);
    let (ids, segments) = batch(&lengths);
    let tokens = PackedTokens { ids: &ids, segments: &segments, lengths: &lengths };
    let expected = parts.on_cpu(WeightFormat::F32, tokens);
    for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Last] {
        let expected = pooled(&expected, &lengths, pooling);
        let int8 = pooled(&parts.on_cpu(WeightFormat::Int8, tokens), &lengths, pooling);
        let int8_deviation = deviation(&int8, &expected);
        each_new_gpu(|open| {
            for precision in precisions(open) {
                let mut encoder = parts.on(open(), precision, pooling);
                let mut got = vec![f32::NAN; lengths.len() * HIDDEN];
                encoder.forward(tokens, &mut got).unwrap();
                let (error, bound) = match precision {
                    CudaPrecision::F32 => (largest_gap(&got, &expected), 1e-5),
                    // With random weights, a few elements are further off than in trained models (tested in
                    // `models/src/encoder/tests.rs`), so the mean over all is compared. bf16 has 3 bits less.
                    CudaPrecision::F16 => (deviation(&got, &expected), 1e-3),
                    CudaPrecision::Bf16 => (deviation(&got, &expected), 8e-3),
                    // About as far from f32 as the CPU's int8; which of the two is nearer is chance.
                    CudaPrecision::Int8 => (deviation(&got, &expected), 1.25 * int8_deviation),
                };
                println!("{encoder:?} {pooling:?}: {error:.1e} of {bound:.1e}");
                assert!(error <= bound, "{encoder:?} {pooling:?}: {error:e}, allowed {bound:e}");
            }
        });
    }
}

#[test]
fn a_sequence_gives_the_same_alone_and_in_every_batch() {
    let (parts, lengths) = (parts(), [3, 70, 1, 64, 16]);
    let (ids, segments) = batch(&lengths);
    each_new_gpu(|open| {
        for precision in precisions(open) {
            let bound = [1e-5, 2e-3, 1e-2, 2e-3][precision as usize];
            let mut encoder = parts.on(open(), precision, Pooling::Mean);
            let mut forward = |tokens: std::ops::Range<usize>, lengths: &[usize]| {
                let mut out = vec![f32::NAN; lengths.len() * HIDDEN];
                let tokens = PackedTokens { ids: &ids[tokens.clone()], segments: &segments[tokens], lengths };
                encoder.forward(tokens, &mut out).unwrap();
                out
            };
            // The largest batch first, so that the later ones run in memory that holds its numbers.
            let together = forward(0..ids.len(), &lengths);
            let mut first = 0;
            for (length, together) in lengths.iter().zip(together.chunks_exact(HIDDEN)) {
                let worst = largest_gap(&forward(first..first + length, &[*length]), together);
                assert!(worst <= bound, "{precision:?} {length} tokens: {worst:e}");
                first += length;
            }
        }
    });
}

#[test]
fn recorded_batches_give_the_same_as_those_that_are_queued() {
    let parts = parts();
    each_new_gpu(|open| {
        for precision in precisions(open) {
            let bound = [1e-5, 2e-3, 1e-2, 2e-3][precision as usize];
            let [mut queued, mut recorded] = [(); 2].map(|()| parts.on(open(), precision, Pooling::Cls));
            recorded.use_graphs();
            // Each shape three times: queued, recorded, replayed. A larger one in between has the workspace allocated
            // anew, and some are others of the same bucket.
            let batches: [&[usize]; 11] = [
                &[5, 9],
                &[5, 9],
                &[5, 9],
                &[9, 2],
                &[70, 3, 40],
                &[5, 9],
                &[14],
                &[70, 3, 40],
                &[70, 3, 40],
                &[64, 1, 40],
                &[16],
            ];
            for lengths in batches {
                let (ids, segments) = batch(lengths);
                let tokens = PackedTokens { ids: &ids, segments: &segments, lengths };
                let [mut expected, mut got] = [(); 2].map(|()| vec![f32::NAN; lengths.len() * HIDDEN]);
                queued.forward(tokens, &mut expected).unwrap();
                recorded.forward(tokens, &mut got).unwrap();
                let worst = largest_gap(&got, &expected);
                assert!(worst <= bound, "{recorded:?} {lengths:?}: {worst:e}");
            }
        }
    });
}

#[test]
fn a_classifier_stands_on_the_first_tokens() {
    let (parts, lengths) = (parts(), [5, 1, 20]);
    let (ids, segments) = batch(&lengths);
    let tokens = PackedTokens { ids: &ids, segments: &segments, lengths: &lengths };
    let numbers = |count: usize| (0..count).map(|at| (at * 37 % 101) as f32 / 500.0 - 0.1).collect::<Vec<f32>>();
    let pooler = Dense { weight: numbers(HIDDEN * HIDDEN), bias: numbers(HIDDEN) };
    let classifier = Dense { weight: numbers(3 * HIDDEN), bias: numbers(3) };
    let cls = pooled(&parts.on_cpu(WeightFormat::F32, tokens), &lengths, Pooling::Cls);
    let linear = |x: &[f32], dense: &Dense| -> Vec<f32> {
        let identity = linear::Activation::Identity;
        let y = linear::reference::linear(x, &dense.weight, &dense.bias, HIDDEN, identity);
        #[expect(clippy::cast_possible_truncation, reason = "a reference in f64")]
        y.into_iter().map(|y| y as f32).collect()
    };
    let between: Vec<f32> = linear(&cls, &pooler).into_iter().map(f32::tanh).collect();
    let expected = linear(&between, &classifier);
    let product = |outputs, function| HeadStep::Product { outputs, bias: true, function };
    let steps = vec![product(HIDDEN, HeadFunction::Tanh), product(3, HeadFunction::Identity)];
    let head = HeadSpec { steps, ..HeadSpec::pooled(Pooling::Cls) };
    each_new_gpu(|open| {
        for precision in precisions(open) {
            let bound = [1e-5, 2e-3, 1e-2, 2e-2][precision as usize];
            let weights = [&pooler, &classifier].map(|dense| HeadWeights::Product(dense.clone()));
            let mut encoder = parts.with_head(open(), precision, head.clone(), weights.into());
            let mut got = vec![f32::NAN; 9];
            encoder.forward(tokens, &mut got).unwrap();
            let worst = largest_gap(&got, &expected);
            assert!(encoder.outputs() == 3 && worst <= bound, "{encoder:?}: {worst:e}");
        }
    });
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let parts = parts();
    each_new_gpu(|open| {
        let mut encoder = parts.on(open(), CudaPrecision::F32, Pooling::Mean);
        let mut out = vec![7.0; HIDDEN];
        let beyond = u32::try_from(WORDS).unwrap();
        let cases: [(&[u32], &[u32], &[usize]); 5] = [
            (&[1, 2], &[0, 0], &[1]),
            (&[1, 2], &[0], &[2]),
            (&[1, beyond], &[0, 0], &[2]),
            (&[1, 2], &[0, 2], &[2]),
            (&[1, 2], &[0, 0], &[2, 0]),
        ];
        for (ids, segments, lengths) in cases {
            let tokens = PackedTokens { ids, segments, lengths };
            assert!(encoder.forward(tokens, &mut out).is_err(), "{tokens:?}");
        }
        assert!(out.iter().all(|x| x.to_bits() == 7.0_f32.to_bits()));
        encoder.forward(PackedTokens { ids: &[], segments: &[], lengths: &[] }, &mut []).unwrap();

        assert!(encoder.push(&parts.layer(0)).is_err(), "there are as many layers as blocks");
        let spec = spec_with(HeadSpec::pooled(Pooling::Cls));
        let made = |spec: &EncoderSpec, weights| CudaEncoder::new(open(), CudaPrecision::F32, spec, weights);
        let mut encoder = made(&spec, parts.outer(Vec::new())).unwrap();
        let tokens = PackedTokens { ids: &[1], segments: &[0], lengths: &[1] };
        let missing = encoder.forward(tokens, &mut out).unwrap_err().to_string();
        assert!(missing.contains("0 layers for 2 blocks"), "{missing}");
        let mut layer = parts.layer(0);
        layer.down.bias.pop();
        let refused = encoder.push(&layer).unwrap_err().to_string();
        assert!(refused.starts_with("layer 0: down of 6144 weights and 63 biases"), "{refused}");
        let mut layer = parts.layer(0);
        layer.gate = Some(layer.up.clone());
        let refused = encoder.push(&layer).unwrap_err().to_string();
        assert!(refused.starts_with("layer 0: gate is there"), "{refused}");

        let refused = |spec: &EncoderSpec, weights| made(spec, weights).expect_err("it is refused").to_string();
        let step = HeadWeights::Product(parts.layer(0).down);
        assert!(refused(&spec, parts.outer(vec![step])).contains("weights of 1 steps for a head of 0"));
        let bytes = OuterWeights { embeddings: parts.embeddings(TableFormat::Int8), ..parts.outer(Vec::new()) };
        assert!(refused(&spec, bytes).contains("kept in f32"));
        let projected = OuterWeights { embedding_projection: Some(parts.layer(0).up), ..parts.outer(Vec::new()) };
        assert!(refused(&spec, projected).contains("embedding_projection is there"));
        let normed = OuterWeights { final_norm: Some(parts.norm()), ..parts.outer(Vec::new()) };
        assert!(refused(&spec, normed).contains("final_norm"));
    });
}

#[test]
fn sizes_that_kernels_do_not_take_are_refused_by_name_and_precision() {
    let refused = |precision, change: fn(&mut EncoderSpec)| {
        let mut spec = spec_with(HeadSpec::pooled(Pooling::Cls));
        change(&mut spec);
        CudaEncoder::check(&spec, precision).err().map(|error| error.to_string())
    };
    let both = |change| [CudaPrecision::F32, CudaPrecision::Int8].map(|precision| refused(precision, change));
    assert_eq!(both(|_| {}), [None, None]);
    let [float, int8] = both(|spec| spec.blocks[1].attention.head_size = 129);
    assert!(float.is_some_and(|error| error.contains("block 1: head_size is 129; a GPU takes at most 128")));
    assert!(int8.is_some());
    let [float, int8] = both(|spec| spec.blocks[0].feed_forward.inner = 20_000);
    assert!(float.is_none() && int8.is_some_and(|error| error.contains("inner: rows of 20000")));
    let [float, _] = both(|spec| spec.hidden = 20_000);
    assert!(float.is_some_and(|error| error.contains("hidden: rows of 20000")));
    let [float, _] = both(|spec| spec.block_runs = 0);
    assert!(float.is_some_and(|error| error.contains("block_runs is 0")));
}

/// Specs of all choices, as they are and with heads that tensor cores take.
fn all_specs() -> impl Iterator<Item = (&'static str, EncoderSpec)> {
    let even = specs().into_iter().map(|(name, mut spec)| {
        spec.hidden = 64;
        for block in &mut spec.blocks {
            (block.attention.head_size, block.feed_forward.inner) = (16, 96);
        }
        (name, spec)
    });
    specs().into_iter().chain(even)
}

#[test]
fn every_choice_of_a_spec_agrees_with_the_formulas_in_every_version_and_precision() {
    let lengths = [7, 1, 90];
    for (name, spec) in all_specs() {
        let model = Model::new(spec);
        let hidden = model.spec.hidden;
        let (ids, segments) = batch_for(&model.spec, &lengths);
        let tokens = PackedTokens { ids: &ids, segments: &segments, lengths: &lengths };
        let mut expected = Vec::new();
        for rows in crate::encoder::rows_of(&lengths) {
            expected.extend(model.reference(&ids[rows.clone()], &segments[rows]));
        }
        let cpu = model.encoder(WeightFormat::Int8, TableFormat::Int8);
        let mut int8 = vec![0.0; expected.len()];
        cpu.forward(&Team::alone(), &mut Scratch::default(), tokens, &mut int8).unwrap();
        let size = deviation(&expected, &vec![0.0; expected.len()]);
        each_new_gpu(|open| {
            // Odd heads of 16-bit floats take the plain path, as even ones do in the lowest version.
            let odd = hidden == 36;
            let one_is_enough = |precision| odd && matches!(precision, CudaPrecision::F16 | CudaPrecision::Bf16);
            for precision in precisions(open).filter(|precision| !one_is_enough(*precision)) {
                let mut encoder = model.on(open(), precision);
                assert_eq!((encoder.rows(&lengths), encoder.outputs()), (98, hidden));
                let mut got = vec![f32::NAN; expected.len()];
                encoder.forward(tokens, &mut got).unwrap();
                let (error, bound) = match precision {
                    CudaPrecision::F32 => (largest_gap(&got, &expected), 2e-5),
                    CudaPrecision::F16 => (deviation(&got, &expected) / size, 3e-3),
                    CudaPrecision::Bf16 => (deviation(&got, &expected) / size, 2.4e-2),
                    CudaPrecision::Int8 => (deviation(&got, &expected), 1.25 * deviation(&int8, &expected)),
                };
                println!("{name}, {encoder:?}: {error:.1e} of {bound:.1e}");
                assert!(error <= bound, "{name}, {encoder:?}: {error:e}, allowed {bound:e}");
            }
        });
    }
}

#[test]
fn tables_of_positions_grow_with_the_longest_sequence_and_recorded_batches_follow() {
    let with_positions = |(_, spec): &(&str, EncoderSpec)| {
        let masked = spec.blocks.iter().any(|block| block.attention.mask == Mask::Causal);
        spec.relative_bias.is_some() || masked || spec.block_runs > 1
    };
    for (name, spec) in specs().into_iter().filter(with_positions) {
        let model = Model::new(spec);
        each_new_gpu(|open| {
            let [mut queued, mut recorded] = [(); 2].map(|()| model.on(open(), CudaPrecision::F32));
            recorded.use_graphs();
            let batches: [&[usize]; 9] =
                [&[5, 9], &[5, 9], &[5, 9], &[9, 2], &[40], &[40], &[LONGEST], &[5, 9], &[5, 9]];
            for lengths in batches {
                let (ids, segments) = batch_for(&model.spec, lengths);
                let tokens = PackedTokens { ids: &ids, segments: &segments, lengths };
                let [mut expected, mut got] = [(); 2].map(|()| vec![f32::NAN; ids.len() * model.spec.hidden]);
                queued.forward(tokens, &mut expected).unwrap();
                recorded.forward(tokens, &mut got).unwrap();
                let worst = largest_gap(&got, &expected);
                assert!(worst <= 1e-5, "{name} {lengths:?}: {worst:e}");
            }
        });
    }
}

#[test]
fn a_head_of_tokens_or_of_their_greatest_goes_through_products_and_norms() {
    // More tokens than a sparse head takes at once.
    let (parts, lengths) = (parts(), [5, 200, 1, 70]);
    let (ids, segments) = batch(&lengths);
    let tokens = PackedTokens { ids: &ids, segments: &segments, lengths: &lengths };
    let numbers = |count: usize| (0..count).map(|at| (at * 37 % 101) as f32 / 500.0 - 0.1).collect::<Vec<f32>>();
    let dense = |inputs: usize, outputs: usize| Dense { weight: numbers(inputs * outputs), bias: numbers(outputs) };
    let (first, last, ones) = (dense(HIDDEN, 20), dense(20, 33), vec![1.0; 20]);
    let eps = 1e-3;
    let norm = NormSpec { kind: NormKind::Layer { bias: true }, eps };
    let product = |outputs, function| HeadStep::Product { outputs, bias: true, function };
    let steps = vec![product(20, HeadFunction::Silu), HeadStep::Norm(norm), product(33, HeadFunction::Identity)];
    let weights = || {
        let norm = LayerNorm::new(ones.clone(), numbers(20), eps).unwrap().into();
        vec![HeadWeights::Product(first.clone()), HeadWeights::Norm(norm), HeadWeights::Product(last.clone())]
    };
    let rows = parts.on_cpu(WeightFormat::F32, tokens);
    let of_row = |row: &[f32]| -> Vec<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "a reference in f64")]
        let narrow = |row: Vec<f64>| row.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
        let linear = |row: &[f32], dense: &Dense| {
            linear::reference::linear(row, &dense.weight, &dense.bias, row.len(), linear::Activation::Identity)
        };
        let inner = narrow(linear(row, &first).into_iter().map(|x| x / (1.0 + (-x).exp())).collect());
        let inner = narrow(reference::residual_norm(&inner, &[0.0; 20], &ones, &numbers(20), eps));
        narrow(linear(&inner, &last))
    };
    let of_tokens: Vec<f32> = rows.chunks_exact(HIDDEN).flat_map(of_row).collect();
    let mut greatest = Vec::new();
    for rows in crate::encoder::rows_of(&lengths) {
        let of_column = |column: usize| rows.clone().map(|row| of_tokens[row * 33 + column]).fold(0.0, f32::max);
        greatest.extend((0..33).map(of_column));
    }
    each_new_gpu(|open| {
        for precision in precisions(open) {
            let bound = [1e-5, 5e-3, 4e-2, 5e-2][precision as usize];
            for (rows, expected) in [(HeadRows::Tokens, &of_tokens), (HeadRows::Sparse, &greatest)] {
                let head = HeadSpec { rows: rows.clone(), steps: steps.clone() };
                let mut encoder = parts.with_head(open(), precision, head, weights());
                let mut got = vec![f32::NAN; encoder.rows(&lengths) * encoder.outputs()];
                encoder.forward(tokens, &mut got).unwrap();
                let worst = largest_gap(&got, expected);
                println!("{rows:?} {encoder:?}: {worst:.1e} of {bound:.1e}");
                assert!(worst <= bound, "{rows:?} {encoder:?}: {worst:e}");
            }
        }
    });
}

#[test]
fn bf16_is_refused_where_the_device_has_none() {
    let parts = parts();
    each_new_gpu(|open| {
        let gpu = open();
        let has = gpu.has_bf16();
        let spec = spec_with(HeadSpec::pooled(Pooling::Cls));
        let made = CudaEncoder::new(gpu, CudaPrecision::Bf16, &spec, parts.outer(Vec::new()));
        assert_eq!(made.is_ok(), has);
        assert!(made.err().is_none_or(|error| error.to_string().contains("bf16 needs compute capability 8.0")));
    });
}
