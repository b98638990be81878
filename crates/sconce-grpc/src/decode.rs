//! Cuts the input tensor of a request into one input per item.

use sconce::{Datatype, Input, InputSpec, InputTensor};

use crate::elements::{self, Contents};
use crate::error::RequestError;
use crate::parameters::refuse_shared_memory;
use crate::proto::ModelInferRequest;
use crate::proto::model_infer_request::InferInputTensor;

/// The items of a request.
#[derive(Debug)]
pub(crate) struct Items {
    pub(crate) inputs: Vec<Input>,
    /// True if the elements came raw; those of the answer go the same way.
    pub(crate) raw: bool,
}

/// Takes the items out of a request to a model that reads `spec`; more than `max_items` are an error.
pub(crate) fn take_items(
    request: &mut ModelInferRequest,
    spec: &InputSpec,
    max_items: usize,
) -> Result<Items, RequestError> {
    let tensors = spec.kind.tensors(spec.name);
    let mut given = take_inputs(request, &tensors)?;
    let (mut items, mut raw, mut all) = (None, false, Vec::with_capacity(tensors.len()));
    for described in &tensors {
        let Some((tensor, contents)) = take_input(&mut given, described.name) else { continue };
        refuse_shared_memory(described.name, &tensor.parameters)?;
        let layout = TensorLayout::read(&tensor, described, max_items)?;
        let first = *items.get_or_insert(layout.items);
        if first != layout.items {
            return Err(RequestError::UnlikeItems { name: described.name, items: layout.items, first });
        }
        raw = matches!(contents, Contents::Raw(_));
        all.push(elements::read(described.name, layout.datatype, contents, layout.elements)?);
    }
    Ok(Items { inputs: spec.kind.inputs(all, items.unwrap_or(0)), raw })
}

/// The inputs of the request, each with its elements. Every one is among those that the model takes.
fn take_inputs(
    request: &mut ModelInferRequest,
    known: &[InputTensor],
) -> Result<Vec<(InferInputTensor, Contents)>, RequestError> {
    if let Some(tensor) = request.inputs.iter().find(|tensor| known.iter().all(|known| known.name != tensor.name)) {
        let known = known.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
        return Err(RequestError::UnknownInput { name: tensor.name.clone(), known });
    }
    for InputTensor { name, optional, .. } in known {
        match request.inputs.iter().filter(|tensor| tensor.name == *name).count() {
            0 if *optional => {}
            0 => return Err(RequestError::MissingInput { name }),
            1 => {}
            _ => return Err(RequestError::DuplicateInput { name }),
        }
    }
    let raw = std::mem::take(&mut request.raw_input_contents);
    let (expected, got) = (request.inputs.len(), raw.len());
    if got > 0 && request.inputs.iter().any(|tensor| tensor.contents.is_some()) {
        return Err(RequestError::MixedContents);
    }
    if got > 0 && got != expected {
        return Err(RequestError::WrongRawCount { expected, got });
    }
    let mut raw = raw.into_iter();
    let with_contents = |mut tensor: InferInputTensor| {
        let typed = tensor.contents.take();
        let contents = raw.next().map_or_else(|| Contents::Typed(typed.unwrap_or_default()), Contents::Raw);
        (tensor, contents)
    };
    Ok(request.inputs.drain(..).map(with_contents).collect())
}

/// The input of this name; `None` for an optional one that is not there.
fn take_input(
    given: &mut Vec<(InferInputTensor, Contents)>,
    name: &'static str,
) -> Option<(InferInputTensor, Contents)> {
    given.iter().position(|(tensor, _)| tensor.name == name).map(|at| given.swap_remove(at))
}

/// The meaning of a tensor's datatype and shape.
struct TensorLayout {
    datatype: Datatype,
    items: usize,
    /// Elements of the whole tensor.
    elements: usize,
}

impl TensorLayout {
    fn read(tensor: &InferInputTensor, described: &InputTensor, max_items: usize) -> Result<Self, RequestError> {
        let datatype = datatype(tensor, described)?;
        let wrong_shape = || RequestError::WrongShape {
            name: described.name,
            got: tensor.shape.clone(),
            expected: expected_shape(datatype, described),
            datatype: datatype.name(),
        };
        // Each dimension is at least 1: no items, or an item without elements, have no answer.
        let size = |dimension: &i64| usize::try_from(*dimension).ok().filter(|size| *size > 0);
        let shape: Vec<usize> = tensor.shape.iter().map(size).collect::<Option<_>>().ok_or_else(wrong_shape)?;
        let (&items, item_shape) = shape.split_first().ok_or_else(wrong_shape)?;
        let fits = match (&described.shape, datatype) {
            (Some(shape), _) => item_shape == shape,
            (None, Datatype::Bytes) => matches!(item_shape, [] | [1]),
            (None, _) => item_shape.len() == 1,
        };
        if !fits {
            return Err(wrong_shape());
        }
        if items > max_items {
            return Err(RequestError::TooManyItems { items, max: max_items });
        }
        let elements = items.checked_mul(item_shape.iter().product()).ok_or_else(wrong_shape)?;
        Ok(Self { datatype, items, elements })
    }
}

fn datatype(tensor: &InferInputTensor, described: &InputTensor) -> Result<Datatype, RequestError> {
    let found = described.datatypes.iter().find(|datatype| datatype.name() == tensor.datatype);
    found.copied().ok_or_else(|| RequestError::WrongDatatype {
        name: described.name,
        got: tensor.datatype.clone(),
        expected: described.datatypes.iter().map(|datatype| datatype.name()).collect::<Vec<_>>().join(" or "),
    })
}

fn expected_shape(datatype: Datatype, described: &InputTensor) -> String {
    match (&described.shape, datatype) {
        (Some(shape), _) => {
            let sizes: Vec<_> = shape.iter().map(ToString::to_string).collect();
            format!("[items, {}]", sizes.join(", "))
        }
        (None, Datatype::Bytes) => "[items] or [items, 1]".to_owned(),
        (None, _) => "[items, length]".to_owned(),
    }
}

#[cfg(test)]
mod tests;
