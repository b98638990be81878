//! The protocol's calls, answered by a runtime.

use std::time::{Duration, Instant};

use sconce::{Model, RequestGroup, Runtime};
use tonic::{Code, Request, Response, Status};

use crate::deadline::Arrival;
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
use crate::{decode, metadata, outputs, statistics};

/// The service `inference.GRPCInferenceService` of a runtime.
pub(crate) struct Service {
    runtime: Runtime,
    governor: Governor,
}

impl Service {
    pub(crate) fn new(runtime: Runtime) -> Self {
        Self { runtime, governor: Governor::new() }
    }

    fn model(&self, name: &str, version: &str) -> Result<&Model, RequestError> {
        let model = self.runtime.model(name)?;
        match version {
            "" | metadata::VERSION => Ok(model),
            _ => Err(RequestError::UnknownVersion { model: name.to_owned(), version: version.to_owned() }),
        }
    }

    /// Answers a request to `model`. All of the request is checked before its first item is submitted.
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

        let Parameters { priority, truncation, cache, prompt, vectors, .. } = parameters;
        let refusal = if cache && model.is_cached() { None } else { model.refusal(timeout, priority) };
        let answers = if let Some(source) = refusal {
            Err(RequestError::Refused { source })
        } else {
            let group = RequestGroup { inputs: items.inputs, timeout, priority, truncation, cache, prompt, vectors };
            model.try_infer_many(group).await.map_err(RequestError::from)
        };
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                // An error means that no time is left; `None` would mean that there is no bound.
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
        Ok(response)
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: !self.runtime.is_draining() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = self.model(&name, &version).is_ok() && !self.runtime.is_draining();
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
            "" => self.runtime.models().map(statistics::of).collect(),
            name => vec![statistics::of(self.model(name, &version)?)],
        };
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let _in_flight = self.runtime.enter();
        let arrival = Arrival::of(&request)?;
        let request = request.into_inner();
        let model = self.model(&request.model_name, &request.model_version)?;
        match self.infer(model, request, arrival).await {
            Ok(response) => Ok(Response::new(response)),
            Err(error) => {
                let status = Status::from(error);
                if status.code() == Code::Internal {
                    tracing::error!(model = model.name(), "{}", status.message());
                }
                Err(status)
            }
        }
    }
}
