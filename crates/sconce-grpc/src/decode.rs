//! Cuts the input tensor of a request into one input per item.

use sconce::{Array, ArrayData, Input, InputKind, InputSpec};

use crate::elements::{self, Contents, Datatype, Elements};
use crate::error::RequestError;
use crate::parameters::refuse_shared_memory;
use crate::proto::ModelInferRequest;
use crate::proto::model_infer_request::InferInputTensor;

/// The items of a request.
#[derive(Debug)]
pub(crate) struct Items {
    pub(crate) inputs: Vec<Input>,
    /// True if the elements came raw; the answer's elements then go raw, too.
    pub(crate) raw: bool,
}

/// Takes the items out of a request to a model that reads `spec`; more than `max_items` are an error.
pub(crate) fn take_items(
    request: &mut ModelInferRequest,
    spec: &InputSpec,
    max_items: usize,
) -> Result<Items, RequestError> {
    let (tensor, contents) = take_input(request, spec.name)?;
    refuse_shared_memory(spec.name, &tensor.parameters)?;
    let layout = Layout::read(&tensor, spec, max_items)?;
    let raw = matches!(contents, Contents::Raw(_));
    let elements = elements::read(spec.name, layout.datatype, contents, layout.elements)?;
    Ok(Items { inputs: split(elements, &layout, spec), raw })
}

/// Takes the one input of the request, and its elements.
fn take_input(
    request: &mut ModelInferRequest,
    name: &'static str,
) -> Result<(InferInputTensor, Contents), RequestError> {
    if let Some(tensor) = request.inputs.iter().find(|tensor| tensor.name != name) {
        return Err(RequestError::UnknownInput { name: tensor.name.clone(), known: name });
    }
    if request.inputs.len() > 1 {
        return Err(RequestError::DuplicateInput { name });
    }
    let mut tensor = request.inputs.pop().ok_or(RequestError::MissingInput { name })?;
    let typed = tensor.contents.take();
    let raw = std::mem::take(&mut request.raw_input_contents);
    match (typed, raw.len()) {
        (typed, 0) => Ok((tensor, Contents::Typed(typed.unwrap_or_default()))),
        (Some(_), _) => Err(RequestError::MixedContents),
        (None, 1) => Ok((tensor, Contents::Raw(raw.into_iter().next().expect("there is one")))),
        (None, got) => Err(RequestError::WrongRawCount { expected: 1, got }),
    }
}

/// Datatype and size of a tensor, checked against the model's input.
struct Layout {
    datatype: Datatype,
    /// Elements of the whole tensor.
    elements: usize,
    /// Elements of one item.
    item_elements: usize,
}

impl Layout {
    fn read(tensor: &InferInputTensor, spec: &InputSpec, max_items: usize) -> Result<Self, RequestError> {
        let datatype = datatype(tensor, spec)?;
        let wrong_shape = || RequestError::WrongShape {
            name: spec.name,
            got: tensor.shape.clone(),
            expected: expected_shape(datatype, &spec.kind),
            datatype: datatype.name(),
        };
        // Each dimension is at least 1: no items, or an item without elements, have no answer.
        let size = |dimension: &i64| usize::try_from(*dimension).ok().filter(|size| *size > 0);
        let shape: Vec<usize> = tensor.shape.iter().map(size).collect::<Option<_>>().ok_or_else(wrong_shape)?;
        let (&items, item_shape) = shape.split_first().ok_or_else(wrong_shape)?;
        let fits = match (&spec.kind, datatype) {
            (InputKind::Image { shape }, _) => item_shape == shape,
            (_, Datatype::Bytes) => matches!(item_shape, [] | [1]),
            _ => item_shape.len() == 1,
        };
        if !fits {
            return Err(wrong_shape());
        }
        if items > max_items {
            return Err(RequestError::TooManyItems { items, max: max_items });
        }
        let item_elements: usize = item_shape.iter().product();
        let elements = items.checked_mul(item_elements).ok_or_else(wrong_shape)?;
        Ok(Self { datatype, elements, item_elements })
    }
}

fn datatype(tensor: &InferInputTensor, spec: &InputSpec) -> Result<Datatype, RequestError> {
    let (allowed, expected): (&[Datatype], _) = match spec.kind {
        InputKind::Text { .. } => (&[Datatype::Bytes], "BYTES"),
        InputKind::Content => (&[Datatype::Bytes, Datatype::Uint8], "BYTES or UINT8"),
        InputKind::Image { .. } => (&[Datatype::Uint8, Datatype::Fp32], "UINT8 or FP32"),
        _ => (&[], "nothing that this protocol carries"),
    };
    let wrong = || RequestError::WrongDatatype { name: spec.name, got: tensor.datatype.clone(), expected };
    allowed.iter().copied().find(|datatype| datatype.name() == tensor.datatype).ok_or_else(wrong)
}

fn expected_shape(datatype: Datatype, kind: &InputKind) -> String {
    match (kind, datatype) {
        (InputKind::Image { shape: [channels, height, width] }, _) => {
            format!("[items, {channels}, {height}, {width}]")
        }
        (_, Datatype::Bytes) => "[items] or [items, 1]".to_owned(),
        _ => "[items, length]".to_owned(),
    }
}

fn split(elements: Elements, layout: &Layout, spec: &InputSpec) -> Vec<Input> {
    let array = |data| match spec.kind {
        InputKind::Image { shape } => Input::Array(Array { shape: shape.to_vec(), data }),
        _ => Input::Array(Array { shape: vec![layout.item_elements], data }),
    };
    match elements {
        Elements::Bytes(elements) => elements.into_iter().map(Input::Bytes).collect(),
        // A single item is moved, not copied.
        Elements::U8(values) if values.len() == layout.item_elements => vec![array(ArrayData::U8(values))],
        Elements::F32(values) if values.len() == layout.item_elements => vec![array(ArrayData::F32(values))],
        Elements::U8(values) => {
            values.chunks_exact(layout.item_elements).map(|item| array(ArrayData::U8(item.to_vec()))).collect()
        }
        Elements::F32(values) => {
            values.chunks_exact(layout.item_elements).map(|item| array(ArrayData::F32(item.to_vec()))).collect()
        }
    }
}

#[cfg(test)]
mod tests;
