//! The OpenAPI document of the routes, made of their types.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa::openapi::path::{Parameter, ParameterIn, PathItem};
use utoipa::openapi::{Object, Required, Type};

use crate::service::HttpService;
use crate::{openai, rerank, tei};

#[derive(OpenApi)]
#[openapi(
    info(title = "Sconce", description = "Embeddings, scores and labels of the models that this server runs."),
    paths(
        openai::embeddings,
        openai::models,
        openai::model,
        rerank::rerank,
        tei::embed::embed,
        tei::embed::embed_all,
        tei::embed::embed_sparse,
        tei::embed::similarity,
        tei::rerank::rerank,
        tei::classify::predict,
        tei::tokens::tokenize,
        tei::tokens::decode,
        tei::info::info,
    )
)]
struct ApiDocument;

/// The tag of the routes that are also there below `/models/{model}`.
const OF_ONE_MODEL: &str = "text-embeddings-inference";

/// The document, with the routes that are others under another path.
fn document() -> utoipa::openapi::OpenApi {
    let mut document = ApiDocument::openapi();
    let paths = &mut document.paths.paths;
    let mut others = Vec::new();
    for (path, item) in paths.iter() {
        if path == "/v1/rerank" {
            others.push(("/v2/rerank".to_owned(), renamed(item, "_v2", None)));
        }
        if has_tag(item, OF_ONE_MODEL) {
            others.push((format!("/models/{{model}}{path}"), renamed(item, "_of_model", Some(&model_parameter()))));
        }
    }
    paths.extend(others);
    document
}

fn has_tag(item: &PathItem, tag: &str) -> bool {
    let operations = [&item.get, &item.post];
    let mut tags = operations.into_iter().flatten().filter_map(|operation| operation.tags.as_ref()).flatten();
    tags.any(|name| name == tag)
}

/// The same operations with other ids, which must be unique, and with a further parameter.
fn renamed(item: &PathItem, suffix: &str, parameter: Option<&Parameter>) -> PathItem {
    let mut item = item.clone();
    for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
        operation.operation_id = operation.operation_id.take().map(|id| id + suffix);
        operation.parameters.get_or_insert_default().extend(parameter.cloned());
    }
    item
}

fn model_parameter() -> Parameter {
    let mut parameter = Parameter::new("model");
    parameter.parameter_in = ParameterIn::Path;
    parameter.required = Required::True;
    parameter.description = Some("The model's name".to_owned());
    parameter.schema = Some(Object::with_type(Type::String).into());
    parameter
}

pub(crate) fn routes() -> Router<Arc<HttpService>> {
    let document = document();
    Router::new().route("/openapi.json", get(async move || Json(document)))
}
