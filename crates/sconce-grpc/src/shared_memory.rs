//! Regions of shared memory as protobuf carries them.

use sconce_server::{RequestError, SharedMemory, SharedRegion};
use tonic::Status;

use crate::proto::system_shared_memory_status_response::RegionStatus;
use crate::proto::{
    CudaSharedMemoryStatusResponse, SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterResponse,
};
use crate::status::status;

/// The region of this name, or all if it is empty.
pub(crate) fn regions(memory: &SharedMemory, name: &str) -> Result<SystemSharedMemoryStatusResponse, Status> {
    let region = |region: &SharedRegion| RegionStatus {
        name: region.name.clone(),
        key: region.key.clone(),
        offset: region.offset,
        byte_size: region.bytes,
    };
    let regions = memory.regions(name).map_err(refused)?;
    let regions = regions.iter().map(|shared| (shared.name.clone(), region(shared))).collect();
    Ok(SystemSharedMemoryStatusResponse { regions })
}

pub(crate) fn register(
    memory: &SharedMemory,
    request: &SystemSharedMemoryRegisterRequest,
) -> Result<SystemSharedMemoryRegisterResponse, Status> {
    let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
    memory.register(name, key, *offset, *byte_size).map_err(refused)?;
    Ok(SystemSharedMemoryRegisterResponse {})
}

/// Forgets the region of this name, or all if it is empty.
pub(crate) fn unregister(memory: &SharedMemory, name: &str) -> Result<SystemSharedMemoryUnregisterResponse, Status> {
    memory.unregister(name).map_err(refused)?;
    Ok(SystemSharedMemoryUnregisterResponse {})
}

/// The regions of CUDA's shared memory, of which there are none.
pub(crate) fn cuda_regions(name: &str) -> Result<CudaSharedMemoryStatusResponse, Status> {
    match name {
        "" => Ok(CudaSharedMemoryStatusResponse::default()),
        name => {
            let name = sconce::models::excerpt(&name);
            Err(Status::not_found(format!("no region of CUDA's shared memory is named '{name}': none is served")))
        }
    }
}

/// The refusal to register a region of CUDA's shared memory.
pub(crate) fn no_cuda() -> Status {
    Status::unimplemented("shared memory of CUDA is not served; use the system's, or send contents")
}

fn refused(error: impl Into<RequestError>) -> Status {
    status(error.into())
}
