//! Cost of the servers themselves: processor time of the server's process for one unary `ModelInfer`, or the same request
//! over HTTP as JSON or with binary tensors, over loopback, through a model that costs next to nothing. `cargo bench -p sconce-benches --bench grpc -- --help` lists the options.
//!
//! Each server is a process of its own (`server.rs`; this program started again), so that its time is counted apart from
//! the client's. `echo` is a bare tonic server that reads the same request and writes the same answer, without a model, a
//! queue or another thread: it shows the cost of the framework. `load.rs` keeps requests in flight in a closed loop and
//! checks each answer (`rest.rs` those over HTTP, where each request in flight has a connection); servers take turns in every round, and `report.rs` prints medians.
//!
//! Without `--bench` (as `cargo test` runs it), it is a test: one short round.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::{Parser, ValueEnum as _};
use sconce_benches::Error;
use sconce_benches::wire::process::ServerProcess;

mod load;
mod report;
mod rest;
mod server;

use load::Load;
use report::{Name, ServerTurn};
use server::Kind;

/// Measures the servers' own processor time for each request over gRPC and HTTP.
#[derive(Debug, Parser)]
#[command(name = "grpc")]
struct Args {
    /// Servers that take turns
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "echo,sconce,rest-json,rest-binary",
        value_name = "SERVER,…"
    )]
    servers: Vec<Kind>,

    /// Tokio's worker threads of each server; 0 takes the default of `sconce serve`
    #[arg(long, value_delimiter = ',', default_value = "0", value_name = "N,…")]
    workers: Vec<usize>,

    /// Connections over which the requests are spread; over HTTP each request in flight has its own
    #[arg(long, value_delimiter = ',', default_value = "1,32", value_name = "N,…")]
    connections: Vec<usize>,

    /// Requests in flight at any time, over all connections
    #[arg(long, default_value = "32", value_name = "N")]
    concurrency: usize,

    /// Deadline of every request, as careful clients set one; 0 for none
    #[arg(long, default_value = "0", value_name = "SECONDS")]
    deadline: u64,

    /// Another build of this bench, whose servers take turns with this one's: before and after a change
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,

    /// Tokio's worker threads of the client
    #[arg(long, default_value = "2", value_name = "N")]
    client_workers: usize,

    /// Turns of each server
    #[arg(long, default_value = "9", value_name = "N")]
    rounds: usize,

    /// Length of a turn. Too short: times come in ticks of 10 ms; too long: a disturbance hits one server alone
    #[arg(long, default_value = "2", value_name = "SECONDS")]
    seconds: f64,

    /// Runs a server in this process until standard input ends
    #[arg(long, hide = true, value_enum, value_name = "SERVER")]
    serve: Option<Kind>,

    /// The flag that cargo bench passes
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Error> {
    let mut args = Args::parse();
    if let Some(kind) = args.serve {
        return server::run(kind, args.workers[0]);
    }
    if !args.bench {
        (args.rounds, args.seconds) = (1, 0.2);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(args.client_workers).enable_all().build()?;
    let turns = runtime.block_on(measure(&args))?;
    report::print(&turns, args.concurrency, args.seconds);
    Ok(())
}

async fn measure(args: &Args) -> Result<Vec<ServerTurn>, Error> {
    const WARM_UP: Duration = Duration::from_millis(200);
    let contestants = contestants(args).await?;
    let mut turns = Vec::new();
    for round in 0..args.rounds {
        // The order rotates, so that no server always follows the same other one.
        let (late, early) = contestants.split_at(round % contestants.len());
        for (name, process, load) in early.iter().chain(late) {
            load.run(WARM_UP).await?;
            let before = process.usage()?;
            let ran = load.run(Duration::from_secs_f64(args.seconds)).await?;
            turns.push(ServerTurn { name: name.clone(), ran, used: process.usage()? - before });
        }
        eprintln!("round {} of {}", round + 1, args.rounds);
    }
    Ok(turns)
}

/// Starts all servers and connects to them.
async fn contestants(args: &Args) -> Result<Vec<(Name, ServerProcess, Load)>, Error> {
    let deadline = Some(args.deadline).filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let mut contestants = Vec::new();
    let this = std::env::current_exe()?;
    let programs = [Some((&this, "")), args.against.as_ref().map(|other| (other, ", other build"))];
    for kind in &args.servers {
        for (program, build) in programs.iter().flatten() {
            for workers in &args.workers {
                let process = start(program, *kind, *workers)?;
                let name = |connections| Name { server: format!("{kind:?}{build}"), workers: *workers, connections };
                if let Some(tensors) = kind.tensors() {
                    let load = Load::connect_rest(process.address(), args.concurrency, tensors).await?;
                    contestants.push((name(args.concurrency), process, load));
                    continue;
                }
                for connections in &args.connections {
                    let load = Load::connect(process.address(), *connections, args.concurrency, deadline).await?;
                    contestants.push((name(*connections), process.clone(), load));
                }
            }
        }
    }
    Ok(contestants)
}

fn start(program: &Path, kind: Kind, workers: usize) -> Result<ServerProcess, Error> {
    let name = kind.to_possible_value().expect("no server is hidden");
    ServerProcess::start(Command::new(program).args(["--serve", name.get_name(), "--workers", &workers.to_string()]))
}
