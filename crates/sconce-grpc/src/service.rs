//! The protocol's calls on a runtime.

use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sconce::{Answer, Model, Request as Item, Runtime};
use tokio::task::JoinSet;
use tonic::{Code, Request, Response, Status};

use crate::deadline::Arrival;
use crate::drain::Drain;
use crate::error::RequestError;
use crate::pacing::Governor;
use crate::parameters::Parameters;
use crate::proto::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse,
};
use crate::statistics::Statistics;
use crate::{decode, metadata, outputs};

/// What one task prepares of a request: tokenising this much takes about 0.2 ms, which other tasks of its worker can wait,
/// and spawning a task for less costs more than it spreads.
const MAX_PART_BYTES: usize = 2 * 1024;

/// `inference.GRPCInferenceService` on a runtime.
pub(crate) struct Service {
    runtime: Runtime,
    drain: Drain,
    statistics: Statistics,
    governor: Governor,
}

impl Service {
    pub(crate) fn new(runtime: Runtime, drain: Drain) -> Self {
        Self { runtime, drain, statistics: Statistics::default(), governor: Governor::new() }
    }

    fn model(&self, name: &str, version: &str) -> Result<&Model, RequestError> {
        let model = self.runtime.model(name)?;
        match version {
            "" | metadata::VERSION => Ok(model),
            _ => Err(RequestError::UnknownVersion { model: name.to_owned(), version: version.to_owned() }),
        }
    }

    /// Everything about the request is checked before the first item is submitted.
    async fn infer(
        &self,
        model: &Model,
        mut request: ModelInferRequest,
        arrival: Arrival,
    ) -> Result<ModelInferResponse, RequestError> {
        let parameters = Parameters::read(&request.parameters)?;
        let signature = model.signature();
        let wanted = outputs::wanted(&request.outputs, &signature.task)?;
        let max_items = model.batcher_config().max_queue_size;
        let items = decode::take_items(&mut request, &signature.input, max_items)?;
        let timeout = arrival.time_left(parameters.timeout, Instant::now())?;

        let Parameters { priority, truncation, cache, .. } = parameters;
        let refusal = if cache && model.is_cached() { None } else { model.refusal(timeout, priority) };
        let answers = match refusal {
            Some(source) => Err(RequestError::Refused { source }),
            None => {
                let item = |input| Item { input, timeout, priority, truncation, cache };
                answer_all(model, items.inputs.into_iter().map(item).collect()).await
            }
        };
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                // Nothing left is no time, not as much as one likes.
                let left = |now| arrival.time_left(parameters.timeout, now).unwrap_or(Some(Duration::ZERO));
                return Err(self.governor.hold_back(error, left).await);
            }
        };

        let mut response = ModelInferResponse {
            model_name: model.name().into(),
            model_version: metadata::VERSION.into(),
            id: request.id,
            parameters: outputs::parameters(&answers),
            ..Default::default()
        };
        outputs::fill(&mut response, &wanted, &answers, items.raw);
        let timings = answers.iter().map(|answer| &answer.timing);
        self.statistics.succeeded(model.name(), arrival.at.elapsed(), timings);
        Ok(response)
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: !self.drain.has_started() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = self.model(&name, &version).is_ok() && !self.drain.has_started();
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(metadata::server()))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        Ok(Response::new(metadata::model(self.model(&name, &version)?)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let ModelConfigRequest { name, version } = request.into_inner();
        let config = metadata::config(self.model(&name, &version)?);
        Ok(Response::new(ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let model_stats = match name.as_str() {
            "" => self.runtime.models().map(|model| self.statistics.of(model.name())).collect(),
            name => vec![self.statistics.of(self.model(name, &version)?.name())],
        };
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let _in_flight = self.drain.enter();
        let arrival = Arrival::of(&request)?;
        let request = request.into_inner();
        let model = self.model(&request.model_name, &request.model_version)?;
        match self.infer(model, request, arrival).await {
            Ok(response) => Ok(Response::new(response)),
            Err(error) => {
                self.statistics.failed(model.name(), arrival.at.elapsed());
                let status = Status::from(error);
                if status.code() == Code::Internal {
                    tracing::error!(model = model.name(), "{}", status.message());
                }
                Err(status)
            }
        }
    }
}

/// Submits each item by itself, so that the batcher mixes requests. The first failure ends the request: what is left is
/// dropped, and its items leave the queue.
async fn answer_all(model: &Model, items: Vec<Item>) -> Result<Vec<Answer>, RequestError> {
    let mut parts = parts(items);
    let mut answers = match parts.pop() {
        // Little to prepare needs no task beside the request's own.
        Some(only) if parts.is_empty() => answer_part(model, only).await?,
        last => answer_side_by_side(model, parts.into_iter().chain(last)).await?,
    };
    answers.sort_unstable_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// Items of a request that one task prepares, each with its index in the request.
type Part = Vec<(usize, Item)>;

/// Cuts items where a part would have more than [`MAX_PART_BYTES`] to prepare.
fn parts(items: Vec<Item>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut bytes = 0;
    for (index, item) in items.into_iter().enumerate() {
        bytes += item.input.bytes();
        match parts.last_mut() {
            Some(part) if bytes <= MAX_PART_BYTES => part.push((index, item)),
            _ => {
                bytes = item.input.bytes();
                parts.push(vec![(index, item)]);
            }
        }
    }
    parts
}

/// Each part by a task of its own, so that preparing many items does not hold up one worker.
async fn answer_side_by_side(
    model: &Model,
    parts: impl Iterator<Item = Part>,
) -> Result<Vec<(usize, Answer)>, RequestError> {
    let mut tasks = JoinSet::new();
    for part in parts {
        let model = model.clone();
        tasks.spawn(async move { answer_part(&model, part).await });
    }
    let mut answers = Vec::new();
    while let Some(task) = tasks.join_next().await {
        answers.extend(task.unwrap_or_else(|error| resume_unwind(error.into_panic()))?);
    }
    Ok(answers)
}

/// All items are admitted before the first is waited for.
async fn answer_part(model: &Model, part: Part) -> Result<Vec<(usize, Answer)>, RequestError> {
    let mut answers = Vec::with_capacity(part.len());
    let mut waiting: FuturesUnordered<_> = part
        .into_iter()
        .map(|(index, item)| async move {
            let answer = model.try_infer(item).await;
            answer.map(|answer| (index, answer)).map_err(|source| RequestError::Item { index, source })
        })
        .collect();
    while let Some(answer) = waiting.next().await {
        answers.push(answer?);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_every_item_in_order_and_no_more_bytes_than_one_task_prepares() {
        let sizes = [10, MAX_PART_BYTES - 10, 1, MAX_PART_BYTES + 1, 0, 7];
        let items = sizes.map(|size| Item::from("a".repeat(size))).to_vec();
        let cut: Vec<Vec<usize>> =
            parts(items).into_iter().map(|part| part.into_iter().map(|(index, _)| index).collect()).collect();
        assert_eq!(cut, [vec![0, 1], vec![2], vec![3], vec![4, 5]]);
        assert!(parts(Vec::new()).is_empty());
    }
}
