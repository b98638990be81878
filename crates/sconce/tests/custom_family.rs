//! A model family of one's own, made to panic in each of its parts: the panic is answered, the neighbours succeed.

use std::sync::Arc;

use sconce::models::{
    Classification, Family, Features, ForwardError, Input, InputError, InputKind, InputSpec, LoadedModel, Network,
    Output, Prepared, Processor, Registry, Settings, Signature, Task, Truncation,
};
use sconce::{InferError, QueueError, Runtime};

/// Tells even numbers from odd ones.
struct Parity {
    labels: Arc<[String]>,
}

impl Processor for Parity {
    fn prepare(&self, input: Input, _: Truncation) -> Result<Prepared, InputError> {
        let Input::Text(text) = input else { panic!("only text is tested") };
        assert_ne!(text, "prepare", "asked to panic in prepare");
        let value = match text.as_str() {
            "forward" => f32::NAN,
            "finish" => f32::INFINITY,
            number => number.parse().expect("a number"),
        };
        Ok(Prepared { features: Features::Values(vec![value]), truncated: false })
    }

    fn finish(&self, row: Vec<f32>) -> Output {
        assert!(row[0].is_finite(), "asked to panic in finish");
        Output::Classification(Classification::from_logits(Arc::clone(&self.labels), row))
    }
}

struct ParityNetwork;

impl Network for ParityNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        let row = |features: &Features| {
            let Features::Values(values) = features else { panic!("parity prepares values") };
            assert!(!values[0].is_nan(), "asked to panic in forward");
            let odd = values[0] % 2.0;
            vec![values[0] * 0.0 - odd, odd]
        };
        Ok(batch.iter().map(row).collect())
    }
}

fn runtime(directory: &std::path::Path) -> Runtime {
    std::fs::write(directory.join("config.json"), r#"{"model_type": "parity"}"#).expect("a file");
    let mut registry = Registry::default();
    registry.register(Family {
        model_type: "parity",
        summary: "even or odd",
        load: |_, _| {
            let labels: Arc<[String]> = ["even", "odd"].map(String::from).into();
            Ok(LoadedModel {
                signature: Signature {
                    model_type: "parity".to_owned(),
                    input: InputSpec { name: "text", kind: InputKind::Text { max_tokens: 1 } },
                    task: Task::Classification { labels: Arc::clone(&labels) },
                    parameters: 0,
                },
                processor: Arc::new(Parity { labels }),
                network: Box::new(ParityNetwork),
                settings: Settings::default(),
            })
        },
    });
    Runtime::builder().named_model("parity", directory).registry(registry).build().expect("parity loads")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_any_part_of_a_model_is_answered_and_its_neighbours_succeed() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = runtime(directory.path());
    let model = runtime.model("parity").unwrap();
    let callers: Vec<_> = (0..60)
        .map(|number| {
            let text = match number % 15 {
                3 => "prepare".to_owned(),
                6 => "forward".to_owned(),
                9 => "finish".to_owned(),
                _ => number.to_string(),
            };
            let model = model.clone();
            tokio::spawn(async move { (number, model.infer(text).await) })
        })
        .collect();
    for caller in callers {
        let (number, answer) = caller.await.unwrap();
        match (number % 15, answer) {
            (3, Err(InferError::Panicked { message })) => assert!(message.contains("in prepare"), "{message}"),
            (6, Err(InferError::Queue(QueueError::Executor(error)))) => {
                assert!(error.to_string().contains("in forward"), "{error}");
            }
            (9, Err(InferError::Panicked { message })) => assert!(message.contains("in finish"), "{message}"),
            (_, answer) => {
                let label = answer.unwrap().output.classification().unwrap().label().to_owned();
                assert_eq!(label, if number % 2 == 0 { "even" } else { "odd" });
            }
        }
    }
}

#[test]
fn a_type_that_no_family_knows_is_refused_with_those_that_are() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), r#"{"model_type": "gpt2"}"#).unwrap();
    let Err(error) = Runtime::builder().named_model("mine", directory.path()).build() else {
        panic!("no family of ours is named gpt2")
    };
    let message = error.to_string();
    assert!(message.starts_with("model 'mine': ") && message.contains("config.json asks for model_type 'gpt2'"));
    assert!(message.ends_with("known are: bert, digits-cnn, magika"), "{message}");
}
