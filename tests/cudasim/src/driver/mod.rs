//! The entry points of the CUDA driver.
//!
//! They have the names, signatures and error codes of `cuda.h`. They are declared safe because the pointers that they
//! dereference follow the contract of that header, which no Rust type can express; `device/host.rs` relies on it.

macro_rules! entry_points {
    ($($(#[$meta:meta])* fn $name:ident($simulator:ident $(, $argument:ident: $ty:ty)* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $ty),*) -> $crate::device::error::Status {
            $crate::device::simulator::call(stringify!($name), |$simulator| {
                $body
            })
        }
    )*};
}
mod context;
mod copy;
mod event;
mod graph;
mod launch;
mod memory;
mod module;
mod stream;

pub use context::*;
pub use copy::*;
pub use event::*;
pub use graph::*;
pub use launch::*;
pub use memory::*;
pub use module::*;
pub use stream::*;
