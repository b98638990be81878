//! The request for the model of [`super::model`] and its right answer: one image of 8 by 8 bytes, ten scores and a label.

use sconce_grpc::proto::model_infer_request::InferInputTensor;
use sconce_grpc::proto::model_infer_response::InferOutputTensor;
use sconce_grpc::proto::{ModelInferRequest, ModelInferResponse};

/// The name of the model.
pub const MODEL: &str = "first-ten";
/// Number of classes of the model.
pub const CLASSES: usize = 10;
const PIXELS: usize = 64;

/// An image of `class`: all dark but for one of its first pixels.
#[must_use]
pub fn request(class: usize) -> ModelInferRequest {
    let mut pixels = vec![0; PIXELS];
    pixels[class] = 1;
    let image = InferInputTensor {
        name: "image".into(),
        datatype: "UINT8".into(),
        shape: vec![1, 1, 8, 8],
        ..Default::default()
    };
    ModelInferRequest {
        model_name: MODEL.into(),
        id: format!("request-{class}"),
        inputs: vec![image],
        raw_input_contents: vec![pixels.into()],
        ..Default::default()
    }
}

/// Softmax of the first ten pixels of the image of `class`.
#[must_use]
pub fn scores(class: usize) -> Vec<f32> {
    let sum = std::f32::consts::E + (CLASSES - 1) as f32;
    (0..CLASSES).map(|at| if at == class { std::f32::consts::E / sum } else { 1.0 / sum }).collect()
}

/// An answer of the same size as the model's, for the server without a model; `None` for a request other than
/// [`request`].
#[must_use]
pub fn answer(request: ModelInferRequest) -> Option<ModelInferResponse> {
    let pixels = request.raw_input_contents.first()?;
    let class = pixels.iter().take(CLASSES).position(|pixel| *pixel > 0)?;
    let output = |name: &str, datatype: &str, width| InferOutputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: vec![1, width],
        ..Default::default()
    };
    let label = class.to_string();
    let length = u32::try_from(label.len()).ok()?.to_le_bytes();
    Some(ModelInferResponse {
        model_name: request.model_name,
        model_version: "1".into(),
        id: request.id,
        outputs: vec![output("scores", "FP32", 10), output("label", "BYTES", 1)],
        raw_output_contents: vec![
            scores(class).iter().flat_map(|score| score.to_le_bytes()).collect(),
            [&length, label.as_bytes()].concat(),
        ],
        ..Default::default()
    })
}

/// True if `response` answers the request of `class`.
#[must_use]
pub fn is_right(response: &ModelInferResponse, class: usize) -> bool {
    let [raw_scores, raw_label] = response.raw_output_contents.as_slice() else { return false };
    let (values, rest) = raw_scores.as_chunks();
    let close = |(value, expected): (&[u8; 4], f32)| (f32::from_le_bytes(*value) - expected).abs() < 1e-6;
    values.len() == CLASSES
        && rest.is_empty()
        && values.iter().zip(scores(class)).all(close)
        && raw_label.get(4..) == Some(class.to_string().as_bytes())
        && response.id.strip_prefix("request-") == Some(&class.to_string())
}
