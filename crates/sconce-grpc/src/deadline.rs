//! Deadlines of requests: the `grpc-timeout` header, read on arrival.

use std::time::{Duration, Instant};

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

use crate::error::RequestError;

/// Part of a client's time that is kept for the answer to travel back.
///
/// Our deadline thereby also fires before that of tonic's server, which would answer CANCELLED.
const MAX_RETURN_TIME: Duration = Duration::from_millis(5);

/// The time at which a request arrived, and the time at which its client stops waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) deadline: Option<Instant>,
}

impl Arrival {
    /// An interceptor that notes the arrival before the message is read, since the client's clock already runs.
    pub(crate) fn stamp(mut request: Request<()>) -> Result<Request<()>, Status> {
        let arrival = Self::new(Instant::now(), request.metadata())?;
        request.extensions_mut().insert(arrival);
        Ok(request)
    }

    /// The arrival that [`stamp`](Self::stamp) noted; now, for a request that did not pass it.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, RequestError> {
        match request.extensions().get::<Self>() {
            Some(arrival) => Ok(*arrival),
            None => Self::new(Instant::now(), request.metadata()),
        }
    }

    fn new(at: Instant, metadata: &MetadataMap) -> Result<Self, RequestError> {
        let Some(header) = metadata.get("grpc-timeout") else {
            return Ok(Self { at, deadline: None });
        };
        let timeout =
            header.to_str().ok().and_then(parse).ok_or_else(|| RequestError::WrongTimeout { got: shown(header) })?;
        let deadline = at + timeout.saturating_sub(MAX_RETURN_TIME.min(timeout / 10));
        Ok(Self { at, deadline: Some(deadline) })
    }

    /// Time left at `now`, bounded by the header and by the time from arrival that the request's parameters allow.
    /// `None`: no bound.
    ///
    /// # Errors
    /// [`RequestError::TooLate`] if no time is left.
    pub(crate) fn time_left(&self, allowed: Option<Duration>, now: Instant) -> Result<Option<Duration>, RequestError> {
        // A time that an `Instant` cannot hold never ends.
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

/// Parses `Timeout → TimeoutValue TimeoutUnit` of the gRPC over HTTP/2 specification.
fn parse(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

fn shown(header: &MetadataValue<tonic::metadata::Ascii>) -> String {
    String::from_utf8_lossy(header.as_encoded_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(at: Instant, header: &str) -> Result<Arrival, RequestError> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", header.parse().unwrap());
        Arrival::new(at, &metadata)
    }

    #[test]
    fn each_unit_of_the_header_is_read() {
        let table = [
            ("2H", Duration::from_hours(2)),
            ("3M", Duration::from_mins(3)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
        ];
        for (header, timeout) in table {
            assert_eq!(parse(header), Some(timeout), "{header}");
        }
    }

    #[test]
    fn a_malformed_header_is_refused_with_its_value() {
        for header in ["", "S", "5", "5s", "123456789m", "-1S", "1.5S", "+5S", "5 S"] {
            let error = arrival(Instant::now(), header).unwrap_err().to_string();
            assert!(error.contains(&format!("is '{header}'")), "{error}");
        }
    }

    #[test]
    fn the_smaller_of_the_header_and_the_parameter_counts_from_arrival() {
        let at = Instant::now();
        let now = at + Duration::from_millis(30);
        let ms = Duration::from_millis;
        let left = |header: &str, allowed| arrival(at, header).unwrap().time_left(allowed, now).unwrap();
        assert_eq!(left("1000m", Some(ms(50))), Some(ms(20)));
        assert_eq!(left("100m", Some(ms(5000))), Some(ms(65)), "100 less 5 for the way back less 30 gone");
        assert_eq!(left("100m", Some(Duration::MAX)), Some(ms(65)));
        let unbounded = Arrival { at, deadline: None };
        assert_eq!(unbounded.time_left(None, now).unwrap(), None);
        assert_eq!(unbounded.time_left(Some(Duration::MAX), now).unwrap(), None);
    }

    #[test]
    fn a_request_whose_time_is_over_is_refused() {
        let at = Instant::now();
        let now = at + Duration::from_millis(30);
        for (header, allowed) in [("10m", None), ("0n", None), ("1S", Some(Duration::from_millis(30)))] {
            let refused = arrival(at, header).unwrap().time_left(allowed, now);
            assert!(matches!(refused, Err(RequestError::TooLate { .. })), "{header}: {refused:?}");
        }
    }
}
