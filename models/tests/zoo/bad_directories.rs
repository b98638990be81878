//! Invalid model directories: each error names the file, the fault in it, and the allowed values.

use std::fs;
use std::path::Path;

use sconce_models::{
    Blueprint, Family, Halves, InputKind, LoadError, LoadOptions, ModelDirectory, Registry, Target, Task,
};
use serde_json::{Value, json};

use crate::{copy_of, edit_config, infer, load};

fn refusal(copy: &Path) -> LoadError {
    Registry::default().load(copy, &LoadOptions::default()).unwrap_err()
}

/// Asserts that loading fails with a message that contains every part.
fn assert_refused(copy: &Path, parts: &[&str]) {
    let message = refusal(copy).to_string();
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

#[test]
fn an_unknown_model_type_lists_what_is_known() {
    let copy = copy_of("digits-cnn");
    edit_config(copy.path(), |config| config["model_type"] = json!("gpt-17"));
    assert_refused(
        copy.path(),
        &["config.json", "'gpt-17'", "known are: albert, bert, camembert, digits-cnn, distilbert"],
    );
    assert!(matches!(refusal(copy.path()), LoadError::UnknownModelType { .. }));
}

#[test]
fn a_config_that_is_missing_or_no_json_or_has_no_model_type_is_named() {
    let copy = copy_of("digits-cnn");
    fs::write(copy.path().join("config.json"), "{\"model_type\": \"digits-").unwrap();
    assert_refused(copy.path(), &["config.json is not valid", "line 1"]);
    fs::write(copy.path().join("config.json"), "{}").unwrap();
    assert_refused(copy.path(), &["config.json is not valid", "missing field `model_type`"]);
    fs::write(copy.path().join("config.json"), "{\"model_type\": 3}").unwrap();
    assert_refused(copy.path(), &["field 'model_type'", "expected a string"]);
    fs::remove_file(copy.path().join("config.json")).unwrap();
    assert_refused(copy.path(), &["cannot read", "config.json"]);
}

#[test]
fn a_field_that_is_missing_or_out_of_range_is_named_with_what_is_allowed() {
    let cases: [(&str, &str, Value, &[&str]); 20] = [
        ("encoder-mini", "hidden_size", Value::Null, &["model.safetensors", "has shape", "768]"]),
        ("encoder-mini", "hidden_size", json!("big"), &["field 'hidden_size'", "\"big\""]),
        ("encoder-mini", "num_attention_heads", json!(7), &["'num_attention_heads' is 7", "divide hidden_size 384"]),
        ("encoder-mini", "num_attention_heads", json!(0), &["'num_attention_heads' is 0", "between 1"]),
        ("encoder-mini", "hidden_act", json!("mish"), &["'mish'", "gelu, gelu_new, gelu_pytorch_tanh, relu, silu"]),
        ("encoder-mini", "position_embedding_type", json!("relative_key"), &["'relative_key'", "'absolute'"]),
        ("encoder-mini", "layer_norm_eps", json!(-1.0), &["'layer_norm_eps' is -1", "not negative"]),
        ("encoder-mini", "architectures", json!(["BertForNothing"]), &["'BertForNothing'", "BertModel"]),
        ("encoder-mini", "is_decoder", json!(true), &["'is_decoder' is true"]),
        ("encoder-mini", "vocab_size", json!(9000), &["'embeddings.word_embeddings.weight'", "needs [9000, 384]"]),
        ("tiny-bert-sentiment", "id2label", json!({"0": "no", "2": "yes"}), &["'id2label' has 2 labels", "none for 1"]),
        ("tiny-bert-sentiment", "id2label", json!({}), &["'id2label' is empty"]),
        ("tiny-bert-sentiment", "id2label", json!({"0": "x", "1": "x"}), &["'id2label' names 'x' more than once"]),
        ("tiny-bert-sentiment", "problem_type", json!("guess"), &["'guess'", "single_label"]),
        ("digits-cnn", "layout", json!("NHWC"), &["'layout' is 'NHWC'", "'NCHW'"]),
        ("digits-cnn", "pool", json!(0), &["'pool' is 0", "between 1"]),
        ("digits-cnn", "pool", json!(16), &["'image_size' is 8", "leaves nothing"]),
        ("digits-cnn", "num_labels", json!(4_000_000_000_u64), &["'num_labels'", "65536"]),
        ("magika", "padding_token", json!(257), &["'padding_token' is 257", "vocab_size"]),
        ("magika", "norm0_axis", json!("channel"), &["'norm0_axis' is 'channel'", "'position'"]),
    ];
    for (model, field, value, parts) in cases {
        let copy = copy_of(model);
        edit_config(copy.path(), |config| config[field] = value);
        assert_refused(copy.path(), parts);
    }
    let copy = copy_of("digits-cnn");
    edit_config(copy.path(), |config| drop(config.as_object_mut().unwrap().remove("hidden")));
    assert_refused(copy.path(), &["config.json", "missing field `hidden`"]);
}

/// Copies of a configuration with each number replaced, one at a time and then all together, each with the name of its
/// field.
fn with_numbers_replaced(config: &Value, number: u64) -> Vec<(String, Value)> {
    let numbers: Vec<String> = config
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| has_number(value))
        .map(|(field, _)| field.clone())
        .collect();
    let replace = |fields: &[String]| {
        let mut config = config.clone();
        for field in fields {
            replace_numbers(&mut config[field], number);
        }
        config
    };
    let one_each = numbers.iter().map(|field| (field.clone(), replace(std::slice::from_ref(field))));
    one_each.chain([("all".to_owned(), replace(&numbers))]).collect()
}

fn has_number(value: &Value) -> bool {
    value.is_u64() || value.as_array().is_some_and(|values| values.iter().any(Value::is_u64))
}

fn replace_numbers(value: &mut Value, number: u64) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| replace_numbers(value, number)),
        value => *value = json!(number),
    }
}

#[test]
fn sizes_of_any_number_are_refused_or_used_without_overflow() {
    for model in ["digits-cnn", "encoder-mini", "magika", "tiny-bert-sentiment"] {
        let copy = copy_of(model);
        let path = copy.path().join("config.json");
        let config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for number in [0, 1, 1 << 16, (1 << 16) + 1, 1 << 24, 1 << 32, 1 << 53, u64::MAX] {
            for (field, changed) in with_numbers_replaced(&config, number) {
                fs::write(&path, changed.to_string()).unwrap();
                let options = LoadOptions::default();
                let registry = Registry::default();
                let loaded = registry.survey(copy.path(), &options).and_then(|_| registry.load(copy.path(), &options));
                // A number beyond all bounds is refused with the field's name; a field that the family ignores is not.
                if number > 1 << 24
                    && let Err(error) = loaded
                {
                    let message = error.to_string();
                    assert!(
                        message.contains("config.json") && message.contains("field '"),
                        "{model} {field}: {message}"
                    );
                }
            }
        }
    }
}

#[test]
fn weights_that_are_cut_short_at_any_point_are_refused() {
    let copy = copy_of("digits-cnn");
    let path = copy.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(refusal(copy.path()), LoadError::Weights { .. }), "{length} bytes");
        assert_refused(copy.path(), &["model.safetensors does not fit the model"]);
    }
    fs::remove_file(path).unwrap();
    assert_refused(copy.path(), &["cannot read", "model.safetensors"]);
}

#[test]
fn a_tensor_that_is_missing_or_of_another_shape_is_named() {
    let copy = copy_of("digits-cnn");
    edit_config(copy.path(), |config| config["hidden"] = json!(100));
    assert_refused(copy.path(), &["model.safetensors", "'fc1.weight' has shape [128, 256]", "needs [100, 256]"]);
    let copy = copy_of("encoder-mini");
    edit_config(copy.path(), |config| config["num_hidden_layers"] = json!(4));
    assert_refused(copy.path(), &["'encoder.layer.3.attention.self.query.weight' is missing"]);
}

#[test]
fn a_tokenizer_that_is_missing_or_broken_is_named() {
    let copy = copy_of("tiny-bert-sentiment");
    fs::write(copy.path().join("tokenizer.json"), "{}").unwrap();
    assert_refused(copy.path(), &["tokenizer.json is not valid"]);
    fs::remove_file(copy.path().join("tokenizer.json")).unwrap();
    assert_refused(copy.path(), &["tokenizer.json", "missing", "save_pretrained"]);
}

#[test]
fn settings_that_are_unknown_out_of_range_or_without_meaning_are_named() {
    let cases: [(&str, &str, &[&str]); 11] = [
        ("encoder-mini", "[batching]\nmax_batchsize = 3", &["unknown field `max_batchsize`", "max_batch_size"]),
        ("encoder-mini", "[batch]", &["unknown field `batch`", "batching"]),
        ("encoder-mini", "[batching]\nmax_batch_size = 0", &["'batching.max_batch_size' is 0"]),
        ("encoder-mini", "[batching]\nmax_queue_size = -1", &["'batching.max_queue_size'", "-1"]),
        ("encoder-mini", "[model]\nmax_tokens = 129", &["'model.max_tokens' is 129", "128 positions"]),
        ("encoder-mini", "[model]\nmax_tokens = 2", &["no room beside the 2 special ones"]),
        ("encoder-mini", "[model]\npooling = \"sum\"", &["'model.pooling'", "unknown variant `sum`", "mean"]),
        ("tiny-bert-sentiment", "[model]\npooling = \"cls\"", &["'model.pooling' has no meaning"]),
        ("digits-cnn", "[model]\nmax_tokens = 9", &["'model.max_tokens' has no meaning"]),
        ("magika", "[model]\ncuda_graphs = true", &["'model.cuda_graphs' has no meaning"]),
        ("digits-cnn", "[model", &["sconce.toml is not valid"]),
    ];
    for (model, toml, parts) in cases {
        let copy = copy_of(model);
        fs::write(copy.path().join("sconce.toml"), toml).unwrap();
        assert_refused(copy.path(), &[&["sconce.toml"], parts].concat());
    }
}

#[test]
fn settings_that_are_right_change_what_a_model_does() {
    let copy = copy_of("encoder-mini");
    let toml = "[model]\npooling = \"cls\"\nnormalize = false\nmax_tokens = 16\n[batching]\nmax_batch_size = 5";
    fs::write(copy.path().join("sconce.toml"), toml).unwrap();
    let mut changed = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap();
    assert_eq!(changed.signature.input.kind, InputKind::Text { max_tokens: 16 });
    assert_eq!(changed.settings.batching.max_batch_size, Some(5));
    let norm = |output: &sconce_models::Output| output.embedding().unwrap().iter().map(|x| x * x).sum::<f32>().sqrt();
    let changed = infer(&mut changed, ["a cat".into()]).swap_remove(0);
    let usual = infer(&mut load("encoder-mini"), ["a cat".into()]).swap_remove(0);
    assert!((norm(&usual) - 1.0).abs() < 1e-5 && (norm(&changed) - 1.0).abs() > 0.1);
}

#[test]
fn the_files_of_sentence_transformers_are_followed() {
    let copy = copy_of("encoder-mini");
    fs::write(copy.path().join("sentence_bert_config.json"), "{\"max_seq_length\": 48}").unwrap();
    fs::write(
        copy.path().join("modules.json"),
        "[{\"type\": \"sentence_transformers.models.Transformer\", \"path\": \"\"}]",
    )
    .unwrap();
    let mut model = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap();
    assert_eq!(model.signature.input.kind, InputKind::Text { max_tokens: 48 });
    // The modules lack Normalize, so embeddings keep their length.
    let output = infer(&mut model, ["a cat".into()]).swap_remove(0);
    assert!(output.embedding().unwrap().iter().map(|x| x * x).sum::<f32>() > 1.5);

    fs::write(copy.path().join("modules.json"), "[{\"type\": \"sentence_transformers.models.Dense\", \"path\": \"\"}]")
        .unwrap();
    assert_refused(copy.path(), &["modules.json", "'Dense'", "Transformer, Pooling, Dense, Normalize"]);
    fs::remove_file(copy.path().join("modules.json")).unwrap();
    fs::create_dir(copy.path().join("1_Pooling")).unwrap();
    fs::write(copy.path().join("1_Pooling/config.json"), "{\"pooling_mode\": \"sum\"}").unwrap();
    assert_refused(copy.path(), &["'pooling_mode' is 'sum'", "mean"]);
}

#[test]
fn a_family_from_outside_is_loaded_by_its_name() {
    let copy = copy_of("digits-cnn");
    edit_config(copy.path(), |config| config["model_type"] = json!("mine"));
    let digits = Registry::default().family("digits-cnn").unwrap().read;
    let mut registry = Registry::default();
    registry.register(Family { model_type: "mine", summary: "digits under another name", read: digits });
    let known: Vec<&str> = registry.known().map(|family| family.model_type).collect();
    assert!(known.contains(&"mine") && known.contains(&"bert") && known.is_sorted(), "{known:?}");
    let model = registry.load(copy.path(), &LoadOptions::default()).unwrap();
    assert!(matches!(model.signature.task, Task::Classification { .. }));
}

#[test]
fn a_family_that_panics_while_it_loads_a_model_is_told_as_that() {
    struct Panics;
    impl Blueprint for Panics {
        fn load(&self, _: &ModelDirectory, _: &Target) -> Result<Halves, LoadError> {
            panic!("no room for {}", 7)
        }
    }
    let copy = copy_of("digits-cnn");
    edit_config(copy.path(), |config| config["model_type"] = json!("mine"));
    let mut registry = Registry::default();
    registry.register(Family { model_type: "mine", summary: "panics", read: |_| Ok(Box::new(Panics)) });
    let refused = registry.load(copy.path(), &LoadOptions::default()).unwrap_err();
    assert!(refused.to_string().ends_with("cannot be loaded: a panic: no room for 7"), "{refused}");
}
