//! Launches, copies and driver calls of one batch of an encoder of MiniLM's shape, counted by the simulator.
//!
//! Without the simulator (on a real GPU, or without any) the tests say so and pass.

#![cfg(feature = "cuda")]
#![expect(clippy::unwrap_used, reason = "clippy knows the tests as tests, but not the functions they share")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use sconce_cudasim_control::{Control, Counts};
use sconce_kernels::KernelError;
use sconce_kernels::bias_gelu::GeluForm;
use sconce_kernels::cuda::Gpu;
use sconce_kernels::embedding::{Embeddings, Table, TableFormat};
use sconce_kernels::encoder::cuda::{CudaEncoder, CudaPrecision, OuterWeights};
use sconce_kernels::encoder::{
    AttentionPositions, AttentionSpec, BlockSpec, Dense, EmbeddingSpec, EncoderSpec, FeedForwardSpec, HeadSpec,
    InnerFunction, LayerWeights, Mask, NormKind, NormOrder, NormSpec, PackedTokens, PositionTable, RelativeBias,
    Rotary,
};
use sconce_kernels::pooling::Pooling;
use sconce_kernels::residual_norm::{LayerNorm, RmsNorm, RowNorm};

const HIDDEN: usize = 384;
const INNER: usize = 1536;
const LAYERS: usize = 6;
const HEADS: usize = 12;
const WORDS: usize = 100;

fn dense(inputs: usize, outputs: usize) -> Dense {
    let weight = (0..inputs * outputs).map(|at| (at * 7919 % 1009) as f32 / 10090.0 - 0.05).collect();
    Dense { weight, bias: vec![0.1; outputs] }
}

const LAYER_NORM: Option<NormSpec> = Some(NormSpec { kind: NormKind::Layer { bias: true }, eps: 1e-12 });
const RMS: Option<NormSpec> = Some(NormSpec { kind: NormKind::Rms, eps: 1e-6 });

/// The spec of MiniLM, with a smaller vocabulary.
fn minilm() -> EncoderSpec {
    let block = BlockSpec {
        order: NormOrder::Post,
        attention_norm: LAYER_NORM,
        attention: AttentionSpec {
            heads: HEADS,
            key_value_heads: HEADS,
            head_size: HIDDEN / HEADS,
            mask: Mask::Full,
            positions: AttentionPositions::None,
            head_norm: None,
            bias: true,
            output_bias: true,
        },
        output_norm: LAYER_NORM,
        feed_forward: FeedForwardSpec {
            inner: INNER,
            function: InnerFunction::Gelu(GeluForm::Erf),
            gated: false,
            bias: true,
            output_bias: true,
        },
    };
    EncoderSpec {
        hidden: HIDDEN,
        embeddings: EmbeddingSpec {
            words: WORDS,
            positions: Some(PositionTable { rows: 64, first: 0 }),
            segments: 2,
            norm: LAYER_NORM,
            projected_from: None,
        },
        relative_bias: None,
        blocks: vec![block; LAYERS],
        block_runs: 1,
        final_norm: None,
        head: HeadSpec::pooled(Pooling::Mean),
    }
}

fn norm(spec: Option<NormSpec>, columns: usize) -> Option<RowNorm> {
    spec.map(|NormSpec { kind, eps }| match kind {
        NormKind::Layer { .. } => LayerNorm::new(vec![1.0; columns], vec![0.0; columns], eps).unwrap().into(),
        NormKind::Rms => RowNorm::Rms(RmsNorm::new(vec![1.0; columns], eps).unwrap()),
    })
}

fn encoder(precision: CudaPrecision) -> CudaEncoder {
    encoder_of(&minilm(), precision)
}

fn encoder_of(spec: &EncoderSpec, precision: CudaPrecision) -> CudaEncoder {
    let table = |rows| {
        let values = (0..rows * HIDDEN).map(|at| (at * 31 % 101) as f32 / 50.0 - 1.0).collect();
        Table::new(values, HIDDEN, TableFormat::F32).unwrap()
    };
    let EmbeddingSpec { positions, segments, norm: of_rows, .. } = spec.embeddings;
    let segments = (segments > 0).then(|| table(segments));
    let positions = positions.map(|positions| table(positions.rows));
    let weights = OuterWeights {
        embeddings: Embeddings::new(table(WORDS), positions, segments, norm(of_rows, HIDDEN)).unwrap(),
        embedding_projection: None,
        relative_bias: spec.relative_bias.map(|bias| vec![0.1; bias.buckets * HEADS]),
        final_norm: norm(spec.final_norm, HIDDEN),
        head: Vec::new(),
    };
    let mut encoder = CudaEncoder::new(Gpu::open(0).unwrap(), precision, spec, weights).unwrap();
    for BlockSpec { attention, attention_norm, feed_forward, output_norm, .. } in &spec.blocks {
        let (queries, keys) = (attention.heads * attention.head_size, attention.key_value_heads * attention.head_size);
        let of_head = |_| norm(attention.head_norm, attention.head_size).unwrap();
        let layer = LayerWeights {
            query_key_value: dense(HIDDEN, queries + 2 * keys),
            head_norms: attention.head_norm.map(|_| [0, 1].map(of_head)),
            attention_output: dense(queries, HIDDEN),
            attention_norm: norm(*attention_norm, HIDDEN),
            gate: feed_forward.gated.then(|| dense(HIDDEN, INNER)),
            up: dense(HIDDEN, INNER),
            down: dense(INNER, HIDDEN),
            output_norm: norm(*output_norm, HIDDEN),
        };
        encoder.push(&layer).unwrap();
    }
    encoder
}

/// Specs of other families with MiniLM's sizes, each with the numbers of its launches and products in floats, and of its
/// launches in int8.
fn families() -> [(&'static str, EncoderSpec, [u64; 3]); 4] {
    let with = |change: &dyn Fn(&mut EncoderSpec)| {
        let mut spec = minilm();
        change(&mut spec);
        spec
    };
    let rotary = AttentionPositions::Rotary(Rotary { base: 1e4, divisor: 1.0 });
    let modern = with(&|spec| {
        (spec.embeddings.positions, spec.embeddings.segments) = (None, 0);
        spec.final_norm = LAYER_NORM;
        for (index, block) in spec.blocks.iter_mut().enumerate() {
            block.order = NormOrder::Pre;
            block.attention_norm = LAYER_NORM.filter(|_| index > 0);
            block.attention.positions = rotary;
            block.attention.mask = if index % 3 == 0 { Mask::Full } else { Mask::Window(4) };
            block.feed_forward.gated = true;
        }
    });
    let decoder = with(&|spec| {
        (spec.embeddings.positions, spec.embeddings.segments, spec.embeddings.norm) = (None, 0, None);
        spec.final_norm = RMS;
        for block in &mut spec.blocks {
            block.order = NormOrder::Pre;
            (block.attention_norm, block.output_norm) = (RMS, RMS);
            (block.attention.key_value_heads, block.attention.head_norm) = (HEADS / 2, RMS);
            (block.attention.positions, block.attention.mask) = (rotary, Mask::Causal);
            (block.feed_forward.gated, block.feed_forward.function) = (true, InnerFunction::Silu);
        }
        spec.head = HeadSpec::pooled(Pooling::Last);
    });
    let relative = with(&|spec| spec.relative_bias = Some(RelativeBias { buckets: 32, max_distance: 128 }));
    let alibi = with(&|spec| {
        spec.embeddings.positions = None;
        spec.blocks.iter_mut().for_each(|block| block.attention.positions = AttentionPositions::Alibi);
    });
    [
        // A preparation more in each layer than BERT.
        ("as ModernBERT", modern, [26 + 6, 24, 56 + 6]),
        // And the first norm, which no residual connection comes before.
        ("as Qwen3", decoder, [26 + 7, 24, 56 + 7]),
        ("as MPNet", relative, [26, 24, 56]),
        ("ALiBi", alibi, [26, 24, 56]),
    ]
}

/// Runs a batch of sequences of these lengths.
fn forward(encoder: &mut CudaEncoder, lengths: &[usize]) {
    let tokens = lengths.iter().sum::<usize>();
    let ids: Vec<u32> = (0..u32::try_from(tokens).unwrap()).map(|at| at * 13 % u32::try_from(WORDS).unwrap()).collect();
    let mut out = vec![f32::NAN; lengths.len() * HIDDEN];
    encoder.forward(PackedTokens { ids: &ids, segments: &vec![0; tokens], lengths }, &mut out).unwrap();
    assert!(out.iter().all(|x| x.is_finite()));
}

/// The simulator, for one test at a time: it counts for the whole process.
fn simulator() -> Option<(Control, MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    let Some(control) = Control::attach() else {
        println!("SKIPPED: there is no simulator to count with");
        return None;
    };
    Some((control, ONE.lock().unwrap_or_else(PoisonError::into_inner)))
}

#[test]
fn a_batch_of_minilm_is_one_copy_in_sixty_launches_and_one_copy_out() {
    let Some((control, _alone)) = simulator() else { return };
    for precision in [CudaPrecision::F32, CudaPrecision::F16, CudaPrecision::Bf16, CudaPrecision::Int8] {
        let mut encoder = encoder(precision);
        forward(&mut encoder, &[16, 16]);
        // As large, smaller, another number of sequences: all fit the memory allocated before.
        for lengths in [&[16, 16][..], &[16], &[3, 5]] {
            control.reset_counts();
            forward(&mut encoder, lengths);
            let counts = control.counts();
            println!("{encoder:?} {lengths:?}: {counts:?}");
            let Counts { launches, gemms, copies_to_device, copies_to_host, driver_calls, .. } = counts;
            let expected = if precision == CudaPrecision::Int8 { (56, 0) } else { (26, 24) };
            assert_eq!((launches, gemms), expected, "{precision:?}");
            assert_eq!((copies_to_device, copies_to_host, counts.copies_on_device), (1, 1, 0), "{precision:?}");
            assert_eq!((counts.allocations, counts.frees, counts.events), (0, 0, 0), "{precision:?}");
            assert_eq!(counts.synchronisations, 1, "{precision:?}");
            // One call for each launch, product, copy and wait, and one to make the context current.
            assert_eq!(driver_calls, launches + gemms + 4, "{precision:?}");
        }
        control.reset_counts();
        forward(&mut encoder, &[16, 17]);
        let counts = control.counts();
        assert_eq!((counts.allocations, counts.frees), (1, 1), "{precision:?}: a larger batch makes room once");
    }
}

#[test]
fn other_families_take_a_launch_more_in_a_layer_if_queries_and_keys_are_prepared_and_else_as_many_as_minilm() {
    let Some((control, _alone)) = simulator() else { return };
    for (name, spec, [launches, gemms, int8_launches]) in families() {
        for precision in [CudaPrecision::F16, CudaPrecision::Int8] {
            let mut encoder = encoder_of(&spec, precision);
            forward(&mut encoder, &[16, 16]);
            control.reset_counts();
            forward(&mut encoder, &[3, 5]);
            let counts = control.counts();
            println!("{name}, {encoder:?}: {counts:?}");
            let expected = if precision == CudaPrecision::Int8 { (int8_launches, 0) } else { (launches, gemms) };
            assert_eq!((counts.launches, counts.gemms), expected, "{name} in {precision:?}");
            assert_eq!((counts.copies_to_device, counts.copies_to_host, counts.copies_on_device), (1, 1, 0), "{name}");
            assert_eq!((counts.allocations, counts.frees, counts.events), (0, 0, 0), "{name} in {precision:?}");
            assert_eq!(counts.driver_calls, counts.launches + counts.gemms + 4, "{name} in {precision:?}");
        }
    }
}

#[test]
fn a_recorded_batch_is_one_call() {
    let Some((control, _alone)) = simulator() else { return };
    for precision in [CudaPrecision::F32, CudaPrecision::Int8] {
        let mut encoder = encoder(precision);
        encoder.use_graphs();
        for _ in 0..2 {
            forward(&mut encoder, &[16, 14]);
        }
        // The batch that was recorded, and another one of the same bucket.
        for lengths in [[16, 14], [9, 20]] {
            control.reset_counts();
            forward(&mut encoder, &lengths);
            let counts = control.counts();
            println!("{encoder:?} {lengths:?}: {counts:?}");
            assert_eq!((counts.graph_launches, counts.allocations, counts.events), (1, 0, 0), "{precision:?}");
            assert!(counts.launches + counts.gemms <= 60, "{precision:?}");
            assert_eq!((counts.copies_to_device, counts.copies_to_host), (1, 1), "{precision:?}");
            // Three calls: make the context current, launch, wait.
            assert_eq!(counts.driver_calls, 3, "{precision:?}");
        }
    }
}

#[test]
fn a_lost_device_is_told_as_that_and_what_is_left_is_dropped_in_peace() {
    let Some((control, _alone)) = simulator() else { return };
    let mut encoder = encoder(CudaPrecision::F16);
    forward(&mut encoder, &[16]);
    control.lose_device_after_launches(10);
    let tokens = PackedTokens { ids: &[1; 8], segments: &[0; 8], lengths: &[8] };
    let mut out = vec![7.0; HIDDEN];
    for _ in 0..2 {
        let refused = encoder.forward(tokens, &mut out).unwrap_err();
        assert!(matches!(refused, KernelError::DeviceLost { .. }), "{refused}");
    }
    assert!(out.iter().all(|x| x.to_bits() == 7.0_f32.to_bits()));
    drop(encoder);
    control.restore();
}

#[test]
fn a_batch_that_does_not_fit_leaves_an_encoder_that_works() {
    let Some((control, _alone)) = simulator() else { return };
    let mut encoder = encoder(CudaPrecision::F16);
    control.fail_allocation(1);
    let ids = [1; 8];
    let tokens = PackedTokens { ids: &ids, segments: &[0; 8], lengths: &[8] };
    let mut out = vec![0.0; HIDDEN];
    let refused = encoder.forward(tokens, &mut out).unwrap_err();
    assert!(matches!(refused, KernelError::OutOfDeviceMemory { .. }), "{refused}");
    control.fail_allocation(0);
    encoder.forward(tokens, &mut out).unwrap();
    assert!(out.iter().any(|x| *x != 0.0));
}

#[test]
fn a_dropped_encoder_gives_all_its_memory_back() {
    let Some((control, _alone)) = simulator() else { return };
    let before = control.memory_in_use();
    let mut made = encoder(CudaPrecision::Int8);
    forward(&mut made, &[16, 16]);
    let held = control.memory_in_use() - before;
    assert!(held >= made.bytes() && held < made.bytes() + made.bytes() / 10, "{held} for {}", made.bytes());
    drop(made);
    assert_eq!(control.memory_in_use(), before);
}
