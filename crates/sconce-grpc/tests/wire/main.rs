//! The protocol over a real socket, with the models that ship.

#![expect(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

mod access;
mod answers;
mod cached;
mod discovery;
mod hostile;
mod leaving;
mod overload;
mod refusals;
#[cfg(target_os = "linux")]
mod shared_memory;
mod stream;
mod support;
