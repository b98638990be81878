//! A model that runs batches only when a test lets it, and records the items that it ran.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, LazyLock, Mutex};

use sconce::models::{
    Blueprint, Family, Features, Finishing, ForwardError, Halves, Input, InputError, InputKind, InputSpec, LoadError,
    ModelDirectory, Network, Output, Prepared, Processor, Registry, Target, Task, Truncation,
};
use sconce::{AnswerCache, BatcherConfig, Model, Runtime};

/// The gates of this process's models, by directory.
static GATES: LazyLock<Mutex<HashMap<PathBuf, Arc<Gate>>>> = LazyLock::new(Mutex::default);

/// A gate that a network waits for before it runs a batch.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    started: Vec<u64>,
}

impl Gate {
    /// Lets every batch run from now on.
    pub(crate) fn open(&self) {
        self.state.lock().expect("the test is set up right").open = true;
        self.changed.notify_all();
    }

    /// The items that the network was given so far, in order.
    pub(crate) fn started(&self) -> Vec<u64> {
        self.state.lock().expect("the test is set up right").started.clone()
    }

    fn pass(&self, batch: impl Iterator<Item = u64>) {
        let mut state = self.state.lock().expect("the test is set up right");
        state.started.extend(batch);
        drop(self.changed.wait_while(state, |state| !state.open).expect("the test is set up right"));
    }
}

/// A processor that returns each number as an embedding of one dimension.
struct Numbers;

impl Processor for Numbers {
    fn prepare(&self, input: Input, _: Truncation) -> Result<Prepared, InputError> {
        let Input::Text(text) = input else { panic!("only text is tested") };
        let number: u16 = text.parse().map_err(|_| InputError::Empty { name: "text" })?;
        Ok(Prepared { features: Features::Values(vec![f32::from(number)]), truncated: false })
    }

    fn finish(&self, row: Vec<f32>, _: Finishing<'_>) -> Output {
        Output::Embedding(row)
    }
}

struct GatedNetwork(Arc<Gate>);

impl Network for GatedNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        let number = |features: &Features| match features {
            Features::Values(values) => values[0],
            _ => panic!("it prepares values"),
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they were of 16 bits")]
        self.0.pass(batch.iter().map(|features| number(features) as u64));
        Ok(batch.iter().map(|features| vec![number(features)]).collect())
    }
}

struct GatedModel(Arc<Gate>);

impl Blueprint for GatedModel {
    fn load(&self, _: &ModelDirectory, _: &Target) -> Result<Halves, LoadError> {
        Ok(Halves {
            input: InputSpec { name: "text", kind: InputKind::Text { max_tokens: 1 } },
            task: Task::Embedding { dimensions: 1 },
            processor: Arc::new(Numbers),
            network: Box::new(GatedNetwork(Arc::clone(&self.0))),
        })
    }
}

#[expect(clippy::unnecessary_wraps, reason = "that is what a family looks like")]
fn read(directory: &ModelDirectory) -> Result<Box<dyn Blueprint>, LoadError> {
    Ok(Box::new(GatedModel(Arc::clone(&GATES.lock().expect("the test is set up right")[directory.path()]))))
}

/// A runtime with the gated model.
pub(crate) struct Gated {
    pub(crate) runtime: Runtime,
    pub(crate) model: Model,
    pub(crate) gate: Arc<Gate>,
    _directory: tempfile::TempDir,
}

impl Gated {
    pub(crate) fn new(batching: BatcherConfig, cache: Option<AnswerCache>) -> Self {
        let directory = tempfile::tempdir().expect("the test is set up right");
        std::fs::write(directory.path().join("config.json"), r#"{"model_type": "numbers"}"#)
            .expect("the test is set up right");
        let gate = Arc::new(Gate::default());
        GATES.lock().expect("the test is set up right").insert(directory.path().to_owned(), Arc::clone(&gate));
        let mut registry = Registry::default();
        registry.register(Family { model_type: "numbers", summary: "numbers", read });
        let builder = Runtime::builder().registry(registry).named_model("numbers", directory.path()).batching(batching);
        let builder = match cache {
            Some(cache) => builder.cache(cache),
            None => builder,
        };
        let runtime = builder.build().expect("the test is set up right");
        let model = runtime.model("numbers").expect("the test is set up right");
        Self { runtime, model, gate, _directory: directory }
    }

    /// Waits until the network has been given `items` items.
    pub(crate) async fn until_started(&self, items: usize) {
        until("the network runs", || self.gate.started().len() >= items).await;
    }

    /// Waits until `items` items are in the queue.
    pub(crate) async fn until_waiting(&self, items: usize) {
        until("items wait", || self.model.depth().items >= items).await;
    }

    /// The number of times that the network was given `number`.
    pub(crate) fn times_started(&self, number: u64) -> usize {
        self.gate.started().iter().filter(|started| **started == number).count()
    }
}

/// Waits up to 30 s until `holds` returns true; `what` names the condition if it does not.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "after 30 s still not: {what}");
        tokio::task::yield_now().await;
    }
}
