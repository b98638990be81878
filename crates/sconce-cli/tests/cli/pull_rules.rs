//! `sconce pull` chooses the files that a model needs from all that its repository has, by rules.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::command::{path, run};
use crate::hub::{self, HubFault};
use crate::pull::{NO_HUB, at_home, pull, pulled};

const INDEX: &str = "model.safetensors.index.json";
const PARTS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

/// A repository that a test puts together, and the home directory of the user who pulls it.
struct Scene {
    home: tempfile::TempDir,
    repository: PathBuf,
}

impl Scene {
    /// A repository with the files of a tiny model with random weights, without those of sentence-transformers.
    fn of(family: &str) -> Self {
        let home = tempfile::tempdir().expect("there is room");
        let repository = home.path().join("tiny");
        fs::create_dir(&repository).expect("it is new");
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(self::family(family).join(file), repository.join(file)).expect("the family ships");
        }
        Self { home, repository }
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        let path = self.repository.join(file);
        fs::create_dir_all(path.parent().expect("it lies in the repository")).expect("there is room");
        fs::write(path, content).expect("there is room");
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.repository.join(file)).expect("it is there");
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.repository.join(file)).expect("it is there")).expect("it is JSON")
    }

    /// Splits the weights into two files and an index.
    fn split_weights(&self) {
        let bytes = fs::read(self.repository.join("model.safetensors")).expect("it is there");
        let tensors = SafeTensors::deserialize(&bytes).expect("it is whole");
        let mut names: Vec<String> = tensors.names().into_iter().map(String::from).collect();
        names.sort();
        let (first, second) = names.split_at(names.len() / 2);
        let mut weight_map = serde_json::Map::new();
        for (part, names) in PARTS.into_iter().zip([first, second]) {
            let views = names.iter().map(|name| (name, tensors.tensor(name).expect("it is listed")));
            let bytes = safetensors::serialize(views, None).expect("tensors can be written");
            self.write(part, bytes);
            weight_map.extend(names.iter().map(|name| (name.clone(), json!(part))));
        }
        self.write(INDEX, json!({ "weight_map": weight_map }).to_string());
        self.remove("model.safetensors");
    }

    /// Gives the repository the old layout of sentence-transformers, with a dense layer from 32 to 16 dimensions.
    fn in_folders(&self) {
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            let content = fs::read(self.repository.join(file)).expect("it is there");
            self.write(&format!("0_Transformer/{file}"), content);
            self.remove(file);
        }
        let module = |index: usize, path: &str, kind: &str| {
            let kind = format!("sentence_transformers.models.{kind}");
            json!({"idx": index, "name": index.to_string(), "path": path, "type": kind})
        };
        let modules = [
            module(0, "0_Transformer", "Transformer"),
            module(1, "1_Pooling", "Pooling"),
            module(2, "2_Dense", "Dense"),
            module(3, "3_Normalize", "Normalize"),
        ];
        self.write("modules.json", json!(modules).to_string());
        self.write("0_Transformer/sentence_bert_config.json", r#"{"max_seq_length": 20, "do_lower_case": false}"#);
        self.write("1_Pooling/config.json", r#"{"word_embedding_dimension": 32, "pooling_mode_max_tokens": true}"#);
        self.write(
            "2_Dense/config.json",
            r#"{"in_features": 32, "out_features": 16, "bias": true, "activation_function": "torch.nn.modules.linear.Identity"}"#,
        );
        let (weight, bias) = (vec![0; 4 * 16 * 32], vec![1; 4 * 16]);
        let view = |shape: &[usize], bytes| {
            TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).expect("the sizes agree")
        };
        let tensors = [("linear.weight", view(&[16, 32], &weight)), ("linear.bias", view(&[16], &bias))];
        self.write("2_Dense/model.safetensors", safetensors::serialize(tensors, None).expect("tensors can be written"));
    }

    /// Pulls the repository from a hub, and returns the names of the files that were installed.
    fn pull(&self) -> Vec<String> {
        pull(&["org/tiny", "--force"], self.home.path(), &hub::serve(self.repository.clone())).succeeded();
        let mut installed = hub::relative_files(&self.installed());
        installed.retain(|file| file != "sconce-origin.json");
        assert_eq!(installed, hub::relative_files(&hub::snapshot(&self.home.path().join("hf"), "tiny")));
        installed
    }

    fn installed(&self) -> PathBuf {
        self.home.path().join("sconce/models/tiny")
    }

    /// Puts the files into the cache of the hub's clients.
    fn cache(&self, files: &[&str]) {
        hub::cache(&self.home.path().join("hf"), &self.repository, files);
    }

    /// Says which of the files an encoder of texts may lack the repository does not have.
    fn note_absent(&self, files: &[&str]) {
        let snapshot = hub::snapshot(&self.home.path().join("hf"), "tiny");
        let absent = snapshot.parent().and_then(Path::parent).expect("it lies in the cache").join(".no_exist");
        let absent = absent.join(snapshot.file_name().expect("it is a commit"));
        fs::create_dir_all(&absent).expect("there is room");
        for file in files {
            fs::write(absent.join(file), b"").expect("there is room");
        }
    }
}

fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tests/families").join(name)
}

#[test]
fn only_files_that_are_read_are_fetched() {
    let scene = Scene::of("bert");
    let read = [
        "LICENSE.txt",
        "README.md",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_roberta_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let small = ["config_sentence_transformers.json", "special_tokens_map.json", "tokenizer_config.json"];
    for file in small {
        scene.write(file, "{}");
    }
    scene.write("sentence_roberta_config.json", r#"{"max_seq_length": 20}"#);
    scene.write(
        "modules.json",
        r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]"#,
    );
    scene.write("README.md", "a model");
    scene.write("LICENSE.txt", "free");
    let others = [
        ".gitattributes",
        "1_Pooling/desktop.ini",
        "README_zh.md",
        "coreml/model.mlpackage",
        "flax_model.msgpack",
        "model.onnx",
        "model_fp16.safetensors",
        "onnx/config.json",
        "onnx/model.onnx",
        "openvino/openvino_model.bin",
        "pytorch_model.bin",
        "rust_model.ot",
        "sentencepiece.bpe.model",
        "tf_model.h5",
        "train_script.py",
        "vocab.txt",
    ];
    for file in others {
        scene.write(file, "not read");
    }
    assert_eq!(scene.pull(), read);
}

#[test]
fn weights_in_parts_come_with_their_index_and_are_digested_together() {
    let scene = Scene::of("bert");
    scene.split_weights();
    assert_eq!(scene.pull(), ["config.json", PARTS[0], PARTS[1], INDEX, "tokenizer.json"]);
    let there = pull(&["org/tiny"], scene.home.path(), NO_HUB).succeeded();
    assert!(there.stderr.contains("there already"), "{}", there.stderr);
    for part in PARTS {
        let path = scene.installed().join(part);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..whole.len() - 1], &[!whole[whole.len() - 1]]].concat()).unwrap();
        pull(&["org/tiny"], scene.home.path(), NO_HUB).failed_with(2, &[part, "SHA-256", "--force"]);
        fs::remove_file(&path).unwrap();
        pull(&["org/tiny"], scene.home.path(), NO_HUB).failed_with(2, &[part, "cannot be read", "--force"]);
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_part_that_is_cut_goes_on_where_it_was_while_the_others_are_kept() {
    let scene = Scene::of("bert");
    scene.split_weights();
    let badly = hub::serve_badly(scene.repository.clone(), HubFault::Cut(2000));
    pull(&["org/tiny"], scene.home.path(), &badly).failed_with(1, &[PARTS[0], "cut after 10000 of"]);
    pull(&["org/tiny"], scene.home.path(), &badly).failed_with(1, &["cut after 20000 of"]);
    assert_eq!(pulled(scene.home.path()), Vec::<String>::new());
    scene.pull();
}

#[test]
fn weights_of_pytorch_are_taken_where_there_are_no_safetensors_whole_or_in_parts() {
    let scene = Scene::of("distilbert");
    scene.remove("model.safetensors");
    let weights = fs::read(family("distilbert-bin").join("pytorch_model.bin")).unwrap();
    scene.write("pytorch_model.bin", &weights);
    scene.write("tf_model.h5", "not read");
    assert_eq!(scene.pull(), ["config.json", "pytorch_model.bin", "tokenizer.json"]);

    let in_parts = Scene::of("distilbert");
    let bytes = fs::read(in_parts.repository.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (index, part) = ("pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin");
    let weight_map: serde_json::Map<_, _> =
        tensors.names().into_iter().map(|name| (name.to_string(), json!(part))).collect();
    in_parts.remove("model.safetensors");
    in_parts.write(part, &weights);
    in_parts.write(index, json!({ "weight_map": weight_map }).to_string());
    assert_eq!(in_parts.pull(), ["config.json", part, index, "tokenizer.json"]);
}

#[test]
fn folders_that_modules_json_names_are_fetched_with_their_weights() {
    let scene = Scene::of("bert");
    scene.in_folders();
    scene.write("2_Dense/pytorch_model.bin", "not read");
    let read = [
        "0_Transformer/config.json",
        "0_Transformer/model.safetensors",
        "0_Transformer/sentence_bert_config.json",
        "0_Transformer/tokenizer.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "modules.json",
    ];
    assert_eq!(scene.pull(), read);
    let listed = run(at_home(&["models", "--json"], scene.home.path(), NO_HUB), b"").succeeded().objects();
    let tiny = listed.iter().find(|object| object["name"] == "tiny").unwrap();
    assert_eq!((&tiny["dimensions"], &tiny["input"]["max_tokens"]), (&json!(16), &json!(20)));
    // The digest is also that of the dense layer.
    fs::write(scene.installed().join("2_Dense/model.safetensors"), "harmed").unwrap();
    pull(&["org/tiny"], scene.home.path(), NO_HUB).failed_with(2, &["2_Dense/model.safetensors", "SHA-256"]);
}

#[test]
fn a_vocabulary_is_taken_where_there_is_no_tokenizer_json() {
    let scene = Scene::of("bert");
    let tokenizer = scene.json("tokenizer.json");
    let mut words: Vec<(&String, u64)> = tokenizer["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(word, id)| (word, id.as_u64().unwrap()))
        .collect();
    words.sort_by_key(|(_, id)| *id);
    let words: Vec<_> = words.into_iter().map(|(word, _)| word.as_str()).collect();
    scene.remove("tokenizer.json");
    scene.write("vocab.txt", words.join("\n"));
    scene.write("tokenizer_config.json", r#"{"tokenizer_class": "BertTokenizer"}"#);
    assert_eq!(scene.pull(), ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]);

    let scene = Scene::of("roberta");
    let model = scene.json("tokenizer.json")["model"].take();
    let merge = |merge: &Value| match merge.as_array() {
        Some(pair) => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        None => merge.as_str().unwrap().to_owned(),
    };
    let merges: Vec<_> = model["merges"].as_array().unwrap().iter().map(merge).collect();
    scene.remove("tokenizer.json");
    scene.write("vocab.json", model["vocab"].to_string());
    scene.write("merges.txt", merges.join("\n"));
    scene.write("tokenizer_config.json", r#"{"tokenizer_class": "RobertaTokenizer"}"#);
    let read = ["config.json", "merges.txt", "model.safetensors", "tokenizer_config.json", "vocab.json"];
    assert_eq!(scene.pull(), read);
}

#[test]
fn a_file_that_is_missing_is_named_with_what_would_do_before_weights_are_fetched() {
    type Spoil = fn(&Scene);
    let table: [(Spoil, &[&str]); 9] = [
        (|scene| scene.remove("config.json"), &["no config.json"]),
        (
            |scene| {
                scene.remove("model.safetensors");
                scene.write("onnx/model.onnx", "");
            },
            &["no model.safetensors and no pytorch_model.bin", "AutoModel", "it has: config.json, onnx/model.onnx"],
        ),
        (
            |scene| {
                scene.remove("tokenizer.json");
                scene.write("spiece.model", "");
            },
            &["no tokenizer.json, vocab.txt, or vocab.json with merges.txt", "AutoTokenizer", "spiece.model"],
        ),
        (
            |scene| {
                scene.remove("tokenizer.json");
                scene.write("vocab.json", "{}");
                scene.write("tokenizer_config.json", "{}");
            },
            &["no tokenizer.json, vocab.txt, or vocab.json with merges.txt"],
        ),
        (
            |scene| {
                scene.split_weights();
                scene.remove(PARTS[1]);
            },
            &["no model-00002-of-00002.safetensors, which model.safetensors.index.json names", "--revision"],
        ),
        (
            |scene| {
                scene.in_folders();
                scene.remove("2_Dense/config.json");
            },
            &["no 2_Dense/config.json, which modules.json names"],
        ),
        (
            |scene| {
                scene.in_folders();
                scene.remove("2_Dense/model.safetensors");
            },
            &["no 2_Dense/model.safetensors and no 2_Dense/pytorch_model.bin"],
        ),
        (
            |scene| scene.write("modules.json", r#"[{"path": "0_StaticEmbedding", "type": "a.StaticEmbedding"}]"#),
            &["modules.json is not as expected", "'StaticEmbedding'", "Transformer"],
        ),
        (
            |scene| scene.write("modules.json", r#"[{"path": "../up", "type": "a.Transformer"}]"#),
            &["modules.json is not as expected", "'../up'", "a folder of the repository"],
        ),
    ];
    for (spoil, said) in table {
        let scene = Scene::of("bert");
        spoil(&scene);
        pull(&["org/tiny"], scene.home.path(), &hub::serve(scene.repository.clone())).failed_with(1, said);
        let fetched = scene.home.path().join("hf/hub/models--org--tiny/blobs");
        let fetched = if fetched.exists() { hub::relative_files(&fetched) } else { Vec::new() };
        let weights = fetched.iter().filter(|name| name.len() == 64 && !name.starts_with("etag")).count();
        assert_eq!((weights, pulled(scene.home.path())), (0, Vec::new()), "{said:?}: {fetched:?}");
    }
}

#[test]
fn a_cache_is_whole_if_it_has_what_its_files_name() {
    let scene = Scene::of("bert");
    scene.split_weights();
    scene.write("tokenizer_config.json", "{}");
    let files = ["config.json", "tokenizer.json", "tokenizer_config.json", INDEX, PARTS[0]];
    scene.cache(&files);
    scene.note_absent(&["modules.json"]);
    let lacks = "no model-00002-of-00002.safetensors, which model.safetensors.index.json names";
    let said = ["org/tiny@main cannot be fetched", "not whole in the local cache", lacks, "HF_ENDPOINT"];
    pull(&["org/tiny"], scene.home.path(), NO_HUB).failed_with(1, &said);
    scene.cache(&[PARTS[1]]);
    let cached = pull(&["org/tiny"], scene.home.path(), NO_HUB).succeeded();
    assert!(cached.stderr.contains("is in the local cache"), "{}", cached.stderr);

    let scene = Scene::of("bert");
    scene.in_folders();
    let small = ["modules.json", "1_Pooling/config.json", "2_Dense/config.json", "0_Transformer/config.json"];
    scene.cache(&small);
    scene.cache(&["0_Transformer/tokenizer.json", "0_Transformer/model.safetensors"]);
    scene.cache(&["0_Transformer/sentence_bert_config.json"]);
    let lacks = "no 2_Dense/model.safetensors";
    scene.note_absent(&["config_sentence_transformers.json"]);
    pull(&["org/tiny"], scene.home.path(), NO_HUB).failed_with(1, &["cannot be fetched"]);
    scene.write("0_Transformer/tokenizer_config.json", "{}");
    scene.cache(&["0_Transformer/tokenizer_config.json"]);
    pull(&["org/tiny"], scene.home.path(), NO_HUB).failed_with(1, &["not whole in the local cache", lacks]);
    scene.cache(&["2_Dense/model.safetensors"]);
    let cached = pull(&["org/tiny"], scene.home.path(), NO_HUB).succeeded();
    assert!(cached.stderr.contains("is in the local cache"), "{}", cached.stderr);
}

#[test]
fn a_cache_that_cannot_tell_is_taken_with_a_warning_only_where_no_hub_answers() {
    let scene = Scene::of("bert");
    scene.cache(&["config.json", "model.safetensors", "tokenizer.json"]);
    let warned = pull(&["org/tiny"], scene.home.path(), NO_HUB).succeeded().stderr;
    assert!(warned.contains("warning") && warned.contains("no tokenizer_config.json"), "{warned}");
    scene.note_absent(&["tokenizer_config.json"]);
    let warned = pull(&["org/tiny", "--force"], scene.home.path(), NO_HUB).succeeded().stderr;
    assert!(warned.contains("no modules.json") && warned.contains("pooling is the mean"), "{warned}");
    // The hub has it: what was in the cache is kept, the rest is fetched.
    scene.write("tokenizer_config.json", "{}");
    let read = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(scene.pull(), read);
}

#[test]
fn files_of_two_commits_are_not_mixed() {
    let scene = Scene::of("bert");
    let config = fs::read(scene.repository.join("config.json")).unwrap();
    scene.write("config.json", "{}");
    scene.cache(&["config.json"]);
    let cache = scene.home.path().join("hf/hub/models--org--tiny");
    let snapshot = hub::snapshot(&scene.home.path().join("hf"), "tiny");
    fs::rename(&snapshot, snapshot.with_file_name("earlier")).unwrap();
    fs::write(cache.join("refs/main"), "earlier").unwrap();
    scene.write("config.json", &config);
    scene.pull();
    assert_eq!(fs::read(scene.installed().join("config.json")).unwrap(), config);
}

#[test]
fn a_part_that_is_a_pointer_or_has_another_digest_installs_nothing() {
    let scene = Scene::of("bert");
    scene.split_weights();
    let whole = fs::read(scene.repository.join(PARTS[1])).unwrap();
    scene.write(PARTS[1], "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n");
    let said = [PARTS[1], "pointer of Git LFS", "nothing was installed"];
    pull(&["org/tiny"], scene.home.path(), &hub::serve(scene.repository.clone())).failed_with(1, &said);
    assert_eq!(pulled(scene.home.path()), Vec::<String>::new());

    fs::remove_dir_all(scene.home.path().join("hf")).unwrap();
    scene.write(PARTS[1], &whole);
    scene.write("tokenizer_config.json", "{}");
    scene.cache(&["config.json", "tokenizer.json", "tokenizer_config.json", INDEX, PARTS[0], PARTS[1]]);
    scene.note_absent(&["modules.json"]);
    let blob = hub::snapshot(&scene.home.path().join("hf"), "tiny").join(PARTS[1]).canonicalize().unwrap();
    fs::write(&blob, "rotten").unwrap();
    let said = [path(&blob), "SHA-256", "nothing was installed", "delete it from the cache"];
    pull(&["org/tiny"], scene.home.path(), NO_HUB).failed_with(1, &said);
    assert_eq!(pulled(scene.home.path()), Vec::<String>::new());
}
