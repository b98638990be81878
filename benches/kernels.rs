//! The kernels one by one, on one thread, at the shapes of MiniLM. Each product is checked against the f64 reference
//! before it is timed. `gemm` is candle's product of the same matrices, by the crate of that name; with
//! `RAYON_NUM_THREADS=1` it also has one thread.
//!
//! Throughput is in multiply-adds (linear layers, attention) or elements (the others): criterion's `Gelem/s`, doubled,
//! are GFLOP/s.

use std::hint::black_box;
use std::time::Duration;

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sconce_kernels::Team;
use sconce_kernels::attention::attention;
use sconce_kernels::bias_gelu::{GeluForm, bias_gelu};
use sconce_kernels::linear::{Activation, BlockFormat, Linear, WeightFormat, reference};
use sconce_kernels::residual_norm::LayerNorm;

/// Rows, inputs and outputs of each product.
const PRODUCTS: [(usize, usize, usize); 5] =
    [(1, 384, 1536), (16, 384, 1152), (96, 384, 1536), (96, 1536, 384), (512, 384, 1536)];

/// Formats with their allowed error: its root mean square relative to that of the result.
const FORMATS: [(&str, WeightFormat, f64); 4] = [
    ("f32", WeightFormat::F32, 1e-6),
    ("int8", WeightFormat::Int8, 0.03),
    ("q8_0", WeightFormat::Blocks(BlockFormat::Q8_0), 0.01),
    ("q4k", WeightFormat::Blocks(BlockFormat::Q4K), 0.12),
];

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn linear(criterion: &mut Criterion) {
    let team = Team::alone();
    let mut group = criterion.benchmark_group("linear");
    for (rows, inputs, outputs) in PRODUCTS {
        let shape = format!("{rows}x{inputs}x{outputs}");
        let (weight, x) = (numbers(1, inputs * outputs), numbers(2, rows * inputs));
        let expected = reference::linear(&x, &weight, &vec![0.0; outputs], inputs, Activation::Identity);
        let mut y = vec![0.0; rows * outputs];
        group.throughput(Throughput::Elements((rows * inputs * outputs) as u64));
        for (name, format, bound) in FORMATS {
            let layer = Linear::new(&weight, None, inputs, outputs, format).expect("the shapes fit");
            layer.forward(&team, &x, &mut y, Activation::Identity).expect("the shapes fit");
            check(name, &y, &expected, bound);
            group.bench_function(BenchmarkId::new(name, &shape), |bench| {
                bench.iter(|| layer.forward(&team, black_box(&x), &mut y, Activation::Identity));
            });
        }
        let (weight, x) = (tensor(&weight, outputs, inputs), tensor(&x, rows, inputs));
        let product = || x.matmul(&weight.t()?);
        check("gemm", &product().and_then(|y| y.flatten_all()?.to_vec1()).expect("the shapes fit"), &expected, 1e-6);
        group.bench_function(BenchmarkId::new("gemm", &shape), |bench| bench.iter(|| black_box(product())));
    }
    group.finish();
}

fn tensor(values: &[f32], rows: usize, columns: usize) -> Tensor {
    Tensor::from_slice(values, (rows, columns), &Device::Cpu).expect("the shape fits")
}

fn check(name: &str, y: &[f32], expected: &[f64], bound: f64) {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let error = squares(&mut y.iter().zip(expected).map(|(y, expected)| f64::from(*y) - expected));
    let error = (error / squares(&mut expected.iter().copied())).sqrt();
    assert!(error < bound, "{name}: an error of {error:.2e}");
}

fn gelu(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bias_gelu");
    let (values, bias) = (numbers(3, 96 * 1536), numbers(4, 1536));
    group.throughput(Throughput::Elements(values.len() as u64));
    for form in [GeluForm::Erf, GeluForm::Tanh] {
        group.bench_function(format!("{form:?}/96x1536"), |bench| {
            bench.iter_batched_ref(
                || values.clone(),
                |values| bias_gelu(values, &bias, form),
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn norm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("residual_norm");
    let norm = LayerNorm::new(numbers(5, 384), numbers(6, 384), 1e-12).expect("the lengths fit");
    let (mut x, residual) = (numbers(7, 96 * 384), numbers(8, 96 * 384));
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("96x384", |bench| bench.iter(|| norm.forward(&mut x, black_box(&residual))));
    group.finish();
}

fn heads(criterion: &mut Criterion) {
    const HEADS: usize = 12;
    const HIDDEN: usize = 384;
    let team = Team::alone();
    let mut group = criterion.benchmark_group("attention");
    for length in [16, 64, 128, 512] {
        let packed = numbers(9, length * 3 * HIDDEN);
        let mut out = vec![0.0; length * HIDDEN];
        group.throughput(Throughput::Elements((2 * length * length * HIDDEN) as u64));
        group.bench_function(format!("1x{length}"), |bench| {
            bench.iter(|| attention(&team, black_box(&packed), &[length], HEADS, &mut out));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    targets = linear, gelu, norm, heads
}
criterion_main!(benches);
