//! A loaded model: its calls, its statistics, and the state of its devices.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sconce_batch::{BatcherConfig, CostLine, CostModel, Depth, DeviceState, Priority, Role, Stats, Terms};
use sconce_cache::CrossPrecision;
use sconce_models::{DeviceName, ModelDigests, ModelFiles, Precision, Processor, Settings, Signature, TextProcessor};

use crate::cached::{AnswerKeys, FileDigests, ModelCache};
use crate::devices::Devices;
use crate::ladder::{Ladder, Rung, Rungs};
use crate::placement::Decision;
use crate::placing::{PlacedModel, PlacedRungs};
use crate::prepare::Preparation;
use crate::shadow::ShadowCheck;
use crate::statistics::{EndedItem, Requests, TracedRequest};
use crate::terms::{WhenFull, deadline};
use crate::{
    Answer, BuildError, CostPart, Degradation, DegradationEvent, ErrorKind, InferError, Permission, Request,
    RequestStats,
};

/// One version of a model of a [`Runtime`](crate::Runtime). Clones share its queue and its devices.
///
/// The runtime may replace or unload the model meanwhile: each clone goes on answering by the version that it is, whose
/// memory is free when the last clone is dropped.
#[derive(Clone)]
pub struct Model {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    name: String,
    version: u64,
    directory: PathBuf,
    pub(crate) signature: Signature,
    settings: Settings,
    files: ModelFiles,
    pub(crate) batching: BatcherConfig,
    load_time: Duration,
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) preparation: Preparation,
    pub(crate) rungs: Rungs,
    /// The check of lower precisions, if there is one; its reference is the first rung.
    pub(crate) shadow: Option<ShadowCheck>,
    /// Set once the runtime began to shut down.
    pub(crate) closed: AtomicBool,
    pub(crate) requests: Requests,
}

/// A snapshot of a model on one of its devices.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ModelDevice {
    /// The device.
    pub name: DeviceName,
    /// The precision of the network.
    pub precision: Precision,
    /// The device's role: it takes every batch that it would complete first, or only batches that no other device can
    /// run.
    pub role: Role,
    /// The device's current state: ready, short of memory, or lost.
    pub state: DeviceState,
    /// True if the network is in the device's memory.
    pub loaded: bool,
    /// Number of times the network was loaded.
    pub loads: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// The cost of a batch as estimated before loading; `None` unless several devices serve.
    pub estimate: Option<CostLine>,
    /// The cost of a batch as learned so far.
    pub cost: CostModel,
}

/// The parts of a model apart from its networks, as the builder hands them to [`Model::start`].
pub(crate) struct ModelParts {
    pub(crate) version: u64,
    pub(crate) directory: PathBuf,
    pub(crate) load_time: Duration,
    pub(crate) preparation: Preparation,
    /// The keys of each rung's answers, if they are cached.
    pub(crate) caches: Vec<Option<ModelCache>>,
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { name, version, directory, .. } = &*self.inner;
        let mut debug = formatter.debug_struct("Model");
        debug.field("name", name).field("version", version).field("directory", directory).finish_non_exhaustive()
    }
}

impl Model {
    pub(crate) fn start(
        name: String,
        PlacedRungs { plan, rungs: placed }: PlacedRungs,
        parts: ModelParts,
        devices: &Devices,
    ) -> Result<Self, BuildError> {
        let ModelParts { version, directory, load_time, preparation, caches } = parts;
        let PlacedModel { signature, processor, settings, files, batching, .. } = &placed[plan.home];
        let (signature, processor, settings) = (signature.clone(), Arc::clone(processor), settings.clone());
        let (files, batching) = (files.clone(), batching.clone());
        let mut rungs = Vec::new();
        for (placed_model, cache) in placed.into_iter().zip(caches) {
            rungs.push(Rung::start(&name, placed_model, cache, &rungs, devices)?);
        }
        let ladder = (rungs.len() > 1).then(|| Ladder::new(&plan, &batching));
        let shadow = plan.shadow.as_ref().map(|config| ShadowCheck::new(config, &rungs, devices.running.clone()));
        let requests = Requests::of(&rungs, plan.home);
        let inner = Inner {
            name,
            version,
            directory,
            signature,
            settings,
            files,
            batching,
            load_time,
            processor,
            preparation,
            rungs: Rungs::new(rungs, plan.home, ladder),
            shadow,
            closed: AtomicBool::new(false),
            requests,
        };
        let inner = Arc::new(inner);
        inner
            .shadow
            .as_ref()
            .map_or(Ok(()), |shadow| shadow.start(&inner))
            .map_err(|source| BuildError::Device { source })?;
        Ok(Self { inner })
    }

    /// Infers one item, in a batch with other requests. Waits for room if the queue is full.
    ///
    /// Dropping the future cancels the item: while it is queued, it leaves the queue and never runs.
    ///
    /// # Errors
    /// [`InferError`], except [`QueueFull`](crate::QueueError::QueueFull) and
    /// [`QueueTooHeavy`](crate::QueueError::QueueTooHeavy).
    ///
    /// # Panics
    /// Outside of a tokio runtime, if the input is over 1 KiB, the request has a timeout, or the cache has a tier
    /// other than memory.
    pub async fn infer(&self, request: impl Into<Request>) -> Result<Answer, InferError> {
        let started = Instant::now();
        self.counted(started, self.answer(request.into(), WhenFull::Wait).await)
    }

    /// Does the same as [`infer`](Self::infer), but fails at once if the queue is full.
    ///
    /// # Errors
    /// [`InferError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime, if the input is over 1 KiB, the request has a timeout, or the cache has a tier
    /// other than memory.
    pub async fn try_infer(&self, request: impl Into<Request>) -> Result<Answer, InferError> {
        let started = Instant::now();
        self.counted(started, self.answer(request.into(), WhenFull::Refuse).await)
    }

    /// Does the same as [`infer`](Self::infer) on a thread that may block. Needs no tokio runtime, and must not be
    /// called on a worker thread of one.
    ///
    /// # Errors
    /// As [`infer`](Self::infer).
    pub fn infer_blocking(&self, request: impl Into<Request>) -> Result<Answer, InferError> {
        let started = Instant::now();
        self.counted(started, self.answer_blocking(request.into()))
    }

    /// Counts a finished request of one item in the statistics.
    fn counted(&self, started: Instant, outcome: Result<Answer, InferError>) -> Result<Answer, InferError> {
        self.count(started, outcome.as_ref().map(std::slice::from_ref).map_err(InferError::kind));
        outcome
    }

    /// Counts a finished request in the statistics, and tells of the degradations that begin or end with it.
    pub(crate) fn count(&self, started: Instant, outcome: Result<&[Answer], ErrorKind>) {
        let (now, requests) = (Instant::now(), &self.inner.requests);
        let took = now.saturating_duration_since(started);
        let events = match outcome {
            Ok(answers) => requests.succeeded(now, took, answers.iter().map(EndedItem::of)),
            Err(kind) => requests.failed(now, took, kind),
        };
        for event in &events {
            self.tell(event);
        }
    }

    fn tell(&self, event: &DegradationEvent) {
        let (DegradationEvent::Began(it) | DegradationEvent::Ended(it)) = event;
        let Degradation { stage, usual, present, .. } = *it;
        let (model, stage, since, ratio) = (self.name(), stage.name(), it.since.elapsed(), it.ratio());
        let on = it.device.map(|device| self.inner.rungs.device(device));
        let (precision, device) =
            on.map(|(precision, device)| (precision.name(), device.to_string())).unwrap_or_default();
        let part = it.part.map_or("", CostPart::name);
        match event {
            DegradationEvent::Began(_) => {
                tracing::warn!(
                    model,
                    stage,
                    device,
                    precision,
                    part,
                    ?since,
                    ratio,
                    usual,
                    present,
                    "a stage is worse than it was, or than what was decided on"
                );
            }
            DegradationEvent::Ended(_) => {
                tracing::warn!(model, stage, device, precision, part, ?since, "a stage is as it was");
            }
        }
    }

    /// Counts the time that a server took to write an answer of this model in its protocol.
    pub fn record_serialise(&self, time: Duration) {
        self.inner.requests.serialised(time);
    }

    /// Keeps a traced request as the example that metrics show: the identifier of its trace, and its whole time.
    pub fn record_exemplar(&self, trace_id: u128, took: Duration) {
        self.inner.requests.exemplar(TracedRequest { trace_id, took, ended: SystemTime::now() });
    }

    /// The stages that are slower than they were under the same conditions, and the shares that are larger.
    #[must_use]
    pub fn degradations(&self) -> Vec<Degradation> {
        self.inner.requests.degradations()
    }

    /// The model's name in its runtime.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The model's version: 1, unless its directory or its [`ModelSource`](crate::ModelSource) says otherwise.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.inner.version
    }

    /// The directory that the model was loaded from.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// The model's input and task, with the precision that it answers in without load, its device and number of parameters.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.inner.signature
    }

    /// The precision of answers to requests that ask for none, right now: of a model with a [ladder](crate::LadderConfig) a
    /// lower one under load.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.inner.rungs.look(self.name());
        self.inner.rungs.active().precision
    }

    /// The precisions that a request can ask for, the highest first.
    #[must_use]
    pub fn precisions(&self) -> Vec<Precision> {
        self.inner.rungs.precisions()
    }

    /// The prompts of the model's files: texts that a request can have put before its own, by name.
    #[must_use]
    pub fn prompts(&self) -> &BTreeMap<String, String> {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        self.inner.processor.text().map_or(NONE, TextProcessor::prompts)
    }

    /// The bounds of the model's queue and batches, with the settings of its `sconce.toml` applied.
    #[must_use]
    pub fn batcher_config(&self) -> &BatcherConfig {
        &self.inner.batching
    }

    /// The time that deciding on devices, loading and measuring the model took.
    #[must_use]
    pub fn load_time(&self) -> Duration {
        self.inner.load_time
    }

    /// Number, weight and age of the entries in the model's queue right now; of several precisions together.
    #[must_use]
    pub fn depth(&self) -> Depth {
        self.inner.rungs.depth()
    }

    /// Statistics of the model's queue, or queues, since it was loaded: admissions, refusals by reason, batch sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.rungs.stats()
    }

    /// Statistics of the model's requests since it was loaded: how many were answered, how many failed, and where their
    /// time went.
    #[must_use]
    pub fn request_stats(&self) -> RequestStats {
        self.inner.requests.stats()
    }

    /// The error with which [`try_infer`](Self::try_infer) would refuse even the lightest input right now, in this precision if
    /// one is asked for: the queue is full, no answer could come in time, no device is left, or the model is shutting down. An
    /// error counts as a refusal and as a failed request; `None` if an input may be admitted.
    ///
    /// The check needs no input, so a server can refuse cheaply before it reads a request. If a cache may answer requests
    /// ([`is_cached`](Self::is_cached)), a request may be answered in spite of the error.
    #[must_use]
    pub fn refusal(
        &self,
        timeout: Option<Duration>,
        priority: Priority,
        precision: Option<Precision>,
    ) -> Option<InferError> {
        let now = Instant::now();
        let terms = Terms { deadline: deadline(now, timeout), priority };
        let rung = self.rung(precision);
        let refusal = rung.map(|rung| rung.queue.refusal(1, terms).map(InferError::from)).unwrap_or_else(Some);
        if let Some(refusal) = &refusal {
            self.arrived(1, None);
            self.count(now, Err(refusal.kind()));
        }
        refusal
    }

    /// Returns true if a cache may answer the model's requests.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.inner.rungs.home().cache.is_some()
    }

    /// The placement decision made before the model was loaded: its devices, and why.
    #[must_use]
    pub fn decision(&self) -> &Decision {
        &self.inner.rungs.home().decision
    }

    /// The placement decision of each precision that the model is loaded in, the highest first.
    pub fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.inner.rungs.all().iter().map(|rung| &rung.decision)
    }

    /// By what right the model serves in its present precision: it is f32, a signed record allows it, or it is an experiment.
    #[must_use]
    pub fn permission(&self) -> &Permission {
        &self.inner.rungs.active().permission
    }

    /// The learned time of a batch on the preferred device, as a multiple of what its decision record rests on, at the usual
    /// weight of the record; `None` without a decision, or until enough batches have run.
    #[must_use]
    pub fn decided_cost_ratio(&self) -> Option<f64> {
        self.inner.rungs.active().decided_cost_ratio()
    }

    /// Digests of the files and settings that the model was made of: those that a decision record names.
    ///
    /// # Errors
    /// An error of reading, where the model's family may have read any file of its directory.
    pub fn digests(&self) -> io::Result<ModelDigests> {
        let FileDigests { weights, processing } = FileDigests::of(&self.inner.files, &self.inner.settings.model)?;
        Ok(ModelDigests { weights: weights.0, processing: processing.0 })
    }

    /// The model's devices and their current state, the preferred device first and those on standby last; those of each
    /// precision after those of the next higher one.
    #[must_use]
    pub fn devices(&self) -> Vec<ModelDevice> {
        self.inner.rungs.model_devices().collect()
    }

    /// The cost of a batch on the preferred device in the present precision, as learned so far.
    #[must_use]
    pub fn cost(&self) -> CostModel {
        self.inner.rungs.active().queue.cost()
    }

    /// The rung for a request that asks for this precision, or for none.
    pub(crate) fn rung(&self, asked: Option<Precision>) -> Result<&Rung, InferError> {
        self.inner.rungs.look(self.name());
        self.inner.rungs.of(self.name(), asked)
    }

    /// Tells the ladder, if there is one, of items that came to be computed, with their weight if they were prepared.
    pub(crate) fn arrived(&self, items: usize, weight: Option<usize>) {
        if let Some(ladder) = self.inner.rungs.ladder() {
            ladder.arrived(items, weight);
        }
    }

    /// Returns true unless the model's `sconce.toml` keeps its answers out of caches.
    pub(crate) fn keeps_answers(&self) -> bool {
        self.inner.settings.cache.answers.unwrap_or(true)
    }

    /// The keys under which caches keep the model's answers.
    pub(crate) fn answer_keys(&self) -> Result<AnswerKeys, BuildError> {
        let Inner { name, directory, signature, settings, files, rungs, .. } = &*self.inner;
        let files = FileDigests::of(files, &settings.model)
            .map_err(|source| BuildError::Digest { directory: directory.clone(), source })?;
        let classes = rungs.home().devices.iter().map(|device| device.class.clone());
        Ok(AnswerKeys::new(name, files, signature, classes, &[], CrossPrecision::Never))
    }

    /// Refuses new requests from now on.
    pub(crate) fn close(&self) {
        self.inner.rungs.close();
        self.inner.closed.store(true, Ordering::Release);
    }

    /// Ends the shadow check, answers the queued entries and joins the device threads. Blocks.
    pub(crate) fn shutdown(&self) {
        if let Some(shadow) = &self.inner.shadow {
            shadow.end();
        }
        self.inner.rungs.shutdown();
    }
}
