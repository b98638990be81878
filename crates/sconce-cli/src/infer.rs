//! `sconce embed` and `sconce classify`: one model over many inputs.

use std::io::{self, BufWriter, IsTerminal as _};
use std::num::NonZeroUsize;
use std::process::ExitCode;

use sconce::models::Written;
use sconce::{InputError, Model, Runtime, Truncation, VectorOptions};

use crate::answer::LineTerms;
use crate::args::{ClassifyArgs, EmbedArgs, InferArgs};
use crate::error::Error;
use crate::inputs::{Inputs, Unit};
use crate::lines::{self, Tally};
use crate::progress;
use crate::say::say;
use crate::signals::Signals;

const STOPPING: &str = "stopping: what was begun is answered (signal again to end at once)";

/// Prints the vectors of every input.
pub(crate) async fn embed(args: &EmbedArgs, signals: Signals) -> Result<ExitCode, Error> {
    let vectors = VectorOptions {
        dimensions: args.dimensions.map(NonZeroUsize::get),
        normalize: args.no_normalize.then_some(false),
        output_dtype: args.output_dtype,
    };
    run(&args.infer, AnswerKind::Embedding, vectors, signals).await
}

/// Prints the labels or scores of every input.
pub(crate) async fn classify(args: &ClassifyArgs, signals: Signals) -> Result<ExitCode, Error> {
    run(&args.infer, AnswerKind::Classification, VectorOptions::default(), signals).await
}

/// The kind of answer that the command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerKind {
    Embedding,
    Classification,
}

/// Loads the model alone, answers every input and says how many failed.
async fn run(
    args: &InferArgs,
    wanted: AnswerKind,
    vectors: VectorOptions,
    signals: Signals,
) -> Result<ExitCode, Error> {
    let batching = args.batching.config()?;
    let (name, source) = args.how.find(&args.model)?;
    let spinner = progress::spinner(format!("loading {name}"));
    let built = args.how.compute.apply(Runtime::builder().batching(batching)).model(source).build();
    spinner.finish_and_clear();
    let runtime = built?;
    let model = &runtime.model(&name).expect("the runtime was built with this model");
    check_task(model, &args.model, wanted)?;
    let terms = terms(model, args, vectors)?;

    let unit = match model.signature().input.kind.written() {
        Written::File => Unit::File,
        Written::Line | Written::Json { .. } => Unit::Line,
    };
    if args.files.is_empty() && io::stdin().is_terminal() {
        say!("reading standard input; Ctrl-D ends it");
    }
    let stop = signals.first(STOPPING);
    let inputs = Inputs::open(&args.files, unit)?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let tally = lines::run(model, terms, inputs, stop, &mut out).await?;
    runtime.shutdown().await;
    Ok(report(tally))
}

fn check_task(model: &Model, name: &str, wanted: AnswerKind) -> Result<(), Error> {
    // A score of a pair is that of a classifier with one label.
    let (fits, command) = match model.signature().task.dimensions() {
        Some(_) => (AnswerKind::Embedding, "embed"),
        None => (AnswerKind::Classification, "classify"),
    };
    if fits == wanted {
        return Ok(());
    }
    Err(Error::WrongTask { name: name.to_owned(), task: model.signature().task.name(), command })
}

/// The terms of all inputs, checked before the first is read.
fn terms(model: &Model, args: &InferArgs, vectors: VectorOptions) -> Result<LineTerms, Error> {
    let truncation = if args.no_truncate { Truncation::Refuse } else { Truncation::Truncate };
    let refused = |source| Error::Option { name: model.name().to_owned(), source };
    model.signature().task.check(vectors).map_err(refused)?;
    if let Some(name) = args.prompt.as_ref().filter(|name| !model.prompts().contains_key(*name)) {
        let known = model.prompts().keys().cloned().collect();
        return Err(refused(InputError::UnknownPrompt { name: name.clone(), known }));
    }
    Ok(LineTerms { truncation, prompt: args.prompt.clone(), vectors })
}

fn report(tally: Tally) -> ExitCode {
    if let Some(signal) = tally.stopped {
        say!("stopped after {} inputs", tally.answered);
        return signal.exit_code();
    }
    if tally.answered == 0 {
        say!("nothing to do: there was no input");
    }
    if tally.failed == 0 {
        return ExitCode::SUCCESS;
    }
    say!("{} of {} inputs failed; each has its error in its place", tally.failed, tally.answered);
    ExitCode::FAILURE
}
