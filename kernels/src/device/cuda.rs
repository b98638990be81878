//! CUDA devices by their driver.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::CudaError;
use candle_core::{Device, Error};
use cudarc::cublas::sys::cublasStatus_t as Cublas;
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult as Status};
use cudarc::driver::{CudaContext, DriverError, result};
use sconce_cuda_link::{CUBLAS, CUBLAS_LT, CURAND, DRIVER, LibraryMissing};

use super::{CudaDevice, DeviceError, DeviceFailure, Version};

pub(super) fn devices() -> Result<Vec<CudaDevice>, DeviceError> {
    (0..count()?).map(device).collect()
}

/// Opens and initialises the driver. Must come before any other call of it.
fn init() -> Result<(), DeviceError> {
    DRIVER.open().map_err(|LibraryMissing { reason, .. }| DeviceError::NoDriver { reason })?;
    match result::init() {
        Err(DriverError(Status::CUDA_ERROR_NO_DEVICE)) => Err(DeviceError::NoDevice),
        initialised => initialised.map_err(refused("cuInit")),
    }
}

fn count() -> Result<usize, DeviceError> {
    init()?;
    match result::device::get_count() {
        Ok(0) | Err(DriverError(Status::CUDA_ERROR_NO_DEVICE)) => Err(DeviceError::NoDevice),
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        Err(error) => Err(refused("cuDeviceGetCount")(error)),
    }
}

pub(super) fn driver() -> Result<Version, DeviceError> {
    init()?;
    let mut version = 0;
    // SAFETY: the driver writes one int.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(refused("cuDriverGetVersion"))?;
    // 13010 means 13.1.
    let version = version.unsigned_abs();
    Ok(Version { major: version / 1000, minor: version % 1000 / 10 })
}

pub(super) fn device(ordinal: usize) -> Result<CudaDevice, DeviceError> {
    let count = count()?;
    let device = handle(ordinal, count)?;
    let attribute = |attribute| {
        // SAFETY: the driver gave this handle.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        value.map(i32::unsigned_abs).map_err(refused("cuDeviceGetAttribute"))
    };
    let compute_capability = Version {
        major: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        minor: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    };
    // SAFETY: the driver gave this handle.
    let total_memory = unsafe { result::device::total_mem(device) }.map_err(refused("cuDeviceTotalMem"))?;
    let free_memory = CudaContext::new(ordinal).and_then(|context| context.mem_get_info()).ok().map(|(free, _)| free);
    let name = result::device::get_name(device).map_err(refused("cuDeviceGetName"))?;
    let told = |name| attribute(name).unwrap_or(0);
    Ok(CudaDevice {
        ordinal,
        name,
        compute_capability,
        total_memory,
        free_memory,
        multiprocessors: told(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        clock_khz: told(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
        memory_clock_khz: told(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE),
        memory_bus_bits: told(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH),
    })
}

pub(super) fn open(ordinal: usize) -> Result<Device, DeviceError> {
    static OPENED: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());
    // A panic under this lock leaves the map valid, at most without one device.
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = opened.get(&ordinal) {
        return Ok(device.clone());
    }
    let device = open_new(ordinal)?;
    opened.insert(ordinal, device.clone());
    Ok(device)
}

fn open_new(ordinal: usize) -> Result<Device, DeviceError> {
    for library in [&CUBLAS, &CUBLAS_LT, &CURAND] {
        library.open().map_err(|LibraryMissing { name, reason }| DeviceError::NoLibrary { name, reason })?;
    }
    // Kept until candle has opened the device: without a context in between, the pool would lose its settings.
    let _context = keep_memory(ordinal)?;
    let device = candle_core::CudaDevice::new_with_stream(ordinal)
        .map_err(|error| DeviceError::Driver { call: "opening the device", message: error.to_string() })?;
    // SAFETY: candle queues all its work with this device on one stream, whose order makes events unnecessary.
    unsafe { device.disable_event_tracking() };
    Ok(Device::Cuda(device))
}

/// Makes the device's memory pool keep freed memory. By default it returns freed memory to the operating system when the
/// stream is waited for, which is after each batch.
fn keep_memory(ordinal: usize) -> Result<Arc<CudaContext>, DeviceError> {
    let context = CudaContext::new(ordinal).map_err(refused("cuDevicePrimaryCtxRetain"))?;
    if context.has_async_alloc() {
        let mut threshold = u64::MAX;
        // SAFETY: the driver gave the handle, and the pool for it; the value has the attribute's type and is only read.
        unsafe {
            let pool = result::device::get_mem_pool(context.cu_device()).map_err(refused("cuDeviceGetMemPool"))?;
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast())
                .map_err(refused("cuMemPoolSetAttribute"))?;
        }
    }
    Ok(context)
}

fn handle(ordinal: usize, count: usize) -> Result<sys::CUdevice, DeviceError> {
    let number = i32::try_from(ordinal).ok().filter(|_| ordinal < count);
    let number = number.ok_or(DeviceError::UnknownOrdinal { ordinal, count })?;
    result::device::get(number).map_err(refused("cuDeviceGet"))
}

fn refused(call: &'static str) -> impl Fn(DriverError) -> DeviceError {
    move |error| {
        let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
        DeviceError::Driver { call, message: format!("{:?}: {}", error.0, text.unwrap_or_default()) }
    }
}

pub(super) fn failure(error: &Error) -> Option<DeviceFailure> {
    match error {
        Error::WithBacktrace { inner, .. } | Error::Context { inner, .. } | Error::WithPath { inner, .. } => {
            failure(inner)
        }
        Error::Cuda(cause) => match cause.downcast_ref()? {
            CudaError::Cuda(DriverError(status)) | CudaError::Load { cuda: DriverError(status), .. } => {
                of_driver(*status)
            }
            CudaError::Cublas(error) => of_cublas(error.0),
            _ => None,
        },
        _ => None,
    }
}

/// The failure that a status means. A device is lost if the driver's documentation of the status says that "the process
/// must be terminated and relaunched".
pub(crate) fn of_driver(status: Status) -> Option<DeviceFailure> {
    match status {
        Status::CUDA_ERROR_OUT_OF_MEMORY => Some(DeviceFailure::OutOfMemory),
        Status::CUDA_ERROR_DEINITIALIZED
        | Status::CUDA_ERROR_DEVICE_UNAVAILABLE
        | Status::CUDA_ERROR_NO_DEVICE
        | Status::CUDA_ERROR_INVALID_CONTEXT
        | Status::CUDA_ERROR_ECC_UNCORRECTABLE
        | Status::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | Status::CUDA_ERROR_ILLEGAL_ADDRESS
        | Status::CUDA_ERROR_LAUNCH_TIMEOUT
        | Status::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | Status::CUDA_ERROR_ASSERT
        | Status::CUDA_ERROR_HARDWARE_STACK_ERROR
        | Status::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | Status::CUDA_ERROR_MISALIGNED_ADDRESS
        | Status::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | Status::CUDA_ERROR_INVALID_PC
        | Status::CUDA_ERROR_LAUNCH_FAILED
        | Status::CUDA_ERROR_EXTERNAL_DEVICE
        | Status::CUDA_ERROR_UNKNOWN => Some(DeviceFailure::Lost),
        _ => None,
    }
}

/// The failure that a status of cuBLAS means: these are its statuses after one of the driver's in [`of_driver`].
pub(crate) fn of_cublas(status: Cublas) -> Option<DeviceFailure> {
    match status {
        Cublas::CUBLAS_STATUS_ALLOC_FAILED => Some(DeviceFailure::OutOfMemory),
        Cublas::CUBLAS_STATUS_EXECUTION_FAILED
        | Cublas::CUBLAS_STATUS_MAPPING_ERROR
        | Cublas::CUBLAS_STATUS_INTERNAL_ERROR => Some(DeviceFailure::Lost),
        _ => None,
    }
}
