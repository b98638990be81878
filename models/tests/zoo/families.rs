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

/// The models that give embeddings, scores of labels or scores, each with inputs and the numbers expected for them.
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
    let is_known =
        |model: &&Value| ["embedding", "scores", "logit"].iter().any(|field| model["expected"][0].get(field).is_some());
    let models = all.as_array().unwrap().iter().filter(is_known);
    models.map(|model| (model["name"].as_str().unwrap().to_owned(), cases(model))).collect()
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
fn every_family_answers_a_batch_as_each_item_alone_to_the_bit() {
    for (name, cases) in expected() {
        let mut model = Registry::default().load(&families().join(&name), &LoadOptions::default()).unwrap();
        let inputs: Vec<Input> = cases.into_iter().map(|(input, _)| input).collect();
        let bits = |output: &Output| output.numbers().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let together: Vec<_> = infer(&mut model, inputs.clone()).iter().map(bits).collect();
        let alone: Vec<_> = inputs
            .into_iter()
            .flat_map(|input| infer(&mut model, [input]).iter().map(bits).collect::<Vec<_>>())
            .collect();
        assert_eq!(together, alone, "{name}");
    }
}

#[test]
fn every_family_is_computed_alike_in_int8() {
    for (name, cases) in expected() {
        let load = |precision| {
            let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
            Registry::default().load(&families().join(&name), &options).unwrap()
        };
        let probe = Registry::default().survey(&families().join(&name), &LoadOptions::default()).unwrap();
        if !probe.precisions.contains(&Precision::Int8) {
            continue;
        }
        let answers = |precision| infer(&mut load(precision), cases.iter().map(|(input, _)| input.clone()));
        for (got, expected) in answers(Precision::Int8).iter().zip(answers(Precision::F32)) {
            let gap = largest_gap(&got.numbers(), &expected.numbers());
            assert!(gap < 0.2, "{name}: {gap:e}");
        }
    }
}

#[test]
fn a_pair_that_is_too_long_loses_tokens_of_its_longer_text_and_a_reranker_takes_one_text_too() {
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
    let pixels = sconce_models::Array { shape: vec![1], data: sconce_models::ArrayData::U8(vec![0]) };
    assert!(refused(pixels.into(), Truncation::Truncate).contains("but got an array"));
    assert_eq!(prepare(&model, "alone".into()).weight(), 7, "[CLS], letters and [SEP]");
    assert_eq!(prepare(&model, ("", "stone").into()).weight(), 4, "an empty text is a text without tokens");
    assert_eq!(prepare(&model, ("stone", "river").into()).weight(), 5);
}

#[test]
fn a_number_of_positions_that_no_model_has_is_refused_where_no_table_bounds_it() {
    for name in ["modernbert", "qwen3", "gte", "nomic-bert"] {
        for positions in [0_u64, 1 << 32, 1 << 62] {
            let copy = changed(name, |config| config["max_position_embeddings"] = positions.into());
            let refused = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap_err().to_string();
            let field = if name == "nomic-bert" { "n_positions" } else { "max_position_embeddings" };
            assert!(
                refused.contains(&format!("field '{field}' is {positions}; it must be between 1 and")),
                "{refused}"
            );
        }
    }
}

#[test]
fn a_field_of_the_wrong_type_is_named_in_every_family() {
    for name in ["albert", "mpnet", "gte", "nomic-bert", "roberta", "electra"] {
        let copy = changed(name, |config| config["layer_norm_eps"] = "small".into());
        let refused = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap_err().to_string();
        assert!(refused.contains("field 'layer_norm_eps'") && refused.contains("small"), "{name}: {refused}");
    }
}

#[test]
fn a_text_that_spells_out_the_padding_is_refused_where_positions_skip_it() {
    for (name, padding) in [("roberta", "<pad>"), ("camembert", "<pad>"), ("mpnet", "<pad>")] {
        let model = Registry::default().load(&families().join(name), &LoadOptions::default()).unwrap();
        let text = format!("hello {padding} world");
        let refused = model.processor.prepare(text.into(), Truncation::Truncate).unwrap_err().to_string();
        assert!(refused.contains("'<pad>' (1), which stands for padding"), "{name}: {refused}");
    }
    let bert = Registry::default().load(&families().join("bert"), &LoadOptions::default()).unwrap();
    assert_eq!(prepare(&bert, "hello [PAD] world".into()).weight(), 5);
}

/// A copy of a family's model, its `config.json` changed.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(families().join(name).join(file), copy.path().join(file)).unwrap();
    }
    crate::edit_config(copy.path(), change);
    copy
}

#[test]
fn a_reranker_that_declares_identity_answers_with_its_logit() {
    let score = |change: fn(&mut Value)| {
        let copy = changed("bert-cross-encoder", change);
        let mut model = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap();
        infer(&mut model, [("hello world", "the cat sat on the mat").into()])[0].score().unwrap().clone()
    };
    let plain = score(|_| {});
    assert!((plain.score - 1.0 / (1.0 + (-plain.logit).exp())).abs() < 1e-6);
    for declare in [
        (|config| config["sbert_ce_default_activation_function"] = "torch.nn.modules.linear.Identity".into())
            as fn(&mut Value),
        |config| {
            config["sentence_transformers"] = serde_json::json!({"activation_fn": "torch.nn.modules.linear.Identity"});
        },
    ] {
        let declared = score(declare);
        assert_eq!(
            (declared.score.to_bits(), declared.logit.to_bits()),
            (plain.logit.to_bits(), plain.logit.to_bits())
        );
    }
    let copy = changed("bert-cross-encoder", |config| config["sbert_ce_default_activation_function"] = "a.Tanh".into());
    let refused = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(refused.contains("'Tanh'") && refused.contains("Sigmoid, Identity"), "{refused}");
}

#[test]
fn a_limit_without_room_for_a_pair_and_segments_that_the_model_lacks_are_refused() {
    let copy = changed("bert-cross-encoder", |_| {});
    std::fs::write(copy.path().join("sconce.toml"), "[model]\nmax_tokens = 4").unwrap();
    let refused = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(refused.contains("sconce.toml") && refused.contains("no room for two texts"), "{refused}");
}

#[test]
fn weights_that_give_no_numbers_give_an_error_not_an_answer() {
    let copy = changed("distilbert-sst2", |_| {});
    let path = copy.path().join("model.safetensors");
    let mut weights = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
    let bias = weights.get_mut("classifier.bias").unwrap();
    *bias = bias.affine(0.0, f64::NAN).unwrap();
    candle_core::safetensors::save(&weights, &path).unwrap();
    let mut model = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap();
    let features = prepare(&model, "river".into());
    let error = model.network.forward(&[features]).unwrap_err();
    assert!(matches!(error, sconce_models::ForwardError::NotFinite { item: 0 }), "{error}");
}

#[test]
fn a_classifier_whose_config_names_no_architecture_is_refused_not_served_as_an_embedder() {
    let copy = changed("distilbert-sst2", |config| drop(config.as_object_mut().unwrap().remove("architectures")));
    let refused = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(refused.contains("'architectures'") && refused.contains("'classifier.weight'"), "{refused}");
    let embedder = changed("distilbert", |config| drop(config.as_object_mut().unwrap().remove("architectures")));
    assert!(Registry::default().load(embedder.path(), &LoadOptions::default()).is_ok());
}

/// A copy of the language model that answers yes or no, in a directory whose name does not say so.
fn word_reranker(files: &[(&str, &str)]) -> tempfile::TempDir {
    let copy = changed("qwen3-word-reranker", |_| {});
    for (file, content) in files {
        let path = copy.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    copy
}

#[test]
fn a_language_model_is_a_reranker_where_its_files_say_so_and_an_embedder_elsewhere() {
    let modules = r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.Transformer"},
        {"idx": 1, "name": "1", "path": "1_LogitScore", "type": "sentence_transformers.cross_encoder.modules.LogitScore"}]"#;
    let template = "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct \
        provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n<Instruct>: {{ i | default('Given \
        a web search query, retrieve relevant passages that answer the query') }}\n<Query>: {{ q }}\n<Document>: \
        {{ d }}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
    let load = |files: &[(&str, &str)]| {
        Registry::default()
            .load(word_reranker(files).path(), &LoadOptions::default())
            .map_err(|error| error.to_string())
    };
    let plain = Registry::default().load(&families().join("qwen3-word-reranker"), &LoadOptions::default()).unwrap();
    let token = |token: &str| {
        let tokenizer = sconce_models::ModelDirectory::new(families().join("qwen3-word-reranker")).tokenizer().unwrap();
        tokenizer.token_to_id(token).unwrap()
    };
    let tokens = format!(r#"{{"true_token_id": {}, "false_token_id": {}}}"#, token("yes"), token("no"));
    let module = [("modules.json", modules), ("1_LogitScore/config.json", &*tokens), ("chat_template.jinja", template)];
    let pair = || Input::from(("hello world", "the cat sat on the mat"));
    let logit = |model: &mut sconce_models::LoadedModel| infer(model, [pair()])[0].score().unwrap().logit;
    let expected = logit(&mut { plain });
    for files in [
        &module[..],
        &[("sconce.toml", "[model]\ntask = \"score\"")],
        &[("README.md", "---\nlicense: mit\npipeline_tag: text-ranking\n---\n# A model")],
    ] {
        let got = logit(&mut load(files).unwrap());
        assert_eq!(got.to_bits(), expected.to_bits(), "{files:?}");
    }
    for files in [&[][..], &[("README.md", "# A model\npipeline_tag: text-ranking")]] {
        assert_eq!(load(files).unwrap().signature.task.name(), "embedding", "{files:?}");
    }
    let other = [module[0], module[1], ("chat_template.jinja", "{{ messages }}")];
    let refused = load(&other).unwrap_err();
    assert!(refused.contains("chat_template.jinja") && refused.contains("lacks"), "{refused}");
    let refused = load(&module[..2]).unwrap_err();
    assert!(refused.contains("no chat template"), "{refused}");
}

#[test]
fn a_language_models_question_keeps_its_end_and_refuses_a_text_alone() {
    let copy = word_reranker(&[("sconce.toml", "[model]\ntask = \"score\"\nmax_tokens = 300")]);
    let model = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap();
    let tokens = |input: Input| match prepare(&model, input) {
        sconce_models::Features::Tokens { input_ids, .. } => input_ids,
        other => panic!("{other:?}"),
    };
    let (short, long) = (tokens(("a", "b").into()), tokens(("a", &*"river ".repeat(400)).into()));
    assert_eq!((long.len(), &long[long.len() - 8..]), (300, &short[short.len() - 8..]));
    let query = Input::from((&*"river ".repeat(400), "b"));
    let refused = model.processor.prepare(query, Truncation::Truncate).unwrap_err().to_string();
    assert!(refused.contains("leaves no room for the text read with it"), "{refused}");
    let instructed = |prompt| tokens(Input::from(("a", "b")).with_prompt(prompt));
    assert_eq!(instructed(""), short, "the instruction of the card");
    assert_ne!(instructed("find the river"), short);
    let refused = model.processor.prepare("a".into(), Truncation::Truncate).unwrap_err().to_string();
    assert!(refused.contains("a pair of texts"), "{refused}");
}
