//! Models on several devices. The second device is of a backend that only this test uses; its encoders run out of memory
//! or lose the device when a test says so.

#![expect(clippy::unwrap_used, reason = "clippy knows the tests as tests, but not the functions they share")]

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sconce::cache::MemoryConfig;
use sconce::models::{Compute, Device, EncoderEngine, EncoderOrder, EncoderSpec, ForwardError, LoadError, Tokens, cpu};
use sconce::placement::{Capability, PlacementError, Verdict};
use sconce::{
    AnswerCache, AnswerSource, Backend, BatcherConfig, BuildError, DeviceError, DeviceName, DeviceState, Model,
    ModelSource, Output, Placement, Precision, Runtime, RuntimeBuilder,
};

const SECOND: DeviceName = DeviceName::cuda(9);
const MODEL: &str = "tiny-bert-sentiment";
const TEXT: &str = "What a wonderful day!";

fn zoo(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo").join(model)
}

/// A backend with one device, which computes on the CPU and claims to be another device. It replaces CUDA's backend,
/// because `sconce.toml` can name only `cpu` and `cuda:N`.
#[derive(Debug, Clone, Copy)]
struct Second {
    /// Fixed cost of a batch that the device claims, in seconds. Its other figures are better than any CPU's.
    fixed: f64,
    /// True if the device has only f32.
    only_f32: bool,
    /// Replaces each encoder that the device builds, or refuses it.
    build: fn(Box<dyn EncoderEngine>) -> Built,
}

/// An encoder of the device, or why there is none.
type Built = Result<Box<dyn EncoderEngine>, LoadError>;

impl Backend for Second {
    fn kind(&self) -> &'static str {
        SECOND.kind()
    }

    fn list(&self) -> Result<Vec<Capability>, DeviceError> {
        Ok(vec![self.capability()])
    }

    fn open(&self, _: usize) -> Result<Arc<dyn Device>, DeviceError> {
        Ok(Arc::new(*self))
    }
}

impl Device for Second {
    fn capability(&self) -> Capability {
        Capability {
            device: SECOND,
            description: "a second device".to_owned(),
            flops: 1e15,
            speeds: Vec::new(),
            bandwidth: 1e13,
            fixed: self.fixed,
            memory: Some(1 << 30),
        }
    }

    fn class(&self) -> String {
        "second".to_owned()
    }

    fn compute(&self) -> Result<Compute, DeviceError> {
        cpu(Arc::default()).compute()
    }

    fn encoder_precisions(&self, spec: &EncoderSpec) -> Vec<Precision> {
        if self.only_f32 { vec![Precision::F32] } else { cpu(Arc::default()).encoder_precisions(spec) }
    }

    fn encoder(&self, order: &EncoderOrder<'_>) -> Result<Box<dyn EncoderEngine>, LoadError> {
        (self.build)(cpu(Arc::default()).encoder(order)?)
    }
}

/// A device without faults, with this fixed cost.
fn second(fixed: f64) -> Second {
    Second { fixed, only_f32: false, build: Ok }
}

/// A fault of an encoder on the second device.
trait Fault: Send + 'static {
    /// Called before each batch; an error makes the batch fail.
    fn befall(batch: &[Tokens<'_>]) -> Result<(), ForwardError>;
}

struct Faulty<F> {
    engine: Box<dyn EncoderEngine>,
    fault: std::marker::PhantomData<F>,
}

impl<F: Fault> EncoderEngine for Faulty<F> {
    fn forward(&mut self, texts: &[Tokens<'_>]) -> Result<Vec<Vec<f32>>, ForwardError> {
        F::befall(texts)?;
        self.engine.forward(texts)
    }
}

/// The fastest device, whose encoders have a fault.
fn faulty<F: Fault>() -> Second {
    Second { build: |engine| Ok(Box::new(Faulty::<F> { engine, fault: std::marker::PhantomData })), ..second(1e-9) }
}

fn builder(second: Second, placement: impl Into<Placement>) -> RuntimeBuilder {
    Runtime::builder().model(ModelSource::new(zoo(MODEL)).device(placement)).backend(second)
}

fn texts() -> Vec<String> {
    let words = ["a", "lovely", "dull", "film", "never", "again", "what", "wonderful"];
    (0..64).map(|text| (0..=text % 9).map(|word| words[(text * 3 + word) % 8]).collect::<Vec<_>>().join(" ")).collect()
}

fn scores(output: &Output) -> Vec<f32> {
    output.classification().expect("a classifier").scores.clone()
}

/// Asks for all texts at once, and gives the scores and the device of each answer.
async fn ask_all(model: &Model) -> Vec<(Vec<f32>, DeviceName)> {
    let asked: Vec<_> = texts()
        .into_iter()
        .map(|text| {
            let model = model.clone();
            tokio::spawn(async move { model.infer(text).await })
        })
        .collect();
    let mut answers = Vec::new();
    for answer in asked {
        let answer = answer.await.unwrap().unwrap();
        answers.push((scores(&answer.output), answer.device));
    }
    answers
}

async fn expected() -> Vec<Vec<f32>> {
    let runtime = Runtime::builder().model(ModelSource::new(zoo(MODEL)).device(DeviceName::CPU)).build().unwrap();
    ask_all(&runtime.model(MODEL).unwrap()).await.into_iter().map(|(scores, _)| scores).collect()
}

fn count(answers: &[(Vec<f32>, DeviceName)], device: DeviceName) -> usize {
    answers.iter().filter(|(_, on)| *on == device).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_runs_where_it_is_asked_to_and_its_answers_say_where() {
    for device in [DeviceName::CPU, SECOND] {
        let runtime = builder(second(1e-9), device).build().unwrap();
        let model = &runtime.model(MODEL).unwrap();
        let answers = ask_all(model).await;
        assert!(answers.iter().map(|(scores, _)| scores).eq(&expected().await));
        assert_eq!(count(&answers, device), answers.len());
        assert_eq!(model.devices()[0].name, device);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sconce_toml_says_where_a_model_runs_unless_the_caller_does() {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(zoo(MODEL).join(file), copy.path().join(file)).unwrap();
    }
    std::fs::write(copy.path().join("sconce.toml"), "[model]\ndevice = \"cuda:9\"").unwrap();
    let source = || ModelSource::new(copy.path()).name("m");
    let preferred = |source| {
        let builder = Runtime::builder().backend(second(1e-9));
        builder.model(source).build().unwrap().model("m").unwrap().devices()[0].name
    };
    assert_eq!(preferred(source()), SECOND);
    assert_eq!(preferred(source().device(DeviceName::CPU)), DeviceName::CPU);
    std::fs::write(copy.path().join("sconce.toml"), "[model]\ndevice = \"gpu\"").unwrap();
    let Err(error) = Runtime::builder().model(source()).build() else { panic!("there is no such device") };
    assert!(error.to_string().contains("field 'model.device': device 'gpu' is not known; give auto, cpu"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_itself_a_model_is_put_where_its_batches_are_estimated_to_be_complete_first() {
    // A fixed cost of 1 ns beats any CPU, one of 0.5 s beats none.
    for (fixed, preferred) in [(1e-9, SECOND), (0.5, DeviceName::CPU)] {
        let builder = builder(second(fixed), Placement::Auto);
        let decision = builder.decide().unwrap().remove(MODEL).unwrap();
        assert_eq!(decision.serving().map(|it| it.capability.device).collect::<Vec<_>>(), [preferred], "{decision:?}");
        let runtime = builder.build().unwrap();
        assert_eq!(runtime.model(MODEL).unwrap().infer("a film").await.unwrap().device, preferred);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_two_devices_serve_is_measured_and_answers_the_same_from_both() {
    // The second device is estimated to be faster from a few tokens on; in truth both are equally fast.
    let runtime = builder(second(2e-3), Placement::Auto).build().unwrap();
    let model = &runtime.model(MODEL).unwrap();
    assert!(model.decision().considered.iter().all(|it| it.verdict == Verdict::Serves), "{:?}", model.decision());
    assert!(model.devices().iter().all(|device| device.cost.is_known() && device.loaded), "{:?}", model.devices());
    let answers = ask_all(model).await;
    assert!(answers.iter().map(|(scores, _)| scores).eq(&expected().await));
}

/// A device out of memory for batches of more than two texts, and for texts of more than nine tokens.
struct Narrow;

impl Fault for Narrow {
    fn befall(batch: &[Tokens<'_>]) -> Result<(), ForwardError> {
        if batch.len() > 2 || batch.iter().any(|item| item.ids.len() > 9) {
            return Err(ForwardError::OutOfMemory { message: "two short texts fit".to_owned() });
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_memory_is_halved_and_falls_back_to_the_cpu() {
    let runtime = builder(faulty::<Narrow>(), SECOND).build().unwrap();
    let model = &runtime.model(MODEL).unwrap();
    assert!(!model.devices()[1].loaded, "the CPU's network is loaded when it is needed");
    let answers = ask_all(model).await;
    assert!(answers.iter().map(|(scores, _)| scores).eq(&expected().await));
    let long = texts().iter().filter(|text| text.split(' ').count() > 7).count();
    assert_eq!(count(&answers, DeviceName::CPU), long, "two tokens are special");
    let [on_second, on_cpu] = model.devices()[..] else { panic!("{:?}", model.devices()) };
    assert!(matches!(on_second.state, DeviceState::ShortOfMemory { max_weight: 1..=18 }), "{on_second:?}");
    assert_eq!((on_cpu.state, on_cpu.loaded, on_cpu.loads), (DeviceState::Ready, true, 1));
    let stats = model.stats();
    assert!(stats.out_of_memory > 0 && stats.given_back == long as u64, "{stats:?}");
}

/// A device that is lost in the third batch.
struct Unplugged;

impl Fault for Unplugged {
    fn befall(_: &[Tokens<'_>]) -> Result<(), ForwardError> {
        static BATCHES: AtomicUsize = AtomicUsize::new(0);
        match BATCHES.fetch_add(1, Ordering::SeqCst) {
            0..2 => Ok(()),
            2 => Err(ForwardError::DeviceLost { message: "unplugged".to_owned() }),
            _ => panic!("nobody runs anything on a lost device"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_device_is_lost_the_cpu_answers_everything() {
    let config = BatcherConfig { max_batch_size: 8, ..BatcherConfig::default() };
    let runtime = builder(faulty::<Unplugged>(), SECOND).batching(config).build().unwrap();
    let model = &runtime.model(MODEL).unwrap();
    for round in 0..3 {
        let answers = ask_all(model).await;
        assert!(answers.iter().map(|(scores, _)| scores).eq(&expected().await));
        let on_cpu = count(&answers, DeviceName::CPU);
        assert!(if round == 0 { on_cpu >= 64 - 16 } else { on_cpu == 64 }, "{on_cpu} in round {round}");
    }
    let [on_second, on_cpu] = model.devices()[..] else { panic!("{:?}", model.devices()) };
    assert_eq!((on_second.state, on_second.loaded), (DeviceState::Lost, false));
    assert!(on_cpu.loaded);
    runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_leaves_the_memory_for_another_and_comes_back_when_it_is_asked_for() {
    let models = ["encoder-mini", MODEL, "digits-cnn"];
    let needs = {
        let builder = models.iter().fold(Runtime::builder(), |builder, model| builder.model(zoo(model)));
        let decisions = builder.device(DeviceName::CPU).batching(small_batches()).decide().unwrap();
        decisions.values().map(|it| it.considered[0].demand.unwrap().1).collect::<Vec<_>>()
    };
    // Room for the largest model with its batch, but not for two models.
    let largest = needs.iter().map(|demand| demand.bytes(64)).max().unwrap();
    let builder = models.iter().fold(Runtime::builder(), |builder, model| builder.model(zoo(model)));
    let runtime = builder
        .device(DeviceName::CPU)
        .batching(small_batches())
        .device_memory(DeviceName::CPU, NonZeroU64::new(largest).unwrap())
        .build()
        .unwrap();
    let text_models = ["encoder-mini", MODEL].map(|name| runtime.model(name).unwrap());
    let first = [text_models[0].infer("a film").await.unwrap(), text_models[1].infer("a film").await.unwrap()];
    for _ in 0..3 {
        for (model, first) in text_models.iter().zip(&first) {
            assert_eq!(model.infer("a film").await.unwrap().output, first.output, "it is the same model as before");
        }
    }
    let loads = text_models.each_ref().map(|model| model.devices()[0].loads);
    assert!(loads.iter().all(|loads| *loads >= 3), "{loads:?}");
    // Requests for both models at once, so that each model has to wait until the other has run.
    let both = (0..40).map(|number| {
        let model = text_models[number % 2].clone();
        tokio::spawn(async move { model.infer("a film").await.map(|answer| (number % 2, answer.output)) })
    });
    for answer in both.collect::<Vec<_>>() {
        let (which, output) = answer.await.unwrap().unwrap();
        assert_eq!(output, first[which].output);
    }
    runtime.shutdown().await;
}

fn small_batches() -> BatcherConfig {
    BatcherConfig { max_batch_weight: 64, max_queue_weight: 4096, ..BatcherConfig::default() }
}

#[test]
fn a_model_that_does_not_fit_the_memory_is_refused_where_it_is_asked_for_and_put_elsewhere_by_itself() {
    let small = NonZeroU64::new(1 << 20).unwrap();
    let build = |placement: Placement| builder(second(1e-9), placement).device_memory(SECOND, small).build();
    let Err(error) = build(Placement::On(SECOND)) else { panic!("1 MiB does not hold it") };
    assert!(
        error.to_string().starts_with("model 'tiny-bert-sentiment': it runs on none of its devices: cuda:9: "),
        "{error}"
    );
    let BuildError::Place { source, .. } = error else { panic!("{error}") };
    assert!(matches!(*source, PlacementError::Nowhere { .. }));
    let runtime = build(Placement::Auto).unwrap();
    assert_eq!(runtime.model(MODEL).unwrap().devices()[0].name, DeviceName::CPU);
}

#[test]
fn a_precision_that_the_device_does_not_have_is_refused_where_it_is_asked_for_and_put_elsewhere_by_itself() {
    let build = |placement: Placement| {
        let source = ModelSource::new(zoo(MODEL)).device(placement).precision(Precision::Int8);
        let builder = Runtime::builder().allow_undecided(true);
        builder.model(source).backend(Second { only_f32: true, ..second(1e-9) }).build()
    };
    let Err(error) = build(Placement::On(SECOND)) else { panic!("it has no int8") };
    assert!(error.to_string().contains("no precision 'int8'"), "{error}");
    assert_eq!(build(Placement::Auto).unwrap().model(MODEL).unwrap().devices()[0].name, DeviceName::CPU);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_answer_says_which_device_computed_it() {
    let cache = AnswerCache::builder().memory(MemoryConfig::default()).build().unwrap();
    let runtime = builder(second(1e-9), SECOND).cache(cache).build().unwrap();
    let model = &runtime.model(MODEL).unwrap();
    for source in [AnswerSource::Computed, AnswerSource::Cached("memory")] {
        let answer = model.infer("a film").await.unwrap();
        assert_eq!((answer.source, answer.device), (source, SECOND));
    }
}

/// Builds the first two encoders, and has no room for any later one.
fn twice(engine: Box<dyn EncoderEngine>) -> Result<Box<dyn EncoderEngine>, LoadError> {
    static LOADS: AtomicUsize = AtomicUsize::new(0);
    if LOADS.fetch_add(1, Ordering::SeqCst) >= 2 { no_room(engine) } else { Ok(engine) }
}

fn no_room(_: Box<dyn EncoderEngine>) -> Result<Box<dyn EncoderEngine>, LoadError> {
    Err(LoadError::OutOfMemory { path: "model.safetensors".into(), message: "somebody else has it all".to_owned() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_for_which_a_device_has_no_room_goes_without_it_unless_it_was_asked_for() {
    let Err(error) = builder(Second { build: no_room, ..second(1e-9) }, SECOND).build() else {
        panic!("there is no room")
    };
    assert!(error.to_string().contains("somebody else has it all"), "{error}");
    let runtime = builder(Second { build: no_room, ..second(1e-9) }, Placement::Auto).build().unwrap();
    let model = &runtime.model(MODEL).unwrap();
    assert_eq!(model.devices().iter().map(|device| device.name).collect::<Vec<_>>(), [DeviceName::CPU]);
    assert_eq!(model.infer(TEXT).await.unwrap().device, DeviceName::CPU);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_come_back_to_its_device_is_answered_by_the_cpu() {
    // Room for one of two models: loading the second evicts the first.
    let source = |name: &str| ModelSource::new(zoo(MODEL)).name(name).device(SECOND);
    let decisions = builder(second(1e-9), SECOND).batching(small_batches()).decide().unwrap();
    let needed = decisions[MODEL].considered[1].demand.unwrap().1.bytes(64);
    let runtime = Runtime::builder()
        .backend(Second { build: twice, ..second(1e-9) })
        .model(source("first"))
        .model(source("second"))
        .batching(small_batches())
        .device_memory(SECOND, NonZeroU64::new(needed).unwrap())
        .build()
        .unwrap();
    let [first, second] = ["first", "second"].map(|name| runtime.model(name).unwrap());
    let loaded = |model: &Model| model.devices()[0].loaded;
    assert_eq!([loaded(&first), loaded(&second)], [false, true]);
    for _ in 0..3 {
        let answer = first.infer(TEXT).await.unwrap();
        assert_eq!(answer.device, DeviceName::CPU);
        assert_eq!(answer.output.classification().unwrap().label(), "positive");
    }
    assert_eq!(first.devices()[0].state, DeviceState::Lost, "for half a minute");
    runtime.shutdown().await;
}
