//! Preparing of inputs: looked up in the cache of prepared inputs, else computed, short ones on the caller and long
//! ones on a bounded pool.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

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

impl Preparation {
    pub(crate) async fn prepare(&self, input: Input, truncation: Truncation) -> Result<Prepared, InferError> {
        let keyed = self.kept.as_ref().map(|(kept, keys)| (kept, keys.of(&input, truncation)));
        let Some((kept, (how, bytes))) = keyed else {
            return self.pool.prepare(&self.processor, input, truncation).await;
        };
        let prepare = || self.pool.prepare(&self.processor, input.clone(), truncation);
        kept.get_or_prepare(how, &bytes, prepare).await.map_err(|error| InferError::clone(&error))
    }

    /// Prepares on the caller's thread, whatever the input's size.
    pub(crate) fn prepare_blocking(&self, input: Input, truncation: Truncation) -> Result<Prepared, InferError> {
        let keyed = self.kept.as_ref().map(|(kept, keys)| (kept, keys.of(&input, truncation)));
        let Some((kept, (how, bytes))) = keyed else {
            return prepare(&*self.processor, input, truncation);
        };
        kept.get_or_prepare_blocking(how, &bytes, || prepare(&*self.processor, input.clone(), truncation))
    }
}

/// Prepares long inputs on tokio's blocking pool, on at most as many threads as there are cores.
#[derive(Clone)]
pub(crate) struct PreparePool(Arc<Semaphore>);

impl PreparePool {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }

    async fn prepare(
        &self,
        processor: &Arc<dyn Processor>,
        input: Input,
        truncation: Truncation,
    ) -> Result<Prepared, InferError> {
        if input.bytes() <= MAX_INLINE_BYTES {
            return prepare(&**processor, input, truncation);
        }
        let permit = Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed");
        let processor = Arc::clone(processor);
        let task = tokio::task::spawn_blocking(move || {
            // The task holds the permit, not the caller: a cancelled caller must not let another thread start.
            let _permit = permit;
            prepare(&*processor, input, truncation)
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
