//! `/info`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use sconce::{Precision, Task};
use serde_json::{Value, json};

use super::{PathModel, TeiResult};
use crate::service::{ANY, HttpService};

#[utoipa::path(
    get,
    path = "/info",
    tag = "text-embeddings-inference",
    description = "The model's task and bounds. `/models/{model}/info` is the same of one model.",
    responses((status = 200, body = Value))
)]
pub(crate) async fn info(State(service): State<Arc<HttpService>>, model: PathModel) -> TeiResult {
    let model = &service.model(model.as_ref().map(|Path(name)| name.as_str()), ANY)?;
    let (signature, batching) = (model.signature(), model.batcher_config());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Json(json!({
        "model_id": model.name(),
        "model_sha": null,
        "model_dtype": dtype(signature.precision),
        "served_model_name": model.name(),
        "model_type": model_type(&signature.task),
        "max_concurrent_requests": batching.max_queue_size,
        "max_input_length": signature.input.kind.max_tokens(),
        "max_batch_tokens": batching.max_batch_weight,
        "max_batch_requests": batching.max_batch_size,
        "max_client_batch_size": service.max_items(model),
        "auto_truncate": true,
        "tokenization_workers": threads,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    }))
    .into_response())
}

/// The precision by its name in PyTorch, where it has one there.
fn dtype(precision: Precision) -> String {
    match precision {
        Precision::F32 => "float32".to_owned(),
        Precision::F16 => "float16".to_owned(),
        Precision::Bf16 => "bfloat16".to_owned(),
        other => other.to_string(),
    }
}

fn model_type(task: &Task) -> Value {
    let labels = |labels: &[String]| {
        let id2label: serde_json::Map<String, Value> =
            labels.iter().enumerate().map(|(id, label)| (id.to_string(), label.as_str().into())).collect();
        let label2id: serde_json::Map<String, Value> =
            labels.iter().enumerate().map(|(id, label)| (label.clone(), id.into())).collect();
        json!({"id2label": id2label, "label2id": label2id})
    };
    match task {
        Task::Embedding { dimensions } | Task::TokenEmbeddings { dimensions } => {
            json!({"embedding": {"dimensions": dimensions}})
        }
        Task::SparseEmbedding { words } => json!({"embedding": {"pooling": "splade", "dimensions": words}}),
        Task::Classification { labels: names } | Task::TokenClassification { labels: names } => {
            json!({"classifier": labels(names)})
        }
        Task::Score => json!({"reranker": labels(&["LABEL_0".to_owned()])}),
        other => json!({other.name(): {}}),
    }
}
