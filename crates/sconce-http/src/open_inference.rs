//! The Open Inference Protocol v2 over HTTP, as Triton and KServe speak it: JSON and binary tensors, descriptions of models,
//! health.

mod control;
mod describe;
mod infer;
mod json;
mod settings;
mod shared_memory;
mod write;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use sconce::Model;
use sconce_server::{OpenInference, RequestError};
use serde_json::json;

pub(crate) use json::JsonParameters;

use crate::dialect::{ErrorResponse, Triton};

type Shared = State<Arc<OpenInference>>;

/// The model that a path names, and its version.
#[derive(serde::Deserialize)]
struct ModelPath {
    model: String,
    #[serde(default)]
    version: String,
}

impl ModelPath {
    fn of(&self, shared: &OpenInference) -> Result<Model, RequestError> {
        shared.model(&self.model, &self.version)
    }
}

pub(crate) fn routes(shared: Arc<OpenInference>) -> Router {
    let of_a_model = || {
        Router::new()
            .route("/", get(describe::metadata))
            .route("/ready", get(model_ready))
            .route("/infer", post(infer::infer))
            .route("/config", get(describe::config))
            .route("/stats", get(describe::statistics))
    };
    Router::new()
        .route("/v2", get(describe::server))
        .route("/v2/", get(describe::server))
        .route("/v2/models/stats", get(describe::all_statistics))
        .route("/v2/repository/index", post(control::index))
        .route("/v2/repository/models/{model}/load", post(control::load))
        .route("/v2/repository/models/{model}/unload", post(control::unload))
        .merge(settings::routes())
        .merge(shared_memory::routes())
        .nest("/v2/models/{model}", of_a_model())
        .nest("/v2/models/{model}/versions/{version}", of_a_model())
        .with_state(shared)
}

/// Health where Kubernetes, KServe and text-embeddings-inference look for it, `/` apart.
pub(crate) fn health_routes(shared: Arc<OpenInference>) -> Router {
    Router::new()
        .route("/health", get(ready))
        .route("/healthz", get(ready))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .with_state(shared)
}

/// Liveness as KServe's first protocol has it.
pub(crate) async fn alive() -> Response {
    Json(json!({"status": "alive"})).into_response()
}

async fn live() -> Response {
    Json(json!({"live": true})).into_response()
}

async fn ready(State(shared): Shared) -> Response {
    ready_status(!shared.runtime().is_draining(), json!({"ready": !shared.runtime().is_draining()}))
}

async fn model_ready(State(shared): Shared, Path(named): Path<ModelPath>) -> Response {
    match named.of(&shared) {
        Ok(model) => {
            let ready = !shared.runtime().is_draining();
            ready_status(ready, json!({"name": model.name(), "ready": ready}))
        }
        Err(error) => error_response(error),
    }
}

fn ready_status(ready: bool, body: serde_json::Value) -> Response {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// The response of an error, in Triton's form.
pub(crate) fn error_response(error: RequestError) -> Response {
    ErrorResponse::<Triton>::from(error).into_response()
}
