//! Descriptions of the server and its models, in the JSON of Triton's messages.

use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use sconce::{BatchItems, Datatype, Model, Priority, Total};
use sconce_server::metadata::{
    BACKEND, EXTENSIONS, ItemTensor, PLATFORM, SERVER_NAME, SERVER_VERSION, SHARED_MEMORY_EXTENSION, facts, inputs,
    outputs,
};
use serde_json::{Map, Value, json};

use super::{ModelPath, Shared, error_response};

/// The extension that gRPC does not need.
const BINARY_TENSORS: &str = "binary_tensor_data";

pub(crate) async fn server(State(shared): Shared) -> Response {
    let shared_memory = shared.shared_memory().is_allowed().then_some(SHARED_MEMORY_EXTENSION);
    let extensions: Vec<&str> = EXTENSIONS.into_iter().chain([BINARY_TENSORS]).chain(shared_memory).collect();
    Json(json!({"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": extensions})).into_response()
}

pub(crate) async fn metadata(State(shared): Shared, Path(named): Path<ModelPath>) -> Response {
    of_model(&shared, &named, |model| {
        let tensor = |tensor: ItemTensor| json!({"name": tensor.name, "datatype": tensor.datatype.name(), "shape": tensor.shape()});
        let inputs: Vec<Value> = inputs(model.signature()).into_iter().map(tensor).collect();
        let outputs: Vec<Value> = outputs(model.signature()).into_iter().map(tensor).collect();
        let name = model.name();
        let versions = shared.versions(name).unwrap_or_default();
        let versions: Vec<String> = versions.iter().map(|version| version.version().to_string()).collect();
        json!({"name": name, "versions": versions, "platform": PLATFORM, "inputs": inputs, "outputs": outputs})
    })
}

pub(crate) async fn config(State(shared): Shared, Path(named): Path<ModelPath>) -> Response {
    of_model(&shared, &named, |model| {
        let input = |tensor: ItemTensor| {
            let format = if tensor.is_image() { "FORMAT_NCHW" } else { "FORMAT_NONE" };
            let data_type = data_type(tensor.datatype);
            json!({
                "name": tensor.name, "data_type": data_type, "format": format, "dims": tensor.dims,
                "optional": tensor.optional
            })
        };
        let output = |tensor: ItemTensor| json!({"name": tensor.name, "data_type": data_type(tensor.datatype), "dims": tensor.dims});
        let parameter = |(name, value): (&str, String)| (name.to_owned(), json!({"string_value": value}));
        let batching = model.batcher_config();
        json!({
            "name": model.name(),
            "platform": PLATFORM,
            "backend": BACKEND,
            "max_batch_size": batching.max_batch_size,
            "input": inputs(model.signature()).into_iter().map(input).collect::<Vec<_>>(),
            "output": outputs(model.signature()).into_iter().map(output).collect::<Vec<_>>(),
            "parameters": facts(model).into_iter().map(parameter).collect::<Map<_, _>>(),
            "dynamic_batching": {
                "max_queue_delay_microseconds": u64::try_from(batching.max_queue_delay.as_micros()).unwrap_or(u64::MAX),
                "priority_levels": Priority::ALL.len(),
                "default_priority_level": 1 + Priority::default() as u64,
                "default_queue_policy": {
                    "timeout_action": "REJECT",
                    "default_timeout_microseconds": 0,
                    "allow_timeout_override": true,
                    "max_queue_size": batching.max_queue_size,
                },
            },
        })
    })
}

pub(crate) async fn statistics(State(shared): Shared, Path(named): Path<ModelPath>) -> Response {
    of_model(&shared, &named, |model| json!({"model_stats": [statistics_of(model)]}))
}

pub(crate) async fn all_statistics(State(shared): Shared) -> Response {
    let all: Vec<Value> = shared.runtime().all_versions().iter().map(statistics_of).collect();
    Json(json!({"model_stats": all})).into_response()
}

fn of_model(
    shared: &sconce_server::OpenInference,
    named: &ModelPath,
    describe: impl FnOnce(&Model) -> Value,
) -> Response {
    match named.of(shared) {
        Ok(model) => Json(describe(&model)).into_response(),
        Err(error) => error_response(error),
    }
}

fn statistics_of(model: &Model) -> Value {
    let stats = model.request_stats();
    let since_1970 = stats.last.and_then(|last| last.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let batches = stats.by_batch_size.iter().map(|(size, items)| (*size, *items));
    let of_size = |(size, items): (usize, BatchItems)| {
        json!({
            "batch_size": size,
            "compute_input": duration(items.batches_prepared(size)),
            "compute_infer": duration(items.batches(size)),
            "compute_output": duration(items.batches_finished(size)),
        })
    };
    json!({
        "name": model.name(),
        "version": model.version().to_string(),
        "last_inference": u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        "inference_count": stats.by_batch_size.values().map(|items| items.items).sum::<u64>(),
        "execution_count": batches.clone().map(|(size, items)| items.batches(size).count).sum::<u64>(),
        "inference_stats": {
            "success": duration(stats.succeeded),
            "fail": duration(stats.failed),
            "queue": duration(stats.queue),
            "compute_input": duration(stats.prepare),
            "compute_infer": duration(stats.run),
            "compute_output": duration(stats.rest),
            "cache_hit": duration(stats.cached),
        },
        "batch_stats": batches.map(of_size).collect::<Vec<_>>(),
    })
}

fn duration(Total { count, time }: Total) -> Value {
    json!({"count": count, "ns": u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)})
}

fn data_type(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bytes => "TYPE_STRING",
        Datatype::Uint8 => "TYPE_UINT8",
        Datatype::Int8 => "TYPE_INT8",
        Datatype::Int32 => "TYPE_INT32",
        Datatype::Fp16 => "TYPE_FP16",
        Datatype::Fp32 => "TYPE_FP32",
    }
}
