//! Entities, sparse vectors and vectors of tokens, compared with the answers of transformers and sentence-transformers
//! (`tests/families/kinds_of_answers.py`).

use std::fs;
use std::path::Path;

use sconce_models::{
    Finishing, ForwardError, Input, LoadOptions, LoadedModel, Precision, Registry, Task, VectorOptions,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{edit_config, infer, largest_gap, prepare};

fn families() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/families"))
}

fn load(directory: &Path) -> LoadedModel {
    Registry::default().load(directory, &LoadOptions::default()).unwrap()
}

fn refused(directory: &Path) -> String {
    Registry::default().load(directory, &LoadOptions::default()).unwrap_err().to_string()
}

/// A copy of one of the models, for a test to change.
fn copy_of(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        fs::create_dir_all(copy.path().join(&folder)).unwrap();
        for entry in fs::read_dir(families().join(name).join(&folder)).unwrap().map(Result::unwrap) {
            let inner = format!("{folder}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                folders.push(format!("{inner}/"));
            } else {
                fs::copy(entry.path(), copy.path().join(inner)).unwrap();
            }
        }
    }
    copy
}

fn set(copy: &TempDir, settings: &str) {
    fs::write(copy.path().join("sconce.toml"), format!("[model]\n{settings}")).unwrap();
}

fn expected(kind: &str) -> Value {
    let all: Value = serde_json::from_slice(&fs::read(families().join("kinds_of_answers.json")).unwrap()).unwrap();
    all[kind].clone()
}

fn texts(cases: &Value) -> Vec<Input> {
    cases.as_array().unwrap().iter().map(|case| case["text"].as_str().unwrap().into()).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "they were f32 before they were written")]
fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn entities_are_those_of_transformers_by_every_strategy() {
    for (strategy, cases) in expected("entities").as_object().unwrap() {
        let copy = copy_of("entities");
        set(&copy, &format!("aggregation = \"{strategy}\""));
        let mut model = load(copy.path());
        for (output, case) in infer(&mut model, texts(cases)).iter().zip(cases.as_array().unwrap()) {
            let (text, got) = (case["text"].as_str().unwrap(), output.entities().unwrap());
            let expected = case["entities"].as_array().unwrap();
            let places = |list: &[Value]| -> Vec<(String, u64, u64)> {
                let place = |one: &Value| {
                    let [start, end] = ["start", "end"].map(|field| one[field].as_u64().unwrap());
                    (one["entity_group"].as_str().unwrap().to_owned(), start, end)
                };
                list.iter().map(place).collect()
            };
            let json: Vec<Value> = got.iter().map(|entity| json!(entity)).collect();
            assert_eq!(places(&json), places(expected), "{strategy}: {text}");
            for (entity, expected) in got.iter().zip(expected) {
                assert_eq!(entity.text, text[entity.start..entity.end], "{strategy}");
                assert!(
                    (f64::from(entity.score) - expected["score"].as_f64().unwrap()).abs() < 1e-5,
                    "{strategy}: {text}"
                );
            }
        }
    }
    let labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"].map(String::from).into();
    assert_eq!(load(&families().join("entities")).signature.task, Task::TokenClassification { labels });
}

#[test]
fn sparse_vectors_are_those_of_sentence_transformers() {
    let cases = expected("sparse");
    let mut model = load(&families().join("splade"));
    for (output, case) in infer(&mut model, texts(&cases)).iter().zip(cases.as_array().unwrap()) {
        let (expected, sparse) = (numbers(&case["vector"]), output.sparse().unwrap());
        assert!(sparse.indices.is_sorted() && sparse.values.iter().all(|value| *value > 0.0));
        let mut got = vec![0.0; expected.len()];
        sparse.indices.iter().zip(&sparse.values).for_each(|(index, value)| got[*index as usize] = *value);
        let gap = largest_gap(&got, &expected);
        assert!(gap < 1e-5, "{}: {gap:e}", case["text"]);
    }
    assert!(matches!(model.signature.task, Task::SparseEmbedding { words } if words > 60));
}

#[test]
fn vectors_of_tokens_are_scaled_one_by_one() {
    let cases = expected("tokens");
    let mut model = load(&families().join("colbert"));
    assert_eq!(model.signature.task, Task::TokenEmbeddings { dimensions: 8 });
    for (output, case) in infer(&mut model, texts(&cases)).iter().zip(cases.as_array().unwrap()) {
        let (vectors, expected) = (output.token_vectors().unwrap(), case["vectors"].as_array().unwrap());
        assert_eq!(vectors.tokens(), expected.len(), "{}", case["text"]);
        for (vector, expected) in vectors.vectors().zip(expected) {
            let gap = largest_gap(vector, &numbers(expected));
            assert!(gap < 1e-5, "{}: {gap:e}", case["text"]);
        }
    }
}

#[test]
fn every_familys_head_for_words_and_for_tokens_gives_the_numbers_of_transformers() {
    for case in expected("families").as_array().unwrap() {
        let [family, prefix, text] = ["family", "prefix", "text"].map(|field| case[field].as_str().unwrap());
        let copy = copy_of(&format!("heads/{family}"));
        let row = |architecture: &str| {
            edit_config(copy.path(), |config| config["architectures"] = json!([format!("{prefix}{architecture}")]));
            let mut model = load(copy.path());
            let features = prepare(&model, text.into());
            model.network.forward(&[features]).unwrap().remove(0)
        };
        let gap = largest_gap(&row("ForTokenClassification"), &numbers(&case["logits"]));
        assert!(gap < 1e-5, "{family}: {gap:e}");
        set(&copy, "task = \"sparse_embedding\"");
        let mut words = vec![0.0; case["words"].as_array().unwrap().len()];
        for pair in row("ForMaskedLM").chunks_exact(2) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is the number of a word")]
            let index = pair[0] as usize;
            words[index] = pair[1];
        }
        let gap = largest_gap(&words, &numbers(&case["words"]));
        assert!(gap < 1e-5, "{family}: {gap:e}");
    }
}

#[test]
fn a_masked_language_model_is_an_embedder_unless_the_operator_asks_for_sparse_vectors_or_vectors_of_tokens() {
    let copy = copy_of("splade");
    for file in ["modules.json", "config_sentence_transformers.json", "1_SpladePooling/config.json"] {
        fs::remove_file(copy.path().join(file)).unwrap();
    }
    assert_eq!(load(copy.path()).signature.task, Task::Embedding { dimensions: 16 });
    let mut declared = load(&families().join("splade"));
    set(&copy, "task = \"sparse_embedding\"");
    let mut asked = load(copy.path());
    let text = || [Input::from("ada sat on the red mat")];
    assert_eq!(infer(&mut asked, text()), infer(&mut declared, text()));
    set(&copy, "task = \"token_embeddings\"\nnormalize = true");
    let mut tokens = load(copy.path());
    let answers = infer(&mut tokens, text());
    let vectors = answers[0].token_vectors().unwrap();
    assert_eq!((vectors.dimensions, vectors.tokens()), (16, 8));
    assert!(vectors.vectors().all(|vector| (vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5));
}

#[test]
fn settings_and_files_that_such_models_do_not_follow_are_refused_by_name() {
    let copy = copy_of("splade");
    let pooling = |field: &str, value: &str| {
        let config = json!({ field: value }).to_string();
        fs::write(copy.path().join("1_SpladePooling/config.json"), config).unwrap();
        refused(copy.path())
    };
    assert!(pooling("pooling_strategy", "sum").contains("'pooling_strategy' is 'sum'; only 'max' is known"));
    assert!(pooling("activation_function", "log1p_relu").contains("'log1p_relu'; only 'relu' is known"));
    pooling_is_known(&copy);
    set(&copy, "pooling = \"cls\"");
    assert!(refused(copy.path()).contains("'model.pooling' has no meaning for this model"));
    set(&copy, "aggregation = \"max\"");
    assert!(refused(copy.path()).contains("'model.aggregation' has no meaning for this model"));
    set(&copy, "task = \"sparse\"");
    assert!(refused(copy.path()).contains("sparse_embedding"));
    set(&copy, "");
    edit_config(copy.path(), |config| config["tie_word_embeddings"] = false.into());
    assert!(refused(copy.path()).contains("'tie_word_embeddings' is false"));
    let entities = copy_of("entities");
    set(&entities, "aggregation = \"most\"");
    assert!(refused(entities.path()).contains("average"));
    set(&entities, "task = \"embedding\"");
    assert!(refused(entities.path()).contains("'model.task' has no meaning for this model"));
}

fn pooling_is_known(copy: &TempDir) {
    let config = json!({"pooling_strategy": "max", "activation_function": "relu"}).to_string();
    fs::write(copy.path().join("1_SpladePooling/config.json"), config).unwrap();
    assert!(matches!(load(copy.path()).signature.task, Task::SparseEmbedding { .. }));
}

#[test]
fn a_colbert_whose_queries_are_expanded_is_refused_until_the_operator_asks_for_plain_vectors_of_tokens() {
    let copy = copy_of("colbert");
    let whole = |config: Value| {
        fs::write(copy.path().join("config_sentence_transformers.json"), config.to_string()).unwrap();
    };
    let modules = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]);
    fs::write(copy.path().join("modules.json"), modules.to_string()).unwrap();
    whole(json!({"model_type": "ColBERT", "query_prefix": "[Q] ", "document_prefix": "[D] "}));
    let message = refused(copy.path());
    assert!(message.contains("'do_query_expansion'") && message.contains("task = \"token_embeddings\""), "{message}");
    whole(json!({"model_type": "ColBERT", "do_query_expansion": false, "skiplist_words": [","]}));
    assert!(refused(copy.path()).contains("'skiplist_words'"));
    // As PyLate does, vectors are scaled though no module says so.
    whole(json!({"model_type": "ColBERT", "do_query_expansion": false, "skiplist_words": []}));
    let mut plain = load(copy.path());
    whole(json!({"model_type": "ColBERT", "query_prefix": "[Q] "}));
    set(&copy, "task = \"token_embeddings\"");
    let mut asked = load(copy.path());
    let text = || [Input::from("a candle light")];
    let expected = infer(&mut load(&families().join("colbert")), text());
    assert_eq!(infer(&mut plain, text()), expected);
    assert_eq!(infer(&mut asked, text()), expected);
    assert_eq!(asked.processor.text().unwrap().prompts()["query"], "[Q] ");
}

#[test]
fn every_kind_of_answer_is_the_same_alone_and_in_a_batch_and_alike_in_int8() {
    for (name, kind) in [("entities", "entities"), ("splade", "sparse"), ("colbert", "tokens")] {
        let cases = if kind == "entities" { expected(kind)["none"].clone() } else { expected(kind) };
        let rows = |precision| {
            let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
            let mut model = Registry::default().load(&families().join(name), &options).unwrap();
            let features: Vec<_> = texts(&cases).into_iter().map(|text| prepare(&model, text)).collect();
            let alone: Vec<_> =
                features.iter().flat_map(|one| model.network.forward(std::slice::from_ref(one)).unwrap()).collect();
            assert_eq!(model.network.forward(&features).unwrap(), alone, "{name} in {precision}");
            alone
        };
        let (exact, rounded) = (rows(Precision::F32), rows(Precision::Int8));
        if kind != "sparse" {
            for (rounded, exact) in rounded.iter().zip(&exact) {
                let gap = largest_gap(rounded, exact);
                assert!(gap < 0.5, "{name}: {gap}");
            }
        }
    }
}

#[test]
fn an_answer_of_any_kind_with_a_number_that_is_none_is_an_error() {
    for (name, tensor) in
        [("entities", "classifier.bias"), ("splade", "vocab_projector.bias"), ("colbert", "embeddings.LayerNorm.bias")]
    {
        let copy = copy_of(name);
        let path = copy.path().join("model.safetensors");
        let mut weights = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
        let weight = weights.get_mut(tensor).unwrap();
        *weight = weight.affine(0.0, f64::NAN).unwrap();
        candle_core::safetensors::save(&weights, &path).unwrap();
        let mut model = load(copy.path());
        let features = prepare(&model, "ada".into());
        let error = model.network.forward(&[features]).unwrap_err();
        assert!(matches!(error, ForwardError::NotFinite { item: 0 }), "{name}: {error}");
    }
}

#[test]
fn a_request_can_cut_vectors_and_leave_them_unscaled() {
    let mut model = load(&families().join("colbert"));
    let features = prepare(&model, "ada".into());
    let row = model.network.forward(&[features]).unwrap().remove(0);
    let of = |dimensions, normalize| {
        let vectors = VectorOptions { dimensions, normalize, ..VectorOptions::default() };
        let output = model.processor.finish(row.clone(), Finishing { vectors, ..Finishing::default() });
        output.token_vectors().unwrap().clone()
    };
    assert_eq!(of(None, Some(false)).values, row);
    let cut = of(Some(3), None);
    assert_eq!((cut.dimensions, cut.tokens()), (3, 3));
    assert!(cut.vectors().all(|vector| (vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5));
    assert_eq!(of(Some(3), Some(false)).vectors().next(), Some(&row[..3]));
}
