//! The slot of a model's network on one device: loaded or empty.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sconce_models::{DeviceName, Network};

/// Holds a model's network while it is in a device's memory.
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

    /// Returns true if the network is in memory, also while a batch runs on it. Does not block.
    pub(crate) fn is_loaded(&self) -> bool {
        match self.network.try_lock() {
            Ok(network) => network.is_some(),
            // The lock is held while a batch runs, and then the network is in memory.
            Err(_) => true,
        }
    }

    /// Number of times the network was loaded.
    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Box<dyn Network>>> {
        // The batcher catches a panic of the network and goes on using it, so a poisoned lock is no error.
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
