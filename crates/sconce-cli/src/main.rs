//! The `sconce` command: serve models, run them over lines or files, compute answers ahead of time, list and fetch models.
//!
//! Each command is one file: `args` says what can be asked, `main` hands it on, `error` says how it can end.
//! The path of an input line: `inputs` reads it on a thread of its own, `lines` keeps a bounded number of them in
//! flight and their order, `answer` turns each into one JSON object. A new command starts in `args`; a new short
//! name for `pull` is one entry in `catalogue`.

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
mod device_memory;
mod devices;
mod error;
mod explain;
mod infer;
mod inputs;
mod lines;
mod memory_size;
mod models;
mod models_path;
mod precision;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod precompute;
mod progress;
mod pull;
mod say;
#[cfg(feature = "grpc")]
mod serve;
mod signals;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod stores;
mod table;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Args, Command};
use error::Error;
use infer::Wanted;
use say::say;

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = log_to_stderr().and_then(|()| run(&args.command));
    match outcome {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            say!("error: {error}");
            error.exit_code()
        }
    }
}

fn run(command: &Command) -> Result<ExitCode, Error> {
    match command {
        #[cfg(feature = "grpc")]
        Command::Serve(args) => async_runtime()?.block_on(serve::run(args)),
        Command::Embed(args) => async_runtime()?.block_on(infer::run(args, Wanted::Embedding)),
        Command::Classify(args) => async_runtime()?.block_on(infer::run(args, Wanted::Classification)),
        #[cfg(any(feature = "postgres", feature = "sqlite"))]
        Command::Precompute(args) => async_runtime()?.block_on(precompute::run(args)),
        #[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
        Command::Cache(args) => async_runtime()?.block_on(stores::run(&args.command)),
        Command::Devices(args) => devices::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Models(args) => async_runtime()?.block_on(models::run(args)),
        Command::Pull(args) => async_runtime()?.block_on(pull::run(args)),
    }
}

fn async_runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Threads)
}

/// Standard output belongs to answers; the log goes to standard error, warnings and worse unless `RUST_LOG` says more.
fn log_to_stderr() -> Result<(), Error> {
    let directives = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => directives,
        _ => "warn".to_owned(),
    };
    let filter = EnvFilter::try_new(&directives)
        .map_err(|cause| Error::LogFilter { value: directives, message: cause.to_string() })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}
