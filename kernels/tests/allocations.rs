//! A forward pass allocates nothing once it has seen a batch as large.

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use sconce_kernels::Team;
use sconce_kernels::bias_gelu::GeluForm;
use sconce_kernels::embedding::{Embeddings, Table, TableFormat};
use sconce_kernels::encoder::{Encoder, EncoderLayer, PackedTokens, Scratch};
use sconce_kernels::linear::{Activation, BlockFormat, Linear, WeightFormat};
use sconce_kernels::residual_norm::LayerNorm;

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

fn encoder(format: WeightFormat) -> Encoder {
    let norm = || LayerNorm::new(vec![1.0; HIDDEN], vec![0.0; HIDDEN], 1e-6).expect("it fits");
    let table = |rows| Table::new(vec![0.1; rows * HIDDEN], HIDDEN, TableFormat::F32).expect("it fits");
    let linear = |inputs, outputs| {
        let weight: Vec<f32> = (0..inputs * outputs).map(|at| (at % 13) as f32 / 130.0).collect();
        Linear::new(&weight, None, inputs, outputs, format).expect("it fits")
    };
    let layer = || EncoderLayer {
        query_key_value: linear(HIDDEN, 3 * HIDDEN),
        attention_output: linear(HIDDEN, HIDDEN),
        attention_norm: norm(),
        up: linear(HIDDEN, 2 * HIDDEN),
        activation: Activation::Gelu(GeluForm::Erf),
        down: linear(2 * HIDDEN, HIDDEN),
        output_norm: norm(),
    };
    let embeddings = Embeddings::new(table(10), table(128), table(2), norm()).expect("it fits");
    Encoder::new(embeddings, vec![layer(), layer()], 2).expect("it fits")
}

#[test]
fn a_forward_pass_allocates_nothing_in_steady_state() {
    for format in [WeightFormat::F32, WeightFormat::Int8, WeightFormat::Blocks(BlockFormat::Q8_0)] {
        let encoder = encoder(format);
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
            assert_eq!(counts, [0; 4], "{format:?} on {threads} threads");
        }
    }
}
