//! `sconce serve`: loads models, serves them, and drains on a signal.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sconce::{BuildError, Refreshed, Runtime, RuntimeBuilder};
use sconce_grpc::{ServerBounds, SharedMemory, Tls};
use sconce_http::ServedRoutes;
use tokio::sync::watch;

use crate::args::{MONITORING_ON_HTTP, ServeArgs, SharedMemoryArg};
use crate::banner::{self, Addresses, Guards};
use crate::error::Error;
use crate::listen::{Address, BoundAddress};
use crate::models_to_serve::ModelsToServe;
use crate::progress;
use crate::recording::TraceRecording;
use crate::renewal::renew;
use crate::say::say;
use crate::signals::Signals;
use crate::traces::TraceExport;

const DRAINING: &str =
    "draining: new connections are refused, requests in flight are answered (signal again to end at once)";

const LEAVING: &str =
    "leaving: health says not ready, requests are served until --drain-delay is over (signal again to end at once)";

/// Models that do not load, by name, with the reason.
pub(crate) type Failed = BTreeMap<String, BuildError>;

/// Serves until SIGTERM or Ctrl-C, then answers the requests in flight.
pub(crate) async fn run(args: &ServeArgs, signals: Signals) -> Result<ExitCode, Error> {
    let models = Arc::new(ModelsToServe::new(args)?);
    let batching = args.batching.config()?;
    let (tls, access) = (args.access.tls()?, args.access.access()?);
    let bounds = ServerBounds::new(args.limits.limits())?.with_access(access.clone());
    // Before the models are loaded, so that a port that is taken is reported at once.
    let grpc = BoundAddress::new("--grpc", &args.grpc).await?;
    let http = BoundAddress::new("--http", &args.http).await?;
    if grpc.is_none() && http.is_none() {
        return Err(Error::NoAddress);
    }
    let on_http = args.metrics == MONITORING_ON_HTTP;
    let monitoring = if on_http { None } else { BoundAddress::new("--metrics", &args.metrics).await? };
    let asks_for_certificates = tls.as_ref().is_some_and(Tls::asks_for_certificates);
    if !access.asks_for_tokens() && !asks_for_certificates && !args.access.allows_anonymous() {
        for (flag, bound) in [("--grpc", &grpc), ("--http", &http), ("--metrics", &monitoring)] {
            bound.as_ref().map_or(Ok(()), |bound| bound.check_local(flag))?;
        }
    }
    let bound = || [&grpc, &http, &monitoring].into_iter().flatten();
    if bound().any(|bound| !bound.address.is_local()) && access.asks_for_tokens() && tls.is_none() {
        say!(
            "note: without --tls-cert, tokens and texts can be read on the way, unless a proxy before the server has TLS"
        );
    }
    let mut addresses = grpc.iter().chain(&http).map(|bound| &bound.address);
    let bounds = bounds.with_shared_memory(shared_memory(args.shared_memory, &mut addresses));
    let with_tls = |bound: Option<BoundAddress>| bound.map(|bound| bound.with_tls(tls.as_ref()));
    let (grpc, http, monitoring) = (with_tls(grpc), with_tls(http), with_tls(monitoring));

    let traces = TraceExport::start(&args.telemetry)?;
    let recording = TraceRecording::start(&args.recording)?;
    let builder = args.cache.apply(args.compute.apply(Runtime::builder().batching(batching))).await?;
    let every = args.strict || !args.only.is_empty();
    let (runtime, failed) = load(&models, args.repository.apply(builder), every).await?;
    // Before the addresses are printed: a script that waits for them may send the signal at once.
    let delay = Duration::from_secs(args.drain_delay);
    let stop = signals.first(if delay.is_zero() { DRAINING } else { LEAVING });
    let addresses = Addresses { grpc: grpc.as_ref(), http: http.as_ref(), monitoring: monitoring.as_ref(), on_http };
    banner::print(&runtime, &failed, &addresses, Guards { tls: tls.is_some(), tokens: access.asks_for_tokens() })?;
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
            let routes = if on_http { ServedRoutes::All } else { ServedRoutes::Inference };
            sconce_http::serve_routes_beside(routes, &bounds, runtime.clone(), listener, closed(left.clone())).await;
        }
    };
    let watched = async {
        if let Some(BoundAddress { listener, file: _file, .. }) = monitoring {
            let routes = ServedRoutes::Monitoring;
            sconce_http::serve_routes_beside(routes, &bounds, runtime.clone(), listener, closed(left.clone())).await;
        }
    };
    let serving = async { tokio::join!(leaving, over_grpc, over_http, watched) };
    tokio::select! {
        _ = serving => {}
        () = poll(&runtime, args.repository.poll_interval()) => {}
        never = renew(tls, access) => match never? {},
    }
    runtime.shutdown().await;
    traces.end().await;
    recording.end().await;
    Ok(ExitCode::SUCCESS)
}

/// Looks at the models at each interval, and says what changed. Never ends.
async fn poll(runtime: &Runtime, interval: Option<Duration>) {
    let Some(interval) = interval else { return std::future::pending().await };
    let mut told = None;
    loop {
        tokio::time::sleep(interval).await;
        match runtime.refresh_settled().await {
            Ok(Refreshed { loaded, unloaded, failed, .. }) => {
                told = None;
                for name in &loaded {
                    say!("{name}: loaded anew");
                }
                for name in &unloaded {
                    say!("{name}: unloaded, its directory is gone");
                }
                for error in failed.values() {
                    say!("warning: not loaded: {error}");
                }
            }
            Err(error) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    say!("warning: {error}");
                }
                told = Some(error);
            }
        }
    }
}

/// The shared memory that clients of the addresses may use.
fn shared_memory<'a>(when: SharedMemoryArg, addresses: &mut impl Iterator<Item = &'a Address>) -> SharedMemory {
    let is_allowed = match when {
        SharedMemoryArg::Local => addresses.all(Address::is_local),
        SharedMemoryArg::Always => true,
        SharedMemoryArg::Never => false,
    };
    if is_allowed { SharedMemory::allowed() } else { SharedMemory::default() }
}

/// Resolves when the sender is dropped.
async fn closed(mut left: watch::Receiver<()>) {
    // An error means that the sender was dropped.
    while left.changed().await.is_ok() {}
}

/// Loads all models if `every` is set; else at least one, with a warning for each that does not load.
async fn load(models: &Arc<ModelsToServe>, builder: RuntimeBuilder, every: bool) -> Result<(Runtime, Failed), Error> {
    let spinner = progress::spinner(format!("loading {} models", models.sources()?.len()));
    let models = Arc::clone(models);
    let builder = builder.models_listed_by(move || Ok(models.present_sources()?));
    let load = move || {
        if every { builder.build().map(|runtime| (runtime, Failed::new())) } else { builder.build_what_loads() }
    };
    let built = tokio::task::spawn_blocking(load).await;
    spinner.finish_and_clear();
    let (runtime, failed) = built.unwrap_or_else(|cause| std::panic::resume_unwind(cause.into_panic()))?;
    if runtime.models().is_empty() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_for_clients_of_this_machine_unless_it_is_said_otherwise() {
        let tcp = |address: &str| Address::Tcp(address.parse().unwrap());
        let local = [tcp("127.0.0.1:8001"), tcp("[::1]:8000"), Address::Unix("/run/sconce.sock".into())];
        let remote = [tcp("127.0.0.1:8001"), tcp("0.0.0.0:8000")];
        let other = [tcp("[::]:8001")];
        let table: [(&[Address], bool); 3] = [(&local, true), (&remote, false), (&other, false)];
        for (addresses, is_local) in table {
            let allowed = |when| shared_memory(when, &mut addresses.iter()).is_allowed();
            assert_eq!(allowed(SharedMemoryArg::Local), is_local, "{addresses:?}");
            assert!(allowed(SharedMemoryArg::Always) && !allowed(SharedMemoryArg::Never));
        }
    }
}
