//! A small convolutional network that reads one handwritten digit:
//! convolution → relu → max pool → convolution → relu → max pool → linear → relu → linear.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::Deserialize;

use crate::dense::Dense;
use crate::{
    Array, ArrayData, Classification, Family, Features, ForwardError, Input, InputError, InputKind, InputSpec,
    LoadError, LoadedModel, ModelDirectory, Network, Output, Precision, Prepared, Processor, Signature, Target, Task,
    Truncation, Weights, labels, sizes,
};

/// The name clients use for an image.
pub const IMAGE_INPUT: &str = "image";

/// `"model_type": "digits-cnn"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "digits-cnn",
    summary: "handwritten digits from 8×8 pixels",
    precisions: |_| &[Precision::F32],
    load,
};

fn load(directory: &ModelDirectory, target: &Target) -> Result<LoadedModel, LoadError> {
    let config: Config = directory.config()?;
    let invalid = |message| directory.invalid("config.json", message);
    config.check().map_err(invalid)?;
    let labels = config.labels().map_err(invalid)?;
    let settings = directory.settings(&[])?;
    let weights = directory.weights(&target.device)?;
    let shape = [config.num_channels, config.image_size, config.image_size];
    Ok(LoadedModel {
        signature: Signature {
            model_type: FAMILY.model_type.to_owned(),
            input: InputSpec { name: IMAGE_INPUT, kind: InputKind::Image { shape } },
            task: Task::Classification { labels: Arc::clone(&labels) },
            precision: target.precision,
            parameters: weights.parameters(),
        },
        network: Box::new(DigitsNetwork::load(&config, &weights, &target.device)?),
        processor: Arc::new(DigitsProcessor { shape, rescale: config.rescale, labels }),
        settings,
    })
}

#[derive(Debug, Deserialize)]
struct Config {
    /// Outputs of the two convolutions.
    channels: [usize; 2],
    kernel: usize,
    padding: usize,
    pool: usize,
    hidden: usize,
    num_labels: usize,
    image_size: usize,
    num_channels: usize,
    /// Pixels are multiplied by this.
    rescale: f32,
    layout: String,
    id2label: Option<BTreeMap<String, String>>,
}

impl Config {
    /// Side of the image after both convolutions and pools; `None` if nothing is left of it.
    fn pooled_size(&self) -> Option<usize> {
        let shrink = |side: usize| Some((side + 2 * self.padding + 1).checked_sub(self.kernel)? / self.pool);
        shrink(shrink(self.image_size)?).filter(|side| *side > 0)
    }

    fn check(&self) -> Result<(), String> {
        sizes::check(&[
            ("channels[0]", self.channels[0]),
            ("channels[1]", self.channels[1]),
            ("kernel", self.kernel),
            ("pool", self.pool),
            ("hidden", self.hidden),
            ("num_labels", self.num_labels),
            ("image_size", self.image_size),
            ("num_channels", self.num_channels),
        ])?;
        if self.padding >= self.kernel {
            return Err(format!("field 'padding' is {}; it must be less than kernel {}", self.padding, self.kernel));
        }
        if self.layout != "NCHW" {
            return Err(format!("field 'layout' is '{}'; only 'NCHW' is known", self.layout));
        }
        if !self.rescale.is_finite() {
            return Err(format!("field 'rescale' is {}; it must be finite", self.rescale));
        }
        if self.pooled_size().is_none() {
            return Err(format!("field 'image_size' is {}, of which pooling leaves nothing", self.image_size));
        }
        Ok(())
    }

    fn labels(&self) -> Result<Arc<[String]>, String> {
        let labels = match &self.id2label {
            Some(id2label) => labels::in_order(id2label)?,
            None => (0..self.num_labels).map(|label| label.to_string()).collect(),
        };
        if labels.len() != self.num_labels {
            return Err(format!("field 'id2label' has {} labels, but num_labels is {}", labels.len(), self.num_labels));
        }
        Ok(labels)
    }
}

struct DigitsProcessor {
    shape: [usize; 3],
    rescale: f32,
    labels: Arc<[String]>,
}

impl Processor for DigitsProcessor {
    fn prepare(&self, input: Input, _: Truncation) -> Result<Prepared, InputError> {
        let name = IMAGE_INPUT;
        let Input::Array(Array { shape, data }) = input else {
            let expected = format!("a UINT8 or FP32 array of shape {:?}", self.shape);
            return Err(InputError::WrongKind { name, expected, got: input.kind().to_owned() });
        };
        if shape != self.shape {
            return Err(InputError::WrongShape { name, expected: self.shape.to_vec(), got: shape });
        }
        let expected = self.shape.iter().product();
        if data.len() != expected {
            return Err(InputError::WrongLength { name, got: data.len(), shape, expected });
        }
        let pixels: Vec<f32> = match data {
            ArrayData::U8(pixels) => pixels.into_iter().map(f32::from).collect(),
            ArrayData::F32(pixels) => pixels,
        };
        if let Some((index, value)) = pixels.iter().enumerate().find(|(_, pixel)| !pixel.is_finite()) {
            return Err(InputError::NotFinite { name, index, value: value.to_string() });
        }
        let values = pixels.into_iter().map(|pixel| pixel * self.rescale).collect();
        Ok(Prepared { features: Features::Values(values), truncated: false })
    }

    fn finish(&self, row: Vec<f32>) -> Output {
        Output::Classification(Classification::from_logits(Arc::clone(&self.labels), row))
    }
}

struct DigitsNetwork {
    shape: [usize; 3],
    pool: usize,
    convolutions: [Convolution; 2],
    hidden: Dense,
    output: Dense,
    device: Device,
}

impl DigitsNetwork {
    fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self, LoadError> {
        let [first, second] = config.channels;
        let side = config.pooled_size().expect("the configuration is checked before");
        Ok(Self {
            shape: [config.num_channels, config.image_size, config.image_size],
            pool: config.pool,
            convolutions: [
                Convolution::load(weights, "conv1", config, config.num_channels, first)?,
                Convolution::load(weights, "conv2", config, first, second)?,
            ],
            hidden: Dense::load(weights, "fc1", second * side * side, config.hidden)?,
            output: Dense::load(weights, "fc2", config.hidden, config.num_labels)?,
            device: device.clone(),
        })
    }

    fn logits(&self, pixels: Vec<f32>, images: usize) -> candle_core::Result<Tensor> {
        let [channels, height, width] = self.shape;
        let mut x = Tensor::from_vec(pixels, (images, channels, height, width), &self.device)?;
        for convolution in &self.convolutions {
            x = convolution.forward(&x)?.relu()?.max_pool2d(self.pool)?;
        }
        self.output.forward(&self.hidden.forward(&x.flatten_from(1)?)?.relu()?)
    }
}

impl Network for DigitsNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let size: usize = self.shape.iter().product();
        let mut pixels = Vec::with_capacity(batch.len() * size);
        for (item, features) in batch.iter().enumerate() {
            match features {
                Features::Values(values) if values.len() == size => pixels.extend_from_slice(values),
                Features::Values(values) => {
                    let message = format!("{} values; the model takes {size}", values.len());
                    return Err(ForwardError::InvalidFeatures { item, message });
                }
                other => return Err(ForwardError::WrongFeatures { expected: "values", got: other.kind() }),
            }
        }
        Ok(self.logits(pixels, batch.len())?.to_vec2()?)
    }
}

struct Convolution {
    weight: Tensor,
    /// `[1, outputs, 1, 1]`
    bias: Tensor,
    padding: usize,
}

impl Convolution {
    fn load(weights: &Weights, name: &str, config: &Config, inputs: usize, outputs: usize) -> Result<Self, LoadError> {
        let weight = weights.tensor(&format!("{name}.weight"), &[outputs, inputs, config.kernel, config.kernel])?;
        let bias = weights.tensor(&format!("{name}.bias"), &[outputs])?;
        let bias = bias.reshape((1, outputs, 1, 1)).map_err(|source| weights.error(source))?;
        Ok(Self { weight, bias, padding: config.padding })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.conv2d(&self.weight, self.padding, 1, 1, 1)?.broadcast_add(&self.bias)
    }
}
