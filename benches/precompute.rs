//! `Model::precompute` into SQLite against the bare executor: the same texts in the same batches, tokenised beforehand and
//! given to the network one batch after the other. Both take turns, and every stored answer is compared bit by bit.
//!
//! `cargo bench -p sconce-benches --bench precompute`. The model is MiniLM if `SCONCE_MINILM` is set, else encoder-mini.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use sconce::cache::{SqliteConfig, SqliteTier, StoredTier as _, TierConfig};
use sconce::{
    AnswerCache, AnswerSource, BatcherConfig, Input, Output, PrecomputeConfig, Precomputed, Runtime, Truncation,
};
use sconce_models::{Features, Finishing, LoadOptions, LoadedModel, Registry};

/// Computes the same texts with the bare executor and ahead of time into a database, and prints the difference
#[derive(Debug, Parser)]
#[command(name = "precompute")]
struct Args {
    /// Different texts
    #[arg(long, value_name = "N")]
    texts: Option<usize>,

    /// Measurements of each way, which take turns
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// The flag that cargo bench passes: measure instead of only checking that it works
    #[arg(long, hide = true)]
    bench: bool,
}

type Fallible<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Fallible<()> {
    let args = Args::parse();
    let count = args.texts.unwrap_or(if args.bench { 20_000 } else { 300 });
    let rounds = args.rounds.unwrap_or(if args.bench { 5 } else { 1 });
    let directory = sconce_benches::minilm().unwrap_or_else(|| sconce_benches::zoo("encoder-mini"));
    let texts: Vec<_> = (0..count).map(sconce_benches::review).collect();
    println!("{count} texts, model {}\n", directory.display());
    println!(
        "| round | tokenised beforehand, s | tokenised in between, s | precompute, s | ratios |\n|---|---|---|---|---|"
    );

    let temporary = tempfile::tempdir()?;
    let mut bare = Bare::load(&directory, &texts)?;
    let (mut to_bare, mut to_serial) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let database = temporary.path().join(format!("{round}.sqlite"));
        let (forward, embeddings) = bare.run()?;
        let serial = bare.run_serially(&texts)?;
        let precompute = precompute(&directory, &texts, &database).await?;
        check(&directory, &texts, &database, &embeddings).await?;
        let [forward, serial, precompute] = [forward, serial, precompute].map(|took| took.as_secs_f64());
        to_bare.push(precompute / forward);
        to_serial.push(precompute / serial);
        let ratios = format!("{:.3} and {:.3}", precompute / forward, precompute / serial);
        println!("| {round} | {forward:.3} | {serial:.3} | {precompute:.3} | {ratios} |");
    }
    println!(
        "\nmedian ratios of the time of precompute: {:.3} and {:.3}",
        median(&mut to_bare),
        median(&mut to_serial)
    );
    Ok(())
}

/// The network alone, in the batches that a runtime would make of a full queue.
struct Bare {
    model: LoadedModel,
    batches: Vec<Vec<Features>>,
    batch_size: usize,
}

impl Bare {
    fn load(directory: &Path, texts: &[String]) -> Fallible<Self> {
        let model = Registry::default().load(directory, &LoadOptions::default())?;
        let batch_size = BatcherConfig::default().max_batch_size;
        let batches = texts.chunks(batch_size).map(|texts| prepare(&model, texts)).collect::<Fallible<_>>()?;
        Ok(Self { model, batches, batch_size })
    }

    fn run(&mut self) -> Fallible<(Duration, Vec<Output>)> {
        let started = Instant::now();
        let mut rows = Vec::new();
        for batch in &self.batches {
            rows.extend(self.model.network.forward(batch)?);
        }
        let took = started.elapsed();
        Ok((took, rows.into_iter().map(|row| self.model.processor.finish(row, Finishing::default())).collect()))
    }

    /// Prepares and runs one batch after the other, as a loop without a runtime would.
    fn run_serially(&mut self, texts: &[String]) -> Fallible<Duration> {
        let started = Instant::now();
        for texts in texts.chunks(self.batch_size) {
            let batch = prepare(&self.model, texts)?;
            self.model.network.forward(&batch)?;
        }
        Ok(started.elapsed())
    }
}

fn prepare(model: &LoadedModel, texts: &[String]) -> Fallible<Vec<Features>> {
    let prepare = |text: &String| model.processor.prepare(Input::from(text.as_str()), Truncation::Truncate);
    Ok(texts.iter().map(|text| prepare(text).map(|prepared| prepared.features)).collect::<Result<_, _>>()?)
}

/// Precomputes the texts into a new database.
async fn precompute(directory: &Path, texts: &[String], database: &Path) -> Fallible<Duration> {
    let runtime = Runtime::builder().named_model("model", directory).build()?;
    let model = &runtime.model("model")?;
    let tier = SqliteTier::open(&SqliteConfig::new(database))?;
    let started = Instant::now();
    let mut inputs = texts.iter().enumerate();
    let next = async || inputs.next().map(|(index, text)| (index, Input::from(text.as_str())));
    let mut stored = 0;
    let done = |index, outcome| match outcome {
        Precomputed::Stored => stored += 1,
        other => panic!("text {index}: {other:?}"),
    };
    model.precompute(&tier, &PrecomputeConfig::default(), next, done).await?;
    let took = started.elapsed();
    assert_eq!((stored, tier.usage().await?.entries), (texts.len(), texts.len() as u64));
    runtime.shutdown().await;
    Ok(took)
}

/// Checks that a runtime with the database answers from it, with the embeddings of the bare executor.
async fn check(directory: &Path, texts: &[String], database: &Path, embeddings: &[Output]) -> Fallible<()> {
    let patient = TierConfig { get_budget: Duration::from_secs(10), ..TierConfig::default() };
    let cache = AnswerCache::builder().tier(SqliteTier::open(&SqliteConfig::new(database))?, patient).build()?;
    let runtime = Runtime::builder().named_model("model", directory).cache(cache).build()?;
    let model = &runtime.model("model")?;
    for (text, expected) in texts.iter().zip(embeddings) {
        let answer = model.infer(text.as_str()).await?;
        assert_eq!(answer.source, AnswerSource::Cached("sqlite"), "{text}");
        assert_eq!(&answer.output, expected, "{text}");
    }
    runtime.shutdown().await;
    Ok(())
}

fn median(ratios: &mut [f64]) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}
