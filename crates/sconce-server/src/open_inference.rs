//! The calls of the Open Inference Protocol, answered by a runtime; each wire format reads and writes the messages.

use std::time::{Duration, Instant};

use sconce::models::excerpt;
use sconce::{
    Answer, InferError, Input, Model, ModelControl, ModelState, RepositoryEntry, RequestGroup, Runtime, Task,
};

use crate::answer_list::{AnswerList, FailedItem, microseconds};
use crate::arrival::Arrival;
use crate::bounds::ServerBounds;
use crate::error::{RequestError, RequestFault};
use crate::pacing::Governor;
use crate::parameters::Parameters;
use crate::recording::Recording;
use crate::shared_memory::SharedMemory;
use crate::traces::EndedRequest;

/// The models of a runtime, the bound on the items of a request, the pacing of refusals, and shared memory.
pub struct OpenInference {
    runtime: Runtime,
    max_items: usize,
    governor: Governor,
    shared_memory: SharedMemory,
}

impl OpenInference {
    /// Answers by the models of `runtime` within the limits of `bounds`, with tensors in its shared memory where it is allowed.
    #[must_use]
    pub fn new(runtime: Runtime, bounds: &ServerBounds) -> Self {
        let (max_items, shared_memory) = (bounds.limits().max_items, bounds.shared_memory().clone());
        Self { runtime, max_items, governor: Governor::new(), shared_memory }
    }

    /// Elements of a list at most.
    #[must_use]
    pub fn max_list(&self) -> usize {
        self.max_items
    }

    /// Items of one request to a model at most, whose answers are in memory together: as many as the limit allows, or, where an
    /// answer is large, as the queue holds.
    #[must_use]
    pub fn max_items(&self, model: &Model) -> usize {
        match model.signature().task {
            Task::Embedding { .. } | Task::Classification { .. } | Task::Score => self.max_items,
            _ => model.batcher_config().max_queue_size.min(self.max_items),
        }
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

    /// The model of this name; an empty version means the highest.
    ///
    /// # Errors
    /// [`RequestError`] if there is no such model, or no such version of it.
    pub fn model(&self, name: &str, version: &str) -> Result<Model, RequestError> {
        if version.is_empty() {
            return Ok(self.runtime.model(name)?);
        }
        let mut versions = self.runtime.model_versions(name)?;
        let model = version.parse().ok().and_then(|number: u64| versions.remove(&number));
        model.ok_or_else(|| {
            let known = versions.into_keys().collect();
            RequestError::UnknownVersion { model: name.to_owned(), version: version.to_owned(), known }
        })
    }

    /// The versions of the model of this name that are served.
    ///
    /// # Errors
    /// [`RequestError`] if there is no such model.
    pub fn versions(&self, name: &str) -> Result<Vec<Model>, RequestError> {
        Ok(self.runtime.model_versions(name)?.into_values().collect())
    }

    /// The models of the repository, or those that are ready.
    ///
    /// # Errors
    /// [`RequestError`] if the models cannot be listed.
    pub async fn repository_index(&self, ready: bool) -> Result<Vec<RepositoryEntry>, RequestError> {
        let mut index =
            self.runtime.repository_index().await.map_err(|error| RequestError::Repository(error.into()))?;
        if self.runtime.is_draining() {
            let leaving = ModelState::Unavailable { reason: "the server is leaving".to_owned() };
            for entry in &mut index {
                entry.state = leaving.clone();
            }
        }
        Ok(index.into_iter().filter(|entry| !ready || entry.state == ModelState::Ready).collect())
    }

    /// Loads a model anew, by the word of a client. `parameters` are the names of the call's parameters.
    ///
    /// # Errors
    /// [`RequestError`] if clients may not, a parameter is not known, or the model does not load.
    pub async fn load(&self, name: &str, parameters: impl IntoIterator<Item = &str>) -> Result<(), RequestError> {
        self.may_control(parameters, &[])?;
        self.runtime.load(name).await.map_err(RequestError::Repository)?;
        Ok(())
    }

    /// Unloads a model, by the word of a client. `parameters` are the names of the call's parameters.
    ///
    /// # Errors
    /// [`RequestError`] if clients may not, a parameter is not known, or no such model is served.
    pub async fn unload(&self, name: &str, parameters: impl IntoIterator<Item = &str>) -> Result<(), RequestError> {
        // No model depends on another.
        self.may_control(parameters, &["unload_dependents"])?;
        self.runtime.unload(name).await.map_err(RequestError::Repository)
    }

    fn may_control<'a>(
        &self,
        parameters: impl IntoIterator<Item = &'a str>,
        known: &[&str],
    ) -> Result<(), RequestError> {
        if self.runtime.model_control() != ModelControl::Explicit {
            return Err(RequestError::FixedModels);
        }
        match parameters.into_iter().find(|name| !known.contains(name)) {
            Some(name) => Err(RequestError::LoadParameter { name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// Answers the items of a request to `model`, or fails as a whole, unless it asks for the answers of the items that do not
    /// fail; a list that is longer than its queue goes in parts. A
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
        if inputs.len() > self.max_items {
            return Err(RequestError::TooManyItems { items: inputs.len(), max: self.max_items });
        }
        parameters.check(model)?;
        let recording = Recording::begin(model, &inputs, &parameters, &arrival);
        let Parameters { timeout: allowed, priority, truncation, cache, prompt, vectors, partial, precision } =
            parameters;
        let timeout = arrival.time_left(allowed, submitted)?;
        let charge = match arrival.client.as_ref().map(|client| client.begin_answers(&inputs, submitted)) {
            None => None,
            Some(Ok(charge)) => charge,
            Some(Err(error)) => return Err(Box::pin(self.held_back(error, model, allowed, &arrival)).await),
        };
        let refusal = if cache && model.is_cached() { None } else { model.refusal(timeout, priority, precision) };
        let answers = if let Some(source) = refusal {
            Err(RequestError::Refused { source })
        } else {
            let group = RequestGroup { inputs, timeout, priority, truncation, cache, prompt, vectors, precision };
            if partial {
                what_succeeds(Box::pin(model.infer_each(group)).await)
            } else {
                let answers = model.try_infer_list(group).await;
                answers.map(|answers| (answers, Vec::new())).map_err(RequestError::from)
            }
        };
        if let Some(charge) = charge {
            let answered = answers.as_ref().map(|(answers, _)| answers.as_slice());
            charge.settle(answered.unwrap_or_default(), Instant::now());
        }
        if let (Some(mut recording), Ok((answers, _))) = (recording, &answers) {
            recording.answered(answers);
        }
        match answers {
            Ok((answers, failed)) => Ok(AnswerList::new(answers, failed, model.clone(), arrival, submitted)),
            Err(error) => Err(Box::pin(self.held_back(error, model, allowed, &arrival)).await),
        }
    }

    /// The error, held back where there are many, and told of.
    async fn held_back(
        &self,
        error: RequestError,
        model: &Model,
        allowed: Option<Duration>,
        arrival: &Arrival,
    ) -> RequestError {
        let submitted = Instant::now();
        // An error means that no time is left; `None` would mean that there is no bound.
        let left = |now| arrival.time_left(allowed, now).unwrap_or(Some(Duration::ZERO));
        let error = self.governor.hold_back(error, left).await;
        told(&error, model, arrival, submitted);
        error
    }
}

/// The answers, and the items that failed; the error of the first if all did.
fn what_succeeds(outcomes: Vec<Result<Answer, InferError>>) -> Result<(Vec<Answer>, Vec<FailedItem>), RequestError> {
    let (mut answers, mut failed, mut first) = (Vec::with_capacity(outcomes.len()), Vec::new(), None);
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(answer) => answers.push(answer),
            Err(source) => {
                failed.push(FailedItem { index, message: excerpt(&source).to_string() });
                first.get_or_insert(RequestError::Item { index, source });
            }
        }
    }
    match first.filter(|_| answers.is_empty()) {
        Some(error) => Err(error),
        None => Ok((answers, failed)),
    }
}

/// Tells of a request that failed: in its trace, and in the log, where an error that is not the client's counts as one.
fn told(error: &RequestError, model: &Model, arrival: &Arrival, submitted: Instant) {
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
