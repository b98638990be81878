//! The answers of one request, until its server has written them.

use std::ops::Deref;
use std::time::Instant;

use sconce::{Answer, Model};

use crate::arrival::Arrival;
use crate::outputs::{AnswerFact, facts};
use crate::traces::EndedRequest;

/// An item of a request that got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedItem {
    /// The item's place among those of the request.
    pub index: usize,
    /// The reason.
    pub message: String,
}

/// The answers of a request, in the order of its items, without those that failed. Keep them until the response is written: when they are dropped, the
/// time since they were given counts as that of the model's stage `serialise`, and the request's spans are recorded.
pub struct AnswerList {
    answers: Vec<Answer>,
    failed: Vec<FailedItem>,
    model: Model,
    arrival: Arrival,
    submitted: Instant,
    given: Instant,
}

impl AnswerList {
    pub(crate) fn new(
        answers: Vec<Answer>,
        failed: Vec<FailedItem>,
        model: Model,
        arrival: Arrival,
        submitted: Instant,
    ) -> Self {
        Self { answers, failed, model, arrival, submitted, given: Instant::now() }
    }

    /// The items that failed, in their order; none unless the request asked for the answers of the others.
    #[must_use]
    pub fn failed(&self) -> &[FailedItem] {
        &self.failed
    }

    /// The places of the answered items among those of the request.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        let mut failed = self.failed.iter().map(|item| item.index).peekable();
        (0..self.answers.len() + self.failed.len()).filter(move |index| failed.next_if_eq(index).is_none())
    }

    /// Parameters of the response, by name, which describe all its items, and those that failed.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, AnswerFact)> {
        let mut facts = facts(&self.answers);
        if !self.failed.is_empty() {
            let indices: Vec<String> = self.failed.iter().map(|item| item.index.to_string()).collect();
            let messages: Vec<String> =
                self.failed.iter().map(|item| format!("item {}: {}", item.index, item.message)).collect();
            facts.push(("failed_items", AnswerFact::Text(indices.join(","))));
            facts.push(("failures", AnswerFact::Text(messages.join("\n"))));
        }
        facts
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
        let Self { answers, model, arrival, submitted, given, .. } = self;
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
