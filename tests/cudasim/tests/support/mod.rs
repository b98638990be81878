//! A machine for one test, and the calls of a program without their pointers.
#![expect(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unused_self, reason = "the value proves that this test has its turn")]

use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sconce_cudasim::control::cudasim_last_fault;
use sconce_cudasim::device::error::Status;
use sconce_cudasim::device::settings::Settings;
use sconce_cudasim::device::simulator::{lock, rebuild};
use sconce_cudasim::driver::*;

/// Held by the running test, as a process has only one machine.
static TURN: Mutex<()> = Mutex::new(());

/// A machine with one context.
pub struct Machine {
    _turn: MutexGuard<'static, ()>,
}

/// A parameter of a kernel.
#[derive(Clone, Copy)]
pub enum Parameter {
    Address(u64),
    U32(u32),
    F32(f32),
}

impl Machine {
    /// The default machine.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// A machine with other settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settings = Settings::from_env();
        change(&mut settings);
        rebuild(settings);
        assert_eq!(cuInit(0), Status::SUCCESS);
        let context = get(|out| cuDevicePrimaryCtxRetain(out, 0));
        assert_eq!(cuCtxSetCurrent(context), Status::SUCCESS);
        Self { _turn: turn }
    }

    /// Loads PTX text and returns its function `name`.
    pub fn function(&self, ptx: &str, name: &str) -> u64 {
        let text = CString::new(ptx).expect("PTX has no zero bytes");
        let module = get(|out| cuModuleLoadData(out, text.as_ptr()));
        let name = CString::new(name).expect("names have no zero bytes");
        get(|out| cuModuleGetFunction(out, module, name.as_ptr()))
    }

    /// A kernel `test` with `body` and `parameters` 64-bit parameters `p0`, `p1`, ...
    pub fn kernel(&self, parameters: usize, body: &str) -> u64 {
        self.function(&kernel_text(80, parameters, body), "test")
    }

    /// Launches a kernel on the legacy default stream.
    pub fn launch(&self, function: u64, grid: u32, block: u32, shared: u32, parameters: &[Parameter]) -> Status {
        self.launch_on(0, function, grid, block, shared, parameters)
    }

    /// Launches a kernel on a stream.
    pub fn launch_on(
        &self,
        stream: u64,
        function: u64,
        grid: u32,
        block: u32,
        shared: u32,
        parameters: &[Parameter],
    ) -> Status {
        let values: Vec<u64> = parameters
            .iter()
            .map(|parameter| match parameter {
                Parameter::Address(address) => *address,
                Parameter::U32(value) => u64::from(*value),
                Parameter::F32(value) => u64::from(value.to_bits()),
            })
            .collect();
        let pointers: Vec<*mut c_void> =
            values.iter().map(|value| std::ptr::from_ref(value).cast_mut().cast()).collect();
        cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared, stream, pointers.as_ptr(), std::ptr::null())
    }

    /// Allocates `bytes` of unwritten memory.
    pub fn allocate(&self, bytes: usize) -> u64 {
        get(|out| cuMemAlloc_v2(out, bytes))
    }

    /// Copies `values` to new memory.
    pub fn upload<T: Copy>(&self, values: &[T]) -> u64 {
        let address = self.allocate(size_of_val(values));
        assert_eq!(cuMemcpyHtoD_v2(address, values.as_ptr() as usize, size_of_val(values)), Status::SUCCESS);
        address
    }

    /// Copies the values at an address to the host.
    pub fn download<T: Copy + Default>(&self, address: u64, count: usize) -> Vec<T> {
        let mut values = vec![T::default(); count];
        let status = cuMemcpyDtoH_v2(values.as_mut_ptr() as usize, address, count * size_of::<T>());
        assert_eq!(status, Status::SUCCESS, "{}", self.fault());
        values
    }

    /// Waits for all work.
    pub fn synchronise(&self) -> Status {
        cuCtxSynchronize()
    }

    /// The last fault in words.
    pub fn fault(&self) -> String {
        let mut text = vec![0u8; 4096];
        let length = cudasim_last_fault(text.as_mut_ptr().cast(), text.len());
        text.truncate(length);
        String::from_utf8(text).expect("faults are told in UTF-8")
    }

    /// Launches one kernel and returns its fault; panics if there is none.
    pub fn fault_of(&self, function: u64, grid: u32, block: u32, shared: u32, parameters: &[Parameter]) -> String {
        assert_eq!(self.launch(function, grid, block, shared, parameters), Status::SUCCESS);
        assert_ne!(self.synchronise(), Status::SUCCESS, "the fault was not noticed");
        self.fault()
    }

    /// Launches one kernel, which must succeed.
    pub fn runs(&self, function: u64, grid: u32, block: u32, shared: u32, parameters: &[Parameter]) {
        assert_eq!(self.launch(function, grid, block, shared, parameters), Status::SUCCESS);
        assert_eq!(self.synchronise(), Status::SUCCESS, "{}", self.fault());
    }

    /// The counts so far.
    pub fn counts(&self) -> sconce_cudasim_control::Counts {
        lock().as_ref().expect("built in `with`").counts
    }
}

/// PTX text of a kernel `test` with 64-bit parameters `p0`, `p1`, ..., each loaded into a register `%a0`, `%a1`, ...;
/// `%tid` holds the thread's number in its block, `%gid` in the grid.
pub fn kernel_text(target: u32, parameters: usize, body: &str) -> String {
    let list: Vec<String> = (0..parameters).map(|index| format!(".param .u64 p{index}")).collect();
    let loads: Vec<String> = (0..parameters).map(|index| format!("ld.param.u64 %a{index}, [p{index}];")).collect();
    format!(
        ".version 8.0\n.target sm_{target}\n.address_size 64\n.visible .entry test({})\n{{\n\
         .reg .pred %p<16>; .reg .b16 %h<16>; .reg .b32 %r<64>; .reg .f32 %f<64>; .reg .b64 %rd<64>; .reg .f64 %fd<16>;\n\
         .reg .b64 %a<{}>; .reg .b32 %tid, %gid;\n\
         mov.u32 %tid, %tid.x; mov.u32 %r63, %ctaid.x; mov.u32 %r62, %ntid.x; mad.lo.s32 %gid, %r63, %r62, %tid;\n\
         {}\n{body}\nret;\n}}\n",
        list.join(", "),
        parameters.max(1),
        loads.join("\n"),
    )
}

/// The result of a call that must succeed.
pub fn get<T>(call: impl FnOnce(Option<&mut MaybeUninit<T>>) -> Status) -> T {
    let mut place = MaybeUninit::uninit();
    let status = call(Some(&mut place));
    assert_eq!(status, Status::SUCCESS, "{:?}", status.name());
    // SAFETY: every call that succeeds has written its result.
    unsafe { place.assume_init() }
}
