//! Outputs as protobuf carries them.

use sconce::{Datatype, Task};
use sconce_server::metadata::dimension;
use sconce_server::{
    AnswerList, OutputRequest, RequestError, RequestedOutput, ResponseElements, ResponseTensor, SharedMemory,
    SharedTensor, count,
};

use crate::parameters::{ProtoParameters, of_fact};
use crate::proto::model_infer_request::InferRequestedOutputTensor;
use crate::proto::model_infer_response::InferOutputTensor;
use crate::proto::{InferTensorContents, ModelInferResponse};

/// An output that a request asks for, and its place if that is in shared memory.
#[derive(Debug)]
pub(crate) struct PlacedOutput {
    output: RequestedOutput,
    place: Option<SharedTensor>,
}

/// The outputs that a request asks for.
pub(crate) fn wanted(
    requested: &[InferRequestedOutputTensor],
    task: &Task,
    shared_memory: &SharedMemory,
) -> Result<Vec<PlacedOutput>, RequestError> {
    let (mut asked, mut places) = (Vec::with_capacity(requested.len()), Vec::with_capacity(requested.len()));
    for output in requested {
        let parameters = ProtoParameters(&output.parameters);
        places.push(shared_memory.place(&output.name, &parameters)?);
        asked.push(OutputRequest { name: &output.name, classes: count("classification", &parameters)? });
    }
    let places = places.into_iter().chain(std::iter::repeat(None));
    let wanted = sconce_server::wanted(&asked, task)?.into_iter().zip(places);
    Ok(wanted.map(|(output, place)| PlacedOutput { output, place }).collect())
}

/// Adds the wanted outputs of all items to `response`, raw or typed, and the parameters that describe them.
pub(crate) fn fill(
    response: &mut ModelInferResponse,
    wanted: &[PlacedOutput],
    answers: &AnswerList,
    raw: bool,
) -> Result<(), RequestError> {
    response.parameters = answers.facts().into_iter().map(|(name, fact)| (name.to_owned(), of_fact(fact))).collect();
    let tensors: Vec<_> = wanted.iter().map(|wanted| (wanted, wanted.output.tensor(answers))).collect();
    // 16-bit floats have no typed form, so with them all outputs are raw.
    let raw = raw || tensors.iter().any(|(_, tensor)| tensor.elements.datatype() == Datatype::Fp16);
    for (PlacedOutput { output, place }, ResponseTensor { shape, elements }) in tensors {
        let mut tensor = InferOutputTensor {
            name: output.name().into(),
            datatype: elements.datatype().name().into(),
            shape: shape.into_iter().map(dimension).collect(),
            ..Default::default()
        };
        if let Some(place) = place {
            place.write(&elements.raw())?;
        }
        match (place, raw) {
            // Clients find raw contents by the index of the output.
            (Some(_), true) => response.raw_output_contents.push(Vec::new()),
            (Some(_), false) => {}
            (None, true) => response.raw_output_contents.push(elements.raw()),
            (None, false) => tensor.contents = Some(typed(elements)),
        }
        response.outputs.push(tensor);
    }
    Ok(())
}

fn typed(elements: ResponseElements) -> InferTensorContents {
    match elements {
        ResponseElements::F32(fp32_contents) => InferTensorContents { fp32_contents, ..Default::default() },
        ResponseElements::F16(_) => unreachable!("16-bit floats are always raw"),
        ResponseElements::I8(values) => {
            let int_contents = values.into_iter().map(i32::from).collect();
            InferTensorContents { int_contents, ..Default::default() }
        }
        ResponseElements::U8(values) => {
            let uint_contents = values.into_iter().map(u32::from).collect();
            InferTensorContents { uint_contents, ..Default::default() }
        }
        ResponseElements::I32(int_contents) => InferTensorContents { int_contents, ..Default::default() },
        ResponseElements::Bytes(texts) => {
            let bytes_contents = texts.into_iter().map(String::into_bytes).collect();
            InferTensorContents { bytes_contents, ..Default::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::InferParameter;
    use crate::proto::infer_parameter::ParameterChoice;

    #[test]
    fn a_number_of_classes_must_be_whole_and_is_refused_with_its_value() {
        let parameter = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(-1)) };
        let parameters = [("classification".to_owned(), parameter)].into();
        let output = InferRequestedOutputTensor { name: "scores".into(), parameters };
        let negative = wanted(&[output], &Task::Score, &SharedMemory::default()).unwrap_err().to_string();
        assert_eq!(negative, "parameter 'classification' is the integer -1, but must be a whole number from 0 on");
    }
}
