//! Definitions of the CUDA functions under their own names.

use std::arch::naked_asm;

use crate::function::Function;
use crate::library::{CUBLAS, CUBLAS_LT, CURAND, DRIVER, NVRTC, RUNTIME};

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod architecture;

pub(crate) use architecture::{jump_to_address, jump_to_resolve, resolve_and_jump};

/// Defines a function of a library under its own name.
macro_rules! lazy_function {
    ($library:ident, $name:ident) => {
        const _: () = {
            static FUNCTION: Function = Function::new(first_call, &$library, concat!(stringify!($name), "\0"));

            #[unsafe(naked)]
            extern "C" fn first_call() {
                $crate::trampoline::jump_to_resolve!(FUNCTION)
            }

            // SAFETY: the name is one of a library that the linker finds nowhere else.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            extern "C" fn $name() {
                $crate::trampoline::jump_to_address!(FUNCTION)
            }
        };
    };
}
#[cfg(test)]
pub(crate) use lazy_function;

include!(concat!(env!("OUT_DIR"), "/functions.rs"));
