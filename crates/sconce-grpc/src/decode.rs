//! Cuts the input tensor of a request into one input per item.

use sconce::{Input, InputSpec, InputTensor};
use sconce_server::{Charge, RequestError, SharedMemory, SharedTensor, TensorHead, match_inputs};

use crate::elements::{self, Contents};
use crate::parameters::ProtoParameters;
use crate::proto::ModelInferRequest;
use crate::proto::model_infer_request::InferInputTensor;

/// The items of a request.
#[derive(Debug)]
pub(crate) struct Items {
    pub(crate) inputs: Vec<Input>,
    /// True if the elements came raw; those of the answer go the same way.
    pub(crate) raw: bool,
}

/// Takes the items out of a request to a model that reads `spec`; more than `max_items` are an error. Inputs may be in
/// `shared_memory`; their bytes count in `charge`.
pub(crate) fn take_items(
    request: &mut ModelInferRequest,
    spec: &InputSpec,
    max_items: usize,
    shared_memory: &SharedMemory,
    charge: Option<&Charge>,
) -> Result<Items, RequestError> {
    let known: Vec<InputTensor> = spec.kind.tensors(spec.name);
    let matched = match_inputs(&request.inputs.iter().map(|tensor| tensor.name.as_str()), &known)?;
    let mut contents = take_contents(request, shared_memory, charge)?;
    let raw = matches!(contents.first(), Some(Contents::Raw(_)));
    let head = |at: usize| {
        let tensor = &request.inputs[at];
        TensorHead { name: &tensor.name, datatype: &tensor.datatype, shape: &tensor.shape }
    };
    let read = |at: usize, layout| elements::read(layout, std::mem::take(&mut contents[at]));
    let inputs = sconce_server::take_items(spec, &known, &matched, max_items, head, read)?;
    Ok(Items { inputs, raw })
}

/// The elements of each input of the request: in shared memory, and of the others all raw, or all typed.
fn take_contents(
    request: &mut ModelInferRequest,
    shared_memory: &SharedMemory,
    charge: Option<&Charge>,
) -> Result<Vec<Contents>, RequestError> {
    let place = |tensor: &InferInputTensor| shared_memory.place(&tensor.name, &ProtoParameters(&tensor.parameters));
    let places: Vec<Option<SharedTensor>> = request.inputs.iter().map(place).collect::<Result<_, _>>()?;
    let raw = std::mem::take(&mut request.raw_input_contents);
    let (expected, got) = (places.iter().filter(|place| place.is_none()).count(), raw.len());
    if got > 0 && request.inputs.iter().any(|tensor| tensor.contents.is_some()) {
        return Err(RequestError::MixedContents);
    }
    if got > 0 && got != expected {
        return Err(RequestError::WrongRawCount { expected, got });
    }
    let mut raw = (got > 0).then(|| raw.into_iter());
    let inputs = request.inputs.iter_mut().zip(places);
    let contents = inputs.map(|(tensor, place)| match (place, &mut raw) {
        (Some(place), _) => Ok(Contents::Raw(place.read(charge)?)),
        (None, Some(raw)) => Ok(Contents::Raw(raw.next().unwrap_or_default())),
        (None, None) => Ok(Contents::Typed(tensor.contents.take().unwrap_or_default())),
    });
    contents.collect()
}

#[cfg(test)]
mod tests;
