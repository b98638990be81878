//! The routes that clients of Triton, KServe, OpenAI, Cohere, Jina and text-embeddings-inference call over HTTP, for a
//! Sconce [`Runtime`].
//!
//! ```
//! use axum::body::{Body, to_bytes};
//! use axum::http::Request;
//! use tower::ServiceExt as _;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
//! let runtime = sconce::Runtime::builder().model(zoo.join("tiny-bert-sentiment")).build()?;
//! let router = sconce_http::router(runtime);
//!
//! let request = Request::post("/predict").body(Body::from(r#"{"inputs": "What a wonderful day!"}"#))?;
//! let answer = to_bytes(router.oneshot(request).await?.into_body(), 1 << 20).await?;
//! assert!(answer.starts_with(br#"[{"label":"positive","score":0.9"#));
//! # Ok(())
//! # }
//! ```
//!
//! # Routes
//! | route | as |
//! |---|---|
//! | `/v2`, `/v2/health/live`, `/v2/health/ready`, `/v2/models/{model}` and below it `/versions/{version}`, `/ready`, `/infer`, `/config`, `/stats`; `POST /v2/repository/index`; `/v2/systemsharedmemory/…`, where [`ServerBounds::with_shared_memory`] allows it; `/v2/trace/setting`, `/v2/logging`, to be read | Open Inference Protocol v2, with Triton's binary tensors |
//! | `GET /health`, `/healthz`, `/livez`, `/readyz`, `/` | health, where Kubernetes, KServe and text-embeddings-inference look for it |
//! | `POST /v1/embeddings`, `GET /v1/models`, `GET /v1/models/{id}` | OpenAI |
//! | `POST /v1/rerank`, `POST /v2/rerank` | Cohere, Jina |
//! | `POST /embed`, `/embed_all`, `/embed_sparse`, `/rerank`, `/predict`, `/similarity`, `/tokenize`, `/decode`, `/`; `GET /info` | text-embeddings-inference |
//! | `GET /metrics`, `/metrics.json`; `/dashboard`, and `/` for browsers | what to watch: for Prometheus and `OpenMetrics`, as JSON, as a page |
//! | `GET /openapi.json` | the routes of OpenAI, Cohere, Jina and text-embeddings-inference as an OpenAPI document |
//!
//! text-embeddings-inference serves one model. Where the runtime has several, its routes take the one whose task fits;
//! if several do, put `/models/{model}` before the route: `POST /models/minilm/embed`.
//!
//! Fields of the Open Inference Protocol's JSON that are not known are passed over, as Triton does; unknown parameters are
//! refused, and so are unknown fields of the other APIs.
//!
//! # Errors
//! An error has the status and the form of the API that was called. Refusals of a full queue have status 429 and the
//! header `Retry-After` with whole seconds, and `retry-after-ms`, which the `openai` client prefers.
//!
//! # Access
//! A server whose bounds have an [`ClientAccess`] asks requests for `Authorization: Bearer TOKEN`, else they have status 401, and
//! bounds the rate of each client (429). `GET /`, `/health`, `/healthz`, `/livez`, `/readyz`, `/v2/health/live` and
//! `/v2/health/ready` need no token: probes cannot send one. [`ServerListener::with_tls`] adds TLS.
//!
//! # Answers
//! The headers `x-sconce-precision`, `x-sconce-decision`, `x-sconce-device` and `x-sconce-source` say how an answer was computed, and
//! `x-sconce-truncated: true` says that the end of an input was left out.
//!
//! # A server
//! [`serve`] bounds connections, bytes of requests and time as [`sconce_server`] says, takes HTTP/1.1 and HTTP/2 with prior
//! knowledge, and drains; [`router`] has the routes alone, for a server of your own.
//!
//! # Where to add things
//! An API: a module with its requests, answers and a `Dialect` for its errors. All of them answer
//! by `service`.

mod body;
mod dialect;
mod error;
mod inputs;
mod monitoring;
mod numbers;
mod open_inference;
mod openai;
mod openapi;
mod options;
mod received;
mod rerank;
mod serve;
mod service;
mod tei;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sconce::Runtime;
use sconce::models::excerpt;

use sconce_server::OpenInference;
pub use sconce_server::{
    BearerToken, ClientAccess, ClientAccessConfig, ClientRates, MAX_ITEMS, ServerBounds, ServerLimits, ServerListener,
    SharedMemory, Tls, TlsFiles,
};
pub use serve::{serve, serve_beside, serve_routes_beside, serve_within};

/// Most bytes of the body of a request, by default.
pub const MAX_BODY_BYTES: usize = sconce_server::MAX_MESSAGE_BYTES;

/// Most bytes of texts that are cut into tokens at a time, and most numbers of tokens that are put together.
pub const MAX_TOKENIZED: usize = sconce::models::MAX_TEXT_BYTES;

/// The routes of a runtime, for a server of your own: those of [`inference_router`] and of [`monitoring_router`]. `GET /` gives
/// the dashboard to browsers, and health to all others.
pub fn router(runtime: Runtime) -> Router {
    ServedRoutes::All.router_by_default(runtime)
}

/// The routes that clients of a runtime's models call, without [`monitoring_router`].
pub fn inference_router(runtime: Runtime) -> Router {
    ServedRoutes::Inference.router_by_default(runtime)
}

/// The routes for those who watch a runtime, for an address of their own: `/metrics`, `/metrics.json`, the dashboard at `/`,
/// and health.
pub fn monitoring_router(runtime: Runtime) -> Router {
    ServedRoutes::Monitoring.router_by_default(runtime)
}

/// The routes that a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedRoutes {
    /// The routes of [`router`].
    All,
    /// The routes of [`inference_router`].
    Inference,
    /// The routes of [`monitoring_router`].
    Monitoring,
}

impl ServedRoutes {
    fn router_by_default(self, runtime: Runtime) -> Router {
        self.router(runtime, &ServerBounds::new(ServerLimits::default()).expect("the default limits are valid"))
    }

    /// The routes, within the limits of requests.
    fn router(self, runtime: Runtime, bounds: &ServerBounds) -> Router {
        let shared = Arc::new(OpenInference::new(runtime.clone(), bounds));
        let max_bytes = bounds.limits().max_request_bytes;
        let alive_or_page = async |headers: HeaderMap| {
            if monitoring::wants_page(&headers) { monitoring::page().await } else { open_inference::alive().await }
        };
        let routes = match self {
            Self::All => {
                inference_routes(shared, max_bytes).merge(monitoring::routes(runtime)).route("/", get(alive_or_page))
            }
            Self::Inference => inference_routes(shared, max_bytes).route("/", get(open_inference::alive)),
            Self::Monitoring => {
                let health = open_inference::health_routes(shared);
                monitoring::routes(runtime).merge(health).route("/", get(monitoring::page))
            }
        };
        // Answers to requests that have no route, and the bound on bodies.
        routes.fallback(no_route).method_not_allowed_fallback(no_method).layer(DefaultBodyLimit::max(max_bytes))
    }
}

fn inference_routes(shared: Arc<OpenInference>, max_bytes: usize) -> Router {
    let service = Arc::new(service::HttpService::new(Arc::clone(&shared), max_bytes));
    Router::new()
        .merge(openai::routes())
        .merge(rerank::routes())
        .merge(tei::routes())
        .merge(openapi::routes())
        .with_state(service)
        .merge(open_inference::health_routes(Arc::clone(&shared)))
        .merge(open_inference::routes(shared))
}

/// Answers a request to a path that has no route.
async fn no_route(method: Method, uri: Uri) -> Response {
    let message = format!(
        "no route for {method} {}; embeddings are at POST /v1/embeddings or /embed, scores at /v1/rerank or /rerank, labels at \
         /predict, any model at /v2/models/{{model}}/infer",
        excerpt(&uri.path())
    );
    (StatusCode::NOT_FOUND, axum::Json(serde_json::json!({"error": message}))).into_response()
}

/// Answers a request with a method that its route does not have.
async fn no_method(method: Method, uri: Uri) -> Response {
    let message = format!("the route {} does not have the method {method}", excerpt(&uri.path()));
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(serde_json::json!({"error": message}))).into_response()
}
