//! Forward pass of BERT embedders on the CPU: MiniLM where `SCONCE_MINILM` says where it is, and the embedder that
//! ships. Shapes are (texts, tokens each). Before it is timed, each shape is checked: every row is a vector of some length
//! and equals the row of its text alone.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sconce_models::{Features, LoadOptions, Network, Registry};

const SHAPES: [(usize, usize); 3] = [(1, 16), (8, 64), (32, 32)];

fn forward(criterion: &mut Criterion) {
    bench(criterion, "encoder-mini", &sconce_benches::zoo("encoder-mini"));
    match sconce_benches::minilm() {
        Some(directory) => bench(criterion, "minilm", &directory),
        None => eprintln!("minilm is left out: run `sconce pull minilm` and set SCONCE_MINILM to its directory"),
    }
}

fn bench(criterion: &mut Criterion, name: &str, directory: &std::path::Path) {
    let mut network = Registry::default().load(directory, &LoadOptions::default()).expect("the model loads").network;
    let mut group = criterion.benchmark_group(format!("forward/{name}"));
    for (texts, tokens) in SHAPES {
        let batch: Vec<_> = (0..).take(texts).map(|text| features(text, tokens)).collect();
        check(network.as_mut(), &batch);
        group.throughput(Throughput::Elements((texts * tokens) as u64));
        group.bench_function(format!("{texts}x{tokens}"), |bench| {
            bench.iter(|| network.forward(&batch).expect("the forward pass succeeds"));
        });
    }
    group.finish();
}

/// Token ids spread over the vocabulary by a linear congruence, the same in every run.
fn features(text: u32, tokens: usize) -> Features {
    let input_ids = (0..).take(tokens).map(|at: u32| 1000 + (text * 131 + at) * 7919 % 8000).collect();
    Features::Tokens { input_ids, token_type_ids: vec![0; tokens] }
}

fn check(network: &mut dyn Network, batch: &[Features]) {
    let rows = network.forward(batch).expect("the forward pass succeeds");
    assert_eq!(rows.len(), batch.len());
    for (features, row) in batch.iter().zip(&rows) {
        let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!(length.is_finite() && length > 0.1, "an embedding of length {length}");
        let alone = network.forward(std::slice::from_ref(features)).expect("the forward pass succeeds");
        let difference = row.iter().zip(&alone[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-5, "batched differs from alone by {difference}");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(5));
    targets = forward
}
criterion_main!(benches);
