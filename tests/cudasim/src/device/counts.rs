//! What a program asked of the simulated machine.

/// Sums since the start or the last reset. The order of the fields is that of [`Counts::to_array`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of the driver, cuBLAS and cuRAND.
    pub driver_calls: u64,
    /// Kernels that were launched, by `cuLaunchKernel` or as a part of a graph; cuBLAS not included.
    pub launches: u64,
    /// Matrix products of cuBLAS; a batched one counts once.
    pub gemms: u64,
    /// Allocations of device memory.
    pub allocations: u64,
    /// Frees of device memory.
    pub frees: u64,
    /// Copies from the host to a device.
    pub copies_to_device: u64,
    /// Bytes of those copies.
    pub bytes_to_device: u64,
    /// Copies from a device to the host.
    pub copies_to_host: u64,
    /// Bytes of those copies.
    pub bytes_to_host: u64,
    /// Copies within a device or between devices.
    pub copies_on_device: u64,
    /// Bytes of those copies.
    pub bytes_on_device: u64,
    /// Events that were created.
    pub events: u64,
    /// Warp instructions.
    pub instructions: u64,
    /// The most device memory that was in use at once, in bytes, over all devices.
    pub peak_memory: u64,
    /// Launches of graphs; what they contain is counted as well.
    pub graph_launches: u64,
    /// Calls that waited for a device.
    pub synchronisations: u64,
    /// Multiplications of the matrix products of cuBLAS.
    pub gemm_multiplications: u64,
}

impl Counts {
    /// The sums as numbers, in the order of the fields.
    pub fn to_array(self) -> [u64; 17] {
        [
            self.driver_calls,
            self.launches,
            self.gemms,
            self.allocations,
            self.frees,
            self.copies_to_device,
            self.bytes_to_device,
            self.copies_to_host,
            self.bytes_to_host,
            self.copies_on_device,
            self.bytes_on_device,
            self.events,
            self.instructions,
            self.peak_memory,
            self.graph_launches,
            self.synchronisations,
            self.gemm_multiplications,
        ]
    }
}
