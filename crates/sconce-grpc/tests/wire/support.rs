//! A real server on a free port with the models that ship, and requests to it.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use sconce::{BatcherConfig, Runtime};
use sconce_grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use sconce_grpc::proto::infer_parameter::ParameterChoice;
use sconce_grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use sconce_grpc::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use sconce_grpc::{ServeError, ServerBounds, ServerLimits, SharedMemory};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

pub(crate) const SENTIMENT: &str = "tiny-bert-sentiment";
pub(crate) const EMBEDDER: &str = "encoder-mini";
pub(crate) const DIGITS: &str = "digits-cnn";
pub(crate) const MAGIKA: &str = "magika";

pub(crate) fn zoo() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "models", "zoo"].iter().collect()
}

/// A configuration in which items wait for company until a batch of `max_batch_size` is full.
pub(crate) fn patient(max_batch_size: usize) -> BatcherConfig {
    BatcherConfig { max_batch_size, max_queue_delay: BatcherConfig::MAX_QUEUE_DELAY, ..BatcherConfig::default() }
}

pub(crate) struct Server {
    pub(crate) runtime: Runtime,
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub(crate) async fn start(models: &[&str], batching: BatcherConfig) -> Self {
        Self::within(ServerLimits::default(), models, batching).await
    }

    pub(crate) async fn of(runtime: Runtime) -> Self {
        Self::serving(ServerLimits::default(), runtime).await
    }

    pub(crate) async fn within(limits: ServerLimits, models: &[&str], batching: BatcherConfig) -> Self {
        let builder = models.iter().fold(Runtime::builder(), |builder, model| builder.model(zoo().join(model)));
        Self::serving(limits, builder.batching(batching).build().unwrap()).await
    }

    async fn serving(limits: ServerLimits, runtime: Runtime) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { stopped.await.unwrap_or(()) };
        let served = tokio::spawn(sconce_grpc::serve_within(limits, runtime.clone(), listener, shutdown));
        Self { runtime, address, stop, served }
    }

    /// A server whose clients may use shared memory.
    pub(crate) async fn with_shared_memory(models: &[&str]) -> Self {
        let builder = models.iter().fold(Runtime::builder(), |builder, model| builder.model(zoo().join(model)));
        let runtime = builder.build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let bounds = ServerBounds::new(ServerLimits::default()).unwrap().with_shared_memory(SharedMemory::allowed());
        let serving = runtime.clone();
        let served = tokio::spawn(async move {
            let shutdown = async move { stopped.await.unwrap_or(()) };
            sconce_grpc::serve_beside(&bounds, serving, listener, shutdown).await;
            Ok(())
        });
        Self { runtime, address, stop, served }
    }

    pub(crate) async fn zoo() -> Self {
        Self::start(&[SENTIMENT, EMBEDDER, DIGITS, MAGIKA], BatcherConfig::default()).await
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        GrpcInferenceServiceClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }

    /// Tells the server to shut down, and returns the task whose result is that of `serve`.
    pub(crate) fn stop(self) -> JoinHandle<Result<(), ServeError>> {
        self.stop.send(()).unwrap();
        self.served
    }

    pub(crate) async fn until_queued(&self, model: &str, items: usize) {
        let model = self.runtime.model(model).unwrap();
        until(|| model.depth().items == items).await;
    }
}

/// Lets other tasks run until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The output of a future; panics if it takes longer than even a busy machine needs.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

pub(crate) fn tensor(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor { name: name.into(), datatype: datatype.into(), shape: shape.to_vec(), ..Default::default() }
}

pub(crate) fn raw(model: &str, tensor: InferInputTensor, raw: impl Into<Bytes>) -> ModelInferRequest {
    let raw_input_contents = vec![raw.into()];
    ModelInferRequest { model_name: model.into(), inputs: vec![tensor], raw_input_contents, ..Default::default() }
}

pub(crate) fn typed(model: &str, mut tensor: InferInputTensor, contents: InferTensorContents) -> ModelInferRequest {
    tensor.contents = Some(contents);
    ModelInferRequest { model_name: model.into(), inputs: vec![tensor], ..Default::default() }
}

/// Encodes raw `BYTES` elements: each text behind its length.
pub(crate) fn raw_bytes(texts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let element = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_le_bytes(), text].concat();
    texts.iter().flat_map(|text| element(text.as_ref())).collect()
}

pub(crate) fn texts(model: &str, texts: &[impl AsRef<[u8]>]) -> ModelInferRequest {
    let items = i64::try_from(texts.len()).unwrap();
    let name = if model == MAGIKA { "content" } else { "text" };
    raw(model, tensor(name, "BYTES", &[items, 1]), raw_bytes(texts))
}

pub(crate) fn with(mut request: ModelInferRequest, name: &str, value: ParameterChoice) -> ModelInferRequest {
    request.parameters.insert(name.into(), InferParameter { parameter_choice: Some(value) });
    request
}

pub(crate) fn asking(mut request: ModelInferRequest, outputs: &[(&str, Option<i64>)]) -> ModelInferRequest {
    let parameter = |classes| InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(classes)) };
    let output = |(name, classes): &(&str, Option<i64>)| InferRequestedOutputTensor {
        name: (*name).into(),
        parameters: classes
            .iter()
            .map(|classes| ("classification".into(), parameter(*classes)))
            .collect::<HashMap<_, _>>(),
    };
    request.outputs = outputs.iter().map(output).collect();
    request
}

/// Shape and elements of a raw FP32 output.
pub(crate) fn floats(response: &ModelInferResponse, name: &str) -> (Vec<i64>, Vec<f32>) {
    let (shape, raw) = raw_output(response, name, "FP32");
    (shape, raw.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect())
}

/// Shape and elements of a raw BYTES output.
pub(crate) fn strings(response: &ModelInferResponse, name: &str) -> (Vec<i64>, Vec<String>) {
    let (shape, mut raw) = raw_output(response, name, "BYTES");
    let mut texts = Vec::new();
    while let Some((length, rest)) = raw.split_first_chunk() {
        let (text, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        raw = rest;
    }
    (shape, texts)
}

fn raw_output<'a>(response: &'a ModelInferResponse, name: &str, datatype: &str) -> (Vec<i64>, &'a [u8]) {
    let at = response.outputs.iter().position(|output| output.name == name).expect("the output is there");
    let output = &response.outputs[at];
    assert_eq!(output.datatype, datatype);
    assert!(output.contents.is_none(), "a raw request gets a raw answer");
    (output.shape.clone(), &response.raw_output_contents[at])
}

/// A tensor of a file beside a model, as little-endian bytes.
pub(crate) fn reference(model: &str, file: &str, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(zoo().join(model).join(file)).unwrap();
    safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap().data().to_vec()
}

pub(crate) fn reference_f32(model: &str, file: &str, name: &str) -> Vec<f32> {
    let bytes = reference(model, file, name);
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

pub(crate) fn reference_i64(model: &str, file: &str, name: &str) -> Vec<i64> {
    let bytes = reference(model, file, name);
    bytes.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[track_caller]
pub(crate) fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "element {at}: {got} is not {expected} within {tolerance}");
    }
}
