//! A forward pass allocates nothing once it has seen a batch as large.

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use sconce_kernels::Team;
use sconce_kernels::bias_gelu::GeluForm;
use sconce_kernels::embedding::{Embeddings, Table, TableFormat};
use sconce_kernels::encoder::{
    AttentionPositions, AttentionSpec, BlockSpec, Dense, EmbeddingSpec, Encoder, EncoderSpec, FeedForwardSpec,
    HeadSpec, InnerFunction, LayerWeights, Mask, NormKind, NormOrder, NormSpec, PackedParts, PackedTokens,
    PositionTable, RelativeBias, Rotary, Scratch,
};
use sconce_kernels::linear::{BlockFormat, WeightFormat};
use sconce_kernels::pooling::Pooling;
use sconce_kernels::residual_norm::{LayerNorm, RmsNorm, RowNorm};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HIDDEN: usize = 64;

/// A spec of BERT's kind.
fn bert() -> EncoderSpec {
    let norm = Some(NormSpec { kind: NormKind::Layer { bias: true }, eps: 1e-6 });
    let block = BlockSpec {
        order: NormOrder::Post,
        attention_norm: norm,
        output_norm: norm,
        attention: AttentionSpec {
            heads: 2,
            key_value_heads: 2,
            head_size: HIDDEN / 2,
            mask: Mask::Full,
            positions: AttentionPositions::None,
            head_norm: None,
            bias: true,
            output_bias: true,
        },
        feed_forward: FeedForwardSpec {
            inner: 2 * HIDDEN,
            function: InnerFunction::Gelu(GeluForm::Erf),
            gated: false,
            bias: true,
            output_bias: true,
        },
    };
    EncoderSpec {
        hidden: HIDDEN,
        embeddings: EmbeddingSpec {
            words: 10,
            positions: Some(PositionTable { rows: 128, first: 0 }),
            segments: 2,
            norm,
            projected_from: None,
        },
        relative_bias: None,
        blocks: vec![block; 2],
        block_runs: 1,
        final_norm: None,
        head: HeadSpec::pooled(Pooling::Mean),
    }
}

/// A spec with the choices that need more buffers: norms before, rotated and normalised heads, gates, a bias by
/// distance, narrow tables.
fn modern() -> EncoderSpec {
    let mut spec = bert();
    let rms = Some(NormSpec { kind: NormKind::Rms, eps: 1e-6 });
    spec.embeddings.projected_from = Some(32);
    spec.relative_bias = Some(RelativeBias { buckets: 8, max_distance: 64 });
    spec.final_norm = rms;
    for block in &mut spec.blocks {
        (block.order, block.attention_norm, block.output_norm) = (NormOrder::Pre, rms, rms);
        block.attention.key_value_heads = 1;
        block.attention.head_norm = rms;
        block.attention.positions = AttentionPositions::Rotary(Rotary { base: 10_000.0, divisor: 1.0 });
        (block.feed_forward.gated, block.feed_forward.function) = (true, InnerFunction::Silu);
    }
    spec.blocks[1].attention.mask = Mask::Window(9);
    spec
}

fn encoder(spec: &EncoderSpec, format: WeightFormat) -> Encoder {
    let norm = |columns: usize, spec: Option<NormSpec>| {
        let layer = LayerNorm::new(vec![1.0; columns], vec![0.0; columns], 1e-6).expect("it fits");
        let rms = RmsNorm::new(vec![1.0; columns], 1e-6).expect("it fits");
        spec.map(|spec| if spec.kind == NormKind::Rms { RowNorm::Rms(rms) } else { RowNorm::Layer(layer) })
    };
    let narrow = spec.embedding_size();
    let table = |rows| Table::new(vec![0.1; rows * narrow], narrow, TableFormat::F32).expect("it fits");
    let dense = |inputs, outputs| {
        let weight = (0..inputs * outputs).map(|at| (at % 13) as f32 / 130.0).collect();
        Dense { weight, bias: vec![0.0; outputs] }
    };
    let layer = |block: &BlockSpec| {
        let AttentionSpec { heads, key_value_heads, head_size, head_norm, .. } = block.attention;
        let inner = block.feed_forward.inner;
        let weights = LayerWeights {
            query_key_value: dense(HIDDEN, (heads + 2 * key_value_heads) * head_size),
            head_norms: norm(head_size, head_norm).map(|norm| [norm.clone(), norm]),
            attention_output: dense(heads * head_size, HIDDEN),
            attention_norm: norm(HIDDEN, block.attention_norm),
            gate: block.feed_forward.gated.then(|| dense(HIDDEN, inner)),
            up: dense(HIDDEN, inner),
            down: dense(inner, HIDDEN),
            output_norm: norm(HIDDEN, block.output_norm),
        };
        weights.pack(format).expect("it fits")
    };
    let parts = PackedParts {
        embeddings: Embeddings::new(table(10), Some(table(128)), Some(table(2)), norm(narrow, spec.embeddings.norm))
            .expect("it fits"),
        embedding_projection: spec
            .embeddings
            .projected_from
            .map(|from| dense(from, HIDDEN).pack(from, format).expect("it fits")),
        relative_bias: spec.relative_bias.map(|bias| vec![0.1; bias.buckets * 2]),
        layers: spec.blocks.iter().map(layer).collect(),
        final_norm: norm(HIDDEN, spec.final_norm),
    };
    Encoder::new(spec, parts).expect("it fits")
}

#[test]
fn a_forward_pass_allocates_nothing_in_steady_state() {
    let formats = [WeightFormat::F32, WeightFormat::Int8, WeightFormat::Blocks(BlockFormat::Q8_0)];
    for (name, spec, format) in
        formats.into_iter().flat_map(|format| [("BERT", bert(), format), ("modern", modern(), format)])
    {
        let encoder = encoder(&spec, format);
        for threads in [1, 3] {
            let team = Team::new(NonZeroUsize::new(threads).expect("not zero")).expect("few threads");
            let mut scratch = Scratch::default();
            let mut counts = Vec::new();
            // Split by columns and by sequences; the smaller batches come after the larger.
            for lengths in [&[128][..], &[100, 128, 90, 60, 40, 128, 100], &[7], &[30, 30, 30]] {
                let tokens: usize = lengths.iter().sum();
                let (ids, segments) = (vec![3; tokens], vec![1; tokens]);
                let mut out = vec![0.0; tokens * HIDDEN];
                let mut forward = || {
                    let tokens = PackedTokens { ids: &ids, segments: &segments, lengths };
                    encoder.forward(&team, &mut scratch, tokens, &mut out).expect("it fits");
                };
                // Threads take different parts each time; after some rounds each has seen the largest.
                (0..20).for_each(|_| forward());
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                (0..10).for_each(|_| forward());
                counts.push(ALLOCATIONS.load(Ordering::Relaxed) - before);
            }
            assert_eq!(counts, [0; 4], "{name} in {format:?} on {threads} threads");
        }
    }
}
