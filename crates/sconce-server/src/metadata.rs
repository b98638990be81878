//! Names, versions and tensors of models, as the Open Inference Protocol describes them.

use sconce::{Datatype, InputTensor, Model, OutputShape, OutputTensor, Precision, Signature};

/// The name of the server.
pub const SERVER_NAME: &str = "sconce";
/// The version of the server.
pub const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The backend of every model, by Triton's word.
pub const BACKEND: &str = "sconce";
/// The platform of every model, by Triton's word.
pub const PLATFORM: &str = "sconce_candle";
/// The protocol extensions that every server serves, by Triton's names.
pub const EXTENSIONS: [&str; 3] = ["classification", "model_configuration", "statistics"];
/// The protocol extension of a server that reads and writes the system's shared memory, by Triton's name.
pub const SHARED_MEMORY_EXTENSION: &str = "system_shared_memory";

/// A tensor of one item, without the batch dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemTensor {
    /// The tensor's name.
    pub name: &'static str,
    /// The element type, of an input the preferred one.
    pub datatype: Datatype,
    /// The size of each dimension; −1 where it varies.
    pub dims: Vec<i64>,
    /// True if a request may leave it out.
    pub optional: bool,
}

impl ItemTensor {
    /// The shape of a whole tensor: any number of items before the item's dimensions.
    #[must_use]
    pub fn shape(&self) -> Vec<i64> {
        [&[-1], &self.dims[..]].concat()
    }

    /// True for channels, height and width.
    #[must_use]
    pub fn is_image(&self) -> bool {
        self.dims.len() == 3
    }
}

/// The inputs of a model.
#[must_use]
pub fn inputs(signature: &Signature) -> Vec<ItemTensor> {
    let tensor = |InputTensor { name, datatypes, shape, optional }: InputTensor| ItemTensor {
        name,
        datatype: datatypes[0],
        dims: shape.map_or_else(|| vec![1], |shape| shape.into_iter().map(dimension).collect()),
        optional,
    };
    signature.input.kind.tensors(signature.input.name).into_iter().map(tensor).collect()
}

/// The outputs of a model.
#[must_use]
pub fn outputs(signature: &Signature) -> Vec<ItemTensor> {
    let tensor = |OutputTensor { name, datatype, shape }: OutputTensor| ItemTensor {
        name,
        datatype,
        dims: match shape {
            OutputShape::Fixed(width) => vec![dimension(width)],
            OutputShape::Varying => vec![-1],
            OutputShape::Rows(width) => vec![-1, dimension(width)],
        },
        optional: false,
    };
    signature.task.tensors().into_iter().map(tensor).collect()
}

/// Facts of a model by name, as configurations list them. A model that is loaded in several precisions lists them all.
#[must_use]
pub fn facts(model: &Model) -> Vec<(&'static str, String)> {
    let signature = model.signature();
    let max_tokens = signature.input.kind.max_tokens().map(|max_tokens| ("max_tokens", max_tokens.to_string()));
    let precisions: Vec<_> = model.precisions().into_iter().map(Precision::name).collect();
    let precisions = (precisions.len() > 1).then(|| ("precisions", precisions.join(",")));
    [
        ("model_type", signature.model_type.clone()),
        ("task", signature.task.name().to_owned()),
        ("precision", signature.precision.to_string()),
        ("device", signature.device.to_string()),
        ("parameters", signature.parameters.to_string()),
    ]
    .into_iter()
    .chain(max_tokens)
    .chain(precisions)
    .collect()
}

/// Converts a size to the protocol's integer.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "no tensor in memory is larger")]
pub fn dimension(size: usize) -> i64 {
    i64::try_from(size).expect("no tensor in memory has more than i64::MAX elements")
}
