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
use sconce_kernels::encoder::cuda::{CudaEncoder, CudaPrecision, HeadWeights};
use sconce_kernels::encoder::{Dense, LayerWeights, PackedTokens};
use sconce_kernels::linear::Activation;
use sconce_kernels::pooling::Pooling;
use sconce_kernels::residual_norm::{LayerNorm, RowNorm};

const HIDDEN: usize = 384;
const INNER: usize = 1536;
const LAYERS: usize = 6;
const HEADS: usize = 12;
const WORDS: usize = 100;

fn dense(inputs: usize, outputs: usize) -> Dense {
    let weight = (0..inputs * outputs).map(|at| (at * 7919 % 1009) as f32 / 10090.0 - 0.05).collect();
    Dense { weight, bias: vec![0.1; outputs] }
}

fn norm() -> RowNorm {
    LayerNorm::new(vec![1.0; HIDDEN], vec![0.0; HIDDEN], 1e-12).unwrap().into()
}

fn encoder(precision: CudaPrecision) -> CudaEncoder {
    let table = |rows| {
        let values = (0..rows * HIDDEN).map(|at| (at * 31 % 101) as f32 / 50.0 - 1.0).collect();
        Table::new(values, HIDDEN, TableFormat::F32).unwrap()
    };
    let embeddings = Embeddings::new(table(WORDS), Some(table(64)), Some(table(2)), Some(norm())).unwrap();
    let head = HeadWeights::Pool(Pooling::Mean);
    let mut encoder = CudaEncoder::new(Gpu::open(0).unwrap(), precision, &embeddings, HEADS, INNER, &head).unwrap();
    for _ in 0..LAYERS {
        let layer = LayerWeights {
            query_key_value: dense(HIDDEN, 3 * HIDDEN),
            head_norms: None,
            attention_output: dense(HIDDEN, HIDDEN),
            attention_norm: Some(norm()),
            gate: None,
            up: dense(HIDDEN, INNER),
            activation: Activation::Gelu(GeluForm::Erf),
            down: dense(INNER, HIDDEN),
            output_norm: Some(norm()),
        };
        encoder.push(&layer).unwrap();
    }
    encoder
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
            assert!(launches + gemms <= 60, "{precision:?}: {launches} launches and {gemms} products");
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
