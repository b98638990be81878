//! A model that costs next to nothing: the first ten pixels of an image are its logits.

use std::path::Path;
use std::sync::Arc;

use sconce::Runtime;
use sconce_models::{
    Array, ArrayData, Classification, DeviceName, Family, Features, ForwardError, Input, InputError, InputKind,
    InputSpec, LoadError, LoadedModel, ModelDirectory, Network, Output, Precision, Prepared, Processor, Registry,
    Signature, Target, Task, Truncation,
};

use crate::Error;
use crate::message::{CLASSES, MODEL};

const INPUT: &str = "image";

/// A runtime with this model alone; `directory` is where its files are written.
pub(crate) fn runtime(directory: &Path) -> Result<Runtime, Error> {
    std::fs::write(directory.join("config.json"), format!(r#"{{"model_type": "{MODEL}"}}"#))?;
    let mut registry = Registry::default();
    let precisions: fn(&_) -> &'static [Precision] = |_| &[Precision::F32];
    registry.register(Family { model_type: MODEL, summary: "ten pixels", precisions, load });
    Ok(Runtime::builder().registry(registry).named_model(MODEL, directory).build()?)
}

fn load(directory: &ModelDirectory, target: &Target) -> Result<LoadedModel, LoadError> {
    let labels: Arc<[String]> = (0..CLASSES).map(|class| class.to_string()).collect();
    Ok(LoadedModel {
        signature: Signature {
            model_type: MODEL.to_owned(),
            input: InputSpec { name: INPUT, kind: InputKind::Image { shape: [1, 8, 8] } },
            task: Task::Classification { labels: Arc::clone(&labels) },
            precision: target.precision,
            device: DeviceName::of(&target.device),
            parameters: 0,
        },
        processor: Arc::new(FirstTen { labels }),
        network: Box::new(FirstTenNetwork),
        settings: directory.settings(&[])?,
    })
}

struct FirstTen {
    labels: Arc<[String]>,
}

impl Processor for FirstTen {
    fn prepare(&self, input: Input, _: Truncation) -> Result<Prepared, InputError> {
        match input {
            Input::Array(Array { data: ArrayData::U8(pixels), .. }) => Ok(Prepared {
                features: Features::Values(pixels.into_iter().map(f32::from).collect()),
                truncated: false,
            }),
            _ => Err(InputError::Empty { name: INPUT }),
        }
    }

    fn finish(&self, row: Vec<f32>) -> Output {
        Output::Classification(Classification::from_logits(Arc::clone(&self.labels), row))
    }
}

struct FirstTenNetwork;

impl Network for FirstTenNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        let row = |features: &Features| {
            let Features::Values(values) = features else { unreachable!("the processor prepares values") };
            values[..CLASSES].to_vec()
        };
        Ok(batch.iter().map(row).collect())
    }
}
