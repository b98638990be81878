//! The OpenAPI document of the routes, made of their types.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;

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

pub(crate) fn routes() -> Router<Arc<HttpService>> {
    let document = ApiDocument::openapi();
    Router::new().route("/openapi.json", get(async move || Json(document)))
}
