//! A policy that knows more than any server can: the cost of batches, and the number of clients.

use std::collections::VecDeque;
use std::time::Instant;

use crate::MAX_BATCH_SIZE;
use crate::policy::{Decision, Policy};
use crate::world::{Load, Request, Scenario};

/// Closed load: runs a model's batch once all its clients are back. Open load: of all models' batches that can be answered
/// in time, runs the one with the most answers for its cost; drops requests that can no longer be answered.
pub(crate) struct Ideal {
    scenario: Scenario,
    waiting: Vec<VecDeque<Request>>,
    offered: usize,
}

/// The requests of one model from `first` on, `len` of them.
#[derive(Debug, Clone, Copy)]
struct CandidateBatch {
    model: usize,
    first: usize,
    len: usize,
}

impl Ideal {
    pub(crate) fn new(scenario: Scenario) -> Self {
        Self { scenario, waiting: vec![VecDeque::new(); scenario.models], offered: 0 }
    }

    /// Number of clients of a model; `None` if they do not come back.
    fn clients(&self, model: usize) -> Option<usize> {
        let Load::Closed { clients } = self.scenario.load else { return None };
        // No client comes back after the last request.
        (self.offered < self.scenario.requests)
            .then_some((clients + self.scenario.models - 1 - model) / self.scenario.models)
    }

    /// The best batch of one model: without its oldest requests a batch may be longer.
    fn best_of(&self, model: usize, now: Instant) -> Option<CandidateBatch> {
        let waiting = &self.waiting[model];
        let longest = self.scenario.cost.items_within(self.scenario.slo / 2).min(MAX_BATCH_SIZE);
        let batch_from = |first: usize| {
            let fits = waiting[first].deadline.map_or(usize::MAX, |deadline| {
                self.scenario.cost.items_within(deadline.saturating_duration_since(now))
            });
            CandidateBatch { model, first, len: (waiting.len() - first).min(longest).min(fits) }
        };
        (0..waiting.len())
            .map(batch_from)
            .filter(|batch| batch.len > 0)
            .max_by_key(|batch| (batch.len, usize::MAX - batch.first))
    }
}

impl Policy for Ideal {
    fn offer(&mut self, _: Instant, request: Request) -> bool {
        self.waiting[request.model].push_back(request);
        self.offered += 1;
        true
    }

    fn decide(&mut self, now: Instant) -> Decision {
        let cost = self.scenario.cost;
        let mut late = Vec::new();
        for waiting in &mut self.waiting {
            while let Some(request) =
                waiting.pop_front_if(|request| request.deadline.is_some_and(|end| now + cost.of(1) > end))
            {
                late.push(request.item);
            }
        }
        if !late.is_empty() {
            return Decision::Drop(late);
        }
        let all_are_back = |model: &usize| {
            let waiting = self.waiting[*model].len();
            self.clients(*model).is_none_or(|clients| waiting >= clients.min(MAX_BATCH_SIZE))
        };
        let rate = |batch: &CandidateBatch| batch.len as f64 / cost.of(batch.len).as_secs_f64();
        let best = (0..self.waiting.len())
            .filter(all_are_back)
            .filter_map(|model| self.best_of(model, now))
            .max_by(|a, b| rate(a).total_cmp(&rate(b)));
        let Some(CandidateBatch { model, first, len }) = best else { return Decision::Wait };
        // Requests left out go on waiting, as long as they can be answered.
        Decision::Run {
            model,
            items: self.waiting[model].drain(first..first + len).map(|request| request.item).collect(),
        }
    }
}
