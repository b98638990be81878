//! A web service that embeds Sconce: no server beside it, no Python.
//!
//! ```sh
//! cargo run --release -p sconce --example axum
//! curl -s localhost:3000/sentiment -H 'content-type: application/json' -d '{"text": "What a wonderful day!"}'
//! ```

use std::path::Path;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use sconce::{InferError, Model, QueueError, Request, Runtime};

#[derive(serde::Deserialize)]
struct Text {
    text: String,
}

#[derive(serde::Serialize)]
struct Sentiment {
    label: String,
    score: f32,
}

type Refusal = (StatusCode, String);

async fn sentiment(State(model): State<Model>, Json(body): Json<Text>) -> Result<Json<Sentiment>, Refusal> {
    let request = Request::new(body.text).timeout(Duration::from_secs(1));
    let answer = model.try_infer(request).await.map_err(|error| refusal(&error))?;
    let classes = answer.output.classification().expect("a sentiment model classifies");
    Ok(Json(Sentiment { label: classes.label().to_owned(), score: classes.score() }))
}

fn refusal(error: &InferError) -> Refusal {
    let status = match error {
        InferError::Input(_) | InferError::Queue(QueueError::TooHeavy { .. }) => StatusCode::UNPROCESSABLE_ENTITY,
        InferError::Queue(QueueError::DeadlineExceeded { .. }) => StatusCode::GATEWAY_TIMEOUT,
        InferError::Queue(QueueError::Executor(_)) | InferError::Panicked { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    let runtime = Runtime::builder().model(zoo.join("tiny-bert-sentiment")).build()?;
    let model = runtime.model("tiny-bert-sentiment")?;

    let service = Router::new().route("/sentiment", post(sentiment)).with_state(model);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let stop = async { tokio::signal::ctrl_c().await.expect("the process can listen for signals") };
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    runtime.shutdown().await;
    Ok(())
}
