//! The routes for those who watch a server.

use std::path::Path;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use sconce::Runtime;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const MODEL: &str = "tiny-bert-sentiment";
/// The header `Accept` of a browser that opens a page, and of Prometheus.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;\
                          version=0.0.4;q=0.3,*/*;q=0.2";

fn runtime() -> Runtime {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    Runtime::builder().model(zoo.join(MODEL)).build().expect("a model that ships")
}

async fn get(router: &Router, path: &str, accept: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::get(path).header("accept", accept).body(Body::empty()).expect("a request");
    sent(router, request).await
}

async fn sent(router: &Router, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let (parts, body) = router.clone().oneshot(request).await.expect("a router does not fail").into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a whole body");
    (parts.status, parts.headers, String::from_utf8(bytes.into()).expect("text"))
}

async fn predict(router: &Router) {
    let request = Request::post("/predict").body(Body::from(r#"{"inputs": "What a day"}"#)).expect("a request");
    assert_eq!(sent(router, request).await.0, StatusCode::OK);
}

async fn infer(router: &Router) {
    let body = json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["What a day"]}]});
    let request = Request::post(format!("/v2/models/{MODEL}/infer")).body(Body::from(body.to_string()));
    let (status, _, answer) = sent(router, request.expect("a request")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_in_the_form_that_the_client_prefers() {
    let router = sconce_http::router(runtime());
    for (accept, kind, end) in [
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0; charset=utf-8", "# EOF\n"),
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8", "\n"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", "\n"),
        ("text/plain, application/openmetrics-text;q=0.5", "text/plain; version=0.0.4; charset=utf-8", "\n"),
    ] {
        let (status, headers, text) = get(&router, "/metrics", accept).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, kind), "{accept}");
        assert!(
            text.ends_with(end) && text.contains("sconce_queue_depth{model=\"tiny-bert-sentiment\",version=\"1\"} 0"),
            "{text}"
        );
        assert_eq!(headers["vary"], "accept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_asking_counts_the_time_of_writing_the_answer() {
    let router = sconce_http::router(runtime());
    predict(&router).await;
    infer(&router).await;
    let (_, _, text) = get(&router, "/metrics", "*/*").await;
    let line =
        "sconce_request_duration_seconds_count{model=\"tiny-bert-sentiment\",version=\"1\",stage=\"serialise\"} 2";
    assert!(text.contains(line), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_has_the_figures_since_the_start_and_of_the_last_minute() {
    let router = sconce_http::router(runtime());
    predict(&router).await;
    let figures = async || -> Value {
        let (status, headers, text) = get(&router, "/metrics.json", "*/*").await;
        assert_eq!((status, headers["cache-control"].to_str().unwrap()), (StatusCode::OK, "no-store"));
        serde_json::from_str(&text).expect("JSON")
    };
    let first = figures().await;
    assert_eq!((&first["total"]["models"][0]["succeeded"], &first["models"][0]["name"]), (&json!(1), &json!(MODEL)));
    predict(&router).await;
    let second = figures().await;
    let recent = &second["recent"]["models"][0];
    assert_eq!((&second["total"]["models"][0]["succeeded"], &recent["succeeded"]), (&json!(2), &json!(1)));
    let run = &recent["latency"]["run"];
    assert!(run["count"] == 1 && run["p99"].as_f64() > Some(0.0) && run["sum"].as_f64() > Some(0.0), "{run}");
    let placed = &second["models"][0]["placement"][0];
    assert_eq!((&placed["device"], &placed["verdict"]), (&json!("cpu"), &json!("serves")));
    assert!(placed["reason"].as_str().is_some_and(|reason| reason.starts_with("first to complete")), "{placed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_get_the_dashboard_at_the_root_and_others_get_health() {
    let router = sconce_http::router(runtime());
    let (status, headers, page) = get(&router, "/", BROWSER).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, "text/html; charset=utf-8"));
    assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    for part in ["dashboard.css", "dashboard.js"] {
        assert!(page.contains(&format!("\"{part}\"")), "{page}");
        let (status, headers, text) = get(&router, &format!("/{part}"), "*/*").await;
        assert!(status == StatusCode::OK && headers["x-content-type-options"] == "nosniff" && !text.is_empty());
    }
    for accept in ["*/*", "application/json", "application/json, text/html;q=0.5"] {
        assert_eq!(get(&router, "/", accept).await.2, r#"{"status":"alive"}"#, "{accept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_of_inference_and_of_monitoring_can_be_served_apart() {
    let runtime = runtime();
    let inference = sconce_http::inference_router(runtime.clone());
    let monitoring = sconce_http::monitoring_router(runtime.clone());
    for path in ["/metrics", "/metrics.json", "/dashboard", "/dashboard.js"] {
        assert_eq!(get(&inference, path, BROWSER).await.0, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(get(&monitoring, path, BROWSER).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(get(&inference, "/", BROWSER).await.2, r#"{"status":"alive"}"#);
    assert!(get(&monitoring, "/", "*/*").await.2.contains("<title>Sconce</title>"));
    assert_eq!(get(&monitoring, "/v1/models", "*/*").await.0, StatusCode::NOT_FOUND);
    runtime.start_draining();
    for router in [&inference, &monitoring] {
        assert_eq!(get(router, "/health", "*/*").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
