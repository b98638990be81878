//! Settings of traces and logs, by the routes that Triton has for them.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use sconce_server::{LogSetting, OpenInference, RequestError, log_settings, trace_settings};
use serde_json::{Map, Value, json};

use super::{ModelPath, Shared, error_response};

pub(crate) fn routes() -> Router<Arc<OpenInference>> {
    Router::new()
        .route("/v2/trace/setting", get(traces).post(traces))
        .route("/v2/models/{model}/trace/setting", get(traces_of_model).post(traces_of_model))
        .route("/v2/logging", get(logs).post(logs))
}

async fn traces(body: Bytes) -> Response {
    answer(traces_as_json(&body))
}

async fn traces_of_model(shared: Shared, Path(named): Path<ModelPath>, body: Bytes) -> Response {
    answer(named.of(&shared).and_then(|_| traces_as_json(&body)))
}

fn traces_as_json(body: &Bytes) -> Result<Value, RequestError> {
    let changes = changes(body)?;
    let settings = trace_settings(changes.keys().map(String::as_str))?;
    // Levels are a list.
    let value = |name, text| if name == "trace_level" { json!([text]) } else { json!(text) };
    Ok(settings.into_iter().map(|(name, text)| (name.to_owned(), value(name, text))).collect())
}

async fn logs(body: Bytes) -> Response {
    answer(changes(&body).and_then(|changes| {
        let value = |setting| match setting {
            LogSetting::Bool(value) => json!(value),
            LogSetting::Level(level) => json!(level),
            LogSetting::Text(text) => json!(text),
        };
        let settings = log_settings(changes.keys().map(String::as_str))?;
        Ok(settings.into_iter().map(|(name, setting)| (name.to_owned(), value(setting))).collect())
    }))
}

/// The settings that a request wants to change; none if it has no body.
fn changes(body: &Bytes) -> Result<Map<String, Value>, RequestError> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body)
        .map_err(|error| RequestError::Malformed { expected: "map of settings", message: error.to_string() })
}

fn answer(outcome: Result<Value, RequestError>) -> Response {
    match outcome {
        Ok(body) => Json(body).into_response(),
        Err(error) => error_response(error),
    }
}
