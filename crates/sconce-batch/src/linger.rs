//! Lingering after a batch: an idle device waits a moment for callers that are about to come back.
//!
//! Clients in a closed loop return within moments of their answers. A batch of only the first to return is half as
//! large as it could be; waiting for all of them costs that moment. The number that returns is learned, so a device
//! does not wait for callers that come at random.

use std::time::{Duration, Instant};

use crate::saturate::{later, seconds};

/// The longest wait, as a share of the fixed cost of a batch.
const MAX_SHARE_OF_FIXED_COST: f64 = 0.2;
/// The shortest wait. Less is not worth a timer: systems wake a thread some 50 µs late.
const MIN_WINDOW: Duration = Duration::from_micros(200);
/// Share of the latest batch in the average.
const LEARNING_RATE: f64 = 0.1;

/// The learned share of callers that return within a window after their batch completed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Returns {
    /// Average number of arrivals within the window for each item of the completed batch, at most 1.
    per_item: f64,
    window: Option<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    end: Instant,
    batch_size: usize,
    arrivals: usize,
}

impl Returns {
    /// Starts the window after a batch; `fixed_cost` is the fixed part of a batch's cost.
    pub(crate) fn completed(&mut self, now: Instant, batch_size: usize, fixed_cost: Option<Duration>) {
        if let Some(Window { batch_size, arrivals, .. }) = self.window.take() {
            let returned = arrivals as f64 / batch_size as f64;
            self.per_item += (returned.min(1.0) - self.per_item) * LEARNING_RATE;
        }
        let length = seconds(fixed_cost.unwrap_or_default().as_secs_f64() * MAX_SHARE_OF_FIXED_COST);
        if length >= MIN_WINDOW && batch_size > 0 {
            self.window = Some(Window { end: later(now, length), batch_size, arrivals: 0 });
        }
    }

    /// Counts an admitted item.
    pub(crate) fn arrived(&mut self, now: Instant) {
        if let Some(window) = self.window.as_mut().filter(|window| now < window.end) {
            window.arrivals += 1;
        }
    }

    /// The instant until which to wait for returning callers; `None` if all are back, or none are expected.
    pub(crate) fn expected_until(&self, now: Instant) -> Option<Instant> {
        let Window { end, batch_size, arrivals } = self.window?;
        let expected = (self.per_item * batch_size as f64).round();
        (now < end && (arrivals as f64) < expected).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const FIXED_COST: Option<Duration> = Some(Duration::from_millis(5));

    /// The state after some batches of `size`, of which `returned` callers came back at once.
    fn learned(size: usize, returned: usize) -> (Returns, Instant) {
        let mut returns = Returns::default();
        let mut now = Instant::now();
        for _ in 0..40 {
            returns.completed(now, size, FIXED_COST);
            (0..returned).for_each(|_| returns.arrived(now + MS / 10));
            now += 10 * MS;
        }
        (returns, now)
    }

    #[test]
    fn callers_that_always_return_are_waited_for_until_the_last_is_back() {
        let (mut returns, now) = learned(8, 8);
        returns.completed(now, 8, FIXED_COST);
        for _ in 0..8 {
            assert_eq!(returns.expected_until(now), Some(now + MS), "a fifth of the fixed cost at most");
            returns.arrived(now);
        }
        assert_eq!(returns.expected_until(now), None);
    }

    #[test]
    fn as_many_are_expected_as_ran() {
        let (mut returns, now) = learned(8, 8);
        returns.completed(now, 2, FIXED_COST);
        returns.arrived(now);
        returns.arrived(now);
        assert_eq!(returns.expected_until(now), None);
    }

    #[test]
    fn callers_that_come_at_random_are_not_waited_for() {
        let (mut returns, now) = learned(1, 0);
        returns.completed(now, 1, FIXED_COST);
        assert_eq!(returns.expected_until(now), None);
    }

    #[test]
    fn the_wait_ends_with_its_window() {
        let (mut returns, now) = learned(8, 8);
        returns.completed(now, 8, FIXED_COST);
        assert_eq!(returns.expected_until(now + MS), None);
    }

    #[test]
    fn a_cheap_or_unknown_batch_is_not_worth_a_wait() {
        for fixed_cost in [None, Some(Duration::from_micros(900))] {
            let (mut returns, now) = learned(8, 8);
            returns.completed(now, 8, fixed_cost);
            assert_eq!(returns.expected_until(now), None);
        }
    }
}
