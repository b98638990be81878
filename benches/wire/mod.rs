//! Shared by the benches over gRPC: a model of a chosen cost, its request and its right answer, a server in a process of
//! its own, and refusals as a client sees them.

pub mod message;
pub mod model;
pub mod process;
pub mod refusal;
