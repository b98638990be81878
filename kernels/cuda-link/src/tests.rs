use std::arch::naked_asm;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use crate::function::Function;
use crate::library::Absent;
use crate::trampoline::lazy_function;
use crate::{DRIVER, Library};

static C_LIBRARY: Library = Library::new(&[c"libc.so.6"], Absent { library: 100, function: 801 });
static NO_LIBRARY: Library =
    Library::new(&[c"libsconce-none.so.1", c"libsconce-none.so"], Absent { library: 203, function: 999 });

lazy_function!(C_LIBRARY, snprintf);
lazy_function!(C_LIBRARY, sconce_no_such_function);
lazy_function!(NO_LIBRARY, sconce_of_no_library);

unsafe extern "C" {
    fn snprintf(text: *mut c_char, size: usize, format: *const c_char, ...) -> c_int;
    fn sconce_no_such_function(anything: *const c_void) -> c_int;
    fn sconce_of_no_library(anything: *const c_void) -> c_int;
    fn cuInit(flags: u32) -> c_int;
    fn cuGetErrorString(status: c_int, text: *mut *const c_char) -> c_int;
    fn cublasCreate_v2(handle: *mut *mut c_void) -> c_int;
    fn cublasGetStatusString(status: c_int) -> *const c_char;
    fn cublasLtGetVersion() -> usize;
    fn curandDestroyGenerator(generator: *mut c_void) -> c_int;
    fn nvrtcVersion(major: *mut c_int, minor: *mut c_int) -> c_int;
}

#[test]
fn every_argument_reaches_the_real_function_on_the_first_call_and_after() {
    let numbers = c"%d %d %d %d %d %d %g %g %g %g %g %g %g %g %g %g";
    for round in 0..3 {
        let mut text = [0; 128];
        // SAFETY: the length is that of `text`; the format names six integers and ten floats, some of them on the stack.
        let length = unsafe {
            let (i, f) = (|i: c_int| i + round, |f: f64| f + f64::from(round));
            let room = text.as_mut_ptr();
            snprintf(
                room,
                text.len(),
                numbers.as_ptr(),
                i(1),
                i(2),
                i(3),
                i(4),
                i(5),
                i(6),
                f(0.5),
                f(1.5),
                f(2.5),
                f(3.5),
                f(4.5),
                f(5.5),
                f(6.5),
                f(7.5),
                f(8.5),
                f(9.5),
            )
        };
        let integers = (1..=6).map(|i| (i + round).to_string());
        let floats = (0..10).map(|f| (f64::from(f + round) + 0.5).to_string());
        let expected = integers.chain(floats).collect::<Vec<_>>().join(" ");
        // SAFETY: snprintf ends it with a zero.
        assert_eq!(unsafe { CStr::from_ptr(text.as_ptr()) }.to_str(), Ok(&*expected));
        assert_eq!(usize::try_from(length), Ok(expected.len()));
    }
}

#[test]
fn a_missing_function_and_a_missing_library_answer_their_statuses() {
    // SAFETY: the stand-ins read no argument.
    let answers = || unsafe { (sconce_no_such_function(ptr::null()), sconce_of_no_library(ptr::null())) };
    assert_eq!([answers(), answers()], [(801, 203); 2]);
    let missing = NO_LIBRARY.open().unwrap_err();
    assert_eq!(missing.name, "libsconce-none.so.1");
    assert!(missing.to_string().starts_with("libsconce-none.so.1 cannot be opened: "), "{missing}");
    assert!(missing.reason.contains("No such file"), "{missing}");
    assert_eq!(C_LIBRARY.open(), Ok(()));
}

#[test]
fn without_a_driver_every_library_says_that_there_is_no_device() {
    if DRIVER.open().is_ok() {
        eprintln!("SKIPPED: there is a driver here");
        return;
    }
    let mut text = ptr::null();
    // SAFETY: the stand-ins write to `text` alone, and all of them have the return types of the real functions.
    unsafe {
        assert_eq!(cuInit(0), 100, "CUDA_ERROR_NO_DEVICE");
        assert_eq!(cuGetErrorString(100, &raw mut text), 0);
        assert_eq!(CStr::from_ptr(text), c"no CUDA driver (libcuda.so.1) on this machine");
        if crate::CUBLAS.open().is_err() {
            assert_eq!(cublasCreate_v2(ptr::null_mut()), 1, "CUBLAS_STATUS_NOT_INITIALIZED");
            assert_eq!(CStr::from_ptr(cublasGetStatusString(1)), c"the CUDA library of this function is not installed");
        }
        if crate::CUBLAS_LT.open().is_err() {
            assert_eq!(cublasLtGetVersion(), 0);
        }
        if crate::CURAND.open().is_err() {
            assert_eq!(curandDestroyGenerator(ptr::null_mut()), 203, "CURAND_STATUS_INITIALIZATION_FAILED");
        }
        if crate::NVRTC.open().is_err() {
            assert_eq!(nvrtcVersion(ptr::null_mut(), ptr::null_mut()), 11, "NVRTC_ERROR_INTERNAL_ERROR");
        }
    }
}
