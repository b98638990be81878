//! `sconce decide`: candidates measured on labelled data, and the policy's choice between them on the record.
//!
//! `contender` lists the candidates and loads them; `columns` and `examples` read the data; `answers` makes figures of
//! accuracy of the answers, `load` times each candidate in turns; `work` keeps both until all is done, so that a stopped run
//! goes on. [`sconce::decide`] compares, chooses and writes the page; `picture` draws. `verify` compares with a record.

mod answers;
mod columns;
mod contender;
mod disturbance;
mod error;
mod examples;
mod load;
mod origin;
mod outcome;
mod picture;
mod stop;
mod verify;
mod work;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sconce::decide::{DecisionRecord, Policy, shuffled, sign};
use sconce::{Output, Precision};

pub(crate) use columns::ColumnArg;
pub(crate) use contender::VariantArg;
pub(crate) use error::DecideError;

use crate::args::DecideArgs;
use crate::error::Error;
use crate::inputs::DataTable;
use crate::models_path::{FoundModel, ModelsPath};
use crate::progress;
use crate::say::say;
use crate::signals::{Signal, Signals};
use answers::ExampleScores;
use contender::{Contender, Contenders, LoadedContender};
use disturbance::ProcessorTimes;
use examples::Examples;
use load::TimedRequests;
use stop::StopSignal;
use work::WorkSoFar;

const STOPPING: &str = "stopping after this step; the same command goes on from there (signal again to end at once)";

/// A comparison: what it was asked for, and what it found.
struct Comparison<'a> {
    args: &'a DecideArgs,
    found: FoundModel,
    policy: Policy,
    /// The record to compare with.
    recorded: Option<DecisionRecord>,
    /// The private key that signs the record.
    key: Option<String>,
    out: PathBuf,
}

pub(crate) async fn run(args: &DecideArgs, signals: Signals) -> Result<ExitCode, Error> {
    let comparison = Comparison::new(args)?;
    let data = origin::digest_of(&args.data)?;
    let table = DataTable::read(&args.data, args.format, args.header.as_deref()).map_err(DecideError::from)?;
    let contenders = comparison.contenders()?;
    for line in &contenders.left_out {
        say!("{line}: left out");
    }
    let loaded = comparison.load(contenders.all)?;
    let signature = loaded[0].model.signature();
    let file = args.data.display().to_string();
    let examples = Examples::of(&table, &args.columns, signature, &file).map_err(DecideError::from)?;
    comparison.check_metric(&examples, &loaded[0])?;
    let origin = comparison.origin(&loaded, &examples, data)?;
    let (mut work, goes_on) = WorkSoFar::open(&comparison.out, origin.key(args, &loaded))?;
    if goes_on {
        say!("going on from where an earlier run was stopped");
    }
    let stop = StopSignal::listen(signals, STOPPING);
    let stopped = measure(&comparison, &loaded, &examples, &mut work, &stop).await?;
    if stopped.is_none() {
        let spinner = progress::spinner("drawing examples for the intervals".to_owned());
        let measured = comparison.measured(&loaded, &work);
        spinner.finish_and_clear();
        let code = comparison.finish(origin, &loaded, measured)?;
        work.finished();
        end(&loaded).await;
        return Ok(code);
    }
    end(&loaded).await;
    say!("stopped; the same command goes on from here");
    Ok(stopped.map_or(ExitCode::SUCCESS, Signal::exit_code))
}

async fn end(loaded: &[LoadedContender]) {
    for one in loaded {
        one.runtime.shutdown().await;
    }
}

/// Measures what is missing: first the accuracy, then the speed. Returns the signal that stopped it, if one did.
async fn measure(
    comparison: &Comparison<'_>,
    loaded: &[LoadedContender],
    examples: &Examples,
    work: &mut WorkSoFar,
    stop: &StopSignal,
) -> Result<Option<Signal>, Error> {
    compare_answers(loaded, examples, work, stop).await?;
    if !stop.is_set() {
        time(comparison.args, loaded, examples, work, stop).await?;
    }
    Ok(stop.signal())
}

/// Asks each group of candidates with the same answers all examples, the reference first.
async fn compare_answers(
    loaded: &[LoadedContender],
    examples: &Examples,
    work: &mut WorkSoFar,
    stop: &StopSignal,
) -> Result<(), Error> {
    let mut missing: Vec<&LoadedContender> = Vec::new();
    for one in loaded {
        if work.scores(&one.group()).is_none() && missing.iter().all(|other| other.group() != one.group()) {
            missing.push(one);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let reference = &loaded[0];
    let asked = missing.iter().filter(|one| one.group() != reference.group()).count() + 1;
    let bar = progress::count_bar((asked * examples.inputs.len()) as u64, "comparing answers".to_owned());
    let ask = async |one: &LoadedContender| answers::ask(one, &examples.inputs, stop, |inputs| bar.inc(inputs)).await;
    let Some(before) = ask(reference).await? else { return Ok(()) };
    for one in missing {
        let answered: Option<Vec<Output>> = if one.group() == reference.group() { None } else { ask(one).await? };
        if answered.is_none() && one.group() != reference.group() {
            return Ok(());
        }
        let scores = ExampleScores::of(examples, answered.as_deref().unwrap_or(&before), &before);
        work.add_scores(one.group(), scores)?;
    }
    bar.finish_and_clear();
    say!("compared the answers to {} examples", examples.count());
    Ok(())
}

/// Times all candidates in rounds, each round in another order, so that a disturbance meets all alike.
async fn time(
    args: &DecideArgs,
    loaded: &[LoadedContender],
    examples: &Examples,
    work: &mut WorkSoFar,
    stop: &StopSignal,
) -> Result<(), Error> {
    let order = shuffled(args.seed, examples.inputs.len());
    let requests = order.iter().map(|at| answers::request(&loaded[0].model, &examples.inputs[*at]));
    let requests: Arc<[sconce::Request]> = requests.collect();
    let timed = TimedRequests { turn: Duration::from_millis(args.turn_ms), requests };
    let rounds = args.rounds.get();
    let bar = progress::count_bar((rounds * loaded.len()) as u64, "timing".to_owned());
    // Memory and caches are warm before anything counts.
    let warm_up = TimedRequests { turn: timed.turn.min(Duration::from_millis(100)), ..timed.clone() };
    for one in loaded {
        warm_up.turn(one, 0).await?;
    }
    let before = ProcessorTimes::now();
    for round in 0..rounds {
        let first = round * timed.requests.len() / rounds;
        for at in shuffled(args.seed.wrapping_add(round as u64 + 1), loaded.len()) {
            let one = &loaded[at];
            bar.inc(1);
            if work.turns(&one.contender.candidate).len() > round {
                continue;
            }
            if stop.is_set() {
                return Ok(());
            }
            work.add_turn(&one.contender.candidate, timed.turn(one, first).await?)?;
        }
    }
    bar.finish_and_clear();
    if let Some(warning) = disturbance::told(before) {
        say!("warning: {warning}");
    }
    Ok(())
}

impl<'a> Comparison<'a> {
    fn new(args: &'a DecideArgs) -> Result<Self, Error> {
        let found = ModelsPath::new(&args.models).find(&args.model)?;
        // A comparison with a record belongs where the record is: the model's directory may be read-only.
        let beside = args.verify.as_deref().and_then(Path::parent).map(Path::to_owned);
        let out = args.out.clone().or(beside).unwrap_or_else(|| found.newest());
        let (policy, recorded) = match &args.verify {
            Some(path) => {
                let record = DecisionRecord::from_json(&read(path)?);
                let record = record.map_err(|source| DecideError::Record { path: path.clone(), source })?;
                (record.policy.clone(), Some(record))
            }
            None => (policy(args.policy.as_deref().expect("it is required without --verify"))?, None),
        };
        let out = if out.as_os_str().is_empty() { PathBuf::from(".") } else { out };
        fs::create_dir_all(&out).map_err(|source| Error::Write { path: out.clone(), source })?;
        let key = args.sign_with.as_deref().map(signing_key).transpose()?;
        Ok(Self { args, found, policy, recorded, key, out })
    }

    fn contenders(&self) -> Result<Contenders, Error> {
        match &self.recorded {
            Some(record) => Contenders::of(record, self.args, &self.found),
            None => Contenders::new(self.args, &self.found, &self.policy),
        }
    }

    /// Loads all candidates, and checks that they answer in the same way.
    fn load(&self, contenders: Vec<Contender>) -> Result<Vec<LoadedContender>, Error> {
        let spinner = progress::spinner(format!("loading {} candidates", contenders.len()));
        let loaded = contenders.into_iter().map(|one| one.load(&self.found.name, self.args.threads));
        let loaded: Vec<LoadedContender> = loaded.collect::<Result<_, Error>>()?;
        spinner.finish_and_clear();
        let signature = loaded[0].model.signature();
        for one in &loaded {
            let other = one.model.signature();
            let differs = match (other.task == signature.task, other.input == signature.input) {
                (true, true) => continue,
                (false, _) => "gives other answers",
                (true, false) => "reads other inputs",
            };
            let name = one.contender.candidate.variant.clone().unwrap_or_default();
            return Err(DecideError::OtherTask { name, model: self.found.name.clone(), differs }.into());
        }
        Ok(loaded)
    }

    fn check_metric(&self, examples: &Examples, reference: &LoadedContender) -> Result<(), DecideError> {
        let (metric, known) = (self.policy.metric, examples.metrics(&reference.model.signature().task));
        if known.contains(&metric) {
            return Ok(());
        }
        let (file, model) = (self.args.data.display().to_string(), self.found.name.clone());
        Err(DecideError::NoMetric { metric, file, model, known })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, DecideError> {
    fs::read(path).map_err(|source| DecideError::Unreadable { path: path.to_owned(), source })
}

/// Reads a private key, and checks that it can sign before anything is measured.
fn signing_key(path: &Path) -> Result<String, DecideError> {
    let key = String::from_utf8_lossy(&read(path)?).into_owned();
    sign(b"", &key).map_err(|source| DecideError::Sign { path: path.to_owned(), source })?;
    Ok(key)
}

fn policy(path: &Path) -> Result<Policy, Error> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    let policy: Policy = text.parse().map_err(|source| DecideError::Policy { path: path.to_owned(), source })?;
    let fallback: Result<Precision, _> = policy.fallback.parse();
    fallback.map_err(|source| DecideError::Fallback { fallback: policy.fallback.clone(), source })?;
    if policy.expires < jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date() {
        return Err(DecideError::Expired { path: path.to_owned(), expires: policy.expires }.into());
    }
    Ok(policy)
}
