//! The calls of the Open Inference Protocol, answered by a runtime; each wire format reads and writes the messages.

use std::time::{Duration, Instant};

use sconce::{Answer, Input, Model, RequestGroup, Runtime};

use crate::arrival::Arrival;
use crate::error::RequestError;
use crate::metadata::MODEL_VERSION;
use crate::pacing::Governor;
use crate::parameters::Parameters;

/// The models of a runtime, the bound on the items of a request, and the pacing of refusals.
pub struct OpenInference {
    runtime: Runtime,
    max_items: usize,
    governor: Governor,
}

impl OpenInference {
    /// Answers by the models of `runtime`, at most `max_items` at a time.
    #[must_use]
    pub fn new(runtime: Runtime, max_items: usize) -> Self {
        Self { runtime, max_items, governor: Governor::new() }
    }

    /// Items of a request at most.
    #[must_use]
    pub fn max_items(&self) -> usize {
        self.max_items
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
        if inputs.len() > self.max_items {
            return Err(RequestError::ManyItems { items: inputs.len(), max: self.max_items });
        }
        let Parameters { timeout: allowed, priority, truncation, cache, prompt, vectors } = parameters;
        let timeout = arrival.time_left(allowed, Instant::now())?;
        let charge = match arrival.client.as_ref().map(|client| client.begin_answers(&inputs, Instant::now())) {
            None => None,
            Some(Ok(charge)) => charge,
            Some(Err(error)) => return Err(self.held_back(error, allowed, &arrival).await),
        };
        let refusal = if cache && model.is_cached() { None } else { model.refusal(timeout, priority) };
        let answers = if let Some(source) = refusal {
            Err(RequestError::Refused { source })
        } else {
            let group = RequestGroup { inputs, timeout, priority, truncation, cache, prompt, vectors };
            model.try_infer_list(group).await.map_err(RequestError::from)
        };
        if let Some(charge) = charge {
            charge.settle(answers.as_deref().unwrap_or_default(), Instant::now());
        }
        match answers {
            Ok(answers) => Ok(answers),
            Err(error) => Err(self.held_back(error, allowed, &arrival).await),
        }
    }

    async fn held_back(&self, error: RequestError, allowed: Option<Duration>, arrival: &Arrival) -> RequestError {
        // An error means that no time is left; `None` would mean that there is no bound.
        let left = |now| arrival.time_left(allowed, now).unwrap_or(Some(Duration::ZERO));
        self.governor.hold_back(error, left).await
    }
}
