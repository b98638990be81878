//! The place of a model's network on one device, filled or empty.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sconce_models::{DeviceName, Network};

/// Holds a network while it is in memory.
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

    /// True if the network is in memory, also while a batch runs.
    pub(crate) fn is_loaded(&self) -> bool {
        match self.network.try_lock() {
            Ok(network) => network.is_some(),
            // A network that runs is in memory.
            Err(_) => true,
        }
    }

    /// The number of times it was loaded.
    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Box<dyn Network>>> {
        // A panic of the network is caught by the batcher, and it is used again.
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
