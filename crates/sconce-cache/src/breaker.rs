//! The circuit breaker: decides whether an operation is tried. Pure: `now` is an argument.

use std::time::{Duration, Instant};

use crate::config::BreakerConfig;

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BreakerState {
    /// The tier is used.
    #[default]
    Closed,
    /// The tier failed too often and is not used.
    Open,
    /// One operation tries whether the tier works again.
    HalfOpen,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    config: BreakerConfig,
    state: State,
    /// Time for which it stays open the next time it opens.
    cool_down: Duration,
    opened: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// Permission to try one operation. Must come back to [`Breaker::settle`] with the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Ordinary,
    /// For the operation whose outcome closes or opens the breaker.
    Trial,
}

/// The outcome of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good,
    Failed,
    /// The caller went away, so the operation says nothing about the tier.
    Unknown,
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig) -> Self {
        Self { cool_down: config.cool_down, config, state: State::Closed { failures: 0 }, opened: 0 }
    }

    /// Asks for permission to try an operation.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<Pass> {
        match self.state {
            State::Closed { .. } => Some(Pass::Ordinary),
            State::Open { until } if until <= now => {
                self.state = State::HalfOpen;
                Some(Pass::Trial)
            }
            State::Open { .. } | State::HalfOpen => None,
        }
    }

    /// Learns from the outcome of an operation. Operations that were admitted before the breaker opened decide nothing.
    pub(crate) fn settle(&mut self, pass: Pass, outcome: Outcome, now: Instant) {
        match (self.state, pass, outcome) {
            (State::Closed { .. }, _, Outcome::Good) => self.state = State::Closed { failures: 0 },
            (State::Closed { failures }, _, Outcome::Failed) => {
                let failures = failures + 1;
                self.state = State::Closed { failures };
                if failures >= self.config.max_failures {
                    self.open(now);
                }
            }
            (State::HalfOpen, Pass::Trial, Outcome::Good) => {
                self.state = State::Closed { failures: 0 };
                self.cool_down = self.config.cool_down;
            }
            (State::HalfOpen, Pass::Trial, Outcome::Failed) => self.open(now),
            // Nothing was learned: the next operation is the trial.
            (State::HalfOpen, Pass::Trial, Outcome::Unknown) => self.state = State::Open { until: now },
            _ => {}
        }
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open { until: now + self.cool_down };
        self.cool_down = (self.cool_down * 2).min(self.config.max_cool_down);
        self.opened += 1;
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// Number of times that it has opened.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> (Breaker, Instant) {
        let config = BreakerConfig { max_failures: 3, cool_down: SECOND, max_cool_down: 4 * SECOND };
        (Breaker::new(config), Instant::now())
    }

    fn fail(breaker: &mut Breaker, now: Instant) {
        let pass = breaker.admit(now).expect("it lets through");
        breaker.settle(pass, Outcome::Failed, now);
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let (mut breaker, now) = breaker();
        fail(&mut breaker, now);
        fail(&mut breaker, now);
        let pass = breaker.admit(now).unwrap();
        breaker.settle(pass, Outcome::Good, now);
        fail(&mut breaker, now);
        fail(&mut breaker, now);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&mut breaker, now);
        assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Open, 1));
        assert_eq!(breaker.admit(now + SECOND / 2), None);
    }

    #[test]
    fn after_its_cool_down_one_trial_decides_and_the_others_wait() {
        let (mut breaker, now) = breaker();
        (0..3).for_each(|_| fail(&mut breaker, now));
        let now = now + SECOND;
        assert_eq!(breaker.admit(now), Some(Pass::Trial));
        assert_eq!((breaker.admit(now), breaker.state()), (None, BreakerState::HalfOpen));
        breaker.settle(Pass::Ordinary, Outcome::Failed, now);
        breaker.settle(Pass::Ordinary, Outcome::Good, now);
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "stragglers decide nothing");
        breaker.settle(Pass::Trial, Outcome::Good, now);
        assert_eq!((breaker.state(), breaker.admit(now)), (BreakerState::Closed, Some(Pass::Ordinary)));
    }

    #[test]
    fn each_failed_trial_doubles_the_cool_down_up_to_its_bound_and_a_good_one_resets_it() {
        let (mut breaker, mut now) = breaker();
        (0..3).for_each(|_| fail(&mut breaker, now));
        for cool_down in [1, 2, 4, 4] {
            assert_eq!(breaker.admit(now + SECOND * cool_down / 2), None);
            now += SECOND * cool_down;
            fail(&mut breaker, now);
        }
        now += 4 * SECOND;
        let pass = breaker.admit(now).unwrap();
        breaker.settle(pass, Outcome::Good, now);
        (0..3).for_each(|_| fail(&mut breaker, now));
        assert_eq!(breaker.admit(now + SECOND), Some(Pass::Trial));
    }

    #[test]
    fn a_trial_whose_caller_went_away_is_followed_by_another() {
        let (mut breaker, now) = breaker();
        (0..3).for_each(|_| fail(&mut breaker, now));
        let now = now + SECOND;
        assert_eq!(breaker.admit(now), Some(Pass::Trial));
        breaker.settle(Pass::Trial, Outcome::Unknown, now);
        assert_eq!(breaker.admit(now), Some(Pass::Trial));
    }
}
