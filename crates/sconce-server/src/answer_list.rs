//! The answers of one request, until its server has written them.

use std::ops::Deref;
use std::time::Instant;

use sconce::{Answer, Model};

use crate::arrival::Arrival;
use crate::traces::EndedRequest;

/// The answers of a request, in the order of its items. Keep them until the response is written: when they are dropped, the
/// time since they were given counts as that of the model's stage `serialise`, and the request's spans are recorded.
pub struct AnswerList {
    answers: Vec<Answer>,
    model: Model,
    arrival: Arrival,
    submitted: Instant,
    given: Instant,
}

impl AnswerList {
    pub(crate) fn new(answers: Vec<Answer>, model: Model, arrival: Arrival, submitted: Instant) -> Self {
        Self { answers, model, arrival, submitted, given: Instant::now() }
    }
}

impl Deref for AnswerList {
    type Target = [Answer];

    fn deref(&self) -> &[Answer] {
        &self.answers
    }
}

impl Drop for AnswerList {
    fn drop(&mut self) {
        let Self { answers, model, arrival, submitted, given } = self;
        model.record_serialise(given.elapsed());
        EndedRequest { model, arrival, submitted: *submitted, outcome: Ok((answers, *given)) }.record();
        tracing::debug!(
            model = model.name(),
            items = answers.len(),
            took_us = microseconds(arrival.at),
            trace_id = arrival.trace.map(tracing::field::display),
            "answered"
        );
    }
}

/// Time since `at` in microseconds, as logs show it.
pub(crate) fn microseconds(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX)
}
