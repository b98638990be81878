//! The calls of the Open Inference Protocol, answered by a runtime; each wire format reads and writes the messages.

use std::time::{Duration, Instant};

use sconce::{Input, Model, RequestGroup, Runtime};

use crate::answer_list::{AnswerList, microseconds};
use crate::arrival::Arrival;
use crate::error::{RequestError, RequestFault};
use crate::metadata::MODEL_VERSION;
use crate::pacing::Governor;
use crate::parameters::Parameters;
use crate::traces::EndedRequest;

/// The models of a runtime, and the pacing of refusals.
pub struct OpenInference {
    runtime: Runtime,
    governor: Governor,
}

impl OpenInference {
    /// AnswerList by the models of `runtime`.
    #[must_use]
    pub fn new(runtime: Runtime) -> Self {
        Self { runtime, governor: Governor::new() }
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

    /// AnswerList the items of a request to `model`, or fails as a whole; a list that is longer than its queue goes in parts. A
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
    ) -> Result<AnswerList, RequestError> {
        let submitted = Instant::now();
        let Parameters { timeout: allowed, priority, truncation, cache, prompt, vectors } = parameters;
        let timeout = arrival.time_left(allowed, submitted)?;
        let refusal = if cache && model.is_cached() { None } else { model.refusal(timeout, priority) };
        let answers = if let Some(source) = refusal {
            Err(RequestError::Refused { source })
        } else {
            let group = RequestGroup { inputs, timeout, priority, truncation, cache, prompt, vectors };
            model.try_infer_list(group).await.map_err(RequestError::from)
        };
        match answers {
            Ok(answers) => Ok(AnswerList::new(answers, model.clone(), arrival, submitted)),
            Err(error) => {
                // An error means that no time is left; `None` would mean that there is no bound.
                let left = |now| arrival.time_left(allowed, now).unwrap_or(Some(Duration::ZERO));
                let error = self.governor.hold_back(error, left).await;
                told(&error, model, arrival, submitted);
                Err(error)
            }
        }
    }
}

/// Tells of a request that failed: in its trace, and in the log, where an error that is not the client's counts as one.
fn told(error: &RequestError, model: &Model, arrival: Arrival, submitted: Instant) {
    let message = error.message();
    EndedRequest { model, arrival, submitted, outcome: Err(&message) }.record();
    let model = model.name();
    let trace_id = arrival.trace.map(tracing::field::display);
    if error.fault() == RequestFault::Internal {
        tracing::error!(model, trace_id, "{message}");
    } else {
        tracing::debug!(model, took_us = microseconds(arrival.at), trace_id, "refused: {message}");
    }
}
