//! Answers to calls that there are not: they say which there are.

use tonic::Code;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::codegen::http::HeaderValue;

const CODE: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// The services, with the names of their calls.
const CALLS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/calls.rs"));

/// Answers a call of a service that there is not.
pub(crate) async fn no_service() -> http::Response<Body> {
    let services: Vec<_> = CALLS.iter().map(|(service, _)| *service).collect();
    Status::unimplemented(format!("there is no such service; served are: {}", services.join(", "))).into_http()
}

/// Says in the answer to a call that `service` does not have which ones it has: tonic leaves the message empty.
pub(crate) fn explain<B>(service: &'static str, mut answer: http::Response<B>) -> http::Response<B> {
    let headers = answer.headers_mut();
    let is_unserved = headers.get(CODE).is_some_and(|code| *code == HeaderValue::from(Code::Unimplemented as i32));
    if is_unserved && !headers.contains_key(MESSAGE) {
        let calls =
            CALLS.iter().find(|(name, _)| *name == service).map_or("those of its description", |(_, calls)| calls);
        let message = format!("{service} has no such call; served are: {calls}").replace(' ', "%20");
        if let Ok(message) = HeaderValue::from_str(&message) {
            headers.insert(MESSAGE, message);
        }
    }
    answer
}
