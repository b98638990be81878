//! Storms: far more requests than a server can answer in time, on one core that another process wants as well.
//! `cargo bench -p sconce-benches --bench storm -- --help` lists the options.
//!
//! The server is a process of its own on one core (`cores.rs`; this program started again, `server.rs`), with a busy process
//! beside it; the callers have the other cores. A round measures the capacity first: callers without a deadline, as many as fill
//! batches. Then come the storms (`storms.rs`), each with a deadline on every request: callers in a closed loop, who retry
//! when they are refused, and open load, which comes at its own rate. The result is the number of answers in time, as a
//! share of the same round's capacity. `callers.rs` sends and checks each answer; `tally.rs` counts; `report.rs` prints
//! medians.
//!
//! Without `--bench` (as `cargo test` runs it), it is a test: one short round.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use sconce_benches::Error;
use tokio::time::Instant;

mod callers;
mod cores;
mod questions;
mod report;
mod server;
mod storms;
mod tally;

use callers::Callers;
use cores::Cores;
use report::StormTurn;
use server::{Served, Server};
use storms::{Load, Storm};

/// Measures the rate of answers in time while callers ask for more than the server can do.
#[derive(Debug, Parser)]
#[command(name = "storm")]
struct Args {
    #[command(flatten)]
    served: Served,

    /// Storms that take turns
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "at-once,as-told,backoff,open-120,open-200",
        value_name = "STORM,…"
    )]
    storms: Vec<Storm>,

    /// Callers of a storm in a closed loop
    #[arg(long, default_value = "120", value_name = "N")]
    callers: usize,

    /// Callers without a deadline that measure the capacity. Too few do not fill the batches
    #[arg(long, default_value = "64", value_name = "N")]
    capacity_callers: usize,

    /// Deadline of each request of a storm (`grpc-timeout`)
    #[arg(long, default_value = "100", value_name = "MILLISECONDS")]
    deadline_ms: u64,

    /// Connections over which the requests are spread
    #[arg(long, default_value = "4", value_name = "N")]
    connections: usize,

    /// Core of the server and of the busy process; the callers have all others. The default is the last
    #[arg(long, value_name = "N")]
    core: Option<usize>,

    /// Leaves out the busy process beside the server
    #[arg(long)]
    alone: bool,

    /// Another build of this bench, whose server takes turns with this one's: before and after a change
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,

    /// Turns of each storm
    #[arg(long, default_value = "5", value_name = "N")]
    rounds: usize,

    /// Counted time of a turn. Too short: times come in ticks of 10 ms; too long: a disturbance hits one turn alone
    #[arg(long, default_value = "3", value_name = "SECONDS")]
    seconds: f64,

    /// Time of a turn before it is counted, in which the server learns the cost of batches under this load
    #[arg(long, default_value = "1", value_name = "SECONDS")]
    warm_up: f64,

    /// Role of this process until standard input ends, if it is not the measuring one
    #[arg(long, hide = true, value_enum, value_name = "ROLE")]
    role: Option<Role>,

    /// The flag that cargo bench passes
    #[arg(long, hide = true)]
    bench: bool,
}

/// Processes that the measuring one starts.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Server,
    BusyProcess,
}

fn main() -> Result<(), Error> {
    let mut args = Args::parse();
    match args.role {
        Some(Role::Server) => return server::run(&args.served),
        Some(Role::BusyProcess) => {
            cores::compute();
            return Ok(());
        }
        None => {}
    }
    if !args.bench {
        (args.rounds, args.seconds, args.warm_up) = (1, 0.2, 0.1);
    }
    let cores = Cores::split(args.core)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(cores.for_callers()).enable_all().build()?;
    let turns = runtime.block_on(measure(&args, &cores))?;
    report::print_conditions(&args, &cores);
    report::print(&turns);
    Ok(())
}

async fn measure(args: &Args, cores: &Cores) -> Result<Vec<StormTurn>, Error> {
    let _busy = if args.alone { None } else { Some(cores.busy_process()?) };
    let this = std::env::current_exe()?;
    let mut contestants = vec![contestant(args, cores, &this, "this").await?];
    if let Some(other) = &args.against {
        contestants.push(contestant(args, cores, other, "other").await?);
    }
    let mut turns: Vec<StormTurn> = Vec::new();
    for round in 0..args.rounds {
        for storm in std::iter::once(None).chain(args.storms.iter().copied().map(Some)) {
            // The order rotates, so that no server always follows the same other one.
            let (late, early) = contestants.split_at(round % contestants.len());
            for (server, callers) in early.iter().chain(late) {
                let capacity = turns.iter().rfind(|turn| turn.build == server.build && turn.storm.is_none());
                let load = match storm {
                    None => Load::capacity(args.capacity_callers),
                    Some(storm) => storm.load(args.callers, capacity.map_or(0.0, StormTurn::in_time_rate)),
                };
                let deadline = storm.map(|_| Duration::from_millis(args.deadline_ms));
                let turn = take_turn(args, server, callers, load, deadline).await?;
                turns.push(StormTurn { storm, round, ..turn });
            }
        }
        eprintln!("round {} of {}", round + 1, args.rounds);
    }
    Ok(turns)
}

async fn contestant(
    args: &Args,
    cores: &Cores,
    program: &Path,
    build: &'static str,
) -> Result<(Server, Callers), Error> {
    let server = Server::start(cores.command(program), &args.served, build)?;
    let callers = Callers::connect(server.address(), args.connections, &args.served.model).await?;
    Ok((server, callers))
}

async fn take_turn(
    args: &Args,
    server: &Server,
    callers: &Callers,
    load: Load,
    deadline: Option<Duration>,
) -> Result<StormTurn, Error> {
    let from = Instant::now() + Duration::from_secs_f64(args.warm_up);
    let counted = from..from + Duration::from_secs_f64(args.seconds);
    let observed = async {
        tokio::time::sleep_until(counted.start).await;
        let before = server.observe()?;
        tokio::time::sleep_until(counted.end).await;
        Ok(server.observe()? - before)
    };
    let (tally, observed) = tokio::try_join!(callers.run(load, deadline, &counted), observed)?;
    Ok(StormTurn { build: server.build, storm: None, round: 0, seconds: args.seconds, tally, observed })
}
