//! One model, ready to infer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sconce_batch::{BatcherConfig, CostLine, CostModel, Depth, DeviceState, Priority, Queue, Role, Stats, Terms};
use sconce_cache::CrossPrecision;
use sconce_models::{Demand, DeviceName, ModelFiles, Processor, Settings, Signature};

use crate::cached::{AnswerKeys, FileDigests, ModelCache};
use crate::devices::Devices;
use crate::placement::Decision;
use crate::placing::{Place, Settled};
use crate::prepare::Preparation;
use crate::seat::{NetworkSlot, Seat};
use crate::terms::{WhenFull, deadline};
use crate::{Answer, BuildError, InferError, Request};

/// One model of a [`Runtime`](crate::Runtime). Clones share its queue and device.
#[derive(Clone)]
pub struct Model {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    name: String,
    directory: PathBuf,
    pub(crate) signature: Signature,
    settings: Settings,
    files: ModelFiles,
    pub(crate) batching: BatcherConfig,
    load_time: Duration,
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) preparation: Preparation,
    pub(crate) cache: Option<ModelCache>,
    decision: Decision,
    /// In the order of the queue's.
    pub(crate) devices: Vec<OnDevice>,
    pub(crate) queue: Queue<Seat>,
    /// Since the runtime began to shut down.
    pub(crate) closed: AtomicBool,
}

/// What is known of a model on one of its devices.
pub(crate) struct OnDevice {
    pub(crate) name: DeviceName,
    role: Role,
    demand: Demand,
    estimate: Option<CostLine>,
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
    pub estimate: Option<CostLine>,
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

impl Model {
    pub(crate) fn start(name: String, settled: Settled, placed: Placed, devices: &Devices) -> Result<Self, BuildError> {
        let Placed { directory, load_time, preparation, cache } = placed;
        let Settled { signature, processor, settings, files, batching, decision, places } = settled;
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
            files,
            batching,
            load_time,
            processor,
            preparation,
            cache,
            decision,
            devices: on,
            queue,
            closed: AtomicBool::new(false),
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
    /// Outside of a tokio runtime, for an input over 1 KiB, a request with a timeout, or with a cache of more than memory.
    pub async fn infer(&self, request: impl Into<Request>) -> Result<Answer, InferError> {
        self.answer(request.into(), WhenFull::Wait).await
    }

    /// As [`infer`](Self::infer), but refuses at once when the queue is full.
    ///
    /// # Errors
    /// [`InferError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime, for an input over 1 KiB, a request with a timeout, or with a cache of more than memory.
    pub async fn try_infer(&self, request: impl Into<Request>) -> Result<Answer, InferError> {
        self.answer(request.into(), WhenFull::Refuse).await
    }

    /// As [`infer`](Self::infer), for a thread that may block. Needs no runtime; must not run on one's workers.
    ///
    /// # Errors
    /// [`InferError`]; but never one of a full queue.
    pub fn infer_blocking(&self, request: impl Into<Request>) -> Result<Answer, InferError> {
        self.answer_blocking(request.into())
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

    /// The keys under which its answers are kept.
    pub(crate) fn answer_keys(&self) -> Result<AnswerKeys, BuildError> {
        let Inner { name, directory, signature, settings, files, devices, .. } = &*self.inner;
        let files = FileDigests::of(files, &settings.model)
            .map_err(|source| BuildError::Digest { directory: directory.clone(), source })?;
        let devices = devices.iter().map(|device| device.name);
        Ok(AnswerKeys::new(name, files, signature, devices, &[], CrossPrecision::Never))
    }

    /// Refuses new work from now on.
    pub(crate) fn close(&self) {
        self.inner.queue.close();
        self.inner.closed.store(true, Ordering::Release);
    }

    /// Answers what waits and joins the device thread. Blocks.
    pub(crate) fn shutdown(&self) {
        self.inner.queue.shutdown();
    }
}
