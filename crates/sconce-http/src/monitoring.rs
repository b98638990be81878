//! The routes for those who watch a server: metrics for Prometheus, the same figures as JSON, and the dashboard.

mod accept;
mod figures;
mod recent;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sconce::Runtime;

use accept::AcceptedTypes;
use figures::Figures;
use recent::RecentMetrics;

const PAGE: &str = include_str!("monitoring/dashboard/page.html");
const STYLE: &str = include_str!("monitoring/dashboard/style.css");
const SCRIPT: &str = include_str!("monitoring/dashboard/script.js");

/// The page loads nothing but its own style, script and figures, and no other page may frame it.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                              img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A runtime, and the snapshots of the last minute.
struct Monitored {
    runtime: Runtime,
    recent: RecentMetrics,
}

pub(crate) fn routes(runtime: Runtime) -> Router {
    let monitored = Arc::new(Monitored { runtime, recent: RecentMetrics::default() });
    Router::new()
        .route("/metrics", get(metrics))
        .route("/metrics.json", get(metrics_json))
        .with_state(monitored)
        .route("/dashboard", get(page))
        .route("/dashboard.css", get(|| async { asset("text/css; charset=utf-8", STYLE) }))
        .route("/dashboard.js", get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
}

/// The figures as the client reads them: `OpenMetrics` if it prefers that, else Prometheus' text.
async fn metrics(State(monitored): State<Arc<Monitored>>, headers: HeaderMap) -> Response {
    let accepted = AcceptedTypes::of(&headers);
    let metrics = monitored.runtime.metrics();
    let open = accepted.named("application/openmetrics-text") > accepted.named("text/plain");
    let (kind, text) = if open {
        (sconce_metrics::OPEN_METRICS_TYPE, sconce_metrics::open_metrics(metrics))
    } else {
        (sconce_metrics::PROMETHEUS_TYPE, sconce_metrics::prometheus(metrics))
    };
    ([(CONTENT_TYPE, kind), (VARY, ACCEPT.as_str())], text).into_response()
}

async fn metrics_json(State(monitored): State<Arc<Monitored>>) -> Response {
    let total = monitored.runtime.metrics();
    let recent = monitored.recent.update(&total);
    ([(CACHE_CONTROL, "no-store")], axum::Json(Figures::new(&monitored.runtime, total, recent))).into_response()
}

/// The dashboard.
pub(crate) async fn page() -> Response {
    let mut response = asset("text/html; charset=utf-8", PAGE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(VARY, HeaderValue::from_name(ACCEPT));
    response
}

/// Returns true if the client is a browser that navigates: it names HTML, and prefers it to JSON.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = AcceptedTypes::of(headers);
    accepted.named("text/html") > accepted.named("application/json")
}

/// A part of the page. It is asked for again after an update of the server.
fn asset(kind: &'static str, content: &'static str) -> Response {
    let no_sniffing = HeaderName::from_static("x-content-type-options");
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache"), (no_sniffing, "nosniff")];
    (headers, content).into_response()
}
