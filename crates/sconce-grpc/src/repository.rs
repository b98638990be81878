//! The repository of models: an index of those that are loaded.

use sconce::Runtime;
use sconce_server::metadata::MODEL_VERSION;
use tonic::Status;

use crate::proto::RepositoryIndexResponse;
use crate::proto::repository_index_response::ModelIndex;

/// The models that are loaded; `ready` leaves out those that take no new work.
pub(crate) fn index(runtime: &Runtime, ready: bool) -> RepositoryIndexResponse {
    let is_draining = runtime.is_draining();
    let (state, reason) = if is_draining { ("UNAVAILABLE", "the server is leaving") } else { ("READY", "") };
    let model = |model: &sconce::Model| ModelIndex {
        name: model.name().to_owned(),
        version: MODEL_VERSION.into(),
        state: state.into(),
        reason: reason.into(),
    };
    let models = if ready && is_draining { Vec::new() } else { runtime.models().map(model).collect() };
    RepositoryIndexResponse { models }
}

/// The refusal to load or to unload a model.
pub(crate) fn fixed_models() -> Status {
    Status::unimplemented(
        "models are neither loaded nor unloaded while the server runs: it serves those that it found when it started; start \
         it anew to serve others",
    )
}
