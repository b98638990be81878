//! The simulator's counts.

/// Counts of the program's use of the simulated machine since the last reset, in the layout that the simulator writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counts {
    /// Calls of the driver, cuBLAS and cuRAND.
    pub driver_calls: u64,
    /// Kernels launched, directly or as a part of a graph, without those inside of cuBLAS.
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
    /// Events created.
    pub events: u64,
    /// Instructions of warps.
    pub instructions: u64,
    /// Peak of the device memory in use, in bytes, over all devices.
    pub peak_memory: u64,
    /// Launches of graphs; their contents are counted as well.
    pub graph_launches: u64,
    /// Calls that waited for a device.
    pub synchronisations: u64,
    /// Multiplications of the matrix products of cuBLAS.
    pub gemm_multiplications: u64,
}
