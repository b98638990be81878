//! The real binary on the real models of the zoo.

mod command;
mod devices;
mod hub;
mod infer;
mod models;
mod precision;
mod pull;
mod serve;
