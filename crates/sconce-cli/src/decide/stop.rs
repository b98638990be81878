//! The signal that stops a measurement between two of its steps.

use std::sync::{Arc, OnceLock};

use crate::signals::{Signal, Signals};

/// The first signal to stop, once it came.
#[derive(Debug, Clone)]
pub(crate) struct StopSignal(Arc<OnceLock<Signal>>);

impl StopSignal {
    /// Listens for the first signal, and then prints `message`.
    pub(crate) fn listen(signals: Signals, message: &'static str) -> Self {
        let stop = Self(Arc::default());
        let (set, signal) = (Arc::clone(&stop.0), signals.first(message));
        tokio::spawn(async move { set.set(signal.await).ok() });
        stop
    }

    pub(crate) fn signal(&self) -> Option<Signal> {
        self.0.get().copied()
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.get().is_some()
    }
}
