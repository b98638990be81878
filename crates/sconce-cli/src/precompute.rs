//! `sconce precompute`: fills a database with answers ahead of time.

use std::cell::RefCell;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use sconce::cache::{Access, MemoryConfig, MemoryTier};
use sconce::{Input, Model, PrecomputeConfig, Precomputed, Runtime, Truncation};
use serde_json::json;

use crate::answer;
use crate::args::PrecomputeArgs;
use crate::error::Error;
use crate::inputs::{CellKind, InputLocation, Inputs, Record, TableColumn, Unit};
use crate::progress::{self, InputProgress};
use crate::say::say;
use crate::signals::{Signal, Signals};

/// Failed inputs that are reported one by one; of further ones only the number is reported.
const MAX_TOLD: u64 = 20;
const STOPPING: &str = "stopping: what was begun is finished and stored (signal again to end at once)";

/// Fills the database until there are no more inputs, or a signal comes.
pub(crate) async fn run(args: &PrecomputeArgs, signals: Signals) -> Result<ExitCode, Error> {
    let batching = args.batching.config()?;
    let database = args.database.one()?;
    let table = |cells| Unit::Row(TableColumn { format: args.format, column: args.column.clone(), cells });
    Inputs::check(&args.files, &table(CellKind::Text))?;
    let (name, source) = args.how.find(&args.model)?;
    let spinner = progress::spinner(format!("loading {name}"));
    let built = args.how.compute.apply(Runtime::builder().batching(batching)).model(source).build();
    spinner.finish_and_clear();
    let runtime = built?;
    let model = &runtime.model(&name).expect("the runtime was built with this model");

    let mut stop = std::pin::pin!(signals.first(STOPPING));
    if args.files.is_empty() && io::stdin().is_terminal() {
        say!("reading standard input; Ctrl-D ends it");
    }
    let cells = CellKind::of(&model.signature().input.kind);
    let mut inputs = Inputs::open(&args.files, table(cells))?;
    let truncation = if args.no_truncate { Truncation::Refuse } else { Truncation::Truncate };
    let config = PrecomputeConfig { truncation, prompt: args.prompt.clone(), ..PrecomputeConfig::default() };
    // A run without inputs fails if the model cannot be precomputed at all.
    let nowhere = MemoryTier::new(&MemoryConfig::default()).expect("the default configuration is valid");
    model.precompute(&nowhere, &config, async || None, |(), _| {}).await?;
    // After everything that can be refused, because this makes the database.
    let database = database.open(Access::Create)?;
    let tier = &database.tier;
    let tally = RefCell::new(PrecomputeTally::new(InputProgress::alone(inputs.total_bytes)));
    let mut stopped = None;
    let next = async || {
        while stopped.is_none() {
            tokio::select! {
                biased;
                signal = &mut stop => stopped = Some(signal),
                record = inputs.records.recv() => match record.map(|record| to_input(model, record)) {
                    None => return None,
                    Some(Ok(input)) => return Some(input),
                    Some(Err((source, message))) => tally.borrow_mut().failed(&source, &message),
                },
            }
        }
        None
    };
    let ended =
        model.precompute(tier, &config, next, |source, outcome| tally.borrow_mut().done(&source, outcome)).await;
    let tally = tally.into_inner();
    tier.settle().await.ok();
    database.close().await;
    runtime.shutdown().await;
    tally.report(args.json, stopped.is_some())?;
    ended?;
    Ok(stopped.map_or_else(|| tally.exit_code(), Signal::exit_code))
}

/// Makes an input of a record, or an error message, and gives the record's source with it.
fn to_input(model: &Model, record: Record) -> Result<(RecordSource, Input), (RecordSource, String)> {
    let Record { location, content, consumed, .. } = record;
    let source = RecordSource { location, consumed };
    match content.map_err(|cause| cause.to_string()).and_then(|content| answer::input(model, content)) {
        Ok(input) => Ok((source, input)),
        Err(message) => Err((source, message)),
    }
}

/// The source of a record: its location, and the bytes that it took.
struct RecordSource {
    location: InputLocation,
    consumed: u64,
}

/// Counts of the inputs so far, by outcome.
struct PrecomputeTally {
    progress: InputProgress,
    started: Instant,
    inputs: u64,
    stored: u64,
    found: u64,
    duplicates: u64,
    failed: u64,
}

impl PrecomputeTally {
    fn new(progress: InputProgress) -> Self {
        Self { progress, started: Instant::now(), inputs: 0, stored: 0, found: 0, duplicates: 0, failed: 0 }
    }

    fn done(&mut self, source: &RecordSource, outcome: Precomputed) {
        match outcome {
            Precomputed::Stored => self.stored += 1,
            Precomputed::Found => self.found += 1,
            Precomputed::Duplicate => self.duplicates += 1,
            Precomputed::Failed(error) => return self.failed(source, &error.to_string()),
            _ => unreachable!("there is nothing else that can become of an input"),
        }
        self.advance(source);
    }

    fn failed(&mut self, source: &RecordSource, message: &str) {
        self.failed += 1;
        if self.failed <= MAX_TOLD {
            self.progress.print(&format!("{}: {message}", source.location));
        } else if self.failed == MAX_TOLD + 1 {
            self.progress.print("more inputs fail; the end tells how many");
        }
        self.advance(source);
    }

    fn advance(&mut self, source: &RecordSource) {
        self.inputs += 1;
        self.progress.advance(source.consumed);
        if self.inputs.is_multiple_of(64) {
            let rate = self.inputs as f64 / self.started.elapsed().as_secs_f64();
            self.progress.say(format!("{} inputs, {rate:.0}/s", self.inputs));
        }
    }

    fn report(&self, as_json: bool, stopped: bool) -> io::Result<()> {
        self.progress.finish();
        let Self { inputs, stored, found, duplicates, failed, .. } = self;
        let seconds = self.started.elapsed().as_secs_f64();
        let mut out = io::stdout().lock();
        if as_json {
            let summary = json!({
                "inputs": inputs, "stored": stored, "found": found, "duplicates": duplicates, "failed": failed,
                "seconds": seconds, "stopped": stopped,
            });
            return writeln!(out, "{summary}");
        }
        let rate = *inputs as f64 / seconds;
        writeln!(
            out,
            "{inputs} inputs in {seconds:.1} s ({rate:.0}/s): {stored} computed and stored, {found} there already, \
             {duplicates} given more than once, {failed} failed"
        )?;
        if stopped {
            writeln!(out, "stopped early; the same command goes on from here")?;
        }
        Ok(())
    }

    fn exit_code(&self) -> ExitCode {
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
