//! Modules loaded on a device, and the programs of their entry points.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::Status;
use super::simulator::Simulator;
use crate::ptx::types::Space;
use crate::ptx::{Module, Program, compile};

/// A module on a device.
#[derive(Debug)]
pub struct LoadedModule {
    device: usize,
    module: Module,
    /// Addresses of the module's global and constant variables.
    globals: HashMap<String, u64>,
    /// Handles of the functions looked up so far.
    functions: HashMap<String, u64>,
}

/// A function that has been looked up.
#[derive(Clone, Debug)]
pub struct Function {
    pub device: usize,
    pub program: Arc<Program>,
    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`
    pub max_dynamic_shared: usize,
}

/// Dynamic shared memory in bytes that a block may have unless its function asks for more.
pub const DEFAULT_DYNAMIC_SHARED: usize = 48 << 10;

impl Simulator {
    /// Loads PTX text on the current device.
    pub fn load_module(&mut self, text: &str) -> Result<u64, Status> {
        let device = self.current_device()?;
        if !text.contains(".version") {
            eprintln!("[cudasim] only PTX text can be loaded; cubin and fatbin images need a card");
            return Err(Status::INVALID_IMAGE);
        }
        let module = Module::parse(text).map_err(|error| {
            eprintln!("[cudasim] PTX: {error}");
            Status::INVALID_PTX
        })?;
        if module.target > self.settings.compute_capability {
            eprintln!(
                "[cudasim] this PTX is for compute capability {} and newer; the device has {} (CUDASIM_CC)",
                module.target, self.settings.compute_capability
            );
            return Err(Status::NO_BINARY);
        }
        let memory = &mut self.devices[device].memory;
        let mut globals = HashMap::new();
        for variable in &module.variables {
            if !matches!(variable.space, Space::Global | Space::Constant) {
                continue;
            }
            let bytes = variable.declaration.bytes;
            let start = memory.reserve(bytes);
            memory.map(start, bytes);
            let fill = |data: &mut [u8]| {
                data.fill(0);
                let given = variable.initial.len().min(data.len());
                data[..given].copy_from_slice(&variable.initial[..given]);
            };
            memory.write_with(start, bytes, fill).expect("the variable was mapped just above");
            globals.insert(variable.declaration.name.clone(), start);
        }
        let handle = self.new_handle();
        self.modules.insert(handle, LoadedModule { device, module, globals, functions: HashMap::new() });
        Ok(handle)
    }

    /// Unloads a module and frees its variables.
    pub fn unload_module(&mut self, handle: u64) -> Result<(), Status> {
        let module = self.modules.remove(&handle).ok_or(Status::INVALID_HANDLE)?;
        let clock = self.clock_of_device(module.device);
        self.run_until(&clock);
        for start in module.globals.values() {
            self.devices[module.device].memory.unmap(*start);
        }
        for function in module.functions.values() {
            self.functions.remove(function);
        }
        Ok(())
    }

    /// The handle of an entry point, compiled on first use.
    pub fn function(&mut self, module: u64, name: &str) -> Result<u64, Status> {
        let loaded = self.modules.get(&module).ok_or(Status::INVALID_HANDLE)?;
        if let Some(handle) = loaded.functions.get(name) {
            return Ok(*handle);
        }
        if !loaded.module.entries().any(|entry| entry == name) {
            return Err(Status::NOT_FOUND);
        }
        let program = compile(&loaded.module, name, &loaded.globals).map_err(|error| {
            let message = format!("PTX: {error}");
            eprintln!("[cudasim] {message}");
            self.last_fault = Some(message);
            Status::INVALID_PTX
        })?;
        let loaded = &self.modules[&module];
        let function =
            Function { device: loaded.device, program: Arc::new(program), max_dynamic_shared: DEFAULT_DYNAMIC_SHARED };
        let handle = self.new_handle();
        self.functions.insert(handle, function);
        self.modules.get_mut(&module).expect("looked up above").functions.insert(name.to_owned(), handle);
        Ok(handle)
    }

    /// Address and size of a module's variable.
    pub fn global(&self, module: u64, name: &str) -> Result<(u64, usize), Status> {
        let module = self.modules.get(&module).ok_or(Status::INVALID_HANDLE)?;
        let start = *module.globals.get(name).ok_or(Status::NOT_FOUND)?;
        let bytes = self.devices[module.device].memory.size_of(start).unwrap_or(0);
        Ok((start, bytes))
    }
}
