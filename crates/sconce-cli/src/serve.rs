//! `sconce serve`: loads models, serves them, and drains on a signal.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use sconce::{BuildError, ModelSource, Runtime, RuntimeBuilder};
use sconce_grpc::{ServerBounds, Tls};
use tokio::sync::watch;

use crate::args::ServeArgs;
use crate::banner::{self, Guards};
use crate::error::Error;
use crate::listen::BoundAddress;
use crate::models_path::ModelsPath;
use crate::precision::Precisions;
use crate::progress;
use crate::renewal::renew;
use crate::say::say;
use crate::signals::Signals;

const DRAINING: &str =
    "draining: new connections are refused, requests in flight are answered (signal again to end at once)";

const LEAVING: &str =
    "leaving: health says not ready, requests are served until --drain-delay is over (signal again to end at once)";

/// Models that do not load, by name, with the reason.
pub(crate) type Failed = BTreeMap<String, BuildError>;

/// Serves until SIGTERM or Ctrl-C, then answers the requests in flight.
pub(crate) async fn run(args: &ServeArgs, signals: Signals) -> Result<ExitCode, Error> {
    let path = ModelsPath::new(&args.models);
    let found = if args.only.is_empty() { path.list_some()? } else { path.find_all(&args.only)? };
    let batching = args.batching.config()?;
    let (tls, access) = (args.access.tls()?, args.access.access()?);
    let bounds = ServerBounds::new(args.limits.limits())?.with_access(access.clone());
    let precisions = Precisions::new(&args.precision, &found)?;
    // Before the models are loaded, so that a port that is taken is reported at once.
    let grpc = BoundAddress::new("--grpc", &args.grpc).await?;
    let http = BoundAddress::new("--http", &args.http).await?;
    if grpc.is_none() && http.is_none() {
        return Err(Error::NoAddress);
    }
    let asks_for_certificates = tls.as_ref().is_some_and(Tls::asks_for_certificates);
    if !access.asks_for_tokens() && !asks_for_certificates && !args.access.allows_anonymous() {
        for (flag, bound) in [("--grpc", &grpc), ("--http", &http)] {
            bound.as_ref().map_or(Ok(()), |bound| bound.check_local(flag))?;
        }
    }
    let is_reached = [&grpc, &http].into_iter().flatten().any(|bound| bound.check_local("").is_err());
    if is_reached && access.asks_for_tokens() && tls.is_none() {
        say!(
            "note: without --tls-cert, tokens and texts can be read on the way, unless a proxy before the server has TLS"
        );
    }
    let (grpc, http) = (grpc.map(|it| it.with_tls(tls.as_ref())), http.map(|it| it.with_tls(tls.as_ref())));

    let builder = args.cache.apply(args.compute.apply(Runtime::builder().batching(batching))).await?;
    let sources = precisions.ask(found, &args.compute);
    let every = args.strict || !args.only.is_empty();
    let (runtime, failed) = load(sources, builder, every).await?;
    // Before the addresses are printed: a script that waits for them may send the signal at once.
    let delay = Duration::from_secs(args.drain_delay);
    let stop = signals.first(if delay.is_zero() { DRAINING } else { LEAVING });
    let guards = Guards { tls: tls.is_some(), tokens: access.asks_for_tokens() };
    banner::print(&runtime, &failed, grpc.as_ref(), http.as_ref(), guards)?;
    let (leave, left) = watch::channel(());
    let leaving = async {
        stop.await;
        if !delay.is_zero() {
            runtime.start_draining();
            tokio::time::sleep(delay).await;
            say!("{DRAINING}");
        }
        drop(leave);
    };
    let over_grpc = async {
        if let Some(BoundAddress { listener, file: _file, .. }) = grpc {
            sconce_grpc::serve_beside(&bounds, runtime.clone(), listener, closed(left.clone())).await;
        }
    };
    let over_http = async {
        if let Some(BoundAddress { listener, file: _file, .. }) = http {
            sconce_http::serve_beside(&bounds, runtime.clone(), listener, closed(left.clone())).await;
        }
    };
    let serving = async { tokio::join!(leaving, over_grpc, over_http) };
    tokio::select! {
        _ = serving => {}
        never = renew(tls, access) => match never? {},
    }
    runtime.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// Resolves when the sender is dropped.
async fn closed(mut left: watch::Receiver<()>) {
    // An error means that the sender was dropped.
    while left.changed().await.is_ok() {}
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
