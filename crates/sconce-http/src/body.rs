//! Reads the JSON of a request, with errors that name the field.

use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;

use crate::dialect::{Dialect, ErrorResponse};
use crate::error::{Fault, HttpError};

/// The JSON of a request, whatever its content type: `curl -d` sends that of a form.
pub(crate) struct JsonBody<T, D>(pub(crate) T, pub(crate) PhantomData<D>);

impl<S: Send + Sync, T: DeserializeOwned, D: Dialect> FromRequest<S> for JsonBody<T, D> {
    type Rejection = ErrorResponse<D>;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unreadable(&rejection))?;
        Ok(Self(parse(&bytes)?, PhantomData))
    }
}

fn unreadable(rejection: &BytesRejection) -> HttpError {
    let status = rejection.status();
    if status == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!("the body has more than {} bytes; send fewer inputs at a time", crate::MAX_BODY_BYTES);
        return HttpError::new(Fault::TooLarge, message);
    }
    HttpError::new(Fault::Malformed, format!("the body cannot be read: {}", rejection.body_text()))
}

/// Parses a body that was already read.
pub(crate) fn read<T: DeserializeOwned, D>(bytes: &[u8]) -> Result<JsonBody<T, D>, HttpError> {
    Ok(JsonBody(parse(bytes)?, PhantomData))
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
        HttpError::new(Fault::Malformed, message)
    })
}
