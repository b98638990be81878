//! Refusals as a client sees them.

use std::time::Duration;

use tonic::{Code, Status};

/// A request that the server refused for lack of time or room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The server's reason.
    pub reason: Reason,
    /// The server's estimate of the time until an answer, where the message gives it.
    pub estimate: Option<Duration>,
    /// The time after which the client is to come back (`grpc-retry-pushback-ms`), where the server gives it.
    pub pushback: Option<Duration>,
}

/// The reason of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An answer would come after the deadline.
    Overloaded,
    /// The queue is full.
    Full,
    /// The deadline passed, or could no longer be met, after the request was admitted.
    TooLate,
}

impl Refusal {
    /// Reads the status of a refusal; `None` for any other error.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let estimate = estimate(status.message());
        let reason = match status.code() {
            Code::ResourceExhausted if estimate.is_some() => Reason::Overloaded,
            Code::ResourceExhausted => Reason::Full,
            Code::DeadlineExceeded => Reason::TooLate,
            _ => return None,
        };
        let pushback =
            status.metadata().get("grpc-retry-pushback-ms").and_then(|value| value.to_str().ok()?.parse().ok());
        Some(Self { reason, estimate, pushback: pushback.map(Duration::from_millis) })
    }
}

/// The duration in "… an answer would take 25.036s, …".
fn estimate(message: &str) -> Option<Duration> {
    let (_, rest) = message.split_once("would take ")?;
    duration(rest.split([',', ' ']).next()?)
}

/// A duration as `{:?}` prints it.
fn duration(text: &str) -> Option<Duration> {
    // The longer units first: each of them ends with "s".
    let (number, unit) = [("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str =
        "item 0: the queue is overloaded: an answer would take 25.036s, more than the deadline allows";

    #[test]
    fn an_overloaded_servers_estimate_and_pushback_are_read() {
        let mut status = Status::resource_exhausted(MESSAGE);
        status.metadata_mut().insert("grpc-retry-pushback-ms", 24_942.into());
        let ms = Duration::from_millis;
        let refusal = Refusal { reason: Reason::Overloaded, estimate: Some(ms(25_036)), pushback: Some(ms(24_942)) };
        assert_eq!(Refusal::of(&status), Some(refusal));
    }

    #[test]
    fn each_reason_is_told_from_the_code_and_the_message() {
        let reason = |status: Status| Refusal::of(&status).map(|refusal| refusal.reason);
        assert_eq!(reason(Status::resource_exhausted("the queue is full: 8 items wait")), Some(Reason::Full));
        assert_eq!(reason(Status::deadline_exceeded("the deadline passed")), Some(Reason::TooLate));
        assert_eq!(reason(Status::internal(MESSAGE)), None);
    }

    #[test]
    fn durations_of_every_unit_are_read() {
        for time in
            [Duration::from_nanos(7), Duration::from_micros(1500), Duration::from_millis(24), Duration::from_secs(3)]
        {
            let read = duration(&format!("{time:?}")).expect("a duration");
            assert!(read.abs_diff(time) <= Duration::from_nanos(1), "{read:?} for {time:?}");
        }
        assert_eq!(duration("soon"), None);
    }
}
