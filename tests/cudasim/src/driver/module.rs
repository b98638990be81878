//! Modules and functions.

use std::ffi::{c_char, c_int, c_void};

use super::context::max_shared;
use crate::device::error::Status;
use crate::device::host::{Out, put, text};

entry_points! {
    /// Loads PTX text.
    fn cuModuleLoadData(simulator, module: Out<u64>, image: *const c_char) {
        put(module, simulator.load_module(&text(image)?)?)
    }

    /// Loads PTX text; the compiler options change no result.
    fn cuModuleLoadDataEx(
        simulator,
        module: Out<u64>,
        image: *const c_char,
        _count: u32,
        _options: *const c_int,
        _values: *const *mut c_void,
    ) {
        put(module, simulator.load_module(&text(image)?)?)
    }

    /// Loads PTX text from a file.
    fn cuModuleLoad(simulator, module: Out<u64>, path: *const c_char) {
        let source = std::fs::read_to_string(text(path)?).map_err(|_| Status::FILE_NOT_FOUND)?;
        put(module, simulator.load_module(&source)?)
    }

    /// Unloads a module.
    fn cuModuleUnload(simulator, module: u64) { simulator.unload_module(module) }

    /// An entry point of a module.
    fn cuModuleGetFunction(simulator, function: Out<u64>, module: u64, name: *const c_char) {
        put(function, simulator.function(module, &text(name)?)?)
    }

    /// A variable of a module.
    fn cuModuleGetGlobal_v2(simulator, address: Out<u64>, bytes: Out<usize>, module: u64, name: *const c_char) {
        let (start, size) = simulator.global(module, &text(name)?)?;
        if bytes.is_some() {
            put(bytes, size)?;
        }
        put(address, start)
    }

    /// One of a function's properties.
    fn cuFuncGetAttribute(simulator, value: Out<c_int>, attribute: c_int, function: u64) {
        let capability = simulator.settings.compute_capability;
        let function = simulator.functions.get(&function).ok_or(Status::INVALID_HANDLE)?;
        let program = &function.program;
        put(value, match attribute {
            0 => program.max_threads as c_int,
            1 => program.static_shared_bytes as c_int,
            3 => program.local_bytes as c_int,
            // A compiler's number is not known: as many as a card gives a thread of the largest block.
            4 => (program.registers as c_int).min(64),
            5 | 6 => capability as c_int,
            8 => function.max_dynamic_shared as c_int,
            _ => 0,
        })
    }

    /// Sets one of a function's properties: the largest dynamic shared memory of its launches.
    fn cuFuncSetAttribute(simulator, function: u64, attribute: c_int, value: c_int) {
        let most = max_shared(simulator.settings.compute_capability);
        let function = simulator.functions.get_mut(&function).ok_or(Status::INVALID_HANDLE)?;
        if attribute == 8 {
            let bytes = usize::try_from(value).map_err(|_| Status::INVALID_VALUE)?;
            if bytes + function.program.static_shared_bytes > most {
                return Err(Status::INVALID_VALUE);
            }
            function.max_dynamic_shared = bytes;
        }
        Ok(())
    }

    /// Sets the preference for cache or shared memory, which changes no result.
    fn cuFuncSetCacheConfig(simulator, function: u64, _config: c_int) {
        if simulator.functions.contains_key(&function) { Ok(()) } else { Err(Status::INVALID_HANDLE) }
    }
}
