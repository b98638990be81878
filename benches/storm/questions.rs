//! Requests with the answers that they must get.

use sconce_benches::wire::message;
use sconce_benches::{Error, review};
use sconce_grpc::proto::model_infer_request::InferInputTensor;
use sconce_grpc::proto::{ModelInferRequest, ModelInferResponse};

use crate::callers::Client;
use crate::server::model_name;

/// Number of different requests.
const QUESTIONS: usize = message::CLASSES;

/// A request and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) request: ModelInferRequest,
    answer: ModelInferResponse,
}

impl Question {
    /// Asks an idle server one request after the other. In a storm it has to give the same answers, to the bit.
    pub(crate) async fn ask_all(client: &mut Client, model: &str) -> Result<Vec<Self>, Error> {
        let mut questions = Vec::new();
        for number in 0..QUESTIONS {
            let own = model == message::MODEL;
            let request = if own { message::request(number) } else { text(model, number) };
            let answer = client.model_infer(request.clone()).await?.into_inner();
            if own && !message::is_right(&answer, number) {
                return Err(format!("a wrong answer to class {number}: {answer:?}").into());
            }
            questions.push(Self { request, answer });
        }
        Ok(questions)
    }

    /// True if this is the answer.
    pub(crate) fn is_answered_by(&self, answer: &ModelInferResponse) -> bool {
        answer.id == self.answer.id && answer.raw_output_contents == self.answer.raw_output_contents
    }
}

/// A request with a different text for each number.
fn text(model: &str, number: usize) -> ModelInferRequest {
    let text = review(number);
    let length = u32::try_from(text.len()).expect("a short text").to_le_bytes();
    let input =
        InferInputTensor { name: "text".into(), datatype: "BYTES".into(), shape: vec![1], ..Default::default() };
    ModelInferRequest {
        model_name: model_name(model).into(),
        id: format!("request-{number}"),
        inputs: vec![input],
        raw_input_contents: vec![[&length, text.as_bytes()].concat().into()],
        ..Default::default()
    }
}
