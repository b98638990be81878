//! The shadow check: answers in lower precisions are computed again in f32 while the machine is idle, and compared.
//!
//! `check.rs` samples answers and compares them on a thread of its own, `similarity.rs` says how alike two are, and `cusum.rs`
//! when too many are not.

mod check;
mod config;
mod cusum;
mod similarity;

pub(crate) use check::{Sample, ShadowCheck, ShadowCounts};
pub use config::{ShadowAllowance, ShadowConfig};
