//! Preparing of inputs: looked up in the cache of prepared inputs, else computed, short ones on the caller and long
//! ones on a bounded pool.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sconce_cache::FeatureCache;
use sconce_models::{Input, Prepared, Processor, Truncation};
use tokio::sync::Semaphore;

use crate::InferError;
use crate::cached::FeatureKeys;

/// The largest input, in bytes, that is prepared on the caller. Tokenising this much takes about 0.1 ms: ten times a
/// hand-off to the pool, and short enough not to block an async worker.
const MAX_INLINE_BYTES: usize = 1024;

/// The cache of prepared inputs, shared by a runtime's models.
pub(crate) type PreparedInputs = FeatureCache<Prepared, InferError>;

/// Prepares one model's inputs.
pub(crate) struct Preparation {
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) pool: PreparePool,
    /// The cache of prepared inputs and the model's keys in it, if the runtime has one.
    pub(crate) kept: Option<(Arc<PreparedInputs>, FeatureKeys)>,
}

/// The thread on which an input was prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreparedOn {
    /// The caller's own thread, in all of the time that it waited.
    Caller,
    /// A thread of the pool, which took this time.
    Pool(Duration),
    /// None, or that of another request: the cache of prepared inputs had it.
    NoThread,
}

impl PreparedOn {
    /// The time that preparing alone took, of the `whole` time; `None` if nothing was prepared.
    pub(crate) fn work(self, whole: Duration) -> Option<Duration> {
        match self {
            Self::Caller => Some(whole),
            Self::Pool(work) => Some(work),
            Self::NoThread => None,
        }
    }
}

impl Preparation {
    pub(crate) async fn prepare(
        &self,
        input: Input,
        truncation: Truncation,
    ) -> Result<(Prepared, PreparedOn), InferError> {
        let keyed = self.kept.as_ref().map(|(kept, keys)| (kept, keys.of(&input, truncation)));
        let Some((kept, (how, bytes))) = keyed else {
            return self.pool.prepare(&self.processor, input, truncation).await;
        };
        let mut on = PreparedOn::NoThread;
        let (own, input) = (&mut on, &input);
        let prepare = move || async move {
            let (prepared, on) = self.pool.prepare(&self.processor, input.clone(), truncation).await?;
            *own = on;
            Ok(prepared)
        };
        let prepared = kept.get_or_prepare(how, &bytes, prepare).await;
        Ok((prepared.map_err(|error| InferError::clone(&error))?, on))
    }

    /// Prepares on the caller's thread, whatever the input's size.
    pub(crate) fn prepare_blocking(
        &self,
        input: Input,
        truncation: Truncation,
    ) -> Result<(Prepared, PreparedOn), InferError> {
        let keyed = self.kept.as_ref().map(|(kept, keys)| (kept, keys.of(&input, truncation)));
        let Some((kept, (how, bytes))) = keyed else {
            return Ok((prepare(&*self.processor, input, truncation)?, PreparedOn::Caller));
        };
        let mut on = PreparedOn::NoThread;
        let prepared = kept.get_or_prepare_blocking(how, &bytes, || {
            on = PreparedOn::Caller;
            prepare(&*self.processor, input.clone(), truncation)
        });
        Ok((prepared?, on))
    }
}

/// Prepares long inputs on tokio's blocking pool, on at most as many threads as there are cores.
#[derive(Clone)]
pub(crate) struct PreparePool(Arc<PrepareThreads>);

struct PrepareThreads {
    permits: Arc<Semaphore>,
    threads: usize,
    /// Nanoseconds for which all threads together prepared inputs.
    busy: AtomicU64,
}

impl PreparePool {
    pub(crate) fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let permits = Arc::new(Semaphore::new(threads));
        Self(Arc::new(PrepareThreads { permits, threads, busy: AtomicU64::new(0) }))
    }

    /// Number of threads that may prepare at a time, and the number of those that do.
    pub(crate) fn threads(&self) -> (usize, usize) {
        (self.0.threads, self.0.threads - self.0.permits.available_permits())
    }

    /// Time for which all threads together have prepared inputs.
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.0.busy.load(Ordering::Relaxed))
    }

    async fn prepare(
        &self,
        processor: &Arc<dyn Processor>,
        input: Input,
        truncation: Truncation,
    ) -> Result<(Prepared, PreparedOn), InferError> {
        if input.bytes() <= MAX_INLINE_BYTES {
            return Ok((prepare(&**processor, input, truncation)?, PreparedOn::Caller));
        }
        let permit = Arc::clone(&self.0.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (processor, pool) = (Arc::clone(processor), Arc::clone(&self.0));
        let task = tokio::task::spawn_blocking(move || {
            // The task holds the permit, not the caller: a cancelled caller must not let another thread start.
            let _permit = permit;
            let started = Instant::now();
            let prepared = prepare(&*processor, input, truncation);
            let work = started.elapsed();
            pool.busy.fetch_add(u64::try_from(work.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            Ok((prepared?, PreparedOn::Pool(work)))
        });
        match task.await {
            Ok(prepared) => prepared,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            Err(_) => Err(sconce_batch::Error::ShuttingDown.into()),
        }
    }
}

/// Prepares on the current thread; a panic becomes an error.
fn prepare(processor: &dyn Processor, input: Input, truncation: Truncation) -> Result<Prepared, InferError> {
    caught(|| processor.prepare(input, truncation))?.map_err(InferError::from)
}

/// Runs a model's code on the current thread; a panic becomes an error.
pub(crate) fn caught<T>(code: impl FnOnce() -> T) -> Result<T, InferError> {
    // Unwind safe: a processor is shared by reference and has no state that a panic could leave half-changed.
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| InferError::Panicked { message: message(&*panic) })
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
