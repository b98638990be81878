//! Jumps that leave every argument where it is, under the System V calling convention of x86-64.
//!
//! r11 is the register that carries nothing from caller to callee.

use std::arch::naked_asm;

use crate::function::Function;

/// Jumps to the address at the start of a [`Function`].
macro_rules! jump_to_address {
    ($function:ident) => {
        naked_asm!("jmp qword ptr [rip + {function}]", function = sym $function)
    };
}

/// Jumps to [`resolve_and_jump`] with a [`Function`] in r11.
macro_rules! jump_to_resolve {
    ($function:ident) => {
        naked_asm!(
            "lea r11, [rip + {function}]",
            "jmp {resolve_and_jump}",
            function = sym $function,
            resolve_and_jump = sym $crate::trampoline::resolve_and_jump,
        )
    };
}

pub(crate) use {jump_to_address, jump_to_resolve};

/// Resolves the [`Function`] in r11 and jumps to it, with the stack and all other registers as the function's caller left
/// them. Saves the registers that may hold arguments: six integers; rax, the number of floats in a variable argument list;
/// r10; and eight floats.
#[unsafe(naked)]
pub(crate) extern "C" fn resolve_and_jump() {
    naked_asm!(
        // The call left the stack 8 bytes off its alignment of 16. This push restores it, and the others keep it.
        "push rbp",
        "mov rbp, rsp",
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "push rax",
        "push r10",
        "sub rsp, 128",
        "movups [rsp], xmm0",
        "movups [rsp + 16], xmm1",
        "movups [rsp + 32], xmm2",
        "movups [rsp + 48], xmm3",
        "movups [rsp + 64], xmm4",
        "movups [rsp + 80], xmm5",
        "movups [rsp + 96], xmm6",
        "movups [rsp + 112], xmm7",
        "mov rdi, r11",
        "call {resolve}",
        "mov r11, rax",
        "movups xmm0, [rsp]",
        "movups xmm1, [rsp + 16]",
        "movups xmm2, [rsp + 32]",
        "movups xmm3, [rsp + 48]",
        "movups xmm4, [rsp + 64]",
        "movups xmm5, [rsp + 80]",
        "movups xmm6, [rsp + 96]",
        "movups xmm7, [rsp + 112]",
        "add rsp, 128",
        "pop r10",
        "pop rax",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "pop rbp",
        "jmp r11",
        resolve = sym Function::resolve,
    )
}
