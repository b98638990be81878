//! The executor of a model's network on one device. Loads the network when a batch needs it and it is not in memory.

use std::sync::Arc;
use std::time::Duration;

use sconce_batch::{Executor, ExecutorError, Retry};
use sconce_models::{Features, ForwardError, LoadError, Network};

use crate::devices::RunningBatches;
use crate::memory::{Entered, Tenancy};
use crate::slot::NetworkSlot;

/// Time before a device is tried again after it had too little memory to load a network.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Loads a network again, from the same files and with the same settings as at first.
pub(crate) type Reload = Arc<dyn Fn() -> Result<Box<dyn Network>, LoadError> + Send + Sync>;

/// Runs batches on a network in a [`NetworkSlot`].
pub(crate) struct NetworkExecutor {
    pub(crate) slot: Arc<NetworkSlot>,
    pub(crate) reload: Reload,
    /// The model's place in the device's memory, shared with other models; `None` if the device has no bound.
    pub(crate) tenancy: Option<Tenancy>,
    /// The running batches of the whole runtime.
    pub(crate) running: RunningBatches,
}

impl NetworkExecutor {
    /// Loads the network for the first time, unloading other models if it needs their memory. Blocks until there is room.
    pub(crate) fn load(&self, load: impl FnOnce() -> Result<Box<dyn Network>, LoadError>) -> Result<(), LoadError> {
        let _guard = self.enter();
        self.slot.fill(load()?);
        Ok(())
    }

    /// Calls `act` with the network, which stays in memory meanwhile; `None` if it is not loaded.
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
        if let Some(tenancy) = &self.tenancy
            && tenancy.enter() == Entered::Room
        {
            tracing::debug!(model = self.slot.name(), device = %self.slot.device(), "there is room in memory");
        }
        SlotGuard { executor: self }
    }
}

/// Keeps a network in memory until the guard is dropped, also if a panic drops it.
struct SlotGuard<'a> {
    executor: &'a NetworkExecutor,
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        if let Some(tenancy) = &self.executor.tenancy {
            tenancy.leave(self.executor.slot.is_loaded());
        }
    }
}

impl Executor for NetworkExecutor {
    type Item = Features;
    type Output = Vec<f32>;

    fn run(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ExecutorError> {
        let _running = self.running.begin();
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

    /// A network has no side effects, so a failed batch can run again item by item.
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

/// Too little memory to load counts as a lost device, to be tried again later; smaller batches would not help.
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
