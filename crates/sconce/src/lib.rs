//! An embeddable inference runtime: dynamic micro-batching over candle models.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
//! let runtime = sconce::Runtime::builder()
//!     .model(zoo.join("encoder-mini"))
//!     .model(zoo.join("tiny-bert-sentiment"))
//!     .build()?;
//!
//! let answer = runtime.model("tiny-bert-sentiment")?.infer("What a wonderful day!").await?;
//! let sentiment = answer.output.classification().expect("it classifies");
//! assert_eq!(sentiment.label(), "positive");
//!
//! let answer = runtime.model("encoder-mini")?.infer("a sconce holds candles").await?;
//! assert_eq!(answer.output.embedding().map(<[f32]>::len), Some(384));
//!
//! runtime.shutdown().await; // answers the queued requests, then ends the device threads
//! # Ok(())
//! # }
//! ```
//!
//! # The path of one item
//! If the runtime has a cache ([`AnswerCache`]), the cache is asked first, and concurrent identical requests are
//! computed once. [`Model::infer`] prepares the input on the caller (long inputs on a bounded pool) → the model's queue
//! ([`sconce_batch::Queue`], hand-off 1) → a device thread runs the batch → hand-off 2 back to the caller, which turns
//! the network's row into a typed [`Output`].
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `sqlite` | answers in a SQLite database (`cache::SqliteTier`); SQLite itself is compiled along | yes |
//! | `redis` | answers in Redis (`cache::RedisTier`), and locks that replicas share | yes |
//! | `redis-tls` | `rediss://` addresses; includes `redis` | no |
//! | `postgres` | answers in Postgres (`cache::PostgresTier`) | no |
//! | `cuda` | models on NVIDIA GPUs, where there is a driver; the crate's README says what the build takes | no |
//!
//! With `default-features = false` answers are cached in memory alone, without a C library and without a network client.
//!
//! # Where to add things
//! A model family is one file in `models/src/`, listed in [`Registry`]. A batching rule belongs to `sconce-batch`.
//! This crate ties the two together and holds no algorithm of its own.

mod answering;
mod builder;
mod cached;
mod decisions;
mod devices;
mod draining;
mod error;
mod ladder;
mod latency;
mod lists;
mod loader;
mod many;
mod memory;
mod metrics;
mod model;
mod network_executor;
pub mod placement;
mod placing;
mod precompute;
mod prepare;
mod ranking;
mod repository;
mod request;
mod runtime;
mod served;
mod shadow;
mod slot;
mod source;
mod sources;
mod statistics;
mod terms;
mod tokens;

pub use builder::RuntimeBuilder;
pub use cached::AnswerCache;
pub use decisions::{DECISION_FILE, Permission};
pub use draining::InFlight;
pub use error::{BuildError, ErrorKind, InferError, InferManyError, UnknownModel};
pub use ladder::{LadderConfig, LadderError};
pub use latency::LatencyDistribution;
pub use metrics::{
    BatchCount, Count, DecisionMetrics, DegradationMetrics, DeviceMetrics, LadderMetrics, ModelMetrics,
    PreparedInputMetrics, PreparingMetrics, QueueMetrics, RuntimeMetrics, ShadowMetrics, StageLatencies, TierMetrics,
};
pub use model::{Model, ModelDevice};
pub use precompute::{PrecomputeConfig, PrecomputeError, Precomputed};
pub use ranking::{Ranked, ZeroShot};
pub use repository::{ModelControl, ModelState, Refreshed, RepositoryEntry, RepositoryError};
pub use request::{Answer, AnswerSource, Request, RequestGroup, Timing};
pub use runtime::Runtime;
pub use shadow::{ShadowAllowance, ShadowConfig};
pub use source::ModelSource;
pub use sources::VersionPolicy;
pub use statistics::{BatchItems, RequestStats, Total, TracedRequest};
pub use terms::RequestTerms;

/// The cache crate: tiers, keys and values, from which an [`AnswerCache`] is built.
pub use sconce_cache as cache;
/// The crate of decisions: policies, records and signatures.
pub use sconce_decide as decide;
/// The model crate: traits and types for adding a model family of your own.
pub use sconce_models as models;

pub use sconce_batch::{
    BatcherConfig, ConfigError, CostLine, CostModel, Depth, DeviceState, Error as QueueError, ExecutorError, Priority,
    Refusals, Retry, Role, Stats,
};
pub use sconce_models::{
    Array, ArrayData, Backend, Classification, ConvertedElements, ConvertedEmbedding, Datatype, Demand, DeviceError,
    DeviceName, Elements, Entities, Entity, Family, Input, InputError, InputKind, InputSpec, InputTensor, LoadError,
    Output, OutputDtype, OutputElements, OutputShape, OutputTensor, Placement, Precision, Registry, Score, Signature,
    SparseVector, Task, TextToken, TokenVectors, Truncation, UnknownDevice, UnknownOutputDtype, UnknownPlacement,
    UnknownPrecision, VectorOptions,
};
pub use sconce_watch::{CostPart, Degradation, DegradationEvent, WatchedStage};
