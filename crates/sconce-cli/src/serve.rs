//! `sconce serve`: loads models, serves them, and drains on a signal.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::process::ExitCode;

use sconce::{BuildError, ModelSource, Runtime, RuntimeBuilder};
use tokio::net::TcpListener;

use crate::args::ServeArgs;
use crate::banner;
use crate::error::Error;
use crate::models_path::ModelsPath;
use crate::precision::Precisions;
use crate::progress;
use crate::say::say;
use crate::signals::Signals;

const DRAINING: &str =
    "draining: new connections are refused, requests in flight are answered (signal again to end at once)";

/// Models that do not load, by name, with the reason.
pub(crate) type Failed = BTreeMap<String, BuildError>;

/// Serves until SIGTERM or Ctrl-C, then answers the requests in flight.
pub(crate) async fn run(args: &ServeArgs, signals: Signals) -> Result<ExitCode, Error> {
    let path = ModelsPath::new(&args.models);
    let found = if args.only.is_empty() { path.list_some()? } else { path.find_all(&args.only)? };
    let batching = args.batching.config()?;
    let limits = args.limits.limits();
    limits.validate()?;
    let precisions = Precisions::new(&args.precision, &found)?;
    // Before the models are loaded, so that a port that is taken is reported at once.
    let listener = listen(&args.grpc).await?;
    let address = listener.local_addr().map_err(|source| listen_error(&args.grpc, source))?;

    let builder = args.cache.apply(args.compute.apply(Runtime::builder().batching(batching))).await?;
    let sources = precisions.ask(found, &args.compute);
    let every = args.strict || !args.only.is_empty();
    let (runtime, failed) = load(sources, builder, every).await?;
    // Before the address is printed: a script that waits for it may send the signal at once.
    let stop = signals.first(DRAINING);
    let shutdown = async {
        stop.await;
    };
    banner::print(&runtime, &failed, address)?;
    let served = sconce_grpc::serve_within(limits, runtime.clone(), listener, shutdown).await;
    // On success the server has done this already; after a failure the device threads must still end.
    runtime.shutdown().await;
    served.map_err(|cause| Error::Server(cause.into()))?;
    Ok(ExitCode::SUCCESS)
}

/// Loads all models if `every` is set; else at least one, with a warning for each that does not load.
async fn load(sources: Vec<ModelSource>, builder: RuntimeBuilder, every: bool) -> Result<(Runtime, Failed), Error> {
    let spinner = progress::spinner(format!("loading {} models", sources.len()));
    let builder = sources.into_iter().fold(builder, RuntimeBuilder::model);
    let load = move || {
        if every { builder.build().map(|runtime| (runtime, Failed::new())) } else { builder.build_what_loads() }
    };
    let built = tokio::task::spawn_blocking(load).await;
    spinner.finish_and_clear();
    let (runtime, failed) = built.unwrap_or_else(|cause| std::panic::resume_unwind(cause.into_panic()))?;
    if runtime.models().len() == 0 {
        return Err(Error::NoneLoads { failed });
    }
    for error in failed.values() {
        say!("warning: not served: {error}");
    }
    if !failed.is_empty() {
        say!("  mend or remove it (`sconce models` looks at each), or have --strict refuse to start");
    }
    Ok((runtime, failed))
}

async fn listen(address: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| listen_error(address, source))
}

fn listen_error(address: &str, source: io::Error) -> Error {
    let remedy = match source.kind() {
        ErrorKind::AddrInUse => "another process listens there: stop it, or give another port (0 takes a free one)",
        ErrorKind::AddrNotAvailable => {
            "no interface of this machine has that address: 0.0.0.0 takes all, 127.0.0.1 none but its own callers"
        }
        ErrorKind::PermissionDenied => "ports below 1024 are reserved: give a higher one, for instance 8001",
        _ => "give HOST:PORT, for instance 127.0.0.1:8001",
    };
    Error::Listen { address: address.to_owned(), source, remedy }
}
