//! cuRAND: the host interface of its default generator. Numbers have the right distribution, not cuRAND's values.

mod draw;
mod entry;

pub use entry::*;

pub(crate) use draw::{Draw, Generator};
