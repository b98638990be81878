//! A trace in memory, and other traces made of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::{RecordedRequest, TraceSettingError};

/// Requests in order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestTrace {
    origin: String,
    requests: Vec<RecordedRequest>,
}

impl RequestTrace {
    /// The longest trace: times beyond it are errors, so that no sum of times overflows.
    pub const MAX_LENGTH: Duration = Duration::from_hours(24 * 366);

    /// Makes a trace of requests in any order. `origin` says where they come from.
    #[must_use]
    pub fn new(origin: impl Into<String>, mut requests: Vec<RecordedRequest>) -> Self {
        requests.sort_by_key(|request| request.at);
        Self { origin: origin.into(), requests }
    }

    /// The origin of the requests, in words.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The requests, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> &[RecordedRequest] {
        &self.requests
    }

    /// Number of requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Returns true if there is no request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Time from the first arrival to the last.
    #[must_use]
    pub fn length(&self) -> Duration {
        match &self.requests[..] {
            [first, .., last] => last.at.saturating_sub(first.at),
            _ => Duration::ZERO,
        }
    }

    /// Requests per second, on average; 0 for fewer than two, infinite if all arrive at once.
    #[must_use]
    pub fn rate(&self) -> f64 {
        match self.requests.len() {
            0 | 1 => 0.0,
            requests => (requests - 1) as f64 / self.length().as_secs_f64(),
        }
    }

    /// Average weight of an item, over the requests whose weight is known; `None` if none is.
    #[must_use]
    pub fn mean_item_weight(&self) -> Option<f64> {
        let known = self.requests.iter().filter_map(|request| Some((request.weight?, request.items)));
        let (weight, items) =
            known.fold((0.0, 0.0), |(all, count), (weight, items)| (all + f64::from(weight), count + f64::from(items)));
        (items > 0.0).then(|| weight / items)
    }

    /// The names of the models that are asked, in their order.
    #[must_use]
    pub fn models(&self) -> BTreeSet<Arc<str>> {
        self.requests.iter().filter_map(|request| request.model.clone()).collect()
    }

    /// The requests to one model, those without a name included.
    #[must_use]
    pub fn of_model(&self, model: &str) -> Self {
        let asked = |request: &&RecordedRequest| request.model.as_deref().is_none_or(|name| name == model);
        Self { origin: self.origin.clone(), requests: self.requests.iter().filter(asked).cloned().collect() }
    }

    /// The same requests, arriving `factor` times as fast.
    ///
    /// # Errors
    /// [`TraceSettingError`] unless the factor is above 0 and the trace stays within [`MAX_LENGTH`](Self::MAX_LENGTH).
    pub fn scaled(&self, factor: f64) -> Result<Self, TraceSettingError> {
        let wrong = |allowed: &str| TraceSettingError::new("factor", &factor, allowed);
        if !factor.is_finite() || factor <= 0.0 {
            return Err(wrong("a number above 0, for instance 2 for twice the rate"));
        }
        let scale = |at: Duration| Duration::try_from_secs_f64(at.as_secs_f64() / factor).ok();
        let scale = |at| scale(at).filter(|at| *at <= Self::MAX_LENGTH);
        let scaled =
            self.requests.iter().map(|request| Some(RecordedRequest { at: scale(request.at)?, ..request.clone() }));
        let requests =
            scaled.collect::<Option<_>>().ok_or_else(|| wrong("larger: the trace would be longer than a year"))?;
        Ok(Self { origin: format!("{}, {factor} times as fast", self.origin), requests })
    }

    /// The same requests, arriving at `rate` a second on average.
    ///
    /// # Errors
    /// [`TraceSettingError`] unless the rate is above 0, and the trace has a rate that can be changed.
    pub fn with_rate(&self, rate: f64) -> Result<Self, TraceSettingError> {
        let wrong = |allowed: &str| TraceSettingError::new("rate", &rate, allowed);
        if !rate.is_finite() || rate <= 0.0 {
            return Err(wrong("a number of requests per second above 0"));
        }
        let own = self.rate();
        if own <= 0.0 || !own.is_finite() {
            return Err(wrong("left out: all requests of the trace arrive at once"));
        }
        let scaled = self.scaled(rate / own).map_err(|error| wrong(&error.allowed))?;
        Ok(Self { origin: format!("{}, at {rate} requests/s", self.origin), ..scaled })
    }

    /// The requests that arrive in `length` from `from` on; their times count from there.
    #[must_use]
    pub fn window(&self, from: Duration, length: Duration) -> Self {
        let first = self.requests.partition_point(|request| request.at < from);
        let end = from.saturating_add(length);
        let behind = self.requests.partition_point(|request| request.at < end).max(first);
        let moved =
            |request: &RecordedRequest| RecordedRequest { at: request.at.saturating_sub(from), ..request.clone() };
        Self { origin: self.origin.clone(), requests: self.requests[first..behind].iter().map(moved).collect() }
    }

    /// The window of this length in which the most requests arrive; the whole trace if it is no longer than that.
    #[must_use]
    pub fn busiest(&self, length: Duration) -> Self {
        let (mut behind, mut best) = (0, (0, 0));
        for (first, request) in self.requests.iter().enumerate() {
            let end = request.at.saturating_add(length);
            while self.requests.get(behind).is_some_and(|request| request.at < end) {
                behind += 1;
            }
            if behind - first > best.0 {
                best = (behind - first, first);
            }
        }
        let from = self.requests.get(best.1).map_or(Duration::ZERO, |request| request.at);
        self.window(from, length)
    }

    /// Every `replicas`-th request: the load of one of so many replicas behind a balancer that takes turns.
    ///
    /// # Errors
    /// [`TraceSettingError`] if `replicas` is 0.
    pub fn share(&self, replicas: usize) -> Result<Self, TraceSettingError> {
        if replicas == 0 {
            return Err(TraceSettingError::new("replicas", &replicas, "at least 1"));
        }
        let requests = self.requests.iter().step_by(replicas).cloned().collect();
        let origin =
            if replicas == 1 { self.origin.clone() } else { format!("{}, one of {replicas} replicas", self.origin) };
        Ok(Self { origin, requests })
    }
}
