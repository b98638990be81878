//! Regions of shared memory, by the routes that Triton has for them.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use sconce_server::{OpenInference, RequestError, SharedMemoryError, SharedRegion};
use serde::Deserialize;
use serde_json::{Value, json};

use super::control::refuse_pages;
use super::{Shared, error_response};

pub(crate) fn routes() -> Router<std::sync::Arc<OpenInference>> {
    let of_system = Router::new()
        .route("/status", get(all_regions))
        .route("/unregister", post(forget_all))
        .route("/region/{name}/status", get(region))
        .route("/region/{name}/register", post(register))
        .route("/region/{name}/unregister", post(forget));
    // There is none, so that to forget it is done.
    let of_cuda = Router::new()
        .route("/status", get(async || Json(json!([]))))
        .route("/unregister", post(async || Json(json!({}))))
        .route("/region/{name}/unregister", post(async || Json(json!({}))))
        .route("/region/{name}/register", post(no_cuda));
    Router::new().nest("/v2/systemsharedmemory", of_system).nest("/v2/cudasharedmemory", of_cuda)
}

/// The body of a request to register a region.
#[derive(Deserialize)]
struct RegionJson {
    key: String,
    #[serde(default)]
    offset: u64,
    byte_size: u64,
}

async fn all_regions(shared: Shared) -> Response {
    regions(&shared, "")
}

async fn region(shared: Shared, Path(name): Path<String>) -> Response {
    regions(&shared, &name)
}

fn regions(State(shared): &Shared, name: &str) -> Response {
    let described = |region: &SharedRegion| {
        let SharedRegion { name, key, offset, bytes, .. } = region;
        json!({"name": name, "key": key, "offset": offset, "byte_size": bytes})
    };
    let regions = shared.shared_memory().regions(name);
    answer(regions.map(|regions| regions.iter().map(|region| described(region)).collect::<Value>()))
}

async fn register(State(shared): Shared, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    if headers.contains_key(header::ORIGIN) {
        // A page from anywhere reaches this machine's servers by its browser, which says so.
        let reason = "pages in browsers may not use it";
        return answer(Err(SharedMemoryError::NotServed { reason }));
    }
    let malformed = |error: serde_json::Error| RequestError::Malformed {
        expected: "registration of a shared memory region",
        message: error.to_string(),
    };
    let read = serde_json::from_slice(&body).map_err(malformed);
    answer(read.and_then(|RegionJson { key, offset, byte_size }| {
        shared.shared_memory().register(&name, &key, offset, byte_size)?;
        Ok(json!({}))
    }))
}

async fn forget_all(State(shared): Shared, headers: HeaderMap) -> Response {
    if let Err(error) = refuse_pages(&headers) {
        return error_response(error);
    }
    answer(shared.shared_memory().unregister("").map(|()| json!({})))
}

async fn forget(State(shared): Shared, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if let Err(error) = refuse_pages(&headers) {
        return error_response(error);
    }
    answer(shared.shared_memory().unregister(&name).map(|()| json!({})))
}

async fn no_cuda() -> Response {
    let message = "shared memory of CUDA is not served; use the system's, or send contents";
    (StatusCode::NOT_IMPLEMENTED, Json(json!({"error": message}))).into_response()
}

fn answer(outcome: Result<Value, impl Into<RequestError>>) -> Response {
    match outcome {
        Ok(body) => Json(body).into_response(),
        Err(error) => error_response(error.into()),
    }
}
