//! Joins answers into the tensors of a response.

use std::collections::HashMap;

use sconce::{Answer, AnswerSource, Classification, Datatype, OutputElements, OutputTensor, Task};

use crate::error::RequestError;
use crate::metadata::dimension;
use crate::parameters::{count, refuse_shared_memory};
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::model_infer_request::InferRequestedOutputTensor;
use crate::proto::model_infer_response::InferOutputTensor;
use crate::proto::{InferParameter, InferTensorContents, ModelInferResponse};

/// An output of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestedOutput {
    tensor: OutputTensor,
    /// By Triton's classification extension: the best of each item as `score:index:label`, so many of them.
    classes: Option<usize>,
}

/// The outputs that a request asks for, in its order; all outputs of the model if it names none.
pub(crate) fn wanted(
    requested: &[InferRequestedOutputTensor],
    task: &Task,
) -> Result<Vec<RequestedOutput>, RequestError> {
    let given: Vec<_> = task.tensors().into_iter().map(|tensor| RequestedOutput { tensor, classes: None }).collect();
    if requested.is_empty() {
        return Ok(given);
    }
    let mut wanted = Vec::with_capacity(given.len());
    for (index, output) in requested.iter().enumerate() {
        refuse_shared_memory(&output.name, &output.parameters)?;
        let known = given.iter().find(|known| known.tensor.name == output.name).ok_or_else(|| {
            let known: Vec<_> = given.iter().map(|known| known.tensor.name).collect();
            RequestError::UnknownOutput { name: output.name.clone(), known: known.join(", ") }
        })?;
        if requested[..index].iter().any(|before| before.name == output.name) {
            return Err(RequestError::DuplicateOutput { name: output.name.clone() });
        }
        let classes = classes(output, task)?;
        if classes.is_some() && task.scores() != Some(known.tensor.name) {
            return Err(RequestError::NotAClassification { name: known.tensor.name });
        }
        wanted.push(RequestedOutput { classes, ..*known });
    }
    Ok(wanted)
}

/// Parameters of the response, which describe all its items.
pub(crate) fn parameters(answers: &[Answer]) -> HashMap<String, InferParameter> {
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let mut parameters = HashMap::new();
    // One model answered all items, so the first answer's precision and device stand for all.
    if let Some(answer) = answers.first() {
        let precision = ParameterChoice::StringParam(answer.precision.to_string());
        parameters.insert("precision".to_owned(), parameter(precision));
        let device = ParameterChoice::StringParam(answer.device.to_string());
        parameters.insert("device".to_owned(), parameter(device));
    }
    if answers.iter().any(|answer| answer.truncated) {
        parameters.insert("truncated".to_owned(), parameter(ParameterChoice::BoolParam(true)));
    }
    if let Some(source) = source(answers) {
        parameters.insert("source".to_owned(), parameter(ParameterChoice::StringParam(source.to_owned())));
    }
    parameters
}

/// The source of the answers; `None` if all were computed for this request.
fn source(answers: &[Answer]) -> Option<&'static str> {
    let mut sources = answers.iter().map(|answer| answer.source);
    let first = sources.next()?;
    let alike = sources.all(|source| source == first);
    match first {
        AnswerSource::Computed if alike => None,
        source if alike => Some(source.name()),
        _ => Some("several"),
    }
}

/// Adds the wanted outputs of all items to `response`, raw or typed.
pub(crate) fn fill(response: &mut ModelInferResponse, wanted: &[RequestedOutput], answers: &[Answer], raw: bool) {
    for wanted in wanted {
        let tensor = wanted.tensor(answers);
        let (datatype, typed) = match tensor.elements {
            ResponseElements::F32(values) if raw => {
                response.raw_output_contents.push(raw_f32(&values));
                ("FP32", None)
            }
            ResponseElements::Bytes(texts) if raw => {
                response.raw_output_contents.push(raw_bytes(&texts));
                ("BYTES", None)
            }
            ResponseElements::F32(fp32_contents) => {
                ("FP32", Some(InferTensorContents { fp32_contents, ..Default::default() }))
            }
            ResponseElements::Bytes(texts) => {
                let bytes_contents = texts.into_iter().map(String::into_bytes).collect();
                ("BYTES", Some(InferTensorContents { bytes_contents, ..Default::default() }))
            }
        };
        response.outputs.push(InferOutputTensor {
            name: wanted.tensor.name.into(),
            datatype: datatype.into(),
            shape: vec![dimension(answers.len()), dimension(tensor.width)],
            contents: typed,
            ..Default::default()
        });
    }
}

/// A tensor of the response, of shape `[items, width]`.
struct ResponseTensor {
    width: usize,
    elements: ResponseElements,
}

enum ResponseElements {
    F32(Vec<f32>),
    Bytes(Vec<String>),
}

impl RequestedOutput {
    fn tensor(self, answers: &[Answer]) -> ResponseTensor {
        let outputs = || answers.iter().filter_map(|answer| answer.output.tensor(self.tensor.name));
        let elements = match (self.classes, self.tensor.datatype) {
            (Some(classes), _) => {
                let classifications = answers.iter().filter_map(|answer| answer.output.classification());
                ResponseElements::Bytes(classifications.flat_map(|answer| best(answer, classes)).collect())
            }
            (None, Datatype::Bytes) => {
                let texts = outputs().filter_map(|elements| match elements {
                    OutputElements::Text(text) => Some(text.to_owned()),
                    OutputElements::F32(_) => None,
                });
                ResponseElements::Bytes(texts.collect())
            }
            (None, Datatype::Fp32 | Datatype::Uint8) => {
                let numbers = outputs().filter_map(|elements| match elements {
                    OutputElements::F32(values) => Some(values),
                    OutputElements::Text(_) => None,
                });
                ResponseElements::F32(numbers.collect::<Vec<_>>().concat())
            }
        };
        ResponseTensor { width: self.classes.unwrap_or(self.tensor.width), elements }
    }
}

/// Number of classes that are asked of an output, cut to the number of labels, as in Triton.
fn classes(output: &InferRequestedOutputTensor, task: &Task) -> Result<Option<usize>, RequestError> {
    let labels = task.labels().map_or(0, |labels| labels.len());
    let classes = count("classification", &output.parameters)?.filter(|classes| *classes > 0);
    Ok(classes.map(|classes| usize::try_from(classes).map_or(labels, |classes| classes.min(labels))))
}

/// The best classes, best first, as Triton's classification extension writes them.
fn best(answer: &Classification, classes: usize) -> Vec<String> {
    let mut order: Vec<usize> = (0..answer.scores.len()).collect();
    order.sort_by(|a, b| answer.scores[*b].total_cmp(&answer.scores[*a]));
    let class = |index: &usize| format!("{:.6}:{index}:{}", answer.scores[*index], answer.labels[*index]);
    order[..classes].iter().map(class).collect()
}

fn raw_f32(values: &[f32]) -> Vec<u8> {
    // One element at a time compiles to one copy; an iterator over bytes does not.
    let mut raw = vec![0; size_of_val(values)];
    for (bytes, value) in raw.as_chunks_mut().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
    raw
}

fn raw_bytes(texts: &[String]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(texts.iter().map(|text| size_of::<u32>() + text.len()).sum());
    for text in texts {
        let length = u32::try_from(text.len()).expect("a label is shorter than 4 GiB");
        raw.extend_from_slice(&length.to_le_bytes());
        raw.extend_from_slice(text.as_bytes());
    }
    raw
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn classifier() -> Task {
        Task::Classification { labels: labels() }
    }

    fn labels() -> Arc<[String]> {
        ["ant", "bee", "cow"].map(String::from).into()
    }

    fn output(name: &str, classification: Option<i64>) -> InferRequestedOutputTensor {
        let parameter = |count| InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(count)) };
        let parameters = classification.map(|count| ("classification".to_owned(), parameter(count)));
        InferRequestedOutputTensor { name: name.into(), parameters: parameters.into_iter().collect() }
    }

    fn asked_for(requested: &[InferRequestedOutputTensor], task: &Task) -> Vec<(&'static str, Option<usize>)> {
        wanted(requested, task).unwrap().iter().map(|wanted| (wanted.tensor.name, wanted.classes)).collect()
    }

    fn refused(requested: &[InferRequestedOutputTensor], task: &Task) -> String {
        wanted(requested, task).unwrap_err().to_string()
    }

    #[test]
    fn all_outputs_are_given_in_order_unless_some_are_asked_for() {
        assert_eq!(asked_for(&[], &Task::Embedding { dimensions: 2 }), [("embedding", None)]);
        assert_eq!(asked_for(&[], &Task::Score), [("score", None)]);
        assert_eq!(asked_for(&[], &classifier()), [("scores", None), ("label", None)]);
        let asked = [output("label", None), output("scores", Some(2))];
        assert_eq!(asked_for(&asked, &classifier()), [("label", None), ("scores", Some(2))]);
        let asked = [output("scores", Some(0))];
        assert_eq!(asked_for(&asked, &classifier()), [("scores", None)]);
    }

    #[test]
    fn outputs_that_are_unknown_twice_or_no_classification_are_refused() {
        assert_eq!(
            refused(&[output("logits", None)], &classifier()),
            "output 'logits' is not known; the model gives: scores, label"
        );
        assert_eq!(
            refused(&[output("label", None), output("label", None)], &classifier()),
            "output 'label' is asked for more than once"
        );
        let message = "cannot be asked for as classification; only 'scores' of a classifier can";
        let label = refused(&[output("label", Some(1))], &classifier());
        assert_eq!(label, format!("output 'label' {message}"));
        let embedding = refused(&[output("embedding", Some(1))], &Task::Embedding { dimensions: 2 });
        assert_eq!(embedding, format!("output 'embedding' {message}"));
        let negative = refused(&[output("scores", Some(-1))], &classifier());
        assert_eq!(negative, "parameter 'classification' is the integer -1, but must be a whole number from 0 on");
    }

    #[test]
    fn the_best_classes_come_first_and_equal_ones_in_order() {
        let answer = Classification { labels: labels(), logits: vec![0.0; 3], scores: vec![0.25, 0.5, 0.25] };
        assert_eq!(best(&answer, 3), ["0.500000:1:bee", "0.250000:0:ant", "0.250000:2:cow"]);
        assert_eq!(best(&answer, 1), ["0.500000:1:bee"]);
        let asked = [output("scores", Some(i64::MAX))];
        assert_eq!(asked_for(&asked, &classifier()), [("scores", Some(3))]);
    }

    #[test]
    fn raw_texts_stand_behind_their_length() {
        assert_eq!(raw_bytes(&["ab".into(), String::new()]), b"\x02\0\0\0ab\0\0\0\0");
    }
}
