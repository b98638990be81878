//! Reads the JSON of a request, with errors that name the field.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use sconce::{InFlight, Input};
use sconce_server::{Arrival, Charge, RequestError, RequestFault};
use serde::de::DeserializeOwned;

use crate::dialect::{Dialect, ErrorResponse};
use crate::error::HttpError;
use crate::service::HttpService;

/// Bytes that an element of a list takes at most when it is read: an input with an allocation of its own, in a vector that
/// doubles.
const ELEMENT_BYTES: usize = 2 * size_of::<Input>() + 32;
/// Bytes of a list or an object beside its elements; an object is a node of a map with room for eleven fields.
const LIST_BYTES: usize = 160;
const OBJECT_BYTES: usize = 1024;

/// Counts the memory that JSON takes when it is read among the bytes of its request. Texts are not looked into.
pub(crate) fn charge_values(json: &[u8], charge: &Charge) -> Result<(), RequestError> {
    let (mut in_text, mut is_escaped, mut bytes) = (false, false, json.len());
    for byte in json {
        if in_text {
            (in_text, is_escaped) = (is_escaped || *byte != b'"', !is_escaped && *byte == b'\\');
            continue;
        }
        bytes += match byte {
            b'"' => {
                in_text = true;
                0
            }
            b',' => ELEMENT_BYTES,
            b'[' => LIST_BYTES,
            b'{' => OBJECT_BYTES,
            _ => 0,
        };
    }
    charge.grow(bytes)
}

/// A call while it is answered: it counts as in flight until this is dropped.
pub(crate) struct HttpCall {
    pub(crate) arrival: Arrival,
    charge: Option<Arc<Charge>>,
    _in_flight: InFlight,
}

impl HttpCall {
    /// Counts further bytes that the request takes in memory.
    pub(crate) fn grow(&self, bytes: usize) -> Result<(), HttpError> {
        Ok(self.charge.as_ref().map_or(Ok(()), |charge| charge.grow(bytes))?)
    }
}

/// The body of a request, not parsed yet.
pub(crate) struct UnparsedBody<D> {
    pub(crate) bytes: Bytes,
    call: HttpCall,
    dialect: PhantomData<D>,
}

impl<D: Dialect> UnparsedBody<D> {
    /// Counts the memory that the JSON takes. Done before anything of it is read.
    pub(crate) fn counted(self) -> Result<Self, HttpError> {
        if let Some(charge) = &self.call.charge {
            charge_values(&self.bytes, charge)?;
        }
        Ok(self)
    }

    /// Reads the JSON, which was [`counted`](Self::counted).
    pub(crate) fn parse<T: DeserializeOwned>(self) -> Result<JsonBody<T, D>, HttpError> {
        Ok(JsonBody { value: parse(&self.bytes)?, call: self.call, dialect: PhantomData })
    }
}

impl<D: Dialect> FromRequest<Arc<HttpService>> for UnparsedBody<D> {
    type Rejection = ErrorResponse<D>;

    async fn from_request(request: Request, service: &Arc<HttpService>) -> Result<Self, Self::Rejection> {
        let extensions = request.extensions();
        let arrival = extensions.get().cloned().unwrap_or_else(|| Arrival::new(Instant::now(), None));
        let call = HttpCall { arrival, charge: extensions.get().cloned(), _in_flight: service.runtime().enter() };
        let bytes = Bytes::from_request(request, service).await.map_err(|rejection| unreadable(&rejection))?;
        Ok(Self { bytes, call, dialect: PhantomData })
    }
}

/// The JSON of a request, whatever its content type: `curl -d` sends that of a form.
pub(crate) struct JsonBody<T, D> {
    pub(crate) value: T,
    pub(crate) call: HttpCall,
    dialect: PhantomData<D>,
}

impl<T: DeserializeOwned, D: Dialect> FromRequest<Arc<HttpService>> for JsonBody<T, D> {
    type Rejection = ErrorResponse<D>;

    async fn from_request(request: Request, service: &Arc<HttpService>) -> Result<Self, Self::Rejection> {
        Ok(UnparsedBody::<D>::from_request(request, service).await?.counted()?.parse()?)
    }
}

fn unreadable(rejection: &BytesRejection) -> HttpError {
    if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        let message = "the body has more bytes than the server reads (max_request_bytes); send fewer inputs at a time";
        return HttpError::new(RequestFault::TooLarge, message);
    }
    HttpError::new(RequestFault::Malformed, format!("the body cannot be read: {}", rejection.body_text()))
}

/// Parses JSON; an error names the place in it.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, HttpError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let at = if path == "." { String::new() } else { format!("field '{path}': ") };
        (at, error.into_inner())
    });
    let parsed = parsed.and_then(|parsed| json.end().map(|()| parsed).map_err(|error| (String::new(), error)));
    parsed.map_err(|(at, error)| {
        let message = match error.classify() {
            serde_json::error::Category::Data => format!("{at}{error}"),
            _ if bytes.is_empty() => "the body is empty; send a JSON object".to_owned(),
            _ => format!("the body is not JSON: {error}"),
        };
        HttpError::new(RequestFault::Malformed, message)
    })
}
