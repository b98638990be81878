//! `sconce profile`: where the time of requests goes, by stage, under a load.
//!
//! The load is replayed against the model in this process; `report` prints the table, `bottleneck` says in words what would
//! help, and `html` draws the picture.

mod bottleneck;
mod html;
mod report;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sconce::{Model, Runtime};
use tokio::sync::oneshot;

use crate::args::{BatchingArgs, OneModelArgs};
#[cfg(feature = "grpc")]
use crate::cache::CacheArgs;
use crate::error::Error;
use crate::progress;
use crate::replay::{LoadArgs, ReplayOutcome, ReplayPlan, ReplayedRequest, Replayer, StageFigures};
use crate::signals::{Signal, Signals, uninterrupted};

/// Say where the time of requests goes, by stage, under a recorded or made-up load.
///
/// The model runs in this process, and each request is sent at its time, whether or not earlier ones are answered. Latencies
/// count from the time at which a request should have been sent, so a stall counts for all that came during it.
///
/// The stages: cache (the lookup), prepare (checking and tokenising), queue (waiting for a device), run (the batch on the
/// device), finish (softmax, pooling, labels) and hand-offs (waiting for a thread of the processor). The time of servers and
/// networks is not part of it.
///
/// Ctrl-C ends early with what was measured.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce profile tiny-bert-sentiment --rate 500
  sconce profile minilm --rate 40 --texts queries.txt --seconds 30 --html profile.html
  sconce profile minilm --trace requests.jsonl --json
  sconce profile minilm --trace AzureLLMInferenceTrace_conv.csv --rate 20 --precision int8
  sconce profile minilm --rate 60 --bursts 200,800 --max-batch-size 64")]
pub(crate) struct ProfileArgs {
    /// A name on the models path, or a model directory
    #[arg(value_name = "MODEL")]
    model: String,

    /// Also draw the figures into this file: HTML that needs no other file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    how: OneModelArgs,

    #[command(flatten)]
    batching: BatchingArgs,

    #[cfg(feature = "grpc")]
    #[command(flatten)]
    cache: CacheArgs,
}

/// The figures of a profile.
pub(crate) struct StageProfile {
    pub(crate) model: String,
    pub(crate) precision: &'static str,
    pub(crate) device: String,
    pub(crate) cpu_threads: usize,
    /// The load in words.
    pub(crate) origin: String,
    pub(crate) figures: StageFigures,
    /// The requests that were sent, in order of arrival.
    pub(crate) replayed: Vec<ReplayedRequest>,
    /// Time from the first arrival to the last answer.
    pub(crate) took: Duration,
    /// Share of that time for which the device ran batches.
    pub(crate) utilisation: f64,
    /// Batches that ran, and their items.
    pub(crate) batches: u64,
    pub(crate) batched_items: u64,
    /// Set if a signal ended the replay early.
    pub(crate) stopped: bool,
}

const STOPPING: &str = "stopping: what was measured follows (signal again to end at once)";

pub(crate) async fn run(args: &ProfileArgs, signals: Signals) -> Result<ExitCode, Error> {
    let batching = args.batching.config()?;
    let (name, source) = args.how.find(&args.model)?;
    let trace = args.load.load(&name)?;
    if let Some(html) = &args.html {
        uninterrupted(|| crate::bench::check_writable(html))
            .map_err(|source| Error::Write { path: html.clone(), source })?;
    }
    let spinner = progress::spinner(format!("loading {name}"));
    let builder = args.how.compute.apply(Runtime::builder().batching(batching));
    #[cfg(feature = "grpc")]
    let builder = args.cache.apply(builder).await?;
    let built = builder.model(source).build();
    spinner.finish_and_clear();
    let runtime = built?;
    let model = runtime.model(&name).expect("the runtime was built with this model");

    let early = EarlyEnd::on(signals);
    let profile = measure(&runtime, &model, trace.origin(), &ReplayPlan::new(&trace, &model), &early.flag).await;
    runtime.shutdown().await;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", report::object(&profile))?;
    } else {
        report::write_text(&mut out, &profile)?;
    }
    out.flush()?;
    if let Some(html) = &args.html {
        let written = uninterrupted(|| std::fs::write(html, html::page(&profile)));
        written.map_err(|source| Error::Write { path: html.clone(), source })?;
    }
    Ok(match early.signal() {
        Some(signal) => signal.exit_code(),
        None if profile.figures.latency.len() == 0 => ExitCode::FAILURE,
        None => ExitCode::SUCCESS,
    })
}

/// Replays the plan and sums up.
async fn measure(runtime: &Runtime, model: &Model, origin: &str, plan: &ReplayPlan, stop: &AtomicBool) -> StageProfile {
    let bar = progress::count_bar(plan.requests.len() as u64, format!("sending requests to {}", model.name()));
    let before = runtime.metrics();
    let started = Instant::now();
    let replayed = Replayer { model, progress: &bar, stop }.run(plan).await;
    let took = started.elapsed();
    bar.finish_and_clear();
    let since = runtime.metrics().since(&before);
    let of_model = since.models.iter().find(|it| it.name == model.name());
    let busy: Duration = of_model.iter().flat_map(|model| &model.devices).map(|device| device.busy).sum();
    StageProfile {
        model: model.name().to_owned(),
        precision: model.signature().precision.name(),
        device: model.devices().first().map(|device| device.name.to_string()).unwrap_or_default(),
        cpu_threads: runtime.cpu_threads().get(),
        origin: origin.to_owned(),
        figures: StageFigures::of(&replayed),
        took,
        utilisation: busy.as_secs_f64() / took.as_secs_f64().max(1e-9),
        batches: of_model.map_or(0, |model| model.batches.iter().map(|count| count.batches).sum()),
        batched_items: of_model.map_or(0, |model| model.batched_items),
        stopped: replayed.len() < plan.requests.len(),
        replayed,
    }
}

impl StageProfile {
    /// Answered requests per second.
    pub(crate) fn throughput(&self) -> f64 {
        self.figures.latency.len() as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Requests of which the model read less than there was.
    pub(crate) fn truncated(&self) -> usize {
        let truncated =
            |request: &&ReplayedRequest| matches!(request.outcome, ReplayOutcome::Answered { truncated: true, .. });
        self.replayed.iter().filter(truncated).count()
    }
}

/// Formats seconds, of which a stage that was not taken has none.
fn time(seconds: f64) -> String {
    if seconds > 0.0 { crate::explain::seconds(seconds) } else { "–".to_owned() }
}

/// A flag that the first signal sets.
pub(crate) struct EarlyEnd {
    pub(crate) flag: Arc<AtomicBool>,
    told: oneshot::Receiver<Signal>,
}

impl EarlyEnd {
    pub(crate) fn on(signals: Signals) -> Self {
        let (tell, told) = oneshot::channel();
        let flag = Arc::new(AtomicBool::new(false));
        let (first, set) = (signals.first(STOPPING), Arc::clone(&flag));
        tokio::spawn(async move {
            // The command may have ended by itself.
            let _ = tell.send(first.await);
            set.store(true, Ordering::Relaxed);
        });
        Self { flag, told }
    }

    /// The signal, if one came.
    pub(crate) fn signal(mut self) -> Option<Signal> {
        self.told.try_recv().ok()
    }
}
