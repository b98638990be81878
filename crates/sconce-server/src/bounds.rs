//! The state behind the limits: open connections, the bytes of requests, the clients and shared memory, of one server or of
//! several together.

use std::sync::Arc;

use sconce::ConfigError;

use crate::access::ClientAccess;
use crate::connections::Connections;
use crate::limits::{ServerLimits, max_open_files};
use crate::metered_body::Meter;
use crate::request_bytes::RequestBytes;
use crate::shared_memory::SharedMemory;

/// Connections and bytes within [`ServerLimits`], and the regions of shared memory. Servers with clones of one value share its limits.
#[derive(Clone)]
pub struct ServerBounds {
    pub(crate) limits: ServerLimits,
    pub(crate) connections: Arc<Connections>,
    bytes: Arc<RequestBytes>,
    shared_memory: SharedMemory,
    access: ClientAccess,
}

impl ServerBounds {
    /// Begins without connections.
    ///
    /// # Errors
    /// [`ConfigError`] if a limit is out of bounds.
    pub fn new(limits: ServerLimits) -> Result<Self, ConfigError> {
        limits.validate()?;
        let bytes = Arc::new(RequestBytes::new(limits.max_request_bytes_in_flight));
        let connections = Arc::new(Connections::new(limits.connections(max_open_files())?, Arc::clone(&bytes)));
        let (shared_memory, access) = (SharedMemory::default(), ClientAccess::default());
        Ok(Self { limits, connections, bytes, shared_memory, access })
    }

    /// Lets clients put tensors into the shared memory of this machine; by default they may not.
    #[must_use]
    pub fn with_shared_memory(self, shared_memory: SharedMemory) -> Self {
        Self { shared_memory, ..self }
    }

    /// The regions of shared memory.
    #[must_use]
    pub fn shared_memory(&self) -> &SharedMemory {
        &self.shared_memory
    }

    /// The bounds with these terms of admission; without them every request is admitted.
    #[must_use]
    pub fn with_access(self, access: ClientAccess) -> Self {
        Self { access, ..self }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &ServerLimits {
        &self.limits
    }

    /// Meters the requests of a service.
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter {
            bytes: Arc::clone(&self.bytes),
            max_pause: self.limits.max_request_pause,
            max_request_bytes: self.limits.max_request_bytes,
            access: self.access.clone(),
        }
    }
}
