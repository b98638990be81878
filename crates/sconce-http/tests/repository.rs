//! The model repository over HTTP, by Triton's routes.

use std::path::Path;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use sconce::{ModelControl, Runtime};
use serde_json::{Value, json};
use tower::ServiceExt as _;

const SENTIMENT: &str = "tiny-bert-sentiment";

async fn post(router: &Router, path: &str, body: &str) -> (StatusCode, Value) {
    let request = Request::post(path).body(Body::from(body.to_owned())).expect("a request");
    let response = router.clone().oneshot(request).await.expect("a router does not fail");
    let status = response.status();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a whole body");
    (status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") })
}

fn router(control: ModelControl) -> Router {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    let builder = Runtime::builder().model(zoo.join(SENTIMENT)).model(zoo.join("digits-cnn")).model_control(control);
    sconce_http::router(builder.build().expect("the models load"))
}

#[tokio::test]
async fn a_model_is_unloaded_and_loaded_by_its_name() {
    let router = router(ModelControl::Explicit);
    let path = |call: &str| format!("/v2/repository/models/{SENTIMENT}/{call}");
    let unload = r#"{"parameters": {"unload_dependents": true}}"#;
    assert_eq!(post(&router, &path("unload"), unload).await, (StatusCode::OK, Value::Null));

    let entry =
        |state: &str, reason: &str| json!({"name": SENTIMENT, "version": "1", "state": state, "reason": reason});
    let (_, index) = post(&router, "/v2/repository/index", "").await;
    assert_eq!(index[1], entry("UNAVAILABLE", "unloaded"));
    let (_, ready) = post(&router, "/v2/repository/index", r#"{"ready": true}"#).await;
    assert_eq!(ready.as_array().map(Vec::len), Some(1));
    assert_eq!(
        post(&router, "/models/tiny-bert-sentiment/predict", r#"{"inputs": "fine"}"#).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(post(&router, &path("unload"), "{}").await.0, StatusCode::NOT_FOUND);

    assert_eq!(post(&router, &path("load"), "{}").await, (StatusCode::OK, Value::Null));
    let (_, index) = post(&router, "/v2/repository/index", "").await;
    assert_eq!(index[1], entry("READY", ""));
    assert_eq!(post(&router, "/models/tiny-bert-sentiment/predict", r#"{"inputs": "fine"}"#).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_page_in_a_browser_may_change_nothing() {
    let router = router(ModelControl::Explicit);
    for path in [
        "/v2/repository/models/digits-cnn/load",
        "/v2/repository/models/digits-cnn/unload",
        "/v2/systemsharedmemory/unregister",
    ] {
        let request = Request::post(path).header("origin", "https://example.org").body(Body::empty()).unwrap();
        assert_eq!(router.clone().oneshot(request).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    assert_eq!(post(&router, "/v2/repository/index", r#"{"ready": true}"#).await.1.as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_call_that_may_not_or_cannot_be_done_says_why() {
    let load = format!("/v2/repository/models/{SENTIMENT}/load");
    let (status, answer) = post(&router(ModelControl::None), &load, "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer["error"].as_str().unwrap().starts_with("explicit model load / unload is not allowed"), "{answer}");

    let router = router(ModelControl::Explicit);
    let table = [
        (load.as_str(), r#"{"parameters": {"config": "{}"}}"#, StatusCode::BAD_REQUEST, "does not take 'config'"),
        (load.as_str(), r#"{"parameter": {}}"#, StatusCode::BAD_REQUEST, "unknown field `parameter`"),
        ("/v2/repository/models/minilm/load", "", StatusCode::NOT_FOUND, "no model is named 'minilm'"),
        ("/v2/repository/index", "[", StatusCode::BAD_REQUEST, "no call of the model repository"),
    ];
    for (path, body, status, words) in table {
        let answer = post(&router, path, body).await;
        assert_eq!(answer.0, status, "{answer:?}");
        assert!(answer.1["error"].as_str().unwrap().contains(words), "{answer:?}");
    }
}
