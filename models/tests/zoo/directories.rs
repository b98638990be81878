//! Directories as people have them: each form of the same model gives the same bits, and each file that changes an
//! answer changes it as the library that wrote the file does.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, safetensors};
use sconce_models::{
    Features, Input, InputError, InputKind, LoadOptions, ModelDirectory, Registry, Survey, Task, Truncation,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{copy_of, edit_config, infer};

const TEXTS: [&str; 3] = ["a cat sat on the mat", "Hello, World! It's 7 o'clock.", ""];

/// Tensors by their names.
type Tensors = HashMap<String, Tensor>;

/// Modules by type and folder, a file to write, its content, and parts of the refusal.
type Refused<'a> = (&'a [(&'a str, &'a str)], &'a str, Value, &'a [&'a str]);

/// Bits of a model's answers to [`TEXTS`].
fn answers(directory: &Path) -> Vec<Vec<u32>> {
    let mut model = Registry::default().load(directory, &LoadOptions::default()).unwrap();
    let outputs = infer(&mut model, TEXTS.map(Input::from));
    outputs.iter().map(|output| output.numbers().iter().map(|number| number.to_bits()).collect()).collect()
}

fn refusal(directory: &Path) -> String {
    Registry::default().load(directory, &LoadOptions::default()).unwrap_err().to_string()
}

fn survey(directory: &Path) -> Survey {
    Registry::default().survey(directory, &LoadOptions::default()).unwrap()
}

fn write(directory: &Path, file: &str, content: &Value) {
    let path = directory.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content.to_string()).unwrap();
}

/// The directory of a tiny model with random weights.
fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(name)
}

/// A copy of a tiny model, for a test to change.
fn copy_of_family(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(family(name).join(file), copy.path().join(file)).unwrap();
    }
    copy
}

/// Renames, adds and leaves out tensors of a copy.
fn change_tensors(copy: &Path, change: impl FnOnce(HashMap<String, Tensor>) -> HashMap<String, Tensor>) {
    let path = copy.join("model.safetensors");
    let tensors = safetensors::load(&path, &Device::Cpu).unwrap();
    safetensors::save(&change(tensors), path).unwrap();
}

fn renamed(tensors: HashMap<String, Tensor>, name: impl Fn(&str) -> String) -> HashMap<String, Tensor> {
    tensors.into_iter().map(|(old, tensor)| (name(&old), tensor)).collect()
}

fn tokens(directory: &Path, text: &str) -> Vec<u32> {
    let model = Registry::default().load(directory, &LoadOptions::default()).unwrap();
    match model.processor.prepare(text.into(), Truncation::Truncate).unwrap().features {
        Features::Tokens { input_ids, .. } => input_ids,
        _ => panic!("a text becomes tokens"),
    }
}

#[test]
fn names_of_tensors_as_old_and_headed_checkpoints_have_them_give_the_same_bits() {
    let expected = answers(copy_of("encoder-mini").path());
    let old =
        |name: &str| name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    let cases: [fn(Tensors) -> Tensors; 2] = [
        |tensors| renamed(tensors, |name| format!("bert.{name}")),
        |mut tensors| {
            let bias = Tensor::zeros(10_000, DType::F32, &Device::Cpu).unwrap();
            tensors.insert("cls.predictions.bias".to_owned(), bias);
            let positions = Tensor::arange(0_i64, 128, &Device::Cpu).unwrap();
            tensors.insert("embeddings.position_ids".to_owned(), positions);
            tensors
        },
    ];
    for change in cases {
        let copy = copy_of("encoder-mini");
        change_tensors(copy.path(), change);
        assert!(answers(copy.path()) == expected);
    }
    let copy = copy_of("encoder-mini");
    change_tensors(copy.path(), |tensors| renamed(tensors, old));
    assert!(answers(copy.path()) == expected);
}

/// Splits the weights of a copy into two files with an index.
fn split(copy: &Path) {
    let path = copy.join("model.safetensors");
    let mut tensors: Vec<(String, Tensor)> = safetensors::load(&path, &Device::Cpu).unwrap().into_iter().collect();
    tensors.sort_by(|one, other| one.0.cmp(&other.0));
    let mut map = serde_json::Map::new();
    for (number, part) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let file = format!("model-{:05}-of-00002.safetensors", number + 1);
        map.extend(part.iter().map(|(name, _)| (name.clone(), json!(file))));
        let part: HashMap<String, Tensor> = part.iter().cloned().collect();
        safetensors::save(&part, copy.join(file)).unwrap();
    }
    write(copy, "model.safetensors.index.json", &json!({"metadata": {}, "weight_map": map}));
    fs::remove_file(path).unwrap();
}

#[test]
fn weights_in_parts_give_the_same_bits_and_a_part_that_is_missing_is_named() {
    let copy = copy_of_family("distilbert");
    let expected = answers(copy.path());
    let whole = survey(copy.path()).demand;
    split(copy.path());
    assert!(answers(copy.path()) == expected);
    assert_eq!(survey(copy.path()).demand, whole);
    let files = |directory: &Path| {
        let (_, files) = Registry::default().load_with_files(directory, &LoadOptions::default()).unwrap();
        files.digests().unwrap()
    };
    let before = files(copy.path());
    let second = copy.path().join("model-00002-of-00002.safetensors");
    let other = safetensors::load(&second, &Device::Cpu).unwrap();
    let other: HashMap<_, _> =
        other.into_iter().map(|(name, tensor)| (name, tensor.affine(1.5, 0.0).unwrap())).collect();
    safetensors::save(&other, &second).unwrap();
    assert!(files(copy.path()).weights != before.weights, "each part counts");
    fs::remove_file(&second).unwrap();
    let refused = refusal(copy.path());
    assert!(refused.contains("cannot read") && refused.contains("model-00002-of-00002.safetensors"), "{refused}");
    safetensors::save(&HashMap::from([("other", Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap())]), &second)
        .unwrap();
    let refused = refusal(copy.path());
    assert!(
        refused.contains("index.json") && refused.contains("model-00002-of-00002.safetensors holds tensor"),
        "{refused}"
    );
}

#[test]
fn weights_of_pytorch_give_the_same_bits_as_safetensors_which_are_taken_first() {
    let copy = copy_of_family("distilbert");
    let expected = answers(copy.path());
    let pickle = family("distilbert-bin").join("pytorch_model.bin");
    fs::write(copy.path().join("pytorch_model.bin"), "not read").unwrap();
    assert!(answers(copy.path()) == expected);
    fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    fs::copy(&pickle, copy.path().join("pytorch_model.bin")).unwrap();
    assert!(answers(copy.path()) == expected);

    fs::rename(copy.path().join("pytorch_model.bin"), copy.path().join("pytorch_model-00001-of-00001.bin")).unwrap();
    let map = json!({"weight_map": {"embeddings.word_embeddings.weight": "pytorch_model-00001-of-00001.bin"}});
    write(copy.path(), "pytorch_model.bin.index.json", &map);
    assert!(answers(copy.path()) == expected);
}

#[test]
fn weights_that_are_not_read_are_refused_with_the_way_to_convert_them() {
    let convert = "AutoModel.from_pretrained(directory).save_pretrained(directory)";
    let copy = copy_of_family("distilbert");
    let pickle = fs::read(family("distilbert-bin").join("pytorch_model.bin")).unwrap();
    fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    for (bytes, part) in [
        (&b"PK\x03\x04 not really"[..], "not an archive of PyTorch"),
        (&b"\x80\x02\x8a\x0a"[..], "before 1.6"),
        (&pickle[..pickle.len() / 2], "not an archive of PyTorch"),
    ] {
        fs::write(copy.path().join("pytorch_model.bin"), bytes).unwrap();
        let refused = refusal(copy.path());
        assert!(
            refused.contains("pytorch_model.bin") && refused.contains(part) && refused.contains(convert),
            "{refused}"
        );
    }
    fs::remove_file(copy.path().join("pytorch_model.bin")).unwrap();
    fs::write(copy.path().join("tf_model.h5"), "").unwrap();
    let refused = refusal(copy.path());
    assert!(refused.contains("tf_model.h5 is for TensorFlow") && refused.contains(convert), "{refused}");
}

/// A pickle may be made to do harm: its bytes are changed one by one, and each change gives an error or a model.
#[test]
fn a_pickle_with_any_byte_changed_is_refused_or_read_but_never_a_panic() {
    let copy = copy_of_family("distilbert");
    fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    let pickle = fs::read(family("distilbert-bin").join("pytorch_model.bin")).unwrap();
    let path = copy.path().join("pytorch_model.bin");
    for at in (0..4000).step_by(41) {
        let mut changed = pickle.clone();
        changed[at] ^= 0x55;
        fs::write(&path, changed).unwrap();
        drop(ModelDirectory::new(copy.path()).weights());
    }
}

#[test]
fn files_that_stand_in_for_others_are_named_with_the_remedy() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1f\nsize 90\n";
    let page = "\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>";
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        for (content, part) in [(pointer, "run `git lfs pull`"), (page, "HTML page"), ("", "")] {
            let copy = copy_of_family("distilbert");
            fs::write(copy.path().join(file), content).unwrap();
            let refused = refusal(copy.path());
            assert!(refused.contains(file) && refused.contains(part), "{refused}");
        }
    }
    let copy = copy_of_family("distilbert");
    fs::write(copy.path().join("model.safetensors"), "").unwrap();
    assert!(refusal(copy.path()).contains("is empty"));
}

#[test]
fn a_config_as_python_writes_it_is_read_and_missing_fields_have_the_librarys_defaults() {
    let expected = answers(copy_of("encoder-mini").path());
    let copy = copy_of("encoder-mini");
    edit_config(copy.path(), |config| {
        for field in ["hidden_act", "layer_norm_eps", "type_vocab_size", "architectures"] {
            config.as_object_mut().unwrap().remove(field);
        }
        for field in ["position_embedding_type", "is_decoder", "id2label", "problem_type", "rope_scaling"] {
            config[field] = Value::Null;
        }
    });
    let path = copy.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    let with = |field: &str| format!("\u{feff}{}, {field}}}", config.strip_suffix('}').unwrap());
    fs::write(&path, with("\"rope_theta\": NaN, \"scale\": [-Infinity, Infinity]")).unwrap();
    assert!(answers(copy.path()) == expected);
    for (field, part) in [("\"layer_norm_eps\": NaN", "NaN"), ("\"vocab_size\": Infinity", "Infinity")] {
        fs::write(&path, with(field)).unwrap();
        let refused = refusal(copy.path());
        let name = field.split('"').nth(1).unwrap();
        assert!(refused.contains(&format!("field '{name}'")) && refused.contains(part), "{refused}");
    }
}

#[test]
fn a_family_that_config_json_does_not_name_is_inferred_and_the_survey_says_from_where() {
    let without_type = |model: &str, parent: &Path, name: &str, keep: bool| {
        let directory = parent.join(name);
        fs::create_dir(&directory).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(family(model).join(file), directory.join(file)).unwrap();
        }
        edit_config(&directory, |config| {
            config.as_object_mut().unwrap().remove("model_type");
            if !keep {
                config.as_object_mut().unwrap().remove("architectures");
            }
        });
        directory
    };
    let expected = answers(&family("distilbert"));
    let parent = tempfile::tempdir().unwrap();
    for (name, keep, place) in [
        ("by-fields", true, "field 'architectures'"),
        ("my-distilbert-base", false, "the directory's name"),
        ("by-tensors", false, "the names of the tensors"),
    ] {
        let directory = without_type("distilbert", parent.path(), name, keep);
        let Survey { model_type, inferred_from, .. } = survey(&directory);
        assert_eq!((model_type, inferred_from), ("distilbert", Some(place)));
        assert!(answers(&directory) == expected, "{name}");
    }
    assert_eq!(survey(&family("distilbert")).inferred_from, None);
    let unknown = without_type("distilbert", parent.path(), "unknown", true);
    edit_config(&unknown, |config| config["architectures"] = json!(["GrownModel"]));
    assert!(refusal(&unknown).contains("'GrownModel'"));
}

/// Replaces `tokenizer.json` of a copy by the `vocab.txt` that it was made of.
fn only_vocabulary(copy: &Path) {
    let path = copy.join("tokenizer.json");
    let tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut words: Vec<(&String, u64)> = tokenizer["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(word, id)| (word, id.as_u64().unwrap()))
        .collect();
    words.sort_by_key(|(_, id)| *id);
    let text: String = words.iter().flat_map(|(word, _)| [word.as_str(), "\n"]).collect();
    fs::write(copy.join("vocab.txt"), text).unwrap();
    fs::remove_file(path).unwrap();
}

#[test]
fn a_vocabulary_alone_gives_the_tokenizer_that_transformers_makes_of_it() {
    let texts = ["A cat, naïve: 中文 [SEP] don't [MASK]!", "ÀÉ \u{301}x", ""];
    for model in ["encoder-mini", "tiny-bert-sentiment"] {
        let copy = copy_of(model);
        let expected = texts.map(|text| tokens(copy.path(), text));
        only_vocabulary(copy.path());
        assert_eq!(texts.map(|text| tokens(copy.path(), text)), expected, "{model}");
    }
    let copy = copy_of("encoder-mini");
    only_vocabulary(copy.path());
    let lower = tokens(copy.path(), "hello world");
    write(copy.path(), "tokenizer_config.json", &json!({"do_lower_case": false}));
    assert_eq!(tokens(copy.path(), "hello world"), lower);
    assert_ne!(tokens(copy.path(), "HELLO world"), lower);
    write(copy.path(), "tokenizer_config.json", &json!({"cls_token": "[MASK]", "sep_token": {"content": "[UNK]"}}));
    let special = tokens(copy.path(), "hello world");
    assert_eq!((special[0], special[special.len() - 1]), (4, 1));
    assert_eq!(special[1..special.len() - 1], lower[1..lower.len() - 1]);
}

/// Tokens of `RobertaTokenizer` of transformers 5.24 for the same files.
#[test]
fn pieces_and_merges_give_the_tokenizer_that_transformers_makes_of_them() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "config.json", &json!({"model_type": "roberta"}));
    let mut pieces = vec!["<s>", "<pad>", "</s>", "<unk>"];
    pieces.extend(["h", "e", "l", "o", "w", "r", "d", "Ġ", "!", "he", "ll", "hell", "hello", "Ġw", "Ġwo", "Ã", "©"]);
    pieces.push("<mask>");
    let vocab: serde_json::Map<_, _> =
        pieces.iter().enumerate().map(|(id, piece)| ((*piece).to_owned(), json!(id))).collect();
    write(directory.path(), "vocab.json", &Value::Object(vocab));
    fs::write(directory.path().join("merges.txt"), "#version: 0.2\nh e\nl l\nhe ll\nhell o\nĠ w\nĠw o\n").unwrap();
    let tokens = |text: &str| {
        let tokenizer = ModelDirectory::new(directory.path()).tokenizer().unwrap();
        tokenizer.encode(text, true).unwrap().get_ids().to_vec()
    };
    assert_eq!(tokens("hello world!"), [0, 16, 18, 9, 6, 10, 12, 2]);
    assert_eq!(tokens(" wo <mask>é"), [0, 18, 11, 21, 19, 20, 2]);
    assert_eq!(tokens(""), [0, 2]);
    let pair = ModelDirectory::new(directory.path()).tokenizer().unwrap().encode(("he", "o"), true).unwrap();
    assert_eq!(pair.get_ids(), [0, 13, 2, 2, 7, 2]);
    write(directory.path(), "tokenizer_config.json", &json!({"add_prefix_space": true}));
    assert_eq!(tokens("wo"), [0, 18, 2]);
    fs::write(directory.path().join("merges.txt"), "h e l\n").unwrap();
    let refused = ModelDirectory::new(directory.path()).tokenizer().unwrap_err().to_string();
    assert!(refused.contains("merges.txt") && refused.contains("'h e l'"), "{refused}");
    fs::remove_file(directory.path().join("merges.txt")).unwrap();
    fs::write(directory.path().join("sentencepiece.bpe.model"), "").unwrap();
    let refused = ModelDirectory::new(directory.path()).tokenizer().unwrap_err().to_string();
    assert!(refused.contains("sentencepiece.bpe.model") && refused.contains("save_pretrained"), "{refused}");
}

#[test]
fn casing_is_that_of_the_tokenizers_class_where_the_class_has_settings() {
    let cased = |class: Value| {
        let copy = copy_of("encoder-mini");
        write(copy.path(), "tokenizer_config.json", &class);
        tokens(copy.path(), "HELLO") != tokens(copy.path(), "hello")
    };
    assert!(cased(json!({"tokenizer_class": "BertTokenizer", "do_lower_case": false})));
    assert!(cased(json!({"tokenizer_class": "BertTokenizerFast", "do_lower_case": false})));
    assert!(!cased(json!({"tokenizer_class": "BertTokenizer"})));
    assert!(!cased(json!({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": false})));

    let copy = copy_of("encoder-mini");
    let path = copy.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    tokenizer["normalizer"]["lowercase"] = json!(false);
    fs::write(&path, tokenizer.to_string()).unwrap();
    let is_cased = || tokens(copy.path(), "HELLO") != tokens(copy.path(), "hello");
    assert!(!is_cased(), "BertTokenizer makes lower case unless its settings say otherwise");
    write(copy.path(), "tokenizer_config.json", &json!({"do_lower_case": false}));
    assert!(is_cased());
    write(copy.path(), "sentence_bert_config.json", &json!({"do_lower_case": true}));
    assert!(!is_cased());
}

#[test]
fn the_limit_of_tokens_is_read_from_the_file_that_the_libraries_read_it_from() {
    let limit = |files: &[(&str, Value)]| {
        let copy = copy_of("encoder-mini");
        for (file, content) in files {
            write(copy.path(), file, content);
        }
        let model = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap();
        let InputKind::Text { max_tokens } = model.signature.input.kind else { panic!("a text") };
        max_tokens
    };
    let tokenizer = |limit: Value| ("tokenizer_config.json", json!({"model_max_length": limit}));
    let sentence = |limit: Value| ("sentence_bert_config.json", json!({"max_seq_length": limit}));
    assert_eq!(limit(&[]), 128);
    assert_eq!(limit(&[tokenizer(json!(32))]), 32);
    assert_eq!(limit(&[tokenizer(json!(1e30)), sentence(Value::Null)]), 128);
    assert_eq!(limit(&[tokenizer(json!(32)), sentence(Value::Null)]), 32);
    assert_eq!(limit(&[tokenizer(json!(32)), sentence(json!(48))]), 48);
    assert_eq!(limit(&[sentence(json!(4096))]), 128);
    assert_eq!(limit(&[("sentence_roberta_config.json", json!({"max_seq_length": 16}))]), 16);

    let copy = copy_of("encoder-mini");
    let path = copy.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    tokenizer["truncation"]["max_length"] = json!(8);
    fs::write(&path, tokenizer.to_string()).unwrap();
    assert_eq!(tokens(copy.path(), &"a ".repeat(200)).len(), 128, "the library sets the limit anew at every call");
    write(copy.path(), "tokenizer_config.json", &json!({"model_max_length": 0}));
    assert!(refusal(copy.path()).contains("'model_max_length' is 0"));
}

#[test]
fn a_truncated_text_loses_the_end_that_the_settings_name() {
    let copy = copy_of("encoder-mini");
    let text = format!("hello {}world", "a ".repeat(200));
    let (hello, world) = (tokens(copy.path(), "hello")[1], tokens(copy.path(), "world")[1]);
    assert_eq!(tokens(copy.path(), &text)[1], hello);
    write(copy.path(), "tokenizer_config.json", &json!({"truncation_side": "left"}));
    let left = tokens(copy.path(), &text);
    assert_eq!((left.len(), left[126], left.contains(&hello)), (128, world, false));
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_model_has_words_refuses_only_texts_with_them() {
    let copy = copy_of("encoder-mini");
    edit_config(copy.path(), |config| config["vocab_size"] = json!(9000));
    change_tensors(copy.path(), |mut tensors| {
        let words = tensors["embeddings.word_embeddings.weight"].narrow(0, 0, 9000).unwrap();
        tensors.insert("embeddings.word_embeddings.weight".to_owned(), words);
        tensors
    });
    let tokenizer = ModelDirectory::new(copy.path()).tokenizer().unwrap();
    let is_word = |token: &String| token.chars().all(|letter| letter.is_ascii_lowercase());
    let beyond = (9000..10_000).filter_map(|id| tokenizer.id_to_token(id)).find(is_word).unwrap();
    let model = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap();
    assert!(model.processor.prepare("a cat".into(), Truncation::Truncate).is_ok());
    let refused = model.processor.prepare(format!("a {beyond}").into(), Truncation::Truncate).unwrap_err();
    assert!(matches!(&refused, InputError::UnknownToken { token, rows: 9000, .. } if *token == beyond), "{refused:?}");
    let copy = copy_of("encoder-mini");
    edit_config(copy.path(), |config| config["vocab_size"] = json!(3));
    change_tensors(copy.path(), |mut tensors| {
        let words = tensors["embeddings.word_embeddings.weight"].narrow(0, 0, 3).unwrap();
        tensors.insert("embeddings.word_embeddings.weight".to_owned(), words);
        tensors
    });
    let refused = refusal(copy.path());
    assert!(refused.contains("tokenizer.json") && refused.contains("'[SEP]'"), "{refused}");
}

#[test]
fn an_empty_text_is_embedded_as_its_special_tokens() {
    let copy = copy_of("encoder-mini");
    for text in ["", " ", "\t\n\u{3000}"] {
        assert_eq!(tokens(copy.path(), text), [2, 3]);
    }
    let path = copy.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    tokenizer["post_processor"] = Value::Null;
    fs::write(&path, tokenizer.to_string()).unwrap();
    let model = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap();
    let refused = model.processor.prepare(" ".into(), Truncation::Truncate).unwrap_err();
    assert_eq!(refused, InputError::Empty { name: "text" });
    assert!(model.processor.prepare("a".into(), Truncation::Truncate).is_ok());
}

/// The modules of sentence-transformers, each as its type and folder.
fn modules(copy: &Path, modules: &[(&str, &str)]) {
    let entry = |(index, (kind, path)): (usize, &(&str, &str))| json!({"idx": index, "name": index.to_string(), "path": path, "type": kind});
    write(copy, "modules.json", &Value::Array(modules.iter().enumerate().map(entry).collect()));
}

const TRANSFORMER: &str = "sentence_transformers.models.Transformer";
const POOLING: &str = "sentence_transformers.models.Pooling";
const NORMALIZE: &str = "sentence_transformers.models.Normalize";

#[test]
fn an_encoder_in_its_own_folder_is_read_from_there() {
    let copy = copy_of("encoder-mini");
    let plain = copy_of("encoder-mini");
    modules(plain.path(), &[(TRANSFORMER, ""), (POOLING, "1_Pooling")]);
    let expected = answers(plain.path());
    fs::create_dir(copy.path().join("0_Transformer")).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::rename(copy.path().join(file), copy.path().join("0_Transformer").join(file)).unwrap();
    }
    modules(copy.path(), &[(TRANSFORMER, "0_Transformer"), (POOLING, "1_Pooling")]);
    assert!(answers(copy.path()) == expected);
    assert!(ModelDirectory::is_at(copy.path()));
    write(copy.path(), "0_Transformer/sentence_bert_config.json", &json!({"max_seq_length": 5}));
    assert_eq!(tokens(copy.path(), &"a ".repeat(50)).len(), 5);
    fs::write(copy.path().join("sconce.toml"), "[model]\nmax_tokens = 7").unwrap();
    assert_eq!(tokens(copy.path(), &"a ".repeat(50)).len(), 7);
    fs::remove_file(copy.path().join("0_Transformer/config.json")).unwrap();
    assert!(refusal(copy.path()).contains("0_Transformer/config.json"));
    modules(copy.path(), &[(TRANSFORMER, "../elsewhere")]);
    assert!(refusal(copy.path()).contains("'../elsewhere'"));
}

#[test]
fn poolings_of_old_and_new_versions_are_the_same() {
    let pooled = |kind: [&str; 3], folder: &str, config: &Value| {
        let copy = copy_of("encoder-mini");
        modules(copy.path(), &[(kind[0], ""), (kind[1], folder), (kind[2], "2_Normalize")]);
        write(copy.path(), &format!("{folder}/config.json"), config);
        answers(copy.path())
    };
    let old = [TRANSFORMER, POOLING, NORMALIZE];
    let new = [
        "sentence_transformers.base.modules.transformer.Transformer",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "sentence_transformers.base.modules.normalize.Normalize",
    ];
    let cls = pooled(old, "1_Pooling", &json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}));
    let mean = pooled(old, "1_Pooling", &json!({"pooling_mode_mean_tokens": true}));
    assert!(cls != mean);
    assert!(pooled(new, "pool", &json!({"pooling_mode": "cls", "embedding_dimension": 384})) == cls);
    assert!(pooled(new, "1_Pooling", &json!({"pooling_mode": ["mean"], "include_prompt": true})) == mean);
    assert!(
        pooled(new, "1_Pooling", &json!({"word_embedding_dimension": 384})) == mean,
        "mean unless it says otherwise"
    );
    assert!(answers(copy_of("encoder-mini").path()) == mean);
}

#[test]
fn modules_that_are_not_served_are_refused_by_name() {
    let cases: [Refused<'_>; 6] = [
        (
            &[(TRANSFORMER, ""), (POOLING, "p"), ("sentence_transformers.models.LSTM", "l")],
            "l/config.json",
            json!({}),
            &["'LSTM'"],
        ),
        (
            &[(TRANSFORMER, ""), (POOLING, "p"), (NORMALIZE, "n"), ("a.Dense", "d")],
            "d/config.json",
            json!({}),
            &["'Dense' is out of order"],
        ),
        (
            &[(TRANSFORMER, ""), (POOLING, "p")],
            "p/config.json",
            json!({"pooling_mode": "middle"}),
            &["p/config.json", "'middle'", "weightedmean"],
        ),
        (
            &[(TRANSFORMER, ""), (POOLING, "p")],
            "p/config.json",
            json!({"pooling_mode_middle": true}),
            &["'pooling_mode_middle'"],
        ),
        (
            &[(TRANSFORMER, ""), (POOLING, "p"), (NORMALIZE, "n")],
            "n/config.json",
            json!({"module_input_name": "token_embeddings"}),
            &["n/config.json", "'token_embeddings'"],
        ),
        (
            &[(TRANSFORMER, ""), (POOLING, "p"), ("a.Dense", "d")],
            "d/config.json",
            json!({"in_features": 384, "out_features": 8, "activation_function": "mine.Swish"}),
            &["d/config.json", "'mine.Swish'"],
        ),
    ];
    for (list, file, config, parts) in cases {
        let copy = copy_of("encoder-mini");
        modules(copy.path(), list);
        write(copy.path(), file, &config);
        let refused = refusal(copy.path());
        assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    }
}

#[test]
fn the_default_prompt_is_put_before_each_text() {
    let copy = copy_of("encoder-mini");
    let whole =
        |default: Value| json!({"prompts": {"query": "query: ", "other": null}, "default_prompt_name": default});
    write(copy.path(), "config_sentence_transformers.json", &whole(Value::Null));
    let (plain, with_prompt) = (tokens(copy.path(), "a cat"), tokens(copy.path(), "query: a cat"));
    write(copy.path(), "config_sentence_transformers.json", &whole(json!("query")));
    assert_eq!(tokens(copy.path(), "a cat"), with_prompt);
    write(copy.path(), "config_sentence_transformers.json", &whole(json!("document")));
    assert_eq!(tokens(copy.path(), "a cat"), plain, "every model has an empty prompt for documents");
    write(copy.path(), "config_sentence_transformers.json", &whole(json!("nothing")));
    let refused = refusal(copy.path());
    assert!(refused.contains("'default_prompt_name' is 'nothing'") && refused.contains("query"), "{refused}");
}

#[test]
fn labels_that_config_json_leaves_out_have_the_librarys_names() {
    let labels = |edit: fn(&mut Value)| {
        let copy = copy_of("tiny-bert-sentiment");
        edit_config(copy.path(), edit);
        let model = Registry::default().load(copy.path(), &LoadOptions::default()).unwrap();
        let Task::Classification { labels } = model.signature.task else { panic!("a classifier") };
        labels.to_vec()
    };
    assert_eq!(labels(|config| config["id2label"] = Value::Null), ["LABEL_0", "LABEL_1"]);
    assert_eq!(labels(|config| config["id2label"] = json!({"1": 1, "0": 0})), ["0", "1"]);
    assert_eq!(labels(|config| config["id2label"] = json!(["no", "yes"])), ["no", "yes"]);
}

#[test]
fn every_precision_reads_weights_in_parts() {
    let copy = copy_of_family("distilbert");
    split(copy.path());
    for precision in survey(copy.path()).precisions {
        let load = |directory: &Path| {
            let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
            let mut model = Registry::default().load(directory, &options).unwrap();
            infer(&mut model, TEXTS.map(Input::from))
        };
        assert!(load(copy.path()) == load(copy_of_family("distilbert").path()), "{precision}");
    }
}
