//! The kinds of load: the arrivals of requests, and the callers' reactions to refusals.

use std::time::Duration;

use clap::ValueEnum;
use rand::RngExt as _;
use sconce_benches::wire::refusal::Refusal;

/// A load that exceeds the server's capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Storm {
    /// Callers in a closed loop retry at once when they are refused
    AtOnce,
    /// Callers in a closed loop retry when the refusal tells them to (`grpc-retry-pushback-ms`), else as `backoff` does
    AsTold,
    /// Callers in a closed loop back off exponentially, from 10 ms to 1 s with jitter (gRFC A6)
    Backoff,
    /// Requests come at random, 1.2 times as many as the server can answer, and none is tried again
    #[value(name = "open-120")]
    Open120,
    /// Requests come at random, twice as many as the server can answer, and none is tried again
    #[value(name = "open-200")]
    Open200,
}

/// The arrivals of requests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// Each caller sends its next request when the last is answered, or some time after it is refused.
    Closed { callers: usize, retry: Retry },
    /// Requests come at random, whether or not earlier ones are answered.
    Open { per_second: f64 },
}

/// Time at which a refused caller tries again.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Retry {
    AtOnce,
    AsTold,
    Backoff,
}

impl Storm {
    /// The load of a storm on a server that answers `capacity` requests a second.
    pub(crate) fn load(self, callers: usize, capacity: f64) -> Load {
        match self {
            Self::AtOnce => Load::Closed { callers, retry: Retry::AtOnce },
            Self::AsTold => Load::Closed { callers, retry: Retry::AsTold },
            Self::Backoff => Load::Closed { callers, retry: Retry::Backoff },
            Self::Open120 => Load::Open { per_second: 1.2 * capacity },
            Self::Open200 => Load::Open { per_second: 2.0 * capacity },
        }
    }
}

impl Load {
    /// A load that fills batches without a refusal.
    pub(crate) fn capacity(callers: usize) -> Self {
        Self::Closed { callers, retry: Retry::AtOnce }
    }
}

impl Retry {
    /// The pause after the last of `failures` refusals in a row.
    pub(crate) fn pause(self, refusal: Option<Refusal>, failures: u32) -> Duration {
        match self {
            Self::AtOnce => Duration::ZERO,
            Self::AsTold => refusal.and_then(|refusal| refusal.pushback).unwrap_or_else(|| backoff(failures)),
            Self::Backoff => backoff(failures),
        }
    }
}

/// A random time below a bound that doubles with each failure (gRFC A6).
fn backoff(failures: u32) -> Duration {
    const INITIAL: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_secs(1);
    let longest = INITIAL.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(MAX);
    longest.mul_f64(rand::rng().random_range(0.0..1.0))
}
