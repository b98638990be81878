use super::*;
use bytes::Bytes;
use sconce::{Array, ArrayData, InputKind};

use crate::proto::InferTensorContents;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::model_infer_request::InferInputTensor;

const TEXT: InputSpec = InputSpec { name: "text", kind: InputKind::Text { max_tokens: 64 } };
const CONTENT: InputSpec = InputSpec { name: "content", kind: InputKind::Content };
const IMAGE: InputSpec = InputSpec { name: "image", kind: InputKind::Image { shape: [1, 2, 2] } };

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor { name: name.into(), datatype: datatype.into(), shape: shape.to_vec(), ..Default::default() }
}

fn request(tensor: InferInputTensor, raw: &'static [u8]) -> ModelInferRequest {
    let raw_input_contents = vec![Bytes::from_static(raw)];
    ModelInferRequest { inputs: vec![tensor], raw_input_contents, ..Default::default() }
}

fn typed(mut tensor: InferInputTensor, contents: InferTensorContents) -> ModelInferRequest {
    tensor.contents = Some(contents);
    ModelInferRequest { inputs: vec![tensor], ..Default::default() }
}

fn items(mut request: ModelInferRequest, spec: &InputSpec) -> Result<Items, RequestError> {
    take_items(&mut request, spec, 16, &SharedMemory::default(), None)
}

fn take(request: ModelInferRequest, spec: &InputSpec) -> Result<Vec<Input>, String> {
    items(request, spec).map(|items| items.inputs).map_err(|error| error.to_string())
}

#[test]
fn each_row_of_a_tensor_is_an_item() {
    let texts = b"\x01\0\0\0a\x02\0\0\0bc";
    let rows = vec![Input::Bytes(b"a".to_vec()), Input::Bytes(b"bc".to_vec())];
    assert_eq!(take(request(tensor("text", "BYTES", &[2]), texts), &TEXT), Ok(rows.clone()));
    assert_eq!(take(request(tensor("text", "BYTES", &[2, 1]), texts), &TEXT), Ok(rows));

    let pixels = |data| Input::Array(Array { shape: vec![1, 2, 2], data });
    let images = request(tensor("image", "UINT8", &[2, 1, 2, 2]), &[1, 2, 3, 4, 5, 6, 7, 8]);
    let rows = vec![pixels(ArrayData::U8(vec![1, 2, 3, 4])), pixels(ArrayData::U8(vec![5, 6, 7, 8]))];
    assert_eq!(take(images, &IMAGE), Ok(rows));

    let floats = InferTensorContents { fp32_contents: vec![0.0, 1.0, 2.0, 3.0], ..Default::default() };
    let image = typed(tensor("image", "FP32", &[1, 1, 2, 2]), floats);
    assert_eq!(take(image, &IMAGE), Ok(vec![pixels(ArrayData::F32(vec![0.0, 1.0, 2.0, 3.0]))]));

    let content = |bytes: &[u8]| Input::Array(Array { shape: vec![3], data: ArrayData::U8(bytes.to_vec()) });
    let files = request(tensor("content", "UINT8", &[2, 3]), b"abcdef");
    assert_eq!(take(files, &CONTENT), Ok(vec![content(b"abc"), content(b"def")]));
}

#[test]
fn the_answer_goes_the_way_the_request_came() {
    let raw = items(request(tensor("text", "BYTES", &[1]), b"\x01\0\0\0a"), &TEXT);
    assert!(raw.unwrap().raw);
    let contents = InferTensorContents { bytes_contents: vec![b"a".to_vec()], ..Default::default() };
    let typed = items(typed(tensor("text", "BYTES", &[1]), contents), &TEXT);
    assert!(!typed.unwrap().raw);
}

#[test]
fn inputs_that_are_unknown_missing_or_twice_are_refused() {
    let unknown = take(request(tensor("txt", "BYTES", &[1]), b""), &TEXT).unwrap_err();
    assert_eq!(unknown, "input 'txt' is not known; the model takes: text");
    assert_eq!(take(ModelInferRequest::default(), &TEXT).unwrap_err(), "input 'text' is missing");
    let mut twice = request(tensor("text", "BYTES", &[1]), b"");
    twice.inputs.push(tensor("text", "BYTES", &[1]));
    assert_eq!(take(twice, &TEXT).unwrap_err(), "input 'text' is there more than once");
}

#[test]
fn contents_are_raw_or_typed_and_never_both() {
    let mut both = request(tensor("text", "BYTES", &[1]), b"\x01\0\0\0a");
    both.inputs[0].contents = Some(InferTensorContents::default());
    assert_eq!(take(both, &TEXT).unwrap_err(), RequestError::MixedContents.to_string());
    let mut two = request(tensor("text", "BYTES", &[1]), b"\x01\0\0\0a");
    two.raw_input_contents.push(Bytes::new());
    let message = "the request has 2 raw_input_contents for 1 input(s); give exactly one for each";
    assert_eq!(take(two, &TEXT).unwrap_err(), message);
}

#[test]
fn a_datatype_that_the_model_does_not_read_is_refused() {
    let table = [
        (&TEXT, "UINT8", "BYTES"),
        (&CONTENT, "FP32", "BYTES or UINT8"),
        (&IMAGE, "FP16", "UINT8 or FP32"),
        (&IMAGE, "uint8", "UINT8 or FP32"),
    ];
    for (spec, datatype, expected) in table {
        let refused = take(request(tensor(spec.name, datatype, &[1]), b""), spec).unwrap_err();
        let message = format!("input '{}' has datatype '{datatype}', but the model takes {expected}", spec.name);
        assert_eq!(refused, message);
    }
}

#[test]
fn a_shape_that_the_model_does_not_read_is_refused() {
    let table: [(&InputSpec, &str, &[i64], &str); 11] = [
        (&TEXT, "BYTES", &[], "[items] or [items, 1]"),
        (&TEXT, "BYTES", &[0], "[items] or [items, 1]"),
        (&TEXT, "BYTES", &[-1, 1], "[items] or [items, 1]"),
        (&TEXT, "BYTES", &[1, 2], "[items] or [items, 1]"),
        (&TEXT, "BYTES", &[1, 1, 1], "[items] or [items, 1]"),
        (&CONTENT, "UINT8", &[4], "[items, length]"),
        (&CONTENT, "UINT8", &[1, 0], "[items, length]"),
        (&CONTENT, "UINT8", &[16, i64::MAX], "[items, length]"),
        (&IMAGE, "UINT8", &[1, 2, 2], "[items, 1, 2, 2]"),
        (&IMAGE, "UINT8", &[1, 1, 2, -2], "[items, 1, 2, 2]"),
        (&IMAGE, "FP32", &[1, 1, i64::MIN, i64::MAX], "[items, 1, 2, 2]"),
    ];
    for (spec, datatype, shape, expected) in table {
        let refused = take(request(tensor(spec.name, datatype, shape), b""), spec).unwrap_err();
        let message =
            format!("input '{}' has shape {shape:?}, but the model takes {expected} for {datatype}", spec.name);
        assert_eq!(refused, message);
    }
}

#[test]
fn a_shape_that_no_message_can_fill_is_refused() {
    let refused = take(request(tensor("content", "UINT8", &[2, i64::MAX]), b"ab"), &CONTENT).unwrap_err();
    let needed = 2 * u64::try_from(i64::MAX).unwrap();
    assert_eq!(refused, format!("input 'content' has 2 raw bytes, but its shape and datatype need {needed}"));
}

#[test]
fn more_items_than_the_queue_holds_are_refused_before_they_are_read() {
    for items in [17, i64::MAX] {
        let refused = take(request(tensor("text", "BYTES", &[items, 1]), b""), &TEXT).unwrap_err();
        let message =
            format!("the request has {items} items, but at most 16 are answered together; send fewer at a time");
        assert_eq!(refused, message);
    }
}

#[test]
fn a_tensor_in_shared_memory_that_is_not_served_is_refused() {
    let mut shared = tensor("text", "BYTES", &[1]);
    let name = ParameterChoice::StringParam("r".into());
    let region = crate::proto::InferParameter { parameter_choice: Some(name) };
    shared.parameters.insert("shared_memory_region".into(), region);
    let refused = take(ModelInferRequest { inputs: vec![shared], ..Default::default() }, &TEXT).unwrap_err();
    assert!(refused.starts_with("shared memory is not served"), "{refused}");
}
