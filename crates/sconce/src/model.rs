//! One model, ready to infer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sconce_batch::{
    BatcherConfig, Completion, CostModel, Depth, DeviceState, Error as QueueError, Line, Priority, Queue, Role, Stats,
    Terms,
};
use sconce_cache::{CrossPrecision, Failure, Value};
use sconce_models::{Demand, DeviceName, Prepared, Processor, Settings, Signature};

use crate::cached::{AnswerKeys, Computed, FileDigests, Keys, ModelCache};
use crate::devices::Devices;
use crate::placement::Decision;
use crate::placing::{Place, Settled};
use crate::prepare::{Preparation, caught};
use crate::seat::{NetworkSlot, Seat};
use crate::{Answer, AnswerSource, BuildError, InferError, Request, Timing};

/// One model of a [`Runtime`](crate::Runtime). Clones share its queue and device.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    directory: PathBuf,
    signature: Signature,
    settings: Settings,
    batching: BatcherConfig,
    load_time: Duration,
    processor: Arc<dyn Processor>,
    preparation: Preparation,
    cache: Option<ModelCache>,
    decision: Decision,
    /// In the order of the queue's.
    devices: Vec<OnDevice>,
    queue: Queue<Seat>,
}

/// What is known of a model on one of its devices.
struct OnDevice {
    name: DeviceName,
    role: Role,
    demand: Demand,
    estimate: Option<Line>,
    slot: Arc<NetworkSlot>,
}

/// A model on one of its devices, right now.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ModelDevice {
    /// The device.
    pub name: DeviceName,
    /// Whether it takes batches whenever it would complete them first, or only what no other device can run.
    pub role: Role,
    /// Whether it takes batches now.
    pub state: DeviceState,
    /// Whether the network is in its memory.
    pub loaded: bool,
    /// How often the network was loaded.
    pub loads: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// What a batch was estimated to cost, where there was something to choose.
    pub estimate: Option<Line>,
    /// What a batch costs, as far as it is learned.
    pub cost: CostModel,
}

/// What a model is given beside what was loaded.
pub(crate) struct Placed {
    pub(crate) directory: PathBuf,
    pub(crate) load_time: Duration,
    pub(crate) preparation: Preparation,
    pub(crate) cache: Option<ModelCache>,
}

/// What to do where the queue is full.
#[derive(Debug, Clone, Copy)]
enum WhenFull {
    Wait,
    Refuse,
}

impl Model {
    pub(crate) fn start(name: String, settled: Settled, placed: Placed, devices: &Devices) -> Result<Self, BuildError> {
        let Placed { directory, load_time, preparation, cache } = placed;
        let Settled { signature, processor, settings, batching, decision, places } = settled;
        let (mut on, mut learned, mut lanes) = (Vec::new(), Vec::new(), Vec::new());
        for Place { device: name, demand, lane, seat, profile, learned: cost } in places {
            let slot = Arc::clone(&seat.slot);
            on.push(OnDevice { name, role: profile.role, demand, estimate: profile.estimate, slot });
            learned.push(cost);
            lanes.push((devices.thread(lane), seat, profile));
        }
        let queue = Queue::placed(batching.clone(), lanes)
            .map_err(|source| BuildError::Queue { name: name.clone(), source })?;
        for (device, cost) in learned.into_iter().enumerate().filter(|(_, cost)| cost.is_known()) {
            queue.learned(device, cost);
        }
        let inner = Inner {
            name,
            directory,
            signature,
            settings,
            batching,
            load_time,
            processor,
            preparation,
            cache,
            decision,
            devices: on,
            queue,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Infers one item in whatever batch it falls into, waiting for room if the queue is full.
    ///
    /// Dropping the future cancels the item: if it still waits it leaves the queue and never runs.
    ///
    /// # Errors
    /// [`InferError`]; but never one of a full queue.
    ///
    /// # Panics
    /// Outside of a tokio runtime, for an input over 1 KiB or a request with a timeout.
    pub async fn infer(&self, request: impl Into<Request>) -> Result<Answer, InferError> {
        self.answer(request.into(), WhenFull::Wait).await
    }

    /// As [`infer`](Self::infer), but refuses at once when the queue is full.
    ///
    /// # Errors
    /// [`InferError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime, for an input over 1 KiB or a request with a timeout.
    pub async fn try_infer(&self, request: impl Into<Request>) -> Result<Answer, InferError> {
        self.answer(request.into(), WhenFull::Refuse).await
    }

    /// As [`infer`](Self::infer), for a thread that may block. Needs no runtime; must not run on one's workers.
    ///
    /// # Errors
    /// [`InferError`]; but never one of a full queue.
    pub fn infer_blocking(&self, request: impl Into<Request>) -> Result<Answer, InferError> {
        let request = request.into();
        let Inner { preparation, queue, cache, .. } = &*self.inner;
        if let Some(ModelCache { handle: Some(handle), .. }) = cache.as_ref().filter(|_| request.cache) {
            return handle.block_on(self.answer(request, WhenFull::Wait));
        }
        let Request { input, timeout, priority, truncation, .. } = request;
        let started = Instant::now();
        let Prepared { features, truncated } = preparation.prepare_blocking(input, truncation)?;
        let prepare = started.elapsed();
        let completion = queue.call_blocking(features, Terms { deadline: deadline(started, timeout), priority })?;
        self.finish(self.computed(completion, truncated, prepare), AnswerSource::Computed)
    }

    /// The name it goes by in its runtime.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Where it was loaded from.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// What it takes and gives.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.inner.signature
    }

    /// The bounds of its queue and batches, `sconce.toml` included.
    #[must_use]
    pub fn batcher_config(&self) -> &BatcherConfig {
        &self.inner.batching
    }

    /// How long loading it took.
    #[must_use]
    pub fn load_time(&self) -> Duration {
        self.inner.load_time
    }

    /// What waits in its queue right now.
    #[must_use]
    pub fn depth(&self) -> Depth {
        self.inner.queue.depth()
    }

    /// What its queue has done since it was loaded: admissions, refusals by reason, batch sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.queue.stats()
    }

    /// The error with which [`try_infer`](Self::try_infer) would refuse any input right now, however light it is: the queue is full,
    /// no answer could come in time, no device is left, or the model is shutting down. It counts among the refusals.
    ///
    /// Nothing of the input is looked at, so that refusing costs little where much is refused. A request that a cache may answer
    /// ([`is_cached`](Self::is_cached)) may get an answer all the same.
    #[must_use]
    pub fn refusal(&self, timeout: Option<Duration>, priority: Priority) -> Option<InferError> {
        let terms = Terms { deadline: deadline(Instant::now(), timeout), priority };
        self.inner.queue.refusal(1, terms).map(InferError::from)
    }

    /// Whether a cache may answer requests.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.inner.cache.is_some()
    }

    /// Where it runs, and why, as it was decided before it was loaded.
    #[must_use]
    pub fn decision(&self) -> &Decision {
        &self.inner.decision
    }

    /// The devices that it runs on right now, the preferred one first and those on standby last.
    #[must_use]
    pub fn devices(&self) -> Vec<ModelDevice> {
        let Inner { devices, queue, .. } = &*self.inner;
        let device = |(at, device): (usize, &OnDevice)| ModelDevice {
            name: device.name,
            role: device.role,
            state: queue.device_state(at),
            loaded: device.slot.is_loaded(),
            loads: device.slot.loads(),
            weight_bytes: device.demand.weight_bytes,
            estimate: device.estimate,
            cost: queue.cost_on(at),
        };
        devices.iter().enumerate().map(device).collect()
    }

    /// What a batch costs on its preferred device, as far as it is learned.
    #[must_use]
    pub fn cost(&self) -> CostModel {
        self.inner.queue.cost()
    }

    /// Whether caches keep its answers, by its `sconce.toml`.
    pub(crate) fn keeps_answers(&self) -> bool {
        self.inner.settings.cache.answers.unwrap_or(true)
    }

    /// Under which keys its answers are kept. Reads its files.
    pub(crate) fn answer_keys(&self) -> Result<AnswerKeys, BuildError> {
        let Inner { name, directory, signature, settings, devices, .. } = &*self.inner;
        let files = FileDigests::read(directory, &settings.model)?;
        let devices = devices.iter().map(|device| device.name);
        Ok(AnswerKeys::new(name, files, signature, devices, &[], CrossPrecision::Never))
    }

    /// Computes an answer, waiting for room, in the form in which it is kept.
    pub(crate) async fn compute_value(&self, request: Request) -> Result<Value, InferError> {
        Ok(self.compute(request, None, WhenFull::Wait).await?.encode())
    }

    /// Refuses new work from now on.
    pub(crate) fn close(&self) {
        self.inner.queue.close();
    }

    /// Answers what waits and joins the device thread. Blocks.
    pub(crate) fn shutdown(&self) {
        self.inner.queue.shutdown();
    }

    async fn answer(&self, request: Request, when_full: WhenFull) -> Result<Answer, InferError> {
        let deadline = deadline(Instant::now(), request.timeout);
        within(deadline, async {
            let cache = self.inner.cache.as_ref().filter(|_| request.cache);
            let keyed = cache.and_then(|cache| Some((cache, cache.keys.of(&request.input, request.truncation)?)));
            if let Some((cache, keys)) = keyed {
                return self.answer_by(cache, &keys, &request, deadline, when_full).await;
            }
            let computed = self.compute(request, deadline, when_full).await?;
            self.finish(computed, AnswerSource::Computed)
        })
        .await
    }

    async fn answer_by(
        &self,
        cache: &ModelCache,
        keys: &Keys,
        request: &Request,
        deadline: Option<Instant>,
        when_full: WhenFull,
    ) -> Result<Answer, InferError> {
        loop {
            let mut own = None;
            let timing = &mut own;
            let compute = move || async move {
                let timing = timing.insert(Timing::default());
                let computed = self.compute(request.clone(), deadline, when_full).await.map_err(failure)?;
                *timing = computed.timing;
                Ok(computed.encode())
            };
            match cache.answers.get_or_compute(keys.key, &keys.instead, compute).await {
                Ok(answer) => {
                    let Some(computed) = Computed::decode(&answer.value) else {
                        // Not of our making; computing is always right.
                        let computed = self.compute(request.clone(), deadline, when_full).await?;
                        return self.finish(computed, AnswerSource::Computed);
                    };
                    let timing = own.unwrap_or_default();
                    return self.finish(Computed { timing, ..computed }, answer.source.into());
                }
                // The terms of the request that this one waited for are not its own: it may have had less time.
                Err(error) if own.is_none() && depends_on_terms(&error) => {}
                Err(error) => return Err(InferError::clone(&error)),
            }
        }
    }

    async fn compute(
        &self,
        request: Request,
        deadline: Option<Instant>,
        when_full: WhenFull,
    ) -> Result<Computed, InferError> {
        let Request { input, priority, truncation, .. } = request;
        let Inner { preparation, queue, .. } = &*self.inner;
        let started = Instant::now();
        let Prepared { features, truncated } = preparation.prepare(input, truncation).await?;
        let prepare = started.elapsed();
        let terms = Terms { deadline, priority };
        let admitted = match when_full {
            WhenFull::Wait => queue.submit(features, terms).await?,
            WhenFull::Refuse => queue.try_submit(features, terms)?,
        };
        Ok(self.computed(admitted.await?, truncated, prepare))
    }

    fn finish(&self, computed: Computed, source: AnswerSource) -> Result<Answer, InferError> {
        let Computed { row, truncated, precision, device, timing } = computed;
        let output = caught(|| self.inner.processor.finish(row))?;
        Ok(Answer { output, truncated, precision, device, source, timing })
    }

    fn computed(&self, completion: Completion<Vec<f32>>, truncated: bool, prepare: Duration) -> Computed {
        let Completion { output: row, queue_wait, run, batch_size, device } = completion;
        let precision = self.inner.signature.precision;
        let device = self.inner.devices[device].name;
        Computed { row, truncated, precision, device, timing: Timing { prepare, queue_wait, run, batch_size } }
    }
}

/// An input that the model does not take will not be taken later either.
fn failure(error: InferError) -> Failure<InferError> {
    match error {
        InferError::Input(_) => Failure::BadInput(error),
        error => Failure::Passing(error),
    }
}

/// Whether another request for the same answer might have got it.
fn depends_on_terms(error: &InferError) -> bool {
    match error {
        InferError::Queue(
            QueueError::Executor(_)
            | QueueError::TooHeavy { .. }
            | QueueError::DevicesLost { .. }
            | QueueError::ShuttingDown,
        )
        | InferError::Input(_)
        | InferError::Panicked { .. } => false,
        InferError::Queue(_) => true,
    }
}

/// A timeout too far away to be an instant is none.
fn deadline(started: Instant, timeout: Option<Duration>) -> Option<Instant> {
    started.checked_add(timeout?)
}

async fn within(
    deadline: Option<Instant>,
    answer: impl Future<Output = Result<Answer, InferError>>,
) -> Result<Answer, InferError> {
    match deadline {
        None => answer.await,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), answer)
            .await
            .unwrap_or(Err(InferError::Queue(QueueError::DeadlineExceeded { retry_after: None }))),
    }
}
