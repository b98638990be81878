//! `sconce serve`: load, listen, and drain when told to stop.

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use sconce::{ModelSource, Placement, Runtime, RuntimeBuilder};
use tokio::net::TcpListener;

use crate::args::ServeArgs;
use crate::banner;
use crate::error::Error;
use crate::models_path::{Found, ModelsPath};
use crate::precision::Precisions;
use crate::progress;
use crate::signals::Signals;

const DRAINING: &str =
    "draining: new connections are refused, requests in flight are answered (signal again to end at once)";

/// Serves until SIGTERM or Ctrl-C, then answers what is in flight.
pub(crate) async fn run(args: &ServeArgs) -> Result<ExitCode, Error> {
    let path = ModelsPath::new(&args.models);
    let found = if args.only.is_empty() {
        path.list_some()?
    } else {
        args.only.iter().map(|name| path.find(name)).collect::<Result<_, _>>()?
    };
    let batching = args.batching.config();
    batching.validate()?;
    let limits = args.limits.limits();
    limits.validate()?;
    let precisions = Precisions::new(&args.precision, &found)?;
    // Before the models are loaded: a port that is taken is told in no time.
    let listener = listen(&args.grpc).await?;
    let address = listener.local_addr().map_err(|source| listen_error(&args.grpc, source))?;

    let builder = args.cache.apply(args.compute.apply(Runtime::builder().batching(batching))).await?;
    let runtime = load(found, &precisions, args.compute.device, builder).await?;
    // Before the address is printed: whoever reads it may send the signal at once.
    let signals = Signals::listen().map_err(Error::Signals)?;
    banner::print(&runtime, address)?;
    let served = sconce_grpc::serve_within(limits, runtime.clone(), listener, signals.first(DRAINING)).await;
    // On success the server has done this; after a failure the device threads still have to end.
    runtime.shutdown().await;
    served.map_err(|cause| Error::Server(cause.into()))?;
    Ok(ExitCode::SUCCESS)
}

async fn load(
    found: Vec<Found>,
    precisions: &Precisions,
    device: Option<Placement>,
    builder: RuntimeBuilder,
) -> Result<Runtime, Error> {
    let spinner = progress::spinner(format!("loading {} models", found.len()));
    let builder = found.into_iter().fold(builder, |builder, Found { name, directory }| {
        let precision = precisions.of(&name);
        builder.model(ModelSource { precision, device, ..ModelSource::new(directory).name(name) })
    });
    let built = tokio::task::spawn_blocking(move || builder.build().map_err(Error::from)).await;
    spinner.finish_and_clear();
    built.unwrap_or_else(|cause| std::panic::resume_unwind(cause.into_panic()))
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
