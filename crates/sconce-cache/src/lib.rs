//! Three tiers of cache for computed tensors.

mod dtype;
mod key;
mod value;

pub use dtype::Dtype;
pub use key::{Digest, Input, Key, KeyFields, Parameter};
pub use value::{Corrupt, Tensor, Value, ValueError};
