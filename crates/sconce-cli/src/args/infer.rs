//! The command lines of `sconce embed` and `sconce classify`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use sconce::OutputDtype;

use super::numbers::positive;
use super::{BatchSizeArgs, OneModelArgs};

/// Turn lines of text into vectors, one JSON object each, in input order.
///
/// An embedder answers {"embedding": [0.1, …]}, a sparse one {"sparse": [{"index": …, "value": …}]}, one of tokens
/// `{"token_embeddings": [[…], …]}`; all add the "precision" and the "device" that the answer was computed with.
///
/// A bad input is answered with {"error": …, "line": n} in its place, the others are still answered, and the exit
/// status is 1. A text of more tokens than the model takes is cut, and its answer has "truncated": true, unless
/// --no-truncate is given.
///
/// Ctrl-C (SIGTERM) answers what was begun and ends with status 130 (143); a second one ends at once.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  echo 'what a lovely day' | sconce embed --model encoder-mini
  sconce embed --model minilm corpus.txt > vectors.jsonl
  sconce embed --model nomic --prompt query --dimensions 256 --output-dtype int8 queries.txt
  sconce embed --model minilm --max-batch-size 64 --max-batch-weight 16384 corpus.txt")]
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    pub(crate) infer: InferArgs,

    /// Keep only the first N elements of each embedding; one of length 1 is scaled to it again
    #[arg(long, value_name = "N", value_parser = positive::<NonZeroUsize>, help_heading = "Options")]
    pub(crate) dimensions: Option<NonZeroUsize>,

    /// Print the elements of embeddings as `float32`, `float16`, `int8`, `uint8`, `binary` or `ubinary`
    ///
    /// The numbers are those of `quantize_embeddings` of sentence-transformers. `int8` and `uint8` cut the range −1…1 into
    /// 255 steps; a bit is 1 where an element is above 0, and eight bits are one number.
    #[arg(long, value_name = "TYPE", default_value = "float32", hide_default_value = true, help_heading = "Options")]
    pub(crate) output_dtype: OutputDtype,

    /// Do not scale embeddings to length 1
    #[arg(long, help_heading = "Options")]
    pub(crate) no_normalize: bool,
}

/// Tell the labels or scores of lines or files, one JSON object each, in input order.
///
/// Classifiers of texts read one text per line; image models one JSON array of pixels per line (flat or nested); rerankers one
/// JSON array of two texts per line, a query and a document; models of file content (magika) take each FILE, or all of
/// standard input, as one input.
///
/// A classifier answers {"label": …, "score": …, "scores": {…}}, a reranker {"score": …, "scores": {…}}, a classifier of tokens
/// {"entities": […]}; all add the "precision" and the "device" that the answer was computed with.
///
/// A bad input is answered with {"error": …, "line": n} in its place, the others are still answered, and the exit
/// status is 1. A text of more tokens than the model takes is cut, and its answer has "truncated": true, unless
/// --no-truncate is given.
///
/// Ctrl-C (SIGTERM) answers what was begun and ends with status 130 (143); a second one ends at once.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  echo 'what a lovely day' | sconce classify --model tiny-bert-sentiment
  sconce classify --model magika *
  sconce classify --model ./models/zoo/digits-cnn images.jsonl
  echo '[\"what holds a candle?\", \"a sconce\"]' | sconce classify --model ./my-reranker")]
pub(crate) struct ClassifyArgs {
    #[command(flatten)]
    pub(crate) infer: InferArgs,
}

/// The model, its inputs, and the way in which they are computed.
#[derive(Debug, clap::Args)]
pub(crate) struct InferArgs {
    /// A name on the models path (see `sconce models`), or a model directory
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,

    /// Files to read; `-` or no FILE is standard input
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Refuse a text of more tokens than the model takes, rather than cut its end
    #[arg(long)]
    pub(crate) no_truncate: bool,

    /// Put the model's prompt NAME before each text, such as `query` or `document`
    #[arg(long, value_name = "NAME")]
    pub(crate) prompt: Option<String>,

    #[command(flatten)]
    pub(crate) how: OneModelArgs,

    #[command(flatten)]
    pub(crate) batching: BatchSizeArgs,
}
