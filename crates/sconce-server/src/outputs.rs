//! Joins answers into the tensors of a response.

use sconce::models::f16;
use sconce::{Answer, AnswerSource, Classification, Datatype, Output, OutputElements, OutputShape, OutputTensor, Task};

use crate::error::RequestError;

/// An output that a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct OutputRequest<'a> {
    /// Its name.
    pub name: &'a str,
    /// The parameter `classification`: the number of best classes; 0 means none of them.
    pub classes: Option<u64>,
}

/// An output of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedOutput {
    tensor: OutputTensor,
    /// By Triton's classification extension: the best of each item as `score:index:label`, so many of them.
    classes: Option<usize>,
}

/// The outputs that a request asks for, in its order; all outputs of the model if it names none.
///
/// # Errors
/// [`RequestError`] names an output that is unknown, there twice, or no classification.
pub fn wanted(requested: &[OutputRequest<'_>], task: &Task) -> Result<Vec<RequestedOutput>, RequestError> {
    let given: Vec<_> = task.tensors().into_iter().map(|tensor| RequestedOutput { tensor, classes: None }).collect();
    if requested.is_empty() {
        return Ok(given);
    }
    let mut wanted = Vec::with_capacity(given.len());
    for (index, output) in requested.iter().enumerate() {
        let known = given.iter().find(|known| known.tensor.name == output.name).ok_or_else(|| {
            let known: Vec<_> = given.iter().map(|known| known.tensor.name).collect();
            RequestError::UnknownOutput { name: output.name.to_owned(), known: known.join(", ") }
        })?;
        if requested[..index].iter().any(|before| before.name == output.name) {
            return Err(RequestError::DuplicateOutput { name: output.name.to_owned() });
        }
        let classes = classes(output, task);
        if classes.is_some() && task.scores() != Some(known.tensor.name) {
            return Err(RequestError::NotAClassification { name: known.tensor.name });
        }
        wanted.push(RequestedOutput { classes, ..*known });
    }
    Ok(wanted)
}

/// A parameter of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerFact {
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
}

/// Parameters of the response, by name, which describe all its items.
pub(crate) fn facts(answers: &[Answer]) -> Vec<(&'static str, AnswerFact)> {
    let mut facts = Vec::with_capacity(5);
    // One model answered all items, so the first answer's precision and device stand for all.
    if let Some(answer) = answers.first() {
        facts.push(("precision", AnswerFact::Text(answer.precision.to_string())));
        if let Some(decision) = &answer.decision {
            facts.push(("decision", AnswerFact::Text(decision.to_string())));
        }
        facts.push(("device", AnswerFact::Text(answer.device.to_string())));
    }
    if answers.iter().any(|answer| answer.truncated) {
        facts.push(("truncated", AnswerFact::Bool(true)));
    }
    if let Some(source) = source(answers) {
        facts.push(("source", AnswerFact::Text(source.to_owned())));
    }
    facts
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

/// A tensor of all items.
#[derive(Debug, PartialEq)]
pub struct ResponseTensor {
    /// The number of items, and then the shape of each.
    pub shape: Vec<usize>,
    /// The elements.
    pub elements: ResponseElements,
}

/// The elements of an output of all items, in row-major order.
#[derive(Debug, PartialEq)]
pub enum ResponseElements {
    /// `FP32`.
    F32(Vec<f32>),
    /// `FP16`, which has no typed form.
    F16(Vec<f16>),
    /// `INT8`.
    I8(Vec<i8>),
    /// `UINT8`.
    U8(Vec<u8>),
    /// `INT32`.
    I32(Vec<i32>),
    /// `BYTES`.
    Bytes(Vec<String>),
}

/// Fills up an item that has fewer words of a sparse vector than another: no word has this number.
const NO_WORD: i32 = -1;

impl ResponseElements {
    fn of(datatype: Datatype) -> Self {
        match datatype {
            Datatype::Fp32 => Self::F32(Vec::new()),
            Datatype::Fp16 => Self::F16(Vec::new()),
            Datatype::Int8 => Self::I8(Vec::new()),
            Datatype::Uint8 => Self::U8(Vec::new()),
            Datatype::Int32 => Self::I32(Vec::new()),
            Datatype::Bytes => Self::Bytes(Vec::new()),
        }
    }

    /// The element type.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        match self {
            Self::F32(_) => Datatype::Fp32,
            Self::F16(_) => Datatype::Fp16,
            Self::I8(_) => Datatype::Int8,
            Self::U8(_) => Datatype::Uint8,
            Self::I32(_) => Datatype::Int32,
            Self::Bytes(_) => Datatype::Bytes,
        }
    }

    /// Adds an item's elements, filled up to `width`.
    fn push(&mut self, item: OutputElements<'_>, width: usize) {
        match (self, item) {
            (Self::F32(all), OutputElements::F32(values)) => extend(all, values, width, 0.0),
            (Self::F16(all), OutputElements::F16(values)) => extend(all, values, width, f16::ZERO),
            (Self::I8(all), OutputElements::I8(values)) => extend(all, values, width, 0),
            (Self::U8(all), OutputElements::U8(values)) => extend(all, values, width, 0),
            (Self::I32(all), OutputElements::I32(values)) => extend(all, &values, width, NO_WORD),
            (Self::Bytes(all), OutputElements::Text(text)) => all.push(text.into_owned()),
            _ => unreachable!("an output's elements are of its datatype"),
        }
    }

    /// The elements in little-endian order, those of `BYTES` each behind its length.
    #[must_use]
    pub fn raw(&self) -> Vec<u8> {
        match self {
            Self::F32(values) => raw_f32(values),
            Self::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I8(values) => values.iter().map(|value| value.cast_unsigned()).collect(),
            Self::U8(values) => values.clone(),
            Self::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Bytes(texts) => raw_bytes(texts),
        }
    }
}

impl RequestedOutput {
    /// The output's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.tensor.name
    }

    /// The output of all answers.
    #[must_use]
    pub fn tensor(self, answers: &[Answer]) -> ResponseTensor {
        let outputs: Vec<&Output> = answers.iter().map(|answer| &answer.output).collect();
        if let Some(classes) = self.classes {
            let classifications = outputs.iter().filter_map(|output| output.classification());
            let elements = ResponseElements::Bytes(classifications.flat_map(|answer| best(answer, classes)).collect());
            return ResponseTensor { shape: vec![answers.len(), classes], elements };
        }
        joined(self.tensor, &outputs)
    }
}

/// One tensor of the outputs of all items. Items whose number of elements varies are filled up to the largest.
fn joined(tensor: OutputTensor, outputs: &[&Output]) -> ResponseTensor {
    let items: Vec<OutputElements<'_>> = outputs.iter().filter_map(|output| output.tensor(tensor.name)).collect();
    let longest = items.iter().map(elements_of).max().unwrap_or(0);
    let (shape, width) = match tensor.shape {
        OutputShape::Fixed(width) => (vec![items.len(), fixed_width(width, longest)], longest),
        OutputShape::Varying => (vec![items.len(), longest], longest),
        OutputShape::Rows(columns) => {
            let columns = columns_of(columns, outputs);
            (vec![items.len(), longest / columns.max(1), columns], longest)
        }
    };
    // Of the answers, which a request may ask for in another type, else the model's.
    let mut elements = ResponseElements::of(items.first().map_or(tensor.datatype, datatype_of));
    for item in items {
        elements.push(item, width);
    }
    ResponseTensor { shape, elements }
}

/// The number of elements of a fixed size: that of the answers, which a request may cut, else the model's.
fn fixed_width(width: usize, longest: usize) -> usize {
    if longest == 0 { width } else { longest }
}

/// The elements of each row: those of the answers, which a request may cut, else the model's.
fn columns_of(columns: usize, outputs: &[&Output]) -> usize {
    let columns_of = |output: &&Output| {
        let converted = output.converted_embedding().and_then(|embedding| embedding.token_width);
        converted.or_else(|| output.token_vectors().map(|vectors| vectors.dimensions))
    };
    outputs.iter().find_map(columns_of).unwrap_or(columns)
}

/// Adds an item's elements, filled up to `width`.
fn extend<T: Copy>(all: &mut Vec<T>, values: &[T], width: usize, filler: T) {
    all.extend_from_slice(values);
    all.resize(all.len() + width.saturating_sub(values.len()), filler);
}

fn datatype_of(elements: &OutputElements<'_>) -> Datatype {
    match elements {
        OutputElements::Text(_) => Datatype::Bytes,
        OutputElements::F32(_) => Datatype::Fp32,
        OutputElements::F16(_) => Datatype::Fp16,
        OutputElements::I8(_) => Datatype::Int8,
        OutputElements::U8(_) => Datatype::Uint8,
        OutputElements::I32(_) => Datatype::Int32,
    }
}

fn elements_of(elements: &OutputElements<'_>) -> usize {
    match elements {
        OutputElements::Text(_) => 1,
        OutputElements::F32(values) => values.len(),
        OutputElements::F16(values) => values.len(),
        OutputElements::I8(values) => values.len(),
        OutputElements::U8(values) => values.len(),
        OutputElements::I32(values) => values.len(),
    }
}

/// Number of classes that are asked of an output, cut to the number of labels, as in Triton.
fn classes(output: &OutputRequest<'_>, task: &Task) -> Option<usize> {
    let labels = task.labels().map_or(0, |labels| labels.len());
    let classes = output.classes.filter(|classes| *classes > 0)?;
    Some(usize::try_from(classes).map_or(labels, |classes| classes.min(labels)))
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

    use sconce::{OutputDtype, SparseVector, TokenVectors};

    use super::*;

    fn classifier() -> Task {
        Task::Classification { labels: labels() }
    }

    fn labels() -> Arc<[String]> {
        ["ant", "bee", "cow"].map(String::from).into()
    }

    fn output(name: &str, classes: Option<u64>) -> OutputRequest<'_> {
        OutputRequest { name, classes }
    }

    fn asked_for(requested: &[OutputRequest<'_>], task: &Task) -> Vec<(&'static str, Option<usize>)> {
        wanted(requested, task).unwrap().iter().map(|wanted| (wanted.tensor.name, wanted.classes)).collect()
    }

    fn refused(requested: &[OutputRequest<'_>], task: &Task) -> String {
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
    }

    #[test]
    fn the_best_classes_come_first_and_equal_ones_in_order() {
        let answer = Classification { labels: labels(), logits: vec![0.0; 3], scores: vec![0.25, 0.5, 0.25] };
        assert_eq!(best(&answer, 3), ["0.500000:1:bee", "0.250000:0:ant", "0.250000:2:cow"]);
        assert_eq!(best(&answer, 1), ["0.500000:1:bee"]);
        let asked = [output("scores", Some(u64::MAX))];
        assert_eq!(asked_for(&asked, &classifier()), [("scores", Some(3))]);
    }

    #[test]
    fn raw_texts_stand_behind_their_length() {
        assert_eq!(raw_bytes(&["ab".into(), String::new()]), b"\x02\0\0\0ab\0\0\0\0");
    }

    #[test]
    fn items_of_several_sizes_are_filled_up_to_the_largest() {
        let sparse = |indices: &[u32], values: &[f32]| {
            Output::Sparse(SparseVector { indices: indices.to_vec(), values: values.to_vec() })
        };
        let (long, short) = (sparse(&[2, 7], &[0.5, 1.5]), sparse(&[4], &[2.5]));
        let tensors = Task::SparseEmbedding { words: 9 }.tensors().into_iter();
        let of_both: Vec<ResponseTensor> = tensors.map(|tensor| joined(tensor, &[&long, &short])).collect();
        assert_eq!(
            of_both[0],
            ResponseTensor { shape: vec![2, 2], elements: ResponseElements::I32(vec![2, 7, 4, -1]) }
        );
        assert_eq!(
            of_both[1],
            ResponseTensor { shape: vec![2, 2], elements: ResponseElements::F32(vec![0.5, 1.5, 2.5, 0.0]) }
        );
        assert_eq!(of_both[0].elements.raw()[12..], [0xff; 4]);

        let tokens = |values: &[f32]| Output::TokenVectors(TokenVectors { dimensions: 2, values: values.to_vec() });
        let (long, short) = (tokens(&[1.0, 2.0, 3.0, 4.0]), tokens(&[5.0, 6.0]));
        let tensors = Task::TokenEmbeddings { dimensions: 2 }.tensors().into_iter();
        let of_both: Vec<ResponseTensor> = tensors.map(|tensor| joined(tensor, &[&long, &short])).collect();
        let values = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0];
        assert_eq!(of_both[0], ResponseTensor { shape: vec![2, 2, 2], elements: ResponseElements::F32(values) });
        assert_eq!(of_both[1], ResponseTensor { shape: vec![2, 1], elements: ResponseElements::I32(vec![2, 1]) });

        let bits = [&long, &short].map(|output| output.clone().converted(OutputDtype::Ubinary).unwrap());
        let of_both = joined(Task::TokenEmbeddings { dimensions: 2 }.tensors()[0], &[&bits[0], &bits[1]]);
        assert_eq!(
            of_both,
            ResponseTensor { shape: vec![2, 2, 1], elements: ResponseElements::U8(vec![192, 192, 192, 0]) }
        );

        let nothing = sparse(&[], &[]);
        let tensor = Task::SparseEmbedding { words: 9 }.tensors()[0];
        assert_eq!(
            joined(tensor, &[&nothing]),
            ResponseTensor { shape: vec![1, 0], elements: ResponseElements::I32(Vec::new()) }
        );
    }
}
