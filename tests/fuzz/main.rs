//! Made-up inputs for all that strangers and files can say: requests over HTTP and gRPC, and the files of models. None makes
//! anything panic or hang, none is answered with an internal error, and good requests in between are answered right.
//!
//! `SCONCE_FUZZ_INPUTS` sets the number of inputs of each kind, and `SCONCE_FUZZ_SEED` the seed; a failure names the input.

mod configuration;
mod grpc;
mod http;
mod mutate;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};
use std::time::Duration;

use sconce::{Runtime, RuntimeBuilder};

/// Longest time for an answer. No input is long, so more means that the server hangs.
const MAX_WAIT: Duration = Duration::from_mins(1);
/// Inputs between two good requests.
const GOOD_EVERY: u64 = 500;

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Number of inputs of each kind.
fn inputs() -> u64 {
    number("SCONCE_FUZZ_INPUTS", 4000)
}

fn seed() -> u64 {
    number("SCONCE_FUZZ_SEED", 17)
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// Counts panics from now on, also those that are caught, but not those of the tests themselves.
fn watch_panics() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_of = |part: &str| panic.location().is_some_and(|location| location.file().contains(part));
            // The library of tokenizers has some, which loading a model catches; answering a request would tell.
            if is_of("tokenizers-") {
                return;
            }
            if !is_of("tests/fuzz") {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

fn panics() -> usize {
    PANICS.load(Ordering::SeqCst)
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

/// Small models for every route, shared by the tests.
fn runtime() -> Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let build = || {
        let zoo = ["digits-cnn", "encoder-mini", "tiny-bert-sentiment"].map(|name| models().join("zoo").join(name));
        let families = ["bert-cross-encoder", "bert-ner", "colbert", "qwen3-reranker", "splade"];
        let families = families.map(|name| models().join("tests/families").join(name));
        let builder = zoo.into_iter().chain(families).fold(Runtime::builder(), RuntimeBuilder::model);
        builder.build().expect("the models load")
    };
    RUNTIME.get_or_init(build).clone()
}
