//! The crate with real servers: each tier, the stack of tiers, and their failures.

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
