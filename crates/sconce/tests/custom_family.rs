//! A model family from outside the crate: it gets the device and the precision that were chosen, and if any of its parts
//! panics, that request gets an error and the others succeed.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sconce::cache::MemoryConfig;
use sconce::models::{
    Blueprint, Classification, Compute, Device, Family, Features, Finishing, ForwardError, Halves, Input, InputError,
    InputKind, InputSpec, LoadError, ModelDirectory, Network, Output, Precision, Prepared, Processor, Registry, Target,
    Task, Truncation,
};
use sconce::{AnswerCache, BuildError, DeviceName, InferError, ModelSource, QueueError, Runtime, RuntimeBuilder};

/// A model that labels numbers as even or odd.
struct Parity {
    labels: Arc<[String]>,
}

impl Processor for Parity {
    fn prepare(&self, input: Input, _: Truncation) -> Result<Prepared, InputError> {
        let Input::Text(text) = input else { panic!("only text is tested") };
        assert_ne!(text, "prepare", "asked to panic in prepare");
        let value = match text.as_str() {
            "forward" => f32::NAN,
            "finish" => f32::INFINITY,
            number => number.parse().expect("a number"),
        };
        Ok(Prepared { features: Features::Values(vec![value]), truncated: false })
    }

    fn finish(&self, row: Vec<f32>, _: Finishing<'_>) -> Output {
        assert!(row[0].is_finite(), "asked to panic in finish");
        Output::Classification(Classification::from_logits(Arc::clone(&self.labels), row))
    }
}

struct ParityNetwork;

impl Network for ParityNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        let row = |features: &Features| {
            let Features::Values(values) = features else { panic!("parity prepares values") };
            assert!(!values[0].is_nan(), "asked to panic in forward");
            let odd = values[0] % 2.0;
            vec![values[0] * 0.0 - odd, odd, -9.0]
        };
        Ok(batch.iter().map(row).collect())
    }
}

/// The labels: even, odd, and the number of threads.
fn labels(threads: NonZeroUsize) -> Arc<[String]> {
    ["even".to_owned(), "odd".to_owned(), threads.to_string()].into()
}

struct ParityModel;

impl Blueprint for ParityModel {
    fn precisions(&self, _: &dyn Device) -> Vec<Precision> {
        vec![Precision::F32, Precision::Int8, Precision::Q8_0]
    }

    fn load(&self, _: &ModelDirectory, target: &Target) -> Result<Halves, LoadError> {
        let Compute::Kernels(team) = target.device.compute()? else { panic!("the CPU has kernels") };
        let labels = labels(team.threads());
        Ok(Halves {
            input: InputSpec { name: "text", kind: InputKind::Text { max_tokens: 1 } },
            task: Task::Classification { labels: Arc::clone(&labels) },
            processor: Arc::new(Parity { labels }),
            network: Box::new(ParityNetwork),
        })
    }
}

const FAMILY: Family = Family { model_type: "parity", summary: "even or odd", read: |_| Ok(Box::new(ParityModel)) };

fn builder(directory: &Path) -> RuntimeBuilder {
    std::fs::write(directory.join("config.json"), r#"{"model_type": "parity"}"#).expect("a file");
    let mut registry = Registry::default();
    registry.register(FAMILY);
    Runtime::builder().registry(registry)
}

fn runtime(directory: &Path) -> Runtime {
    builder(directory).named_model("parity", directory).build().expect("parity loads")
}

#[test]
fn the_caller_chooses_the_precision_else_sconce_toml_and_the_answer_says_which() {
    let directory = tempfile::tempdir().unwrap();
    let source = || ModelSource::new(directory.path()).name("parity");
    let answered = |source: ModelSource| {
        let runtime = builder(directory.path()).allow_undecided(true).model(source).build().unwrap();
        let model = &runtime.model("parity").unwrap();
        let answer = model.infer_blocking("3").unwrap();
        assert_eq!(model.signature().precision, answer.precision);
        answer.precision
    };
    assert_eq!(answered(source()), Precision::F32);
    assert_eq!(answered(source().precision(Precision::Int8)), Precision::Int8);
    std::fs::write(directory.path().join("sconce.toml"), "[model]\nprecision = \"q8_0\"").unwrap();
    assert_eq!(answered(source()), Precision::Q8_0);
    assert_eq!(answered(source().precision(Precision::F32)), Precision::F32);
}

#[test]
fn a_precision_that_the_model_does_not_have_is_refused_with_its_name_and_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let source = ModelSource::new(directory.path()).name("mine").precision(Precision::Q4K);
    let Err(error) = builder(directory.path()).model(source).build() else { panic!("parity has no q4k") };
    let message = error.to_string();
    assert!(message.starts_with("model 'mine': "), "{message}");
    assert!(
        message.ends_with("'parity' models have no precision 'q4k' on device 'cpu'; choose one of: f32, int8, q8_0"),
        "{message}"
    );
    let BuildError::Load { source, .. } = error else { panic!("{message}") };
    assert!(matches!(*source, LoadError::UnsupportedPrecision { precision: Precision::Q4K, .. }));
}

#[test]
fn models_are_told_the_threads_of_their_runtime_by_default_one_a_core() {
    let directory = tempfile::tempdir().unwrap();
    let told = |builder: RuntimeBuilder| {
        let runtime = builder.named_model("parity", directory.path()).build().unwrap();
        (runtime.cpu_threads(), runtime.model("parity").unwrap().signature().task.clone())
    };
    let three = NonZeroUsize::new(3).unwrap();
    let of = |threads| (threads, Task::Classification { labels: labels(threads) });
    assert_eq!(told(builder(directory.path()).cpu_threads(three)), of(three));
    let cores = std::thread::available_parallelism().unwrap();
    assert_eq!(told(builder(directory.path())), of(cores));
}

/// The family's `read`, which also reads a file by the directory's path instead of by [`ModelDirectory::read`].
fn read_by_itself(directory: &ModelDirectory) -> Result<Box<dyn Blueprint>, LoadError> {
    assert!(std::fs::read(directory.path().join("assets/vocabulary.bin")).is_ok());
    (FAMILY.read)(directory)
}

#[tokio::test]
async fn a_family_that_reads_files_by_itself_has_all_of_its_directory_in_the_keys_of_its_answers() {
    let directory = tempfile::tempdir().unwrap();
    let assets = directory.path().join("assets");
    std::fs::create_dir(&assets).unwrap();
    let cache = Arc::new(AnswerCache::builder().memory(MemoryConfig::default()).build().unwrap());
    let source = async |read| {
        let mut registry = Registry::default();
        registry.register(Family { read, ..FAMILY });
        let runtime = builder(directory.path()).registry(registry).named_model("parity", directory.path());
        let runtime = runtime.cache(Arc::clone(&cache)).build().unwrap();
        runtime.model("parity").unwrap().infer("3").await.unwrap().source.name()
    };
    std::fs::write(assets.join("vocabulary.bin"), "one").unwrap();
    assert_eq!([source(read_by_itself).await, source(read_by_itself).await], ["computed", "memory"]);
    std::fs::write(assets.join("vocabulary.bin"), "another").unwrap();
    assert_eq!(source(read_by_itself).await, "computed");
    // For a family that never asks for the path, other files of the directory do not count.
    assert_eq!(source(FAMILY.read).await, "computed");
    std::fs::write(assets.join("vocabulary.bin"), "a third").unwrap();
    assert_eq!(source(FAMILY.read).await, "memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_any_part_of_a_model_is_answered_and_its_neighbours_succeed() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = runtime(directory.path());
    let model = &runtime.model("parity").unwrap();
    let callers: Vec<_> = (0..60)
        .map(|number| {
            let text = match number % 15 {
                3 => "prepare".to_owned(),
                6 => "forward".to_owned(),
                9 => "finish".to_owned(),
                _ => number.to_string(),
            };
            let model = model.clone();
            tokio::spawn(async move { (number, model.infer(text).await) })
        })
        .collect();
    for caller in callers {
        let (number, answer) = caller.await.unwrap();
        match (number % 15, answer) {
            (3, Err(InferError::Panicked { message })) => assert!(message.contains("in prepare"), "{message}"),
            (6, Err(InferError::Queue(QueueError::Executor(error)))) => {
                assert!(error.to_string().contains("in forward"), "{error}");
            }
            (9, Err(InferError::Panicked { message })) => assert!(message.contains("in finish"), "{message}"),
            (_, answer) => {
                let label = answer.unwrap().output.classification().unwrap().label().to_owned();
                assert_eq!(label, if number % 2 == 0 { "even" } else { "odd" });
            }
        }
    }
}

#[test]
fn a_type_that_no_family_knows_is_refused_with_those_that_are() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), r#"{"model_type": "gpt2"}"#).unwrap();
    let Err(error) = Runtime::builder().named_model("mine", directory.path()).build() else {
        panic!("no family of ours is named gpt2")
    };
    let message = error.to_string();
    assert!(message.starts_with("model 'mine': ") && message.contains("config.json asks for model_type 'gpt2'"));
    assert!(message.contains("known are: albert, bert, camembert, digits-cnn"), "{message}");
}

/// Networks that exist.
static NETWORKS: AtomicUsize = AtomicUsize::new(0);

/// A network that counts while it exists.
struct CountedNetwork(ParityNetwork);

impl Drop for CountedNetwork {
    fn drop(&mut self) {
        NETWORKS.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Network for CountedNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        self.0.forward(batch)
    }
}

struct CountedModel;

impl Blueprint for CountedModel {
    fn precisions(&self, device: &dyn Device) -> Vec<Precision> {
        ParityModel.precisions(device)
    }

    fn load(&self, directory: &ModelDirectory, target: &Target) -> Result<Halves, LoadError> {
        NETWORKS.fetch_add(1, Ordering::SeqCst);
        Ok(Halves { network: Box::new(CountedNetwork(ParityNetwork)), ..ParityModel.load(directory, target)? })
    }
}

#[test]
fn the_network_of_a_model_that_is_replaced_or_unloaded_is_dropped_with_its_last_request() {
    let until = |networks: usize| {
        let began = std::time::Instant::now();
        while NETWORKS.load(Ordering::SeqCst) != networks {
            assert!(began.elapsed() < std::time::Duration::from_mins(1), "{NETWORKS:?} networks exist, not {networks}");
            std::thread::yield_now();
        }
    };
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), r#"{"model_type": "counted"}"#).unwrap();
    for bound in [None, NonZeroU64::new(1 << 30)] {
        let mut registry = Registry::default();
        registry.register(Family { model_type: "counted", read: |_| Ok(Box::new(CountedModel)), ..FAMILY });
        let builder = Runtime::builder().registry(registry).named_model("parity", directory.path());
        let builder = bound.into_iter().fold(builder, |builder, bytes| builder.device_memory(DeviceName::CPU, bytes));
        let runtime = builder.build().unwrap();
        until(1);
        let held = runtime.model("parity").unwrap();
        std::fs::write(directory.path().join("note"), "it changed").unwrap();
        runtime.load_blocking("parity").unwrap();
        until(2);
        assert!(held.infer_blocking("3").is_ok());
        drop(held);
        until(1);
        runtime.unload_blocking("parity").unwrap();
        until(0);
        std::fs::remove_file(directory.path().join("note")).unwrap();
    }
}
