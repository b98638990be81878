//! Forward passes on the CPU of the models that ship, and of MiniLM if `SCONCE_MINILM` is its directory. Each batch is
//! checked before it is timed: every row is finite, not all 0, and equal to the bit to the row of its item alone.

use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sconce_models::{Features, LoadOptions, Network, Registry};

/// Numbers of texts, and of tokens of each.
const TEXTS: [(usize, usize); 3] = [(1, 16), (8, 64), (32, 32)];
const ITEMS: [usize; 2] = [1, 32];

fn encoders(criterion: &mut Criterion) {
    let mini = ("encoder-mini", Some(sconce_benches::zoo("encoder-mini")));
    for (name, directory) in [mini, ("minilm", sconce_benches::minilm())] {
        let Some(directory) = directory else {
            eprintln!("{name} is left out: run `sconce pull {name}` and set SCONCE_MINILM to its directory");
            continue;
        };
        let batches = TEXTS.map(|(texts, tokens)| {
            let batch: Vec<Features> = (0..texts).map(|text| token_features(text, tokens)).collect();
            (format!("{texts}x{tokens}"), texts * tokens, batch)
        });
        bench(criterion, name, &directory, &batches);
    }
}

fn convolutions(criterion: &mut Criterion) {
    let image = |item| Features::Values(pattern(item, 17).take(64).map(f32::from).collect());
    let content = |item| Features::Symbols(pattern(item, 257).take(2048).collect());
    bench(criterion, "digits-cnn", &sconce_benches::zoo("digits-cnn"), &ITEMS.map(|items| batch(items, image)));
    bench(criterion, "magika", &sconce_benches::zoo("magika"), &ITEMS.map(|items| batch(items, content)));
}

/// Name, number of items or tokens in one pass, and items.
type NamedBatch = (String, usize, Vec<Features>);

fn batch(items: usize, features: impl Fn(usize) -> Features) -> NamedBatch {
    (items.to_string(), items, (0..items).map(features).collect())
}

fn bench(criterion: &mut Criterion, name: &str, directory: &Path, batches: &[NamedBatch]) {
    let mut network = Registry::default().load(directory, &LoadOptions::default()).expect("the model loads").network;
    let mut group = criterion.benchmark_group(format!("forward/{name}"));
    for (shape, elements, batch) in batches {
        check(network.as_mut(), batch);
        group.throughput(Throughput::Elements(*elements as u64));
        group.bench_function(shape, |bench| {
            bench.iter(|| network.forward(batch).expect("the forward pass succeeds"));
        });
    }
    group.finish();
}

/// Token ids spread over the vocabulary.
fn token_features(text: usize, tokens: usize) -> Features {
    let input_ids = pattern(text, 8000).take(tokens).map(|id| 1000 + u32::from(id)).collect();
    Features::Tokens { input_ids, token_type_ids: vec![0; tokens] }
}

/// Numbers below `end` by a linear congruence: the same in every run, different for each item.
fn pattern(item: usize, end: u16) -> impl Iterator<Item = u16> {
    (0..).map(move |at| u16::try_from((item * 131 + at) * 7919 % 65_521).expect("less than 65,521") % end)
}

fn check(network: &mut dyn Network, batch: &[Features]) {
    let rows = network.forward(batch).expect("the forward pass succeeds");
    assert_eq!(rows.len(), batch.len());
    for (features, row) in batch.iter().zip(&rows) {
        let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!(length.is_finite() && length > 0.1, "a row of length {length}");
        let alone = network.forward(std::slice::from_ref(features)).expect("the forward pass succeeds");
        let same = row.iter().zip(&alone[0]).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "batched differs from alone");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(5));
    targets = encoders, convolutions
}
criterion_main!(benches);
