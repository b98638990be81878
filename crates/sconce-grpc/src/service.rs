//! The protocol's calls, answered by a runtime.

use std::sync::Arc;

use sconce::{Model, Runtime};
use sconce_server::{Arrival, Charge, OpenInference, Parameters, RequestError, ServerBounds};
use tonic::{Request, Response, Status, Streaming};

use crate::parameters::ProtoParameters;
use crate::proto::grpc_inference_service_server::GrpcInferenceService;
#[cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "nearly every message of the protocol"))]
use crate::proto::*;
use crate::status::status;
use crate::{deadline, decode, metadata, outputs, repository, settings, shared_memory, statistics, stream};

/// The service `inference.GRPCInferenceService` of a runtime. Clones are one service.
#[derive(Clone)]
pub(crate) struct Service(Arc<OpenInference>);

impl Service {
    pub(crate) fn new(runtime: Runtime, bounds: &ServerBounds) -> Self {
        Self(Arc::new(OpenInference::new(runtime, bounds)))
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        self.0.runtime()
    }

    fn model(&self, name: &str, version: &str) -> Result<Model, Status> {
        self.0.model(name, version).map_err(status)
    }

    /// Answers a request to a model, whose memory counts in `charge`.
    pub(crate) async fn answer(
        &self,
        request: ModelInferRequest,
        arrival: Arrival,
        charge: Option<&Charge>,
    ) -> Result<ModelInferResponse, RequestError> {
        let _in_flight = self.runtime().enter();
        let model = self.0.model(&request.model_name, &request.model_version)?;
        self.infer(&model, request, arrival, charge).await
    }

    /// Answers a request to `model`. All of the request is checked before its first item is submitted.
    async fn infer(
        &self,
        model: &Model,
        mut request: ModelInferRequest,
        arrival: Arrival,
        charge: Option<&Charge>,
    ) -> Result<ModelInferResponse, RequestError> {
        let parameters = Parameters::read(&ProtoParameters(&request.parameters))?;
        let signature = model.signature();
        let shared_memory = self.0.shared_memory();
        let wanted = outputs::wanted(&request.outputs, &signature.task, shared_memory)?;
        let items = decode::take_items(&mut request, &signature.input, self.0.max_items(model), shared_memory, charge)?;
        let answers = self.0.answers(model, items.inputs, parameters, arrival).await?;
        let mut response = ModelInferResponse {
            model_name: model.name().into(),
            model_version: model.version().to_string(),
            id: request.id,
            ..Default::default()
        };
        outputs::fill(&mut response, &wanted, &answers, items.raw)?;
        Ok(response)
    }
}

/// The result of a call that is answered with one message.
type Answered<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    type ModelStreamInferStream = stream::StreamedAnswers;

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answered<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answered<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: !self.runtime().is_draining() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answered<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = self.model(&name, &version).is_ok() && !self.runtime().is_draining();
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answered<ServerMetadataResponse> {
        Ok(Response::new(metadata::server(self.0.shared_memory())))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Answered<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let model = self.model(&name, &version)?;
        let versions = self.0.versions(&name).map_err(status)?;
        Ok(Response::new(metadata::model(&model, &versions)))
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answered<ModelConfigResponse> {
        let ModelConfigRequest { name, version } = request.into_inner();
        let config = metadata::config(&self.model(&name, &version)?);
        Ok(Response::new(ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(&self, request: Request<ModelStatisticsRequest>) -> Answered<ModelStatisticsResponse> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let model_stats = match name.as_str() {
            "" => self.runtime().all_versions().iter().map(statistics::of).collect(),
            name => vec![statistics::of(&self.model(name, &version)?)],
        };
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answered<ModelInferResponse> {
        let arrival = deadline::of(&request).map_err(status)?;
        self.answer(request.into_inner(), arrival, None).await.map(Response::new).map_err(status)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answered<stream::StreamedAnswers> {
        stream::answers(self.clone(), request).map(Response::new)
    }

    async fn repository_index(&self, request: Request<RepositoryIndexRequest>) -> Answered<RepositoryIndexResponse> {
        repository::index(&self.0, request.get_ref().ready).await.map(Response::new)
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answered<RepositoryModelLoadResponse> {
        repository::load(&self.0, request.get_ref()).await.map(Response::new)
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answered<RepositoryModelUnloadResponse> {
        repository::unload(&self.0, request.get_ref()).await.map(Response::new)
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Answered<SystemSharedMemoryStatusResponse> {
        shared_memory::regions(self.0.shared_memory(), &request.get_ref().name).map(Response::new)
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Answered<SystemSharedMemoryRegisterResponse> {
        shared_memory::register(self.0.shared_memory(), request.get_ref()).map(Response::new)
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Answered<SystemSharedMemoryUnregisterResponse> {
        shared_memory::unregister(self.0.shared_memory(), &request.get_ref().name).map(Response::new)
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<CudaSharedMemoryStatusRequest>,
    ) -> Answered<CudaSharedMemoryStatusResponse> {
        shared_memory::cuda_regions(&request.get_ref().name).map(Response::new)
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Answered<CudaSharedMemoryRegisterResponse> {
        Err(shared_memory::no_cuda())
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Answered<CudaSharedMemoryUnregisterResponse> {
        Ok(Response::new(CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(&self, request: Request<TraceSettingRequest>) -> Answered<TraceSettingResponse> {
        let TraceSettingRequest { settings, model_name } = request.into_inner();
        if !model_name.is_empty() {
            self.model(&model_name, "")?;
        }
        settings::traces(&settings).map(Response::new)
    }

    async fn log_settings(&self, request: Request<LogSettingsRequest>) -> Answered<LogSettingsResponse> {
        settings::logs(&request.get_ref().settings).map(Response::new)
    }
}
