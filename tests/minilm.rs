//! all-MiniLM-L6-v2 from `sconce pull minilm`: agreement with people, and batched equals alone.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use sconce::{Input, Model, ModelSource, Precision, Registry, Runtime, Truncation};
use sconce_models::{Features, LoadOptions, Team, cpu};
use sconce_tests::{Candidates, average_precision, path_or_skip, read_candidates, read_sentence_pairs, spearman};

/// Spearman correlation of PyTorch in f32 on the development part of the STS benchmark, in points.
const STSB_DEV_SPEARMAN: f64 = 86.72;
/// Mean average precision of PyTorch in f32 on the test part of TREC-QA, in points.
const TREC_QA_MAP: f64 = 74.43;

/// Allowed difference from PyTorch's f32 per precision, in points of Spearman and of MAP.
const PRECISIONS: [(Precision, f64, f64); 3] =
    [(Precision::F32, 0.05, 0.05), (Precision::Int8, 0.3, 0.7), (Precision::Q8_0, 0.3, 0.7)];

fn minilm(directory: &Path, precision: Precision) -> (Runtime, Model) {
    let source = ModelSource::new(directory).name("minilm").precision(precision);
    let runtime = Runtime::builder().allow_undecided(true).model(source).build().expect("MiniLM loads");
    let model = runtime.model("minilm").expect("it was named so");
    (runtime, model)
}

#[tokio::test(flavor = "multi_thread")]
async fn minilm_ranks_the_sts_benchmark_as_its_reference_does_in_every_precision() {
    let Some(directory) = path_or_skip("SCONCE_MINILM", "the STS benchmark") else { return };
    let Some(pairs) = path_or_skip("SCONCE_STSB_DEV", "the STS benchmark") else { return };
    let pairs = read_sentence_pairs(&pairs);
    assert_eq!(pairs.len(), 1500);
    let scores: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
    for (precision, allowed, _) in PRECISIONS {
        let (_runtime, model) = minilm(&directory, precision);
        let sentences = pairs.iter().flat_map(|pair| [pair.first.clone(), pair.second.clone()]);
        let vectors = embed_all(&model, sentences).await;
        let cosines: Vec<f64> = vectors.chunks_exact(2).map(|pair| dot(&pair[0], &pair[1])).collect();
        let found = 100.0 * spearman(&cosines, &scores);
        println!("MiniLM in {precision}, STS-B dev: Spearman {found:.3}");
        let gap = (found - STSB_DEV_SPEARMAN).abs();
        assert!(gap <= allowed, "{precision}: Spearman {found:.3}, expected {STSB_DEV_SPEARMAN} ± {allowed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn minilm_ranks_the_answers_of_trec_qa_as_its_reference_does_in_every_precision() {
    let Some(directory) = path_or_skip("SCONCE_MINILM", "TREC-QA") else { return };
    let Some(candidates) = path_or_skip("SCONCE_TREC_QA", "TREC-QA") else { return };
    let candidates = read_candidates(&candidates);
    for (precision, _, allowed) in PRECISIONS {
        let (_runtime, model) = minilm(&directory, precision);
        let mut precisions = Vec::new();
        for Candidates { question, answers } in &candidates {
            let texts = std::iter::once(question.clone()).chain(answers.iter().map(|(answer, _)| answer.clone()));
            let vectors = embed_all(&model, texts).await;
            let scores: Vec<f64> = vectors[1..].iter().map(|answer| dot(&vectors[0], answer)).collect();
            let right: Vec<bool> = answers.iter().map(|(_, right)| *right).collect();
            precisions.push(average_precision(&scores, &right));
        }
        let found = 100.0 * precisions.iter().sum::<f64>() / precisions.len() as f64;
        println!("MiniLM in {precision}, TREC-QA: MAP {found:.3} over {} questions", precisions.len());
        let gap = (found - TREC_QA_MAP).abs();
        assert!(gap <= allowed, "{precision}: MAP {found:.3}, expected {TREC_QA_MAP} ± {allowed}");
    }
}

async fn embed_all(model: &Model, texts: impl Iterator<Item = String>) -> Vec<Vec<f32>> {
    let waiting: Vec<_> = texts
        .map(|text| {
            let model = model.clone();
            tokio::spawn(async move { embed(&model, text).await })
        })
        .collect();
    let mut vectors = Vec::new();
    for vector in waiting {
        vectors.push(vector.await.expect("every text is embedded"));
    }
    vectors
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
}

async fn embed(model: &Model, text: String) -> Vec<f32> {
    model.infer(text).await.expect("a good sentence").output.embedding().expect("MiniLM embeds").to_vec()
}

#[test]
fn minilm_batched_equals_alone_to_the_bit_in_every_precision_on_any_number_of_threads() {
    let Some(directory) = path_or_skip("SCONCE_MINILM", "batched equals alone") else { return };
    for (precision, ..) in PRECISIONS {
        let load = |threads| {
            let team = Arc::new(Team::new(NonZeroUsize::new(threads).expect("not zero")).expect("few threads"));
            let options = LoadOptions { precision: Some(precision), device: cpu(team) };
            Registry::default().load(&directory, &options).expect("MiniLM loads")
        };
        let mut model = load(1);
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
        for threads in [1, 2, 3] {
            let mut model = load(threads);
            for size in [1, 2, 8, 33] {
                for (batch, alone) in items.chunks(size).zip(alone.chunks(size)) {
                    let rows = model.network.forward(batch).expect("the forward pass succeeds");
                    let mut pairs = rows.iter().flatten().zip(alone.iter().flatten());
                    let same = pairs.all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{precision}: batches of {size} on {threads} threads differ from alone");
                }
            }
        }
    }
}
