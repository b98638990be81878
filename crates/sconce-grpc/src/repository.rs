//! The repository of models, as Triton's clients ask for it: its index, loading and unloading.

use sconce::{ModelState, RepositoryEntry};
use sconce_server::OpenInference;
use tonic::Status;

use crate::proto::repository_index_response::ModelIndex;
use crate::proto::{
    RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
};
use crate::status::status;

/// The models of the repository; `ready` leaves out those that take no new work.
pub(crate) async fn index(shared: &OpenInference, ready: bool) -> Result<RepositoryIndexResponse, Status> {
    let entries = shared.repository_index(ready).await.map_err(status)?;
    Ok(RepositoryIndexResponse { models: entries.into_iter().map(entry).collect() })
}

/// Loads a model anew.
pub(crate) async fn load(
    shared: &OpenInference,
    request: &RepositoryModelLoadRequest,
) -> Result<RepositoryModelLoadResponse, Status> {
    let parameters = request.parameters.keys().map(String::as_str);
    shared.load(&request.model_name, parameters).await.map_err(status)?;
    Ok(RepositoryModelLoadResponse {})
}

/// Unloads a model.
pub(crate) async fn unload(
    shared: &OpenInference,
    request: &RepositoryModelUnloadRequest,
) -> Result<RepositoryModelUnloadResponse, Status> {
    let parameters = request.parameters.keys().map(String::as_str);
    shared.unload(&request.model_name, parameters).await.map_err(status)?;
    Ok(RepositoryModelUnloadResponse {})
}

fn entry(entry: RepositoryEntry) -> ModelIndex {
    let (state, reason) = match entry.state {
        ModelState::Ready => ("READY", String::new()),
        ModelState::Loading => ("LOADING", String::new()),
        ModelState::Unavailable { reason } => ("UNAVAILABLE", reason),
        _ => ("UNKNOWN", String::new()),
    };
    ModelIndex { name: entry.name, version: entry.version.to_string(), state: state.to_owned(), reason }
}
