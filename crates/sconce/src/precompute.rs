//! Computing of answers ahead of time: fills a tier of cache with the answers that it does not have yet.
//!
//! The tier itself is the only record of progress, so no other record can disagree with it. A process that is killed
//! and started again finds the stored answers and computes the rest.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use sconce_batch::Error as QueueError;
use sconce_cache::{Found, Key, Tier, TierError, TierFuture, Value};
use sconce_models::{Input, InputError, Truncation};
use tokio::task::JoinSet;

use crate::cached::AnswerKeys;
use crate::{BuildError, InferError, Model};

/// Settings for computing answers ahead of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrecomputeConfig {
    /// Truncates or refuses a text with more tokens than the model takes. The choice is part of the key: an answer is
    /// found only by requests with the same choice.
    pub truncation: Truncation,
    /// The name of the prompt that is put before each text, as in [`Request::prompt`](crate::Request::prompt); `None`: the model's
    /// default. An answer is found only by requests with the same prompt.
    pub prompt: Option<String>,
    /// Number of inputs in one lookup and of answers in one write: 1 to 65,536. Too small: more round trips and
    /// transactions. Too large: more answers are lost, and computed again, if the process is killed.
    pub max_batch_size: usize,
    /// Number of attempts at one read or write of the tier, at least 1. The pause between attempts starts at 100 ms and
    /// doubles up to a minute.
    pub max_attempts: u32,
}

/// Truncation, the model's default prompt, batches of 256, five attempts.
impl Default for PrecomputeConfig {
    fn default() -> Self {
        Self { truncation: Truncation::Truncate, prompt: None, max_batch_size: 256, max_attempts: 5 }
    }
}

impl PrecomputeConfig {
    fn validate(&self) -> Result<(), PrecomputeError> {
        let Self { truncation: _, prompt: _, max_batch_size, max_attempts } = *self;
        if !(1..=MAX_BATCH_SIZE).contains(&max_batch_size) {
            let allowed = "between 1 and 65536";
            return Err(PrecomputeError::Config { field: "max_batch_size", value: max_batch_size, allowed });
        }
        if max_attempts == 0 {
            return Err(PrecomputeError::Config { field: "max_attempts", value: 0, allowed: "at least 1" });
        }
        Ok(())
    }
}

/// The largest number of keys in one lookup or answers in one write: a tier names all of them in one statement.
const MAX_BATCH_SIZE: usize = 1 << 16;

/// The outcome of one input.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Precomputed {
    /// The answer was computed, and the tier has stored it.
    Stored,
    /// The tier had the answer already.
    Found,
    /// The same input came shortly before and is still being looked up, computed or stored.
    Duplicate,
    /// Computing failed, so nothing was stored.
    Failed(InferError),
}

/// Error that ended precomputing early. Stored answers remain, and a new run computes only the others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrecomputeError {
    /// A field is out of bounds.
    #[error("{field} is {value}, but must be {allowed}")]
    Config {
        /// The field's name.
        field: &'static str,
        /// The field's value.
        value: usize,
        /// The allowed values.
        allowed: &'static str,
    },
    /// The model has no prompt of this name.
    #[error(transparent)]
    Prompt(InputError),
    /// The runtime is shutting down: start again with another runtime.
    #[error("the runtime of {model} is shutting down")]
    ShuttingDown {
        /// The model's name.
        model: String,
    },
    /// The model's `sconce.toml` turns caching off, so no request would find the answers.
    #[error("sconce.toml of {model} says that its answers are not cached; remove `answers = false` from its [cache]")]
    NeverCached {
        /// The model's name.
        model: String,
    },
    /// The model's files cannot be read for their digests, which are part of the keys.
    #[error(transparent)]
    Files(#[from] BuildError),
    /// The tier is full: give it more room, or use another tier.
    #[error("the {tier} tier is full")]
    Full {
        /// The tier's name.
        tier: &'static str,
    },
    /// The tier failed at every attempt.
    #[error("the {tier} tier failed {attempts} times in a row: {source}")]
    Tier {
        /// The tier's name.
        tier: &'static str,
        /// Number of attempts made.
        attempts: u32,
        /// The error of the last attempt.
        source: TierError,
    },
}

impl Model {
    /// Computes an answer for each input that `tier` has none for, at the full speed of the device, and stores it in
    /// the tier under the key by which a runtime with the same model, under the same name, finds it.
    ///
    /// `next` returns the inputs one by one, each with an id, or `None` at the end; the inputs begun by then are still
    /// finished. `done` is called with the id and the outcome of each input, in any order. The future of `next` may be
    /// dropped before it is ready, and `next` called again. Once `done` was called with [`Precomputed::Stored`], the
    /// answer is stored even if the process is killed.
    ///
    /// ```
    /// use sconce::cache::{SqliteConfig, SqliteTier};
    /// use sconce::{Input, PrecomputeConfig, Precomputed};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("answers.sqlite");
    /// let runtime = sconce::Runtime::builder().model(zoo.join("tiny-bert-sentiment")).build()?;
    /// let model = runtime.model("tiny-bert-sentiment")?;
    /// let tier = SqliteTier::open(&SqliteConfig::new(path))?;
    ///
    /// let mut texts = ["a lovely day", "a dull day"].into_iter().enumerate();
    /// let next = async || texts.next().map(|(line, text)| (line, Input::from(text)));
    /// let mut stored = Vec::new();
    /// let done = |line, outcome| {
    ///     if let Precomputed::Stored = outcome {
    ///         stored.push(line);
    ///     }
    /// };
    /// model.precompute(&tier, &PrecomputeConfig::default(), next, done).await?;
    /// assert_eq!(stored.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PrecomputeError`]. An input that the model does not take is no error: its outcome is [`Precomputed::Failed`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn precompute<T: Send + 'static>(
        &self,
        tier: &dyn Tier,
        config: &PrecomputeConfig,
        next: impl AsyncFnMut() -> Option<(T, Input)>,
        done: impl FnMut(T, Precomputed),
    ) -> Result<(), PrecomputeError> {
        config.validate()?;
        // An input of any kind is refused alike.
        self.with_prompt(Input::from(""), config.prompt.as_deref()).map_err(PrecomputeError::Prompt)?;
        if self.check_open().is_err() {
            return Err(PrecomputeError::ShuttingDown { model: self.name().to_owned() });
        }
        if !self.keeps_answers() {
            return Err(PrecomputeError::NeverCached { model: self.name().to_owned() });
        }
        let keys = self.answer_keys()?;
        let line = InputPipeline {
            model: self,
            tier,
            config,
            keys,
            max_in_flight: self.batcher_config().max_batch_size.saturating_mul(BATCHES_IN_FLIGHT).min(MAX_IN_FLIGHT),
            waiting: VecDeque::new(),
            computing: JoinSet::new(),
            computed: Vec::new(),
            pending: HashSet::new(),
            done,
        };
        line.run(next).await
    }
}

/// Items computed at a time, as a multiple of the largest batch: one batch runs, one is queued, others are being
/// prepared or handed on.
const BATCHES_IN_FLIGHT: usize = 4;
/// The most items computed at a time, however large batches may be: each item is a task.
const MAX_IN_FLIGHT: usize = 1 << 16;
/// The longest pause before another attempt.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// An input with its id and its key.
struct Keyed<T> {
    id: T,
    key: Key,
    input: Input,
}

/// A computed answer that is to be stored.
struct ComputedAnswer<T> {
    id: T,
    key: Key,
    value: Value,
}

/// The pipeline of inputs: read → look up → compute → store. Lookups and writes run beside computing, each with at most
/// one operation in flight.
struct InputPipeline<'a, T, D> {
    model: &'a Model,
    tier: &'a dyn Tier,
    config: &'a PrecomputeConfig,
    keys: AnswerKeys,
    max_in_flight: usize,
    /// Inputs that the tier does not have, waiting to be computed.
    waiting: VecDeque<Keyed<T>>,
    computing: JoinSet<(T, Key, Result<Value, InferError>)>,
    /// Answers that are not being written yet.
    computed: Vec<ComputedAnswer<T>>,
    /// Keys of all inputs between read and stored. The same input is not computed again meanwhile.
    pending: HashSet<Key>,
    done: D,
}

/// Inputs that were looked up, and the result for each.
type LookedUp<T> = (Vec<Keyed<T>>, Vec<Found>);
type Operation<'a, T> = Pin<Box<dyn Future<Output = Result<T, PrecomputeError>> + Send + 'a>>;

impl<'a, T: Send + 'static, D: FnMut(T, Precomputed)> InputPipeline<'a, T, D> {
    async fn run(mut self, mut next: impl AsyncFnMut() -> Option<(T, Input)>) -> Result<(), PrecomputeError> {
        let mut open = true;
        let mut read = Vec::new();
        let mut lookup: Option<Operation<'a, LookedUp<T>>> = None;
        let mut store: Option<Operation<'a, Vec<ComputedAnswer<T>>>> = None;
        loop {
            self.compute_more();
            // Look up a full batch; or, if there is nothing to compute, whatever was read, since the source of inputs
            // may be slow.
            if lookup.is_none()
                && !read.is_empty()
                && (self.waiting.is_empty() || read.len() >= self.config.max_batch_size)
            {
                lookup = Some(self.look_up(std::mem::take(&mut read)));
            }
            let idle = self.computing.is_empty() && self.waiting.is_empty();
            let enough = self.computed.len() >= self.config.max_batch_size;
            if store.is_none() && (enough || (idle && !self.computed.is_empty())) {
                store = Some(self.store());
            }
            if !open && read.is_empty() && lookup.is_none() && store.is_none() && idle {
                return Ok(());
            }
            // Read ahead by at most one lookup. Take no more results while four writes' worth of answers wait to be
            // stored.
            let may_read = open && read.len() < self.config.max_batch_size && self.waiting.len() < self.max_in_flight;
            let may_take = self.computed.len() < self.config.max_batch_size.saturating_mul(4);
            tokio::select! {
                biased;
                Some(ended) = self.computing.join_next(), if may_take => self.take(ended)?,
                looked_up = ready(&mut lookup) => {
                    lookup = None;
                    self.sort(looked_up?);
                }
                stored = ready(&mut store) => {
                    store = None;
                    self.confirm(stored?);
                }
                input = next(), if may_read => match input {
                    None => open = false,
                    Some((id, input)) => match self.model.with_prompt(input, self.config.prompt.as_deref()) {
                        Ok(input) => read.extend(self.keyed(id, input)),
                        Err(error) => (self.done)(id, Precomputed::Failed(error.into())),
                    },
                },
            }
        }
    }

    /// Starts computing waiting inputs, up to `max_in_flight` at a time.
    fn compute_more(&mut self) {
        while self.computing.len() < self.max_in_flight {
            let Some(Keyed { id, key, input }) = self.waiting.pop_front() else { return };
            let (model, truncation) = (self.model.clone(), self.config.truncation);
            self.computing.spawn(async move {
                let value = model.compute_value(input, truncation).await;
                (id, key, value)
            });
        }
    }

    /// Adds the input's key; `None` for a duplicate, which is reported to `done`.
    fn keyed(&mut self, id: T, input: Input) -> Option<Keyed<T>> {
        let key = self.keys.of(&input, self.config.truncation).key;
        if self.pending.insert(key) {
            return Some(Keyed { id, key, input });
        }
        (self.done)(id, Precomputed::Duplicate);
        None
    }

    fn look_up(&self, read: Vec<Keyed<T>>) -> Operation<'a, LookedUp<T>> {
        let (tier, config) = (self.tier, self.config);
        Box::pin(async move {
            let keys: Vec<_> = read.iter().map(|keyed| keyed.key).collect();
            let found = persist(tier, config, || tier.get_many(&keys)).await?;
            Ok((read, found))
        })
    }

    fn sort(&mut self, (read, found): LookedUp<T>) {
        for (keyed, found) in read.into_iter().zip(found) {
            match found {
                Found::Hit(_) => {
                    self.pending.remove(&keyed.key);
                    (self.done)(keyed.id, Precomputed::Found);
                }
                Found::Miss | Found::Corrupt => self.waiting.push_back(keyed),
            }
        }
    }

    fn take(
        &mut self,
        ended: Result<(T, Key, Result<Value, InferError>), tokio::task::JoinError>,
    ) -> Result<(), PrecomputeError> {
        let (id, key, value) = ended.unwrap_or_else(|cause| std::panic::resume_unwind(cause.into_panic()));
        match value {
            Ok(value) => self.computed.push(ComputedAnswer { id, key, value }),
            // Shutting down is no fault of the input: end the run.
            Err(InferError::Queue(QueueError::ShuttingDown)) => {
                return Err(PrecomputeError::ShuttingDown { model: self.model.name().to_owned() });
            }
            Err(error) => {
                self.pending.remove(&key);
                (self.done)(id, Precomputed::Failed(error));
            }
        }
        Ok(())
    }

    fn store(&mut self) -> Operation<'a, Vec<ComputedAnswer<T>>> {
        let (tier, config) = (self.tier, self.config);
        let computed = std::mem::take(&mut self.computed);
        Box::pin(async move {
            let entries: Vec<_> = computed.iter().map(|answered| (answered.key, answered.value.clone())).collect();
            persist(tier, config, || tier.put_many(&entries)).await?;
            Ok(computed)
        })
    }

    fn confirm(&mut self, stored: Vec<ComputedAnswer<T>>) {
        for ComputedAnswer { id, key, .. } in stored {
            self.pending.remove(&key);
            (self.done)(id, Precomputed::Stored);
        }
    }
}

/// Waits for the operation, or for ever if there is none. The future can be dropped: the operation goes on with the
/// next call.
async fn ready<T>(operation: &mut Option<Operation<'_, T>>) -> Result<T, PrecomputeError> {
    match operation {
        Some(operation) => operation.await,
        None => std::future::pending().await,
    }
}

/// Attempts an operation of the tier until it succeeds, at most `max_attempts` times. A full tier is not tried again.
async fn persist<'a, T>(
    tier: &dyn Tier,
    config: &PrecomputeConfig,
    mut attempt: impl FnMut() -> TierFuture<'a, Result<T, TierError>>,
) -> Result<T, PrecomputeError> {
    let mut pause = Duration::from_millis(100);
    let mut attempts = 1;
    loop {
        match attempt().await {
            Ok(output) => return Ok(output),
            Err(TierError::Full) => return Err(PrecomputeError::Full { tier: tier.name() }),
            Err(source) if attempts >= config.max_attempts => {
                return Err(PrecomputeError::Tier { tier: tier.name(), attempts, source });
            }
            Err(error) => tracing::warn!(tier = tier.name(), %error, ?pause, "the tier failed; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
        attempts += 1;
    }
}
