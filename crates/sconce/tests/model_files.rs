//! The key of a cached answer covers every file that its model was made of, and a network that is loaded again must be
//! made of the same files.

use std::fs;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sconce::cache::{SqliteConfig, SqliteTier, TierConfig};
use sconce::{AnswerCache, DeviceName, InferError, ModelSource, QueueError, Runtime};

const TEXT: &str = "a sconce holds candles";

/// A copy of encoder-mini in the layout of sentence-transformers.
fn encoder_in(directory: &Path) -> PathBuf {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo/encoder-mini");
    let copy = directory.join("encoder-mini");
    fs::create_dir_all(copy.join("1_Pooling")).expect("the test is set up right");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(zoo.join(file), copy.join(file)).expect("the test is set up right");
    }
    set_pooling(&copy, "mean");
    let modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
        .map(|(name, path)| format!(r#"{{"type": "sentence_transformers.models.{name}", "path": "{path}"}}"#))
        .join(", ");
    fs::write(copy.join("modules.json"), format!("[{modules}]")).expect("the test is set up right");
    fs::write(copy.join("sentence_bert_config.json"), r#"{"max_seq_length": 128}"#).expect("the test is set up right");
    copy
}

fn set_pooling(model: &Path, mode: &str) {
    let (mean, cls) = (mode == "mean", mode == "cls");
    let content = format!(r#"{{"pooling_mode_cls_token": {cls}, "pooling_mode_mean_tokens": {mean}}}"#);
    fs::write(model.join("1_Pooling/config.json"), content).expect("the test is set up right");
}

/// The embedding of a text by a new runtime, and its source.
async fn embedding(model: &Path, store: &Path) -> (Vec<f32>, &'static str) {
    let tier = SqliteTier::open(&SqliteConfig::new(store)).expect("the test is set up right");
    // A long budget, so that stored answers are found on slow machines, too.
    let patient = TierConfig { get_budget: Duration::from_secs(10), ..TierConfig::default() };
    let cache = AnswerCache::builder().tier(tier, patient).build().expect("the test is set up right");
    let runtime = Runtime::builder().model(model).cache(cache).build().expect("the test is set up right");
    let answer = runtime.models()[0].infer(TEXT).await.expect("the test is set up right");
    let embedding = answer.output.embedding().expect("the test is set up right").to_vec();
    runtime.shutdown().await;
    (embedding, answer.source.name())
}

#[tokio::test]
async fn pooling_that_changes_from_mean_to_cls_gives_the_new_vector_from_the_same_database() {
    let directory = tempfile::tempdir().unwrap();
    let (model, store) = (encoder_in(directory.path()), directory.path().join("answers"));
    let (mean, _) = embedding(&model, &store).await;
    assert_eq!(embedding(&model, &store).await, (mean.clone(), "sqlite"));
    set_pooling(&model, "cls");
    let (cls, source) = embedding(&model, &store).await;
    assert_eq!(source, "computed");
    assert_ne!(cls, mean);
    assert_eq!(embedding(&model, &directory.path().join("empty")).await.0, cls);
    set_pooling(&model, "mean");
    assert_eq!(embedding(&model, &store).await, (mean, "sqlite"), "the old answers are those of the old model");
}

#[tokio::test]
async fn each_file_that_is_read_counts_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (model, store) = (encoder_in(directory.path()), directory.path().join("answers"));
    fs::create_dir(model.join("onnx")).unwrap();
    let unrelated = ["README.md", "pytorch_model.bin", "onnx/model.onnx"];
    for file in unrelated {
        fs::write(model.join(file), "not read by this family").unwrap();
    }
    assert_eq!(embedding(&model, &store).await.1, "computed");
    let read = [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
    ];
    for file in read.into_iter().chain(unrelated) {
        let path = model.join(file);
        let before = fs::read(&path).unwrap();
        let mut after = before.clone();
        if file.ends_with("safetensors") {
            *after.last_mut().unwrap() ^= 1;
        } else {
            after.push(b' ');
        }
        fs::write(&path, after).unwrap();
        let expected = if unrelated.contains(&file) { "sqlite" } else { "computed" };
        assert_eq!(embedding(&model, &store).await.1, expected, "{file}");
        fs::write(&path, before).unwrap();
        assert_eq!(embedding(&model, &store).await.1, "sqlite", "{file} as before");
    }
    for file in ["1_Pooling/config.json", "modules.json", "sentence_bert_config.json"] {
        let path = model.join(file);
        let before = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(embedding(&model, &store).await.1, "computed", "without {file}");
        fs::write(&path, before).unwrap();
    }
    for (settings, expected) in [
        ("[batching]\nmax_batch_size = 3", "sqlite"),
        ("[model]\nmax_tokens = 64", "computed"),
        ("[model]\npooling = \"cls\"", "computed"),
        ("[model]\nnormalize = false", "computed"),
    ] {
        fs::write(model.join("sconce.toml"), settings).unwrap();
        assert_eq!(embedding(&model, &store).await.1, expected, "{settings}");
    }
}

/// Two models, of which only one fits into memory at a time.
fn one_at_a_time(models: [&Path; 2]) -> Runtime {
    let source = |at: usize| ModelSource::new(models[at]).name(["one", "other"][at]);
    let mut builder = Runtime::builder().cpu_devices(NonZeroUsize::MIN);
    for at in 0..2 {
        builder = builder.model(source(at));
    }
    let needed = builder.decide().expect("the test is set up right")["one"].considered[0]
        .demand
        .expect("the test is set up right")
        .1;
    let with_a_batch = needed.bytes(sconce::BatcherConfig::default().max_batch_weight);
    builder
        .device_memory(DeviceName::CPU, NonZeroU64::new(with_a_batch).expect("the test is set up right"))
        .build()
        .expect("the test is set up right")
}

#[test]
fn a_network_that_comes_back_into_memory_is_not_made_of_files_that_have_changed() {
    let directories = [
        tempfile::tempdir().expect("the test is set up right"),
        tempfile::tempdir().expect("the test is set up right"),
    ];
    let models = directories.each_ref().map(|directory| encoder_in(directory.path()));
    let runtime = one_at_a_time(models.each_ref().map(PathBuf::as_path));
    let [one, other] = ["one", "other"].map(|name| runtime.model(name).unwrap());
    let first = one.infer_blocking(TEXT).unwrap().output;
    other.infer_blocking(TEXT).unwrap();
    assert_eq!(one.infer_blocking(TEXT).unwrap().output, first, "it came back");
    for (file, content) in
        [("sentence_bert_config.json", r#"{"max_seq_length": 64}"#), ("sconce.toml", "[model]\npooling = \"cls\"")]
    {
        let path = models[0].join(file);
        let before = fs::read(&path).ok();
        other.infer_blocking(TEXT).unwrap();
        fs::write(&path, content).unwrap();
        let error = one.infer_blocking(TEXT).unwrap_err();
        assert!(matches!(error, InferError::Queue(QueueError::Executor(_))), "{error}");
        let message = error.to_string();
        assert!(message.contains(file) && message.contains("has changed since the model was loaded"), "{message}");
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        assert_eq!(one.infer_blocking(TEXT).unwrap().output, first, "{file} as before");
    }
}
