//! The protocol's calls, answered by a runtime.

use sconce::{Model, Runtime};
use sconce_server::metadata::MODEL_VERSION;
use sconce_server::{Arrival, OpenInference, Parameters, RequestError};
use tonic::{Code, Request, Response, Status};

use crate::parameters::ProtoParameters;
use crate::proto::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse,
};
use crate::status::status;
use crate::{deadline, decode, metadata, outputs, statistics};

/// The service `inference.GRPCInferenceService` of a runtime.
pub(crate) struct Service(OpenInference);

impl Service {
    pub(crate) fn new(runtime: Runtime, max_items: usize) -> Self {
        Self(OpenInference::new(runtime, max_items))
    }

    fn model(&self, name: &str, version: &str) -> Result<&Model, Status> {
        self.0.model(name, version).map_err(status)
    }

    /// Answers a request to `model`. All of the request is checked before its first item is submitted.
    async fn infer(
        &self,
        model: &Model,
        mut request: ModelInferRequest,
        arrival: Arrival,
    ) -> Result<ModelInferResponse, RequestError> {
        let parameters = Parameters::read(&ProtoParameters(&request.parameters))?;
        let signature = model.signature();
        let wanted = outputs::wanted(&request.outputs, &signature.task)?;
        let max_items = model.batcher_config().max_queue_size;
        let items = decode::take_items(&mut request, &signature.input, max_items)?;
        let answers = self.0.answers(model, items.inputs, parameters, arrival).await?;
        let mut response = ModelInferResponse {
            model_name: model.name().into(),
            model_version: MODEL_VERSION.into(),
            id: request.id,
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
        Ok(Response::new(ServerReadyResponse { ready: !self.0.runtime().is_draining() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = self.model(&name, &version).is_ok() && !self.0.runtime().is_draining();
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
            "" => self.0.runtime().models().map(statistics::of).collect(),
            name => vec![statistics::of(self.model(name, &version)?)],
        };
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let _in_flight = self.0.runtime().enter();
        let arrival = deadline::of(&request).map_err(status)?;
        let request = request.into_inner();
        let model = self.model(&request.model_name, &request.model_version)?;
        match self.infer(model, request, arrival).await {
            Ok(response) => Ok(Response::new(response)),
            Err(error) => {
                let status = status(error);
                if status.code() == Code::Internal {
                    tracing::error!(model = model.name(), "{}", status.message());
                }
                Err(status)
            }
        }
    }
}
