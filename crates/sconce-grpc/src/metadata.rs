//! Metadata and configuration of models and of the server, as the protocol has them.

use sconce::{BatcherConfig, Datatype, Model, Priority};
use sconce_server::SharedMemory;
use sconce_server::metadata::{
    BACKEND, EXTENSIONS, ItemTensor, PLATFORM, SERVER_NAME, SERVER_VERSION, SHARED_MEMORY_EXTENSION, facts, inputs,
    outputs,
};

use crate::proto::model_config::SchedulingChoice;
use crate::proto::model_input::Format;
use crate::proto::model_metadata_response::TensorMetadata;
use crate::proto::model_queue_policy::TimeoutAction;
use crate::proto::{
    DataType, ModelConfig, ModelDynamicBatching, ModelInput, ModelMetadataResponse, ModelOutput, ModelParameter,
    ModelQueuePolicy, ServerMetadataResponse,
};

/// Name, version and extensions of the server.
pub(crate) fn server(shared_memory: &SharedMemory) -> ServerMetadataResponse {
    let shared_memory = shared_memory.is_allowed().then_some(SHARED_MEMORY_EXTENSION);
    ServerMetadataResponse {
        name: SERVER_NAME.into(),
        version: SERVER_VERSION.into(),
        extensions: EXTENSIONS.into_iter().chain(shared_memory).map(String::from).collect(),
    }
}

/// Inputs and outputs of a model, and its versions that are served.
pub(crate) fn model(model: &Model, versions: &[Model]) -> ModelMetadataResponse {
    let metadata = |tensor: ItemTensor| TensorMetadata {
        name: tensor.name.into(),
        datatype: tensor.datatype.name().into(),
        shape: tensor.shape(),
    };
    ModelMetadataResponse {
        name: model.name().into(),
        versions: versions.iter().map(|version| version.version().to_string()).collect(),
        platform: PLATFORM.into(),
        inputs: inputs(model.signature()).into_iter().map(metadata).collect(),
        outputs: outputs(model.signature()).into_iter().map(metadata).collect(),
    }
}

/// Configuration of a model.
pub(crate) fn config(model: &Model) -> ModelConfig {
    let input = |tensor: ItemTensor| ModelInput {
        name: tensor.name.into(),
        data_type: data_type(tensor.datatype).into(),
        // Channels, height and width.
        format: if tensor.is_image() { Format::Nchw } else { Format::None }.into(),
        dims: tensor.dims,
        optional: tensor.optional,
    };
    let output = |tensor: ItemTensor| ModelOutput {
        name: tensor.name.into(),
        data_type: data_type(tensor.datatype).into(),
        dims: tensor.dims,
    };
    ModelConfig {
        name: model.name().into(),
        platform: PLATFORM.into(),
        backend: BACKEND.into(),
        max_batch_size: i32::try_from(model.batcher_config().max_batch_size).unwrap_or(i32::MAX),
        input: inputs(model.signature()).into_iter().map(input).collect(),
        output: outputs(model.signature()).into_iter().map(output).collect(),
        parameters: facts(model).into_iter().map(parameter).collect(),
        scheduling_choice: Some(SchedulingChoice::DynamicBatching(batching(model.batcher_config()))),
    }
}

fn batching(config: &BatcherConfig) -> ModelDynamicBatching {
    ModelDynamicBatching {
        max_queue_delay_microseconds: u64::try_from(config.max_queue_delay.as_micros()).unwrap_or(u64::MAX),
        priority_levels: Priority::ALL.len() as u64,
        default_priority_level: 1 + Priority::default() as u64,
        default_queue_policy: Some(ModelQueuePolicy {
            timeout_action: TimeoutAction::Reject.into(),
            default_timeout_microseconds: 0,
            allow_timeout_override: true,
            max_queue_size: u32::try_from(config.max_queue_size).unwrap_or(u32::MAX),
        }),
    }
}

fn parameter((name, string_value): (&'static str, String)) -> (String, ModelParameter) {
    (name.to_owned(), ModelParameter { string_value })
}

fn data_type(datatype: Datatype) -> DataType {
    match datatype {
        Datatype::Bytes => DataType::TypeString,
        Datatype::Uint8 => DataType::TypeUint8,
        Datatype::Int8 => DataType::TypeInt8,
        Datatype::Int32 => DataType::TypeInt32,
        Datatype::Fp16 => DataType::TypeFp16,
        Datatype::Fp32 => DataType::TypeFp32,
    }
}
