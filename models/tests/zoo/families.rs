//! Tiny random models of families without a model in the zoo, compared with the answers of transformers 5.24
//! (`tests/families/expected.json`).

use std::path::Path;

use sconce_models::{Input, LoadOptions, Output, Precision, Registry, Truncation};
use serde_json::Value;

use crate::{infer, largest_gap, prepare};

fn families() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/families"))
}

#[expect(clippy::cast_possible_truncation, reason = "they were f32 before they were written")]
fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// Inputs, each with the numbers that are expected of it.
type Cases = Vec<(Input, Vec<f32>)>;

/// The models, each with inputs and the numbers expected for them.
fn expected() -> Vec<(String, Cases)> {
    let all: Value = serde_json::from_slice(&std::fs::read(families().join("expected.json")).unwrap()).unwrap();
    let case = |case: &Value| {
        let [text, embedding, scores, pair, logit] =
            ["text", "embedding", "scores", "pair", "logit"].map(|it| &case[it]);
        match (text.as_str(), pair.as_array()) {
            (Some(text), _) if embedding.is_array() => (text.into(), numbers(embedding)),
            (Some(text), _) => (text.into(), numbers(scores)),
            (_, Some(pair)) => {
                let pair = [&pair[0], &pair[1]].map(|text| text.as_str().unwrap());
                ((pair[0], pair[1]).into(), numbers(logit))
            }
            _ => panic!("{case}"),
        }
    };
    let cases = |model: &Value| model["expected"].as_array().unwrap().iter().map(case).collect();
    all.as_array().unwrap().iter().map(|model| (model["name"].as_str().unwrap().to_owned(), cases(model))).collect()
}

#[test]
fn each_family_answers_as_transformers_does() {
    for (name, cases) in expected() {
        let mut model = Registry::default().load(&families().join(&name), &LoadOptions::default()).unwrap();
        let outputs = infer(&mut model, cases.iter().map(|(input, _)| input.clone()));
        for ((input, expected), output) in cases.iter().zip(outputs) {
            let got = match &output {
                Output::Score(score) => vec![score.logit],
                output => output.numbers().to_vec(),
            };
            let gap = largest_gap(&got, expected);
            assert!(gap < 1e-5, "{name} {input:?}: {got:?}, {expected:?}: {gap:e}");
        }
    }
}

#[test]
fn every_family_is_computed_alike_in_int8() {
    for (name, cases) in expected() {
        let load = |precision| {
            let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
            Registry::default().load(&families().join(&name), &options).unwrap()
        };
        let answers = |precision| infer(&mut load(precision), cases.iter().map(|(input, _)| input.clone()));
        for (got, expected) in answers(Precision::Int8).iter().zip(answers(Precision::F32)) {
            let gap = largest_gap(got.numbers(), expected.numbers());
            assert!(gap < 0.2, "{name}: {gap:e}");
        }
    }
}

#[test]
fn a_pair_that_is_too_long_loses_tokens_of_its_longer_text_and_other_inputs_are_refused() {
    let directory = families().join("bert-cross-encoder");
    let model = Registry::default().load(&directory, &LoadOptions::default()).unwrap();
    let max = model.signature.input.kind.max_tokens().unwrap();
    let long = "river ".repeat(2 * max);
    let prepared = model.processor.prepare(("stone wall", &*long).into(), Truncation::Truncate).unwrap();
    assert!(prepared.truncated);
    let sconce_models::Features::Tokens { input_ids, token_type_ids } = prepared.features else { panic!("tokens") };
    assert_eq!(input_ids.len(), max);
    let first = token_type_ids.iter().filter(|segment| **segment == 0).count();
    assert_eq!(first, 4, "[CLS] stone wall [SEP]");
    let refused = |input: Input, truncation| model.processor.prepare(input, truncation).unwrap_err().to_string();
    assert!(refused(("stone", &*long).into(), Truncation::Refuse).contains("text"));
    assert_eq!(refused("alone".into(), Truncation::Truncate), "input 'text' takes a pair of texts, but got text");
    assert!(refused(("", "stone").into(), Truncation::Truncate).contains("'text'"));
    assert!(refused(("stone", " ").into(), Truncation::Truncate).contains("'text_pair'"));
    assert_eq!(prepare(&model, ("stone", "river").into()).weight(), 5);
}
