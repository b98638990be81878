//! Cuts the input tensor of a request into one input per item.

use sconce::{Input, InputSpec, InputTensor};
use sconce_server::{RequestError, TensorHead, match_inputs, refuse_shared_memory};

use crate::elements::{self, Contents};
use crate::parameters::ProtoParameters;
use crate::proto::ModelInferRequest;

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
    let known: Vec<InputTensor> = spec.kind.tensors(spec.name);
    let matched = match_inputs(&request.inputs.iter().map(|tensor| tensor.name.as_str()), &known)?;
    let mut contents = take_contents(request)?;
    for tensor in &request.inputs {
        refuse_shared_memory(&tensor.name, &ProtoParameters(&tensor.parameters))?;
    }
    let raw = matches!(contents.first(), Some(Contents::Raw(_)));
    let head = |at: usize| {
        let tensor = &request.inputs[at];
        TensorHead { name: &tensor.name, datatype: &tensor.datatype, shape: &tensor.shape }
    };
    let read = |at: usize, layout| elements::read(layout, std::mem::take(&mut contents[at]));
    let inputs = sconce_server::take_items(spec, &known, &matched, max_items, head, read)?;
    Ok(Items { inputs, raw })
}

/// The elements of each input of the request: all of them raw, or all typed.
fn take_contents(request: &mut ModelInferRequest) -> Result<Vec<Contents>, RequestError> {
    let raw = std::mem::take(&mut request.raw_input_contents);
    let (expected, got) = (request.inputs.len(), raw.len());
    if got > 0 && request.inputs.iter().any(|tensor| tensor.contents.is_some()) {
        return Err(RequestError::MixedContents);
    }
    if got > 0 && got != expected {
        return Err(RequestError::WrongRawCount { expected, got });
    }
    if got > 0 {
        return Ok(raw.into_iter().map(Contents::Raw).collect());
    }
    let typed = request.inputs.iter_mut().map(|tensor| Contents::Typed(tensor.contents.take().unwrap_or_default()));
    Ok(typed.collect())
}

#[cfg(test)]
mod tests;
