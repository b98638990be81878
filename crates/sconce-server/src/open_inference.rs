//! The calls of the Open Inference Protocol, answered by a runtime; each wire format reads and writes the messages.

use std::time::{Duration, Instant};

use sconce::{Answer, Input, Model, RequestGroup, Runtime, Task};

use crate::arrival::Arrival;
use crate::error::RequestError;
use crate::metadata::MODEL_VERSION;
use crate::pacing::Governor;
use crate::parameters::Parameters;
use crate::shared_memory::SharedMemory;

/// Items of one request at most.
pub const MAX_ITEMS: usize = 16_384;

/// Items of one request to a model at most, whose answers are in memory together: as many as [`MAX_ITEMS`], or, where an
/// answer is large, as the queue holds.
#[must_use]
pub fn max_items(model: &Model) -> usize {
    match model.signature().task {
        Task::Embedding { .. } | Task::Classification { .. } | Task::Score => MAX_ITEMS,
        _ => model.batcher_config().max_queue_size.min(MAX_ITEMS),
    }
}

/// The models of a runtime, the pacing of refusals, and shared memory.
pub struct OpenInference {
    runtime: Runtime,
    governor: Governor,
    shared_memory: SharedMemory,
}

impl OpenInference {
    /// Answers by the models of `runtime`, with tensors in `shared_memory` where it is allowed.
    #[must_use]
    pub fn new(runtime: Runtime, shared_memory: SharedMemory) -> Self {
        Self { runtime, governor: Governor::new(), shared_memory }
    }

    /// The regions of shared memory.
    #[must_use]
    pub fn shared_memory(&self) -> &SharedMemory {
        &self.shared_memory
    }

    /// The runtime.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The model of this name; an empty version means the only one.
    ///
    /// # Errors
    /// [`RequestError`] if there is no such model, or no such version of it.
    pub fn model(&self, name: &str, version: &str) -> Result<&Model, RequestError> {
        let model = self.runtime.model(name)?;
        match version {
            "" | MODEL_VERSION => Ok(model),
            _ => Err(RequestError::UnknownVersion { model: name.to_owned(), version: version.to_owned() }),
        }
    }

    /// Answers the items of a request to `model`, or fails as a whole; a list that is longer than its queue goes in parts. A
    /// refusal is held back where there are many.
    ///
    /// # Errors
    /// [`RequestError`] if no time is left, there is no room, or an item is at fault.
    pub async fn answers(
        &self,
        model: &Model,
        inputs: Vec<Input>,
        parameters: Parameters,
        arrival: Arrival,
    ) -> Result<Vec<Answer>, RequestError> {
        parameters.check(model)?;
        let Parameters { timeout: allowed, priority, truncation, cache, prompt, vectors, precision: _ } = parameters;
        let timeout = arrival.time_left(allowed, Instant::now())?;
        let refusal = if cache && model.is_cached() { None } else { model.refusal(timeout, priority) };
        let answers = if let Some(source) = refusal {
            Err(RequestError::Refused { source })
        } else {
            let group = RequestGroup { inputs, timeout, priority, truncation, cache, prompt, vectors };
            model.try_infer_list(group).await.map_err(RequestError::from)
        };
        match answers {
            Ok(answers) => Ok(answers),
            Err(error) => {
                // An error means that no time is left; `None` would mean that there is no bound.
                let left = |now| arrival.time_left(allowed, now).unwrap_or(Some(Duration::ZERO));
                Err(self.governor.hold_back(error, left).await)
            }
        }
    }
}
