//! Deadlines of requests: the `grpc-timeout` header, read on arrival.

use std::time::{Duration, Instant};

use sconce_server::{Arrival, RequestError};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

use crate::status::status;

/// An interceptor that notes the arrival before the message is read, since the client's clock already runs.
pub(crate) fn stamp(mut request: Request<()>) -> Result<Request<()>, Status> {
    let arrival = arrival(Instant::now(), request.metadata()).map_err(status)?;
    request.extensions_mut().insert(arrival);
    Ok(request)
}

/// The arrival that [`stamp`] noted; now, for a request that did not pass it.
pub(crate) fn of<T>(request: &Request<T>) -> Result<Arrival, RequestError> {
    match request.extensions().get::<Arrival>() {
        Some(arrival) => Ok(arrival.clone()),
        None => arrival(Instant::now(), request.metadata()),
    }
}

fn arrival(at: Instant, metadata: &MetadataMap) -> Result<Arrival, RequestError> {
    let traceparent = metadata.get("traceparent").and_then(|value| value.to_str().ok());
    let Some(header) = metadata.get("grpc-timeout") else { return Ok(Arrival::new(at, None).traced(traceparent)) };
    let wrong = || RequestError::WrongTimeout { got: shown(header) };
    let timeout = header.to_str().ok().and_then(parse).ok_or_else(wrong)?;
    Ok(Arrival::new(at, Some(timeout)).traced(traceparent))
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

    fn read(header: &str) -> Result<Arrival, RequestError> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", header.parse().unwrap());
        arrival(Instant::now(), &metadata)
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
            let error = read(header).unwrap_err().to_string();
            assert!(error.contains(&format!("is '{header}'")), "{error}");
        }
    }
}
