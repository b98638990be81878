//! The parts that benches over gRPC share: a model of a chosen cost, its request and its right answer, a server that runs
//! in a process of its own, and what a client can tell of a refusal.

pub mod message;
pub mod model;
pub mod process;
pub mod refusal;
