//! One model, ready to infer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sconce_batch::{
    BatcherConfig, Completion, CostModel, Depth, Device, Error as QueueError, Executor, ExecutorError, Queue, Stats,
    Terms, Ticket,
};
use sconce_models::{Features, LoadedModel, Network, Prepared, Processor, Signature};

use crate::prepare::{PreparePool, caught, prepare};
use crate::{Answer, BuildError, InferError, Request, Timing};

/// One model of a [`Runtime`](crate::Runtime). Clones share its queue and device.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    directory: PathBuf,
    signature: Signature,
    batching: BatcherConfig,
    load_time: Duration,
    processor: Arc<dyn Processor>,
    pool: PreparePool,
    queue: Queue<NetworkExecutor>,
}

impl Model {
    pub(crate) fn start(
        name: String,
        directory: PathBuf,
        loaded: LoadedModel,
        load_time: Duration,
        batching: BatcherConfig,
        pool: PreparePool,
        device: &Device,
    ) -> Result<Self, BuildError> {
        let LoadedModel { signature, processor, network, .. } = loaded;
        let queue = Queue::on(batching.clone(), [(device, NetworkExecutor { network })])
            .map_err(|source| BuildError::Queue { name: name.clone(), source })?;
        let inner = Inner { name, directory, signature, batching, load_time, processor, pool, queue };
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
        let wait_for_room = async |queue: &Queue<_>, features, terms: Terms| queue.submit(features, terms).await;
        self.answer(request.into(), wait_for_room).await
    }

    /// As [`infer`](Self::infer), but refuses at once when the queue is full.
    ///
    /// # Errors
    /// [`InferError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime, for an input over 1 KiB or a request with a timeout.
    pub async fn try_infer(&self, request: impl Into<Request>) -> Result<Answer, InferError> {
        let refuse = async |queue: &Queue<_>, features, terms: Terms| queue.try_submit(features, terms);
        self.answer(request.into(), refuse).await
    }

    /// As [`infer`](Self::infer), for a thread that may block. Needs no runtime; must not run on one's workers.
    ///
    /// # Errors
    /// [`InferError`]; but never one of a full queue.
    pub fn infer_blocking(&self, request: impl Into<Request>) -> Result<Answer, InferError> {
        let Request { input, timeout, priority, truncation } = request.into();
        let Inner { processor, queue, .. } = &*self.inner;
        let started = Instant::now();
        let Prepared { features, truncated } = prepare(&**processor, input, truncation)?;
        let prepare = started.elapsed();
        let completion = queue.call_blocking(features, Terms { deadline: deadline(started, timeout), priority })?;
        self.finish(completion, truncated, prepare)
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

    /// What a batch costs on its device, as far as it is learned.
    #[must_use]
    pub fn cost(&self) -> CostModel {
        self.inner.queue.cost()
    }

    /// Refuses new work from now on.
    pub(crate) fn close(&self) {
        self.inner.queue.close();
    }

    /// Answers what waits and joins the device thread. Blocks.
    pub(crate) fn shutdown(&self) {
        self.inner.queue.shutdown();
    }

    async fn answer<Submit>(&self, request: Request, submit: Submit) -> Result<Answer, InferError>
    where
        Submit: AsyncFnOnce(&Queue<NetworkExecutor>, Features, Terms) -> Result<Admitted, QueueError>,
    {
        let Request { input, timeout, priority, truncation } = request;
        let Inner { processor, pool, queue, .. } = &*self.inner;
        let started = Instant::now();
        let deadline = deadline(started, timeout);
        within(deadline, async {
            let Prepared { features, truncated } = pool.prepare(processor, input, truncation).await?;
            let prepare = started.elapsed();
            let completion = submit(queue, features, Terms { deadline, priority }).await?.await?;
            self.finish(completion, truncated, prepare)
        })
        .await
    }

    fn finish(
        &self,
        completion: Completion<Vec<f32>>,
        truncated: bool,
        prepare: Duration,
    ) -> Result<Answer, InferError> {
        let Completion { output: row, queue_wait, run, batch_size } = completion;
        let output = caught(|| self.inner.processor.finish(row))?;
        let precision = self.inner.signature.precision;
        Ok(Answer { output, truncated, precision, timing: Timing { prepare, queue_wait, run, batch_size } })
    }
}

type Admitted = Ticket<NetworkExecutor>;

/// A network as the batcher sees it.
struct NetworkExecutor {
    network: Box<dyn Network>,
}

impl Executor for NetworkExecutor {
    type Item = Features;
    type Output = Vec<f32>;

    fn run(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ExecutorError> {
        self.network.forward(batch).map_err(ExecutorError::new)
    }

    fn weight(features: &Features) -> usize {
        features.weight()
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
            .unwrap_or(Err(InferError::Queue(QueueError::DeadlineExceeded))),
    }
}
