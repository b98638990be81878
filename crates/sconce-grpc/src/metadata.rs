//! Metadata and configuration of models and of the server, as the protocol has them.

use std::collections::HashMap;

use sconce::{BatcherConfig, Datatype, InputTensor, Model, OutputShape, OutputTensor, Priority, Signature};

use crate::proto::model_config::SchedulingChoice;
use crate::proto::model_input::Format;
use crate::proto::model_metadata_response::TensorMetadata;
use crate::proto::model_queue_policy::TimeoutAction;
use crate::proto::{
    DataType, ModelConfig, ModelDynamicBatching, ModelInput, ModelMetadataResponse, ModelOutput, ModelParameter,
    ModelQueuePolicy, ServerMetadataResponse,
};

/// The one version that every model has.
pub(crate) const VERSION: &str = "1";
const BACKEND: &str = "sconce";
const PLATFORM: &str = "sconce_candle";
/// The protocol extensions that are served, by Triton's names.
const EXTENSIONS: [&str; 3] = ["classification", "model_configuration", "statistics"];

/// A tensor of one item, without the batch dimension.
struct ItemTensor {
    name: &'static str,
    datatype: DataType,
    dims: Vec<i64>,
    /// True if a request may leave it out.
    optional: bool,
}

/// Name, version and extensions of the server.
pub(crate) fn server() -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: "sconce".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        extensions: EXTENSIONS.map(String::from).into(),
    }
}

/// Inputs and outputs of a model.
pub(crate) fn model(model: &Model) -> ModelMetadataResponse {
    let metadata = |tensor: ItemTensor| TensorMetadata {
        name: tensor.name.into(),
        datatype: name(tensor.datatype).into(),
        shape: [vec![-1], tensor.dims].concat(),
    };
    ModelMetadataResponse {
        name: model.name().into(),
        versions: vec![VERSION.into()],
        platform: PLATFORM.into(),
        inputs: inputs(model.signature()).into_iter().map(metadata).collect(),
        outputs: outputs(model.signature()).into_iter().map(metadata).collect(),
    }
}

/// Configuration of a model.
pub(crate) fn config(model: &Model) -> ModelConfig {
    let input = |tensor: ItemTensor| ModelInput {
        name: tensor.name.into(),
        data_type: tensor.datatype.into(),
        // Channels, height and width.
        format: if tensor.dims.len() == 3 { Format::Nchw } else { Format::None }.into(),
        dims: tensor.dims,
        optional: tensor.optional,
    };
    let output = |tensor: ItemTensor| ModelOutput {
        name: tensor.name.into(),
        data_type: tensor.datatype.into(),
        dims: tensor.dims,
    };
    ModelConfig {
        name: model.name().into(),
        platform: PLATFORM.into(),
        backend: BACKEND.into(),
        max_batch_size: i32::try_from(model.batcher_config().max_batch_size).unwrap_or(i32::MAX),
        input: inputs(model.signature()).into_iter().map(input).collect(),
        output: outputs(model.signature()).into_iter().map(output).collect(),
        parameters: parameters(model.signature()),
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

fn parameters(signature: &Signature) -> HashMap<String, ModelParameter> {
    let max_tokens = signature.input.kind.max_tokens().map(|max_tokens| ("max_tokens", max_tokens.to_string()));
    [
        ("model_type", signature.model_type.clone()),
        ("task", signature.task.name().to_owned()),
        ("precision", signature.precision.to_string()),
        ("device", signature.device.to_string()),
        ("parameters", signature.parameters.to_string()),
    ]
    .into_iter()
    .chain(max_tokens)
    .map(|(name, string_value)| (name.to_owned(), ModelParameter { string_value }))
    .collect()
}

fn inputs(signature: &Signature) -> Vec<ItemTensor> {
    let tensor = |InputTensor { name, datatypes, shape, optional }: InputTensor| ItemTensor {
        name,
        datatype: data_type(datatypes[0]),
        dims: shape.map_or_else(|| vec![1], |shape| shape.into_iter().map(dimension).collect()),
        optional,
    };
    signature.input.kind.tensors(signature.input.name).into_iter().map(tensor).collect()
}

fn outputs(signature: &Signature) -> Vec<ItemTensor> {
    let tensor = |OutputTensor { name, datatype, shape }: OutputTensor| ItemTensor {
        name,
        datatype: data_type(datatype),
        dims: match shape {
            OutputShape::Fixed(width) => vec![dimension(width)],
            OutputShape::Varying => vec![-1],
            OutputShape::Rows(width) => vec![-1, dimension(width)],
        },
        optional: false,
    };
    signature.task.tensors().into_iter().map(tensor).collect()
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

/// Converts a size to the protocol's integer.
pub(crate) fn dimension(size: usize) -> i64 {
    i64::try_from(size).expect("no tensor in memory has more than i64::MAX elements")
}

/// The name of an element type in requests and metadata.
fn name(datatype: DataType) -> &'static str {
    match datatype {
        DataType::TypeUint8 => "UINT8",
        DataType::TypeInt8 => "INT8",
        DataType::TypeInt32 => "INT32",
        DataType::TypeFp16 => "FP16",
        DataType::TypeFp32 => "FP32",
        _ => "BYTES",
    }
}
