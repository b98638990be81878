//! The real binary on the real models of the zoo.

mod access;
mod bench;
mod command;
mod decide;
mod devices;
mod explain;
#[cfg(target_os = "linux")]
mod hostile;
mod hub;
mod infer;
mod ladder;
mod models;
mod monitoring;
mod precision;
mod precompute;
mod profile;
mod pull;
mod pull_names;
mod pull_rules;
mod recording;
mod repository;
mod serve;
#[cfg(target_os = "linux")]
mod signals;
mod stores;
mod telemetry;
mod tune;
