//! The arrival of a request: its time, its client, and the time at which the client stops waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::error::RequestError;
use crate::trace_context::TraceContext;

/// Part of a client's time that is kept for the answer to travel back.
///
/// Our deadline thereby also fires before that of tonic's server, which would answer CANCELLED.
const MAX_RETURN_TIME: Duration = Duration::from_millis(5);

/// The time at which a request arrived, its client, and the time at which the client stops waiting.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The time at which the headers had come.
    pub at: Instant,
    /// The time at which the client stops waiting, less that for the answer's way back.
    pub deadline: Option<Instant>,
    /// The trace that the request belongs to, if its client said so.
    pub trace: Option<TraceContext>,
    /// The client, whose rates the answers count among; `None` if nothing is counted.
    pub client: Option<Arc<Client>>,
}

impl Arrival {
    /// An arrival at `at` of a request whose client waits for `timeout`.
    #[must_use]
    pub fn new(at: Instant, timeout: Option<Duration>) -> Self {
        // A time that an `Instant` cannot hold never ends.
        let left = |timeout: Duration| timeout.saturating_sub(MAX_RETURN_TIME.min(timeout / 10));
        let deadline = timeout.and_then(|timeout| at.checked_add(left(timeout)));
        Self { at, deadline, trace: None, client: None }
    }

    /// The same arrival, of a request with this header `traceparent`, if it has one.
    #[must_use]
    pub fn traced(self, traceparent: Option<&str>) -> Self {
        Self { trace: traceparent.and_then(TraceContext::parse), ..self }
    }

    /// Time left at `now`, bounded by the client's deadline and by the time from arrival that the request's parameters
    /// allow. `None`: no bound.
    ///
    /// # Errors
    /// [`RequestError::TooLate`] if no time is left.
    pub fn time_left(&self, allowed: Option<Duration>, now: Instant) -> Result<Option<Duration>, RequestError> {
        let allowed = allowed.and_then(|allowed| self.at.checked_add(allowed));
        let Some(deadline) = [self.deadline, allowed].into_iter().flatten().min() else {
            return Ok(None);
        };
        match deadline.checked_duration_since(now) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(RequestError::TooLate { late: now.saturating_duration_since(deadline) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_the_clients_time_and_the_parameter_counts_from_arrival() {
        let at = Instant::now();
        let ms = Duration::from_millis;
        let now = at + ms(30);
        let left = |client, allowed| Arrival::new(at, Some(client)).time_left(allowed, now).unwrap();
        assert_eq!(left(ms(1000), Some(ms(50))), Some(ms(20)));
        assert_eq!(left(ms(100), Some(ms(5000))), Some(ms(65)), "100 less 5 for the way back less 30 gone");
        assert_eq!(left(ms(100), Some(Duration::MAX)), Some(ms(65)));
        let unbounded = Arrival::new(at, None);
        assert_eq!(unbounded.time_left(None, now).unwrap(), None);
        assert_eq!(unbounded.time_left(Some(Duration::MAX), now).unwrap(), None);
        assert_eq!(Arrival::new(at, Some(Duration::MAX)).deadline, None);
    }

    #[test]
    fn a_request_whose_time_is_over_is_refused() {
        let at = Instant::now();
        let ms = Duration::from_millis;
        for (client, allowed) in [(ms(10), None), (ms(0), None), (ms(1000), Some(ms(30)))] {
            let refused = Arrival::new(at, Some(client)).time_left(allowed, at + ms(30));
            assert!(matches!(refused, Err(RequestError::TooLate { .. })), "{client:?}: {refused:?}");
        }
    }
}
