//! PTX text to typed instructions that are decoded once.
//!
//! [`Module::parse`] finds the functions and variables of a text; [`compile::compile`] turns one entry point into a
//! [`Program`]: names resolved to register numbers and addresses, device functions inlined at their calls.
//!
//! To add an instruction: a variant of [`Operation`], a line in `decode/`, its meaning in `interpreter/`.

mod compile;
mod decode;
mod lexer;
mod module;
mod number;
pub mod operation;
mod statement;
pub mod types;

pub use compile::{Symbol, compile};
pub use module::{Module, Variable};
pub use operation::{Instruction, Operation, Program, Register, Source};

use thiserror::Error;

/// The reason why a PTX text cannot be loaded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PtxError {
    /// The text breaks the grammar.
    #[error("line {line}: expected {wanted}, found {found}")]
    Unexpected {
        /// Line in the text or in the body of the function.
        line: usize,
        /// The token that the grammar allows there.
        wanted: String,
        /// The token found.
        found: String,
    },
    /// A literal that is not a number.
    #[error("`{text}` is not a number")]
    Number {
        /// The literal.
        text: String,
    },
    /// A name that nothing declares.
    #[error("`{name}` is not declared")]
    Unknown {
        /// The name.
        name: String,
    },
    /// An instruction that the simulator does not know.
    #[error("kernel `{kernel}`: `{instruction}`: {reason}")]
    Instruction {
        /// The entry point that contains it.
        kernel: String,
        /// Its text.
        instruction: String,
        /// The part that is not known.
        reason: String,
    },
    /// A directive or form that the simulator does not know.
    #[error("{what} is not simulated")]
    Unsupported {
        /// The missing directive or form.
        what: String,
    },
}
