//! The shadow check with real threads: a model that ships, and one whose lower precision is bad or whose f32 hangs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, LazyLock, Mutex};

use sconce::Precision::{self, F32, Int8};
use sconce::models::{
    Blueprint, Device, Family, Features, Finishing, ForwardError, Halves, Input, InputError, InputKind, InputSpec,
    LoadError, ModelDirectory, Network, Output, Prepared, Processor, Registry, Target, Task, Truncation,
};
use sconce::{LadderConfig, Model, ModelSource, Request, Runtime, ShadowAllowance, ShadowConfig, ShadowMetrics};

const SENTIMENT: &str = "tiny-bert-sentiment";

fn zoo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo").join(name)
}

/// The comparisons of int8 so far.
fn checks(model: &Model) -> ShadowMetrics {
    let metrics = model.metrics();
    *metrics.shadow.iter().find(|it| it.precision == "int8").expect("int8 is checked")
}

/// Asks for answers in int8, one after the other, until this many were compared or there is an alarm, with a bound.
fn ask_until(model: &Model, texts: &[String], compared: u64) -> ShadowMetrics {
    for text in texts.iter().cycle().take(100_000) {
        let request = Request::new(text.clone()).uncached().precision(Int8);
        assert_eq!(model.infer_blocking(request).expect("an answer").precision, Int8);
        let checks = checks(model);
        if checks.alike + checks.different >= compared || checks.alarm {
            return checks;
        }
    }
    panic!("only {:?} in 100000 requests, {} dropped", checks(model), model.metrics().shadow_dropped);
}

#[test]
fn int8_that_is_fine_raises_no_alarm_in_many_comparisons() {
    let source = ModelSource::new(zoo(SENTIMENT)).precision(Int8).shadow(ShadowConfig::new(1.0));
    let runtime = Runtime::builder().model(source).allow_undecided(true).build().unwrap();
    let model = runtime.model(SENTIMENT).unwrap();
    assert_eq!((model.precisions(), model.precision()), (vec![F32, Int8], Int8), "f32 is there for the check alone");
    let reviews = std::fs::read_to_string(zoo(SENTIMENT).join("test.tsv")).unwrap();
    let texts: Vec<String> = reviews.lines().map(str::to_owned).collect();
    let checks = ask_until(&model, &texts, 500);
    println!("{checks:?}, {} dropped", model.metrics().shadow_dropped);
    assert!(!checks.alarm && model.precision() == Int8, "{checks:?}");
    runtime.shutdown_blocking();
}

/// A point on the unit circle for each number. In int8 it is turned a little, or by a right angle if the number says so.
struct Angle(Gate, Precision);

/// Holds up f32 while it is closed.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn close(&self, closed: bool) {
        *self.0.0.lock().expect("no panic") = closed;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().expect("no panic");
        drop(self.0.1.wait_while(closed, |closed| *closed).expect("no panic"));
    }
}

/// A number from which on int8 is bad.
const BAD: f32 = 1000.0;

impl Network for Angle {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        if self.1 == F32 {
            self.0.pass();
        }
        let row = |features: &Features| {
            let Features::Values(values) = features else { panic!("it prepares values") };
            let error = if self.1 == F32 { 0.0 } else { 0.01 };
            let error = if self.1 != F32 && values[0] >= BAD { std::f32::consts::FRAC_PI_2 } else { error };
            vec![(values[0] + error).cos(), (values[0] + error).sin()]
        };
        Ok(batch.iter().map(row).collect())
    }
}

struct Numbers;

impl Processor for Numbers {
    fn prepare(&self, input: Input, _: Truncation) -> Result<Prepared, InputError> {
        let Input::Text(text) = input else { panic!("only text is tested") };
        let number = text.parse().map_err(|_| InputError::Empty { name: "text" })?;
        Ok(Prepared { features: Features::Values(vec![number]), truncated: false })
    }

    fn finish(&self, row: Vec<f32>, _: Finishing<'_>) -> Output {
        Output::Embedding(row)
    }
}

/// The gates of this process's models, by directory.
static GATES: LazyLock<Mutex<HashMap<PathBuf, Gate>>> = LazyLock::new(Mutex::default);

fn gate(directory: &Path) -> Gate {
    GATES.lock().expect("no panic").entry(directory.to_owned()).or_default().clone()
}

struct Angles(Gate);

impl Blueprint for Angles {
    fn precisions(&self, _: &dyn Device) -> Vec<Precision> {
        vec![F32, Int8]
    }

    fn load(&self, _: &ModelDirectory, target: &Target) -> Result<Halves, LoadError> {
        Ok(Halves {
            input: InputSpec { name: "text", kind: InputKind::Text { max_tokens: 1 } },
            task: Task::Embedding { dimensions: 2 },
            processor: Arc::new(Numbers),
            network: Box::new(Angle(self.0.clone(), target.precision)),
        })
    }
}

/// A runtime with the model `angles`, and the gate of its f32.
fn angles(directory: &Path, source: impl FnOnce(ModelSource) -> ModelSource) -> (Runtime, Gate) {
    std::fs::write(directory.join("config.json"), r#"{"model_type": "angles"}"#).expect("a file");
    let read = |directory: &ModelDirectory| -> Result<Box<dyn Blueprint>, LoadError> {
        Ok(Box::new(Angles(gate(directory.path()))))
    };
    let mut registry = Registry::default();
    registry.register(Family { model_type: "angles", summary: "points on a circle", read });
    let source = source(ModelSource::new(directory).name("angles"));
    let runtime = Runtime::builder().registry(registry).model(source).without_warm_up().allow_undecided(true).build();
    (runtime.expect("it loads"), gate(directory))
}

fn numbers(from: u32) -> Vec<String> {
    (from..from + 100).map(|number| number.to_string()).collect()
}

#[test]
fn a_lower_precision_that_is_bad_raises_the_alarm_and_answers_no_more_until_the_model_is_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let shadow = || ShadowConfig::new(1.0).allowance(ShadowAllowance::new(0.99, 0.05));
    let (runtime, _gate) = angles(directory.path(), |source| source.precision(Int8).shadow(shadow()));
    let model = runtime.model("angles").unwrap();
    let fine = ask_until(&model, &numbers(0), 500);
    assert_eq!((fine.different, fine.alarm), (0, false));
    assert_eq!(model.infer_blocking("1").unwrap().precision, Int8);
    // A source of bad answers: the model is as it was, and so it is the data that has changed.
    let bad = ask_until(&model, &numbers(1000), u64::MAX);
    assert!(bad.alarm && (10..50).contains(&bad.different), "{bad:?}");
    // The step is taken right after the alarm is counted.
    while model.precision() == Int8 {
        std::thread::yield_now();
    }
    assert_eq!(model.infer_blocking("1").unwrap().precision, F32);
    let metrics = model.metrics();
    assert_eq!((metrics.precision, metrics.ladder.unwrap().steps_up), ("f32", 1));
    std::fs::write(directory.path().join("note"), "it changed").unwrap();
    runtime.load_blocking("angles").unwrap();
    assert_eq!(runtime.model("angles").unwrap().precision(), Int8);
}

#[test]
fn a_check_that_hangs_delays_no_request_and_what_does_not_fit_is_dropped_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let ladder = LadderConfig::new([Int8]);
    let (runtime, gate) = angles(directory.path(), |source| source.ladder(ladder).shadow(ShadowConfig::new(1.0)));
    let model = runtime.model("angles").unwrap();
    gate.close(true);
    // Each is answered although the first comparison does not end and no more than a few dozen may wait for it.
    for number in 0..500 {
        let request = Request::new(number.to_string()).precision(Int8);
        assert_eq!(model.infer_blocking(request).unwrap().precision, Int8);
    }
    let before = model.metrics();
    assert!(before.shadow_dropped >= 400, "{} dropped", before.shadow_dropped);
    assert_eq!(checks(&model).different, 0);
    gate.close(false);
    let after = ask_until(&model, &numbers(0), 100);
    assert_eq!((after.different, after.alarm), (0, false));
    runtime.shutdown_blocking();
}
