//! all-MiniLM-L6-v2, as `sconce pull minilm` brings it: agreement with people, and batched equals alone.

use candle_core::Device;
use sconce::{Input, Model, Registry, Runtime, Truncation};
use sconce_models::Features;
use sconce_tests::{path_or_skip, read_sentence_pairs, spearman};

/// What PyTorch in f32 gives on the development part of the STS benchmark.
const STSB_DEV_SPEARMAN: f64 = 86.72;

#[tokio::test(flavor = "multi_thread")]
async fn minilm_ranks_the_sts_benchmark_as_its_reference_does() {
    let Some(directory) = path_or_skip("SCONCE_MINILM", "the STS benchmark") else { return };
    let Some(pairs) = path_or_skip("SCONCE_STSB_DEV", "the STS benchmark") else { return };
    let runtime = Runtime::builder().named_model("minilm", directory).build().expect("MiniLM loads");
    let model = runtime.model("minilm").expect("it was named so");

    let pairs = read_sentence_pairs(&pairs);
    assert_eq!(pairs.len(), 1500);
    let answers: Vec<_> = pairs
        .iter()
        .map(|pair| {
            let (model, first, second) = (model.clone(), pair.first.clone(), pair.second.clone());
            tokio::spawn(async move {
                let (first, second) = tokio::join!(embed(&model, first), embed(&model, second));
                first.iter().zip(&second).map(|(a, b)| f64::from(a * b)).sum::<f64>()
            })
        })
        .collect();
    let mut cosines = Vec::new();
    for answer in answers {
        cosines.push(answer.await.expect("both sentences are embedded"));
    }
    let scores: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
    let found = 100.0 * spearman(&cosines, &scores);
    println!("MiniLM, STS-B dev: Spearman {found:.3}");
    assert!((found - STSB_DEV_SPEARMAN).abs() <= 0.05, "Spearman {found:.3}, expected {STSB_DEV_SPEARMAN} ± 0.05");
}

async fn embed(model: &Model, text: String) -> Vec<f32> {
    model.infer(text).await.expect("a good sentence").output.embedding().expect("MiniLM embeds").to_vec()
}

#[test]
fn minilm_batched_equals_alone() {
    let Some(directory) = path_or_skip("SCONCE_MINILM", "batched equals alone") else { return };
    let mut model = Registry::default().load(&directory, &Device::Cpu).expect("MiniLM loads");
    let items: Vec<Features> = (0..33)
        .map(|words| {
            let text = Input::from("candle sconce wall light ".repeat(1 + words * 7 % 19));
            model.processor.prepare(text, Truncation::Truncate).expect("a good text").features
        })
        .collect();
    let alone: Vec<_> = items
        .iter()
        .flat_map(|item| model.network.forward(std::slice::from_ref(item)).expect("the forward pass succeeds"))
        .collect();
    for size in 1..=items.len() {
        for (batch, alone) in items.chunks(size).zip(alone.chunks(size)) {
            let rows = model.network.forward(batch).expect("the forward pass succeeds");
            let difference =
                rows.iter().flatten().zip(alone.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference < 1e-5, "batches of {size} differ from alone by {difference}");
        }
    }
}
