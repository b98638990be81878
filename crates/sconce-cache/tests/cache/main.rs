//! The crate with real servers: each tier, the stack of them, and what happens when they fail.

mod access;
mod claims;
mod conformance;
mod disk;
mod faults;
mod limits;
mod redis;
mod replicas;
mod stack;
mod stored;
mod support;
