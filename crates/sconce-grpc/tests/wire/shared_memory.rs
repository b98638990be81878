//! Tensors in the system's shared memory.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::support::*;
use sconce::BatcherConfig;
use sconce_grpc::proto::infer_parameter::ParameterChoice;
use sconce_grpc::proto::model_infer_request::InferRequestedOutputTensor;
use sconce_grpc::proto::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryStatusRequest, CudaSharedMemoryUnregisterRequest, InferParameter,
    ModelInferRequest, ServerMetadataRequest, SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryUnregisterRequest,
};
use tonic::Code;

/// A shared memory object, removed on drop.
struct Object(PathBuf);

impl Object {
    fn new(name: &str, contents: &[u8]) -> Self {
        let path = PathBuf::from("/dev/shm").join(format!("sconce-wire-{}-{name}", std::process::id()));
        std::fs::write(&path, contents).unwrap();
        Self(path)
    }

    fn key(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
    }

    fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        std::fs::File::open(&self.0).unwrap().read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    async fn register(&self, client: &mut Client, name: &str) {
        let byte_size = std::fs::metadata(&self.0).unwrap().len();
        let request = SystemSharedMemoryRegisterRequest { name: name.into(), key: self.key(), offset: 0, byte_size };
        client.system_shared_memory_register(request).await.unwrap();
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

fn place(region: &str, offset: i64, bytes: i64) -> std::collections::HashMap<String, InferParameter> {
    let parameter = |(name, choice): (&str, _)| (name.to_owned(), InferParameter { parameter_choice: Some(choice) });
    [
        ("shared_memory_region", ParameterChoice::StringParam(region.into())),
        ("shared_memory_offset", ParameterChoice::Int64Param(offset)),
        ("shared_memory_byte_size", ParameterChoice::Int64Param(bytes)),
    ]
    .map(parameter)
    .into()
}

/// A request whose text is in the region `in`, and whose scores go to the region `out`.
fn shared_request(bytes: usize, room: i64) -> ModelInferRequest {
    let mut text = tensor("text", "BYTES", &[2, 1]);
    text.parameters = place("in", 3, bytes.try_into().unwrap());
    let scores = InferRequestedOutputTensor { name: "scores".into(), parameters: place("out", 8, room) };
    let label = InferRequestedOutputTensor { name: "label".into(), ..Default::default() };
    ModelInferRequest {
        model_name: SENTIMENT.into(),
        inputs: vec![text],
        outputs: vec![scores, label],
        ..Default::default()
    }
}

#[tokio::test]
async fn inputs_are_read_from_and_outputs_written_to_registered_regions() {
    let server = Server::with_shared_memory(&[SENTIMENT]).await;
    let mut client = server.client().await;
    let list = ["What a wonderful day!", "Terrible."];
    let elements = raw_bytes(&list);
    let input = Object::new("in", &[b"abc", &elements[..]].concat());
    let output = Object::new("out", &[0xee; 32]);
    input.register(&mut client, "in").await;
    output.register(&mut client, "out").await;

    let plain = client.model_infer(texts(SENTIMENT, &list)).await.unwrap().into_inner();
    let (_, expected) = floats(&plain, "scores");
    let response = client.model_infer(shared_request(elements.len(), 24)).await.unwrap().into_inner();
    assert_eq!(strings(&response, "label").1, ["positive", "negative"]);
    assert_eq!(response.outputs[0].shape, [2, 2]);
    assert!(response.raw_output_contents[0].is_empty(), "the scores are in shared memory");
    let written: [u8; 32] = output.read(0);
    let scores: Vec<f32> =
        written[8..24].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(scores, expected);
    assert_eq!((&written[..8], &written[24..]), (&[0xee; 8][..], &[0xee; 8][..]), "nothing else is written");

    let too_small = client.model_infer(shared_request(elements.len(), 15)).await.unwrap_err();
    assert_eq!(too_small.code(), Code::InvalidArgument);
    assert_eq!(too_small.message(), "output 'scores' has 16 bytes, but its place in shared memory has 15");
    std::fs::File::options().write(true).open(&input.0).unwrap().set_len(5).unwrap();
    let cut = client.model_infer(shared_request(elements.len(), 16)).await.unwrap_err();
    assert_eq!(cut.code(), Code::InvalidArgument);
    assert!(cut.message().starts_with("cannot reach tensor 'text'"), "the server goes on: {cut}");
}

#[tokio::test]
async fn regions_are_described_by_name_until_they_are_forgotten() {
    let server = Server::with_shared_memory(&[DIGITS]).await;
    let mut client = server.client().await;
    let extensions = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner().extensions;
    assert!(extensions.iter().any(|extension| extension == "system_shared_memory"), "{extensions:?}");
    let object = Object::new("described", &[0; 16]);
    object.register(&mut client, "a").await;
    object.register(&mut client, "b").await;
    let again = SystemSharedMemoryRegisterRequest { name: "a".into(), key: object.key(), offset: 0, byte_size: 1 };
    assert_eq!(client.system_shared_memory_register(again).await.unwrap_err().code(), Code::AlreadyExists);

    let status = |name: &str| SystemSharedMemoryStatusRequest { name: name.into() };
    let all = client.system_shared_memory_status(status("")).await.unwrap().into_inner().regions;
    assert_eq!(all.len(), 2);
    assert_eq!((all["a"].key.as_str(), all["a"].offset, all["a"].byte_size), (object.key().as_str(), 0, 16));
    let forget = |name: &str| SystemSharedMemoryUnregisterRequest { name: name.into() };
    client.system_shared_memory_unregister(forget("a")).await.unwrap();
    let unknown = client.system_shared_memory_status(status("a")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    client.system_shared_memory_unregister(forget("")).await.unwrap();
    assert!(client.system_shared_memory_status(status("")).await.unwrap().into_inner().regions.is_empty());
}

#[tokio::test]
async fn shared_memory_is_off_unless_it_is_allowed_and_cudas_is_never_served() {
    let server = Server::start(&[SENTIMENT], BatcherConfig::default()).await;
    let mut client = server.client().await;
    let object = Object::new("off", &[0; 16]);
    let register = SystemSharedMemoryRegisterRequest { name: "in".into(), key: object.key(), offset: 0, byte_size: 16 };
    let registered = client.system_shared_memory_register(register).await.unwrap_err();
    let used = client.model_infer(shared_request(9, 16)).await.unwrap_err();
    for refused in [registered, used] {
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().starts_with("shared memory is not served"), "{refused}");
    }
    // perf_analyzer forgets all regions before it begins.
    client.system_shared_memory_unregister(SystemSharedMemoryUnregisterRequest::default()).await.unwrap();
    client.cuda_shared_memory_unregister(CudaSharedMemoryUnregisterRequest::default()).await.unwrap();
    let status = client.cuda_shared_memory_status(CudaSharedMemoryStatusRequest::default()).await.unwrap();
    assert!(status.get_ref().regions.is_empty());
    let cuda = client.cuda_shared_memory_register(CudaSharedMemoryRegisterRequest::default()).await.unwrap_err();
    assert_eq!(cuda.code(), Code::Unimplemented);
    assert_eq!(cuda.message(), "shared memory of CUDA is not served; use the system's, or send contents");
}
