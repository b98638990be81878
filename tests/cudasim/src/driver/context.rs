//! Initialisation, devices, contexts, and the texts of errors.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;

use crate::device::error::Status;
use crate::device::host::{Out, put};
use crate::device::simulator::{Simulator, current_context, set_current_context};

/// The version of CUDA that the driver supports: it takes PTX up to 9.0.
const DRIVER_VERSION: c_int = 13_000;

fn device(simulator: &Simulator, number: c_int) -> Result<usize, Status> {
    usize::try_from(number).ok().filter(|number| *number < simulator.devices.len()).ok_or(Status::INVALID_DEVICE)
}

entry_points! {
    /// Initialises the driver.
    fn cuInit(_simulator, _flags: u32) { Ok(()) }

    /// The version of CUDA that the driver supports.
    fn cuDriverGetVersion(_simulator, version: Out<c_int>) { put(version, DRIVER_VERSION) }

    /// The number of devices.
    fn cuDeviceGetCount(simulator, count: Out<c_int>) { put(count, simulator.devices.len() as c_int) }

    /// The handle of a device.
    fn cuDeviceGet(simulator, handle: Out<c_int>, ordinal: c_int) {
        device(simulator, ordinal)?;
        put(handle, ordinal)
    }

    /// A device's total memory.
    fn cuDeviceTotalMem_v2(simulator, bytes: Out<usize>, number: c_int) {
        device(simulator, number)?;
        put(bytes, simulator.memory_limit())
    }

    /// A device's identifier.
    fn cuDeviceGetUuid_v2(simulator, uuid: Out<[u8; 16]>, number: c_int) {
        put(uuid, [device(simulator, number)? as u8 + 1; 16])
    }

    /// A device's identifier.
    fn cuDeviceGetUuid(simulator, uuid: Out<[u8; 16]>, number: c_int) {
        put(uuid, [device(simulator, number)? as u8 + 1; 16])
    }

    /// One of a device's properties.
    fn cuDeviceGetAttribute(simulator, value: Out<c_int>, attribute: c_int, number: c_int) {
        let number = device(simulator, number)?;
        put(value, attribute_value(simulator, attribute, number))
    }

    /// Retains a device's primary context.
    fn cuDevicePrimaryCtxRetain(simulator, context: Out<usize>, number: c_int) {
        put(context, device(simulator, number)? + 1)
    }

    /// Releases a device's primary context.
    fn cuDevicePrimaryCtxRelease_v2(simulator, number: c_int) { device(simulator, number).map(|_| ()) }

    /// This thread's context.
    fn cuCtxGetCurrent(_simulator, context: Out<usize>) { put(context, current_context()) }

    /// Sets this thread's context.
    fn cuCtxSetCurrent(simulator, context: usize) {
        if context > simulator.devices.len() {
            return Err(Status::INVALID_CONTEXT);
        }
        set_current_context(context);
        Ok(())
    }

    /// The device of this thread's context.
    fn cuCtxGetDevice(simulator, number: Out<c_int>) { put(number, simulator.current_device()? as c_int) }

    /// Sets flags of a context, none of which changes a result.
    fn cuCtxSetFlags(_simulator, _flags: u32) { Ok(()) }

    /// Waits for all work of the current device.
    fn cuCtxSynchronize(simulator) {
        let device = simulator.current_device()?;
        simulator.forbid_during_capture()?;
        let clock = simulator.clock_of_device(device);
        simulator.wait(&clock)
    }

    /// The range of stream priorities.
    fn cuCtxGetStreamPriorityRange(_simulator, least: Out<c_int>, greatest: Out<c_int>) {
        put(least, 0)?;
        put(greatest, -5)
    }

    /// A device's name.
    fn cuDeviceGetName(simulator, name: *mut c_char, length: c_int, number: c_int) {
        let number = device(simulator, number)?;
        let capability = simulator.settings.compute_capability;
        let text = format!("Simulated {}.{} #{number}", capability / 10, capability % 10);
        let room = usize::try_from(length).map_err(|_| Status::INVALID_VALUE)?;
        if name.is_null() || room == 0 {
            return Err(Status::INVALID_VALUE);
        }
        let mut bytes = text.into_bytes();
        bytes.truncate(room - 1);
        bytes.push(0);
        crate::device::host::write(crate::device::host::HostPointer(name as usize), &bytes);
        Ok(())
    }
}

/// Attributes by their number in `CUdevice_attribute`; the limits are those of a card of the compute capability.
fn attribute_value(simulator: &Simulator, attribute: c_int, number: usize) -> c_int {
    let capability = simulator.settings.compute_capability;
    match attribute {
        // Threads of a block, in all and along x and y; along z.
        1..=3 => 1024,
        4 => 64,
        // Blocks of a grid along x; along y and z.
        5 => c_int::MAX,
        6 | 7 => 65_535,
        // Shared memory of a block, constant memory, warp size, registers, clock in kHz.
        8 => 49_152,
        9 => 65_536,
        10 => 32,
        12 | 82 => 65_536,
        13 => 1_000_000,
        14 => 512,
        16 => simulator.settings.multiprocessors as c_int,
        // Concurrent kernels, unified addresses, memory pools.
        31 | 41 | 115 => 1,
        33 => number as c_int + 1,
        // Memory clock in kHz and bus width in bits: small, as no speed is simulated.
        36 => 1_000_000,
        37 => 64,
        38 => 4 << 20,
        39 => match capability {
            75 => 1024,
            89 => 1536,
            _ => 2048,
        },
        40 => 1,
        75 => capability as c_int / 10,
        76 => capability as c_int % 10,
        81 => max_shared(capability) as c_int + 1024,
        97 => max_shared(capability) as c_int,
        106 => 16,
        _ => 0,
    }
}

/// Most shared memory that a block may ask for, in bytes.
pub(super) fn max_shared(capability: u32) -> usize {
    match capability {
        75 => 64 << 10,
        86 | 89 => 99 << 10,
        _ => 163 << 10,
    }
}

/// The name of an error.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorName(error: u32, name: Option<&mut MaybeUninit<*const c_char>>) -> Status {
    let Some(name) = name else { return Status::INVALID_VALUE };
    let known = Status(error).name();
    name.write(known.map_or(std::ptr::null(), std::ffi::CStr::as_ptr));
    if known.is_some() { Status::SUCCESS } else { Status::INVALID_VALUE }
}

/// The description of an error.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorString(error: u32, text: Option<&mut MaybeUninit<*const c_char>>) -> Status {
    let Some(text) = text else { return Status::INVALID_VALUE };
    let known = Status(error).description();
    text.write(known.map_or(std::ptr::null(), |description| description.as_ptr().cast()));
    if known.is_some() { Status::SUCCESS } else { Status::INVALID_VALUE }
}

/// Undocumented interfaces: there are none. NVRTC asks for one and works without it.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetExportTable(_table: *mut *const c_void, _id: *const c_void) -> Status {
    Status::NOT_FOUND
}
