//! The model repository over HTTP, as Triton's clients ask for it: its index, loading and unloading.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use sconce::{ModelState, RepositoryEntry};
use sconce_server::RequestError;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ModelPath, Shared, error_response};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct IndexRequest {
    /// True to list only the models that are ready.
    ready: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ControlRequest {
    parameters: Map<String, Value>,
}

pub(crate) async fn index(State(shared): Shared, body: Bytes) -> Response {
    let answer = async {
        let IndexRequest { ready } = read(&body)?;
        let entries = shared.repository_index(ready).await?;
        Ok(Json(entries.iter().map(entry).collect::<Vec<_>>()).into_response())
    };
    answer.await.unwrap_or_else(error_response)
}

pub(crate) async fn load(
    State(shared): Shared,
    Path(named): Path<ModelPath>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    done(match parameters(&headers, &body) {
        Ok(parameters) => shared.load(&named.model, parameters.keys().map(String::as_str)).await,
        Err(error) => Err(error),
    })
}

pub(crate) async fn unload(
    State(shared): Shared,
    Path(named): Path<ModelPath>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    done(match parameters(&headers, &body) {
        Ok(parameters) => shared.unload(&named.model, parameters.keys().map(String::as_str)).await,
        Err(error) => Err(error),
    })
}

/// The parameters of a call that changes the repository, which no page may make.
fn parameters(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, RequestError> {
    refuse_pages(headers)?;
    let ControlRequest { parameters } = read(body)?;
    Ok(parameters)
}

/// Refuses a call by a page: one from anywhere reaches this machine's servers through its browser, which says so.
pub(super) fn refuse_pages(headers: &HeaderMap) -> Result<(), RequestError> {
    if headers.contains_key(header::ORIGIN) { Err(RequestError::OfPage) } else { Ok(()) }
}

/// Reads a body that may be empty.
fn read<'a, T: Deserialize<'a> + Default>(body: &'a [u8]) -> Result<T, RequestError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| RequestError::Malformed {
        expected: "call of the model repository",
        message: error.to_string(),
    })
}

/// An empty answer, as Triton gives it.
fn done(outcome: Result<(), RequestError>) -> Response {
    match outcome {
        Ok(()) => ().into_response(),
        Err(error) => error_response(error),
    }
}

fn entry(entry: &RepositoryEntry) -> Value {
    let (state, reason) = match &entry.state {
        ModelState::Ready => ("READY", ""),
        ModelState::Loading => ("LOADING", ""),
        ModelState::Unavailable { reason } => ("UNAVAILABLE", reason.as_str()),
        _ => ("UNKNOWN", ""),
    };
    json!({"name": entry.name, "version": entry.version.to_string(), "state": state, "reason": reason})
}
