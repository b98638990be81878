//! A model's network on one device: in memory, or to be loaded when it is asked for.

use std::sync::Arc;
use std::time::Duration;

use sconce_batch::{Executor, ExecutorError, Retry};
use sconce_models::{Features, ForwardError, LoadError, Network};

use crate::memory::{DeviceMemory, Entered};
use crate::slot::NetworkSlot;

/// How long a device is left alone on which a network could not be loaded for want of memory.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Loads a network once more, as it was loaded first.
pub(crate) type Reload = Arc<dyn Fn() -> Result<Box<dyn Network>, LoadError> + Send + Sync>;

/// A network as the batcher sees it.
pub(crate) struct NetworkExecutor {
    pub(crate) slot: Arc<NetworkSlot>,
    pub(crate) reload: Reload,
    /// The memory that it shares with other models, and its number there.
    pub(crate) memory: Option<(Arc<DeviceMemory>, usize)>,
}

impl NetworkExecutor {
    /// Loads the network for the first time, in place of others if that must be.
    pub(crate) fn load(&self, load: impl FnOnce() -> Result<Box<dyn Network>, LoadError>) -> Result<(), LoadError> {
        let _guard = self.enter();
        self.slot.fill(load()?);
        Ok(())
    }

    /// Does something with the network while it is in memory, if it is.
    pub(crate) fn with_network<T>(&self, act: impl FnOnce(&mut dyn Network) -> T) -> Option<T> {
        let _guard = self.enter();
        self.slot.lock().as_mut().map(|network| act(&mut **network))
    }

    fn fill(&self) -> Result<(), LoadError> {
        if !self.slot.is_loaded() {
            self.slot.fill((self.reload)()?);
        }
        Ok(())
    }

    fn enter(&self) -> SlotGuard<'_> {
        if let Some((memory, tenant)) = &self.memory
            && memory.enter(*tenant) == Entered::Room
        {
            tracing::debug!(model = self.slot.name(), device = %self.slot.device(), "there is room in memory");
        }
        SlotGuard { executor: self }
    }
}

/// Keeps a network from being unloaded until it is dropped, also by a panic.
struct SlotGuard<'a> {
    executor: &'a NetworkExecutor,
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        if let Some((memory, tenant)) = &self.executor.memory {
            memory.leave(*tenant, self.executor.slot.is_loaded());
        }
    }
}

impl Executor for NetworkExecutor {
    type Item = Features;
    type Output = Vec<f32>;

    fn run(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ExecutorError> {
        let _guard = self.enter();
        if !self.slot.is_loaded() {
            tracing::info!(model = self.slot.name(), device = %self.slot.device(), "loading");
            self.fill().map_err(of_loading)?;
        }
        let forward = |network: &mut Box<dyn Network>| network.forward(batch).map_err(of_running);
        let outcome = forward(self.slot.lock().as_mut().expect("it is loaded, and stays"));
        if let Err(ExecutorError::DeviceLost { .. }) = outcome {
            self.slot.unload();
        }
        outcome
    }

    /// Networks only compute.
    fn retry(&self) -> Retry {
        Retry::ItemByItem
    }

    fn weight(features: &Features) -> usize {
        features.weight()
    }
}

fn of_running(error: ForwardError) -> ExecutorError {
    match error {
        ForwardError::OutOfMemory { .. } => ExecutorError::out_of_memory(error),
        ForwardError::DeviceLost { .. } => ExecutorError::device_lost(error),
        error => ExecutorError::new(error),
    }
}

/// A network that does not fit now may fit later; smaller batches would not help it.
fn of_loading(error: LoadError) -> ExecutorError {
    match error {
        LoadError::OutOfMemory { .. } => ExecutorError::DeviceLost {
            cause: Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(error)),
            retry_after: Some(RETRY_AFTER),
        },
        LoadError::DeviceLost { .. } => ExecutorError::device_lost(error),
        error => ExecutorError::new(error),
    }
}
