//! Jumps that leave every argument where it is, under the procedure call standard of aarch64.
//!
//! x16 and x17 are the registers that carry nothing from caller to callee.

use std::arch::naked_asm;

use crate::function::Function;

/// Jumps to the address at the start of a [`Function`].
macro_rules! jump_to_address {
    ($function:ident) => {
        naked_asm!(
            "adrp x16, {function}",
            "ldr x16, [x16, :lo12:{function}]",
            "br x16",
            function = sym $function,
        )
    };
}

/// Jumps to [`resolve_and_jump`] with a [`Function`] in x17. Not by a plain branch: a branch that the linker has to
/// lengthen changes x16 and x17.
macro_rules! jump_to_resolve {
    ($function:ident) => {
        naked_asm!(
            "adrp x16, {resolve_and_jump}",
            "add x16, x16, :lo12:{resolve_and_jump}",
            "adrp x17, {function}",
            "add x17, x17, :lo12:{function}",
            "br x16",
            function = sym $function,
            resolve_and_jump = sym $crate::trampoline::resolve_and_jump,
        )
    };
}

pub(crate) use {jump_to_address, jump_to_resolve};

/// Resolves the [`Function`] in x17 and jumps to it, with the stack and all other registers as the function's caller left
/// them. Saves the registers that may hold arguments, x0 to x8 and q0 to q7, and x30, the return address.
#[unsafe(naked)]
pub(crate) extern "C" fn resolve_and_jump() {
    naked_asm!(
        "stp x29, x30, [sp, #-224]!",
        "mov x29, sp",
        "stp x0, x1, [sp, #16]",
        "stp x2, x3, [sp, #32]",
        "stp x4, x5, [sp, #48]",
        "stp x6, x7, [sp, #64]",
        "str x8, [sp, #80]",
        "stp q0, q1, [sp, #96]",
        "stp q2, q3, [sp, #128]",
        "stp q4, q5, [sp, #160]",
        "stp q6, q7, [sp, #192]",
        "mov x0, x17",
        "bl {resolve}",
        "mov x16, x0",
        "ldp x0, x1, [sp, #16]",
        "ldp x2, x3, [sp, #32]",
        "ldp x4, x5, [sp, #48]",
        "ldp x6, x7, [sp, #64]",
        "ldr x8, [sp, #80]",
        "ldp q0, q1, [sp, #96]",
        "ldp q2, q3, [sp, #128]",
        "ldp q4, q5, [sp, #160]",
        "ldp q6, q7, [sp, #192]",
        "ldp x29, x30, [sp], #224",
        "br x16",
        resolve = sym Function::resolve,
    )
}
