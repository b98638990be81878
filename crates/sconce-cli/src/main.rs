//! The `sconce` command: serve models, run them over lines or files, compute answers ahead of time, list and fetch models.
//!
//! Each command is one file: `args` has its flags and help, `main` calls it, `error` has the errors that end it. The
//! path of an input line: `inputs` reads it on a thread of its own, `lines` keeps a bounded number of inputs in flight
//! and their order, `answer` turns each into one JSON object. To add a command, begin in `args`; a new short name for
//! `pull` is one entry in `catalogue`.

#![cfg_attr(
    not(all(feature = "grpc", any(feature = "postgres", all(feature = "redis", feature = "sqlite")))),
    expect(dead_code, reason = "parts that the commands and flags use which this build leaves out")
)]

mod address;
mod answer;
mod args;
#[cfg(feature = "grpc")]
mod banner;
mod bench;
#[cfg(any(feature = "grpc", feature = "postgres", feature = "redis", feature = "sqlite"))]
mod cache;
mod catalogue;
mod decide;
mod device_memory;
mod devices;
mod error;
mod explain;
mod infer;
mod inputs;
mod languages;
mod lines;
#[cfg(feature = "grpc")]
mod listen;
mod log;
mod memory_size;
mod models;
mod models_path;
#[cfg(feature = "grpc")]
mod models_to_serve;
mod precision;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod precompute;
mod profile;
mod progress;
mod pull;
#[cfg(feature = "grpc")]
mod recording;
#[cfg(feature = "grpc")]
mod renewal;
mod replay;
mod say;
#[cfg(feature = "grpc")]
mod serve;
mod signals;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod stores;
mod table;
#[cfg(feature = "grpc")]
mod traces;
mod tune;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use error::Error;
use say::say;
use signals::Signals;

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = log::start(args.command.log_format()).and_then(|()| run(&args.command));
    match outcome {
        Ok(code) => code,
        // The reader of our output has seen enough, as `head` has.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            say!("error: {error}");
            error.exit_code()
        }
    }
}

fn run(command: &Command) -> Result<ExitCode, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Threads)?;
    // Before anything that takes long: each command tells that a signal stopped it.
    let signals = runtime.block_on(async { Signals::listen() }).map_err(Error::Signals)?;
    let outcome = match command {
        #[cfg(feature = "grpc")]
        Command::Serve(args) => runtime.block_on(serve::run(args, signals)),
        Command::Embed(args) => runtime.block_on(infer::embed(args, signals)),
        Command::Classify(args) => runtime.block_on(infer::classify(args, signals)),
        #[cfg(any(feature = "postgres", feature = "sqlite"))]
        Command::Precompute(args) => runtime.block_on(precompute::run(args, signals)),
        #[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
        Command::Cache(args) => runtime.block_on(stores::run(&args.command, signals)),
        Command::Devices(args) => devices::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Decide(args) => runtime.block_on(decide::run(args, signals)),
        Command::Profile(args) => runtime.block_on(profile::run(args, signals)),
        Command::Tune(args) => runtime.block_on(tune::run(args, signals)),
        Command::Models(args) => runtime.block_on(models::run(args)),
        Command::Pull(args) => runtime.block_on(pull::run(args, signals)),
    };
    // A thread that reads a file which never ends must not hold the process up.
    runtime.shutdown_background();
    outcome
}
