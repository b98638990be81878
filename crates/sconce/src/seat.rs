//! A model's network on one device: in memory, or to be loaded when it is asked for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sconce_batch::{Executor, ExecutorError, Retry};
use sconce_models::{DeviceName, Features, ForwardError, LoadError, Network};

use crate::memory::{DeviceMemory, Entered};

/// How long a device is left alone on which a network could not be loaded for want of memory.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Loads a network once more, as it was loaded first.
pub(crate) type Reload = Arc<dyn Fn() -> Result<Box<dyn Network>, LoadError> + Send + Sync>;

/// Where a network is while it is in memory.
pub(crate) struct NetworkSlot {
    model: String,
    device: DeviceName,
    network: Mutex<Option<Box<dyn Network>>>,
    loads: AtomicU64,
}

impl NetworkSlot {
    pub(crate) fn new(model: &str, device: DeviceName) -> Arc<Self> {
        let (network, loads) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { model: model.to_owned(), device, network, loads })
    }

    pub(crate) fn name(&self) -> &str {
        &self.model
    }

    pub(crate) fn device(&self) -> DeviceName {
        self.device
    }

    pub(crate) fn fill(&self, network: Box<dyn Network>) {
        *self.lock() = Some(network);
        self.loads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unload(&self) {
        *self.lock() = None;
    }

    /// Whether the network is in memory. Waits for a batch that runs.
    pub(crate) fn is_loaded(&self) -> bool {
        match self.network.try_lock() {
            Ok(network) => network.is_some(),
            // Whoever runs is in memory.
            Err(_) => true,
        }
    }

    /// How often it was loaded.
    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn Network>>> {
        // A panic of the network is caught by the batcher, and it is used again.
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A network as the batcher sees it.
pub(crate) struct Seat {
    pub(crate) slot: Arc<NetworkSlot>,
    pub(crate) reload: Reload,
    /// The memory that it shares with other models, and its number there.
    pub(crate) memory: Option<(Arc<DeviceMemory>, usize)>,
}

impl Seat {
    /// Loads the network for the first time, in place of others if that must be.
    pub(crate) fn load(&self, load: impl FnOnce() -> Result<Box<dyn Network>, LoadError>) -> Result<(), LoadError> {
        let _stay = self.enter();
        self.slot.fill(load()?);
        Ok(())
    }

    /// Does something with the network while it is in memory, if it is.
    pub(crate) fn with_network<T>(&self, act: impl FnOnce(&mut dyn Network) -> T) -> Option<T> {
        let _stay = self.enter();
        self.slot.lock().as_mut().map(|network| act(&mut **network))
    }

    fn fill(&self) -> Result<(), LoadError> {
        if !self.slot.is_loaded() {
            self.slot.fill((self.reload)()?);
        }
        Ok(())
    }

    fn enter(&self) -> Stay<'_> {
        if let Some((memory, tenant)) = &self.memory
            && memory.enter(*tenant) == Entered::Room
        {
            tracing::debug!(model = self.slot.name(), device = %self.slot.device(), "there is room in memory");
        }
        Stay { seat: self }
    }
}

/// While it lasts a network is not unloaded. It ends in a panic, too.
struct Stay<'a> {
    seat: &'a Seat,
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        if let Some((memory, tenant)) = &self.seat.memory {
            memory.leave(*tenant, self.seat.slot.is_loaded());
        }
    }
}

impl Executor for Seat {
    type Item = Features;
    type Output = Vec<f32>;

    fn run(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ExecutorError> {
        let _stay = self.enter();
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
