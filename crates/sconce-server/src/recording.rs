//! A hook for recording the requests of servers: when each arrived, how large it was, and its inputs if they are wanted.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sconce::{Answer, Input, Model, Priority};

use crate::arrival::Arrival;
use crate::parameters::Parameters;

static RECORDER: OnceLock<Box<dyn RequestRecorder>> = OnceLock::new();

/// Takes the requests of all servers of this process.
pub trait RequestRecorder: Send + Sync {
    /// Returns true if the inputs are wanted: they are copied before each request.
    fn wants_inputs(&self) -> bool;

    /// Takes a request that has ended. Called before the answer is written, so it must not block.
    fn record(&self, request: ServedRequest);
}

/// A request that a server took, whatever came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedRequest {
    /// The time at which its headers had come.
    pub arrived: Instant,
    /// The model that was asked.
    pub model: String,
    /// Number of items.
    pub items: usize,
    /// Tokens of all items, or their number; `None` unless all were answered.
    pub weight: Option<usize>,
    /// Its priority.
    pub priority: Priority,
    /// The time from its arrival for which its client waits, less that for the answer's way back.
    pub deadline: Option<Duration>,
    /// The inputs, if they are wanted.
    pub inputs: Vec<Input>,
}

/// Hands each request that a server of this process takes to `recorder`. The first call counts. Requests that ask for
/// something impossible are not recorded; those that are refused for want of room or time are.
pub fn record_requests(recorder: Box<dyn RequestRecorder>) {
    // An error means that there is a recorder already.
    let _ = RECORDER.set(recorder);
}

/// A request that is being answered. It is recorded when this is dropped, also if its client goes away.
pub(crate) struct Recording {
    recorder: &'static dyn RequestRecorder,
    /// Taken when it is dropped.
    request: Option<ServedRequest>,
}

impl Recording {
    /// Begins to record, if there is a recorder: else it costs one look at a flag.
    pub(crate) fn begin(
        model: &Model,
        inputs: &[Input],
        parameters: &Parameters,
        arrival: &Arrival,
    ) -> Option<Box<Self>> {
        let recorder = &**RECORDER.get()?;
        let request = ServedRequest {
            arrived: arrival.at,
            model: model.name().to_owned(),
            items: inputs.len(),
            weight: None,
            priority: parameters.priority,
            // An error means that no time is given.
            deadline: arrival.time_left(parameters.timeout, arrival.at).unwrap_or_default(),
            inputs: if recorder.wants_inputs() { inputs.to_vec() } else { Vec::new() },
        };
        // On the heap: else every request would carry room for it.
        Some(Box::new(Self { recorder, request: Some(request) }))
    }

    /// Sets the weight of a request by its answers, unless some items were not answered.
    pub(crate) fn answered(&mut self, answers: &[Answer]) {
        if let Some(request) = self.request.as_mut().filter(|request| request.items == answers.len()) {
            request.weight = Some(answers.iter().map(|answer| answer.tokens.unwrap_or(1)).sum());
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.recorder.record(request);
        }
    }
}
