//! A small convolutional network that reads one handwritten digit:
//! convolution → relu → max pool → convolution → relu → max pool → linear → relu → linear.

mod demand;
mod packed;
mod tensors;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use packed::PackedDigits;
use serde::Deserialize;
use tensors::TensorDigits;

use crate::{
    Array, ArrayData, Blueprint, Classification, Compute, Demand, Family, Features, Finishing, ForwardError, Halves,
    Input, InputError, InputKind, InputSpec, LoadError, ModelDirectory, Network, Output, Precision, Prepared,
    Processor, Target, Task, Truncation, Weights, config, labels,
};

/// The name of an image in requests.
pub const IMAGE_INPUT: &str = "image";

/// `"model_type": "digits-cnn"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "digits-cnn",
    summary: "handwritten digits from 8×8 pixels",
    read: |directory| Ok(Box::new(Digits::read(directory)?)),
};

struct Digits {
    config: Config,
    labels: Arc<[String]>,
}

impl Digits {
    fn read(directory: &ModelDirectory) -> Result<Self, LoadError> {
        let config: Config = directory.config()?;
        let invalid = |message| directory.invalid("config.json", message);
        config.check().map_err(invalid)?;
        let labels = config.labels().map_err(invalid)?;
        Ok(Self { config, labels })
    }
}

impl Blueprint for Digits {
    fn demand(&self, _: Precision) -> Option<Demand> {
        Some(demand::demand(&self.config))
    }

    fn load(&self, directory: &ModelDirectory, target: &Target) -> Result<Halves, LoadError> {
        let Self { config, labels } = self;
        let (weights, shape) = (directory.weights()?, config.shape());
        let processor = DigitsProcessor { shape, rescale: config.rescale, labels: Arc::clone(labels) };
        Ok(Halves {
            input: InputSpec { name: IMAGE_INPUT, kind: InputKind::Image { shape } },
            task: Task::Classification { labels: Arc::clone(labels) },
            processor: Arc::new(processor),
            network: Box::new(DigitsNetwork::load(config, &weights, target.device.compute()?)?),
        })
    }
}

#[derive(Debug, Deserialize)]
struct Config {
    /// Output channels of the two convolutions.
    channels: [usize; 2],
    kernel: usize,
    padding: usize,
    pool: usize,
    hidden: usize,
    num_labels: usize,
    image_size: usize,
    num_channels: usize,
    /// Factor that pixels are multiplied by.
    rescale: f32,
    layout: String,
    id2label: Option<serde_json::Value>,
}

impl Config {
    /// Channels, height and width of an image.
    fn shape(&self) -> [usize; 3] {
        [self.num_channels, self.image_size, self.image_size]
    }

    /// Sides of the image at first and after each convolution and pool; `None` if a side becomes 0.
    fn shrinking_sides(&self) -> Option<[usize; 3]> {
        let shrink = |side: usize| {
            let given = (side + 2 * self.padding + 1).checked_sub(self.kernel)?;
            Some(given / self.pool).filter(|side| *side > 0)
        };
        let first = shrink(self.image_size)?;
        Some([self.image_size, first, shrink(first)?])
    }

    /// As [`shrinking_sides`](Self::shrinking_sides), for a configuration that was checked.
    fn sides(&self) -> [usize; 3] {
        self.shrinking_sides().expect("the configuration is checked before")
    }

    fn check(&self) -> Result<(), String> {
        config::sizes(&[
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
        if self.shrinking_sides().is_none() {
            return Err(format!("field 'image_size' is {}, of which pooling leaves nothing", self.image_size));
        }
        Ok(())
    }

    fn labels(&self) -> Result<Arc<[String]>, String> {
        let labels = match &self.id2label {
            Some(id2label) => labels::in_order(Some(id2label), None)?,
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

    fn finish(&self, row: Vec<f32>, _: Finishing<'_>) -> Output {
        Output::Classification(Classification::from_logits(Arc::clone(&self.labels), row))
    }
}

struct DigitsNetwork {
    engine: Engine,
    /// Number of values of one image.
    size: usize,
}

enum Engine {
    /// The kernels of `sconce-kernels`, on the CPU.
    Packed(Box<PackedDigits>),
    /// Candle's operations, on other devices.
    Tensors(Box<TensorDigits>),
}

impl DigitsNetwork {
    fn load(config: &Config, weights: &Weights, compute: Compute) -> Result<Self, LoadError> {
        let engine = match compute {
            Compute::Kernels(team) => Engine::Packed(Box::new(PackedDigits::load(config, weights, &team)?)),
            Compute::Tensors(device) => Engine::Tensors(Box::new(TensorDigits::load(config, weights, &device)?)),
        };
        Ok(Self { engine, size: config.shape().iter().product() })
    }

    fn checked<'a>(&self, item: usize, features: &'a Features) -> Result<&'a [f32], ForwardError> {
        let size = self.size;
        match features {
            Features::Values(values) if values.len() == size => Ok(values),
            Features::Values(values) => {
                let message = format!("{} values; the model takes {size}", values.len());
                Err(ForwardError::InvalidFeatures { item, message })
            }
            other => Err(ForwardError::WrongFeatures { expected: "values", got: other.kind() }),
        }
    }
}

impl Network for DigitsNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let images: Vec<&[f32]> =
            batch.iter().enumerate().map(|(item, features)| self.checked(item, features)).collect::<Result<_, _>>()?;
        match &mut self.engine {
            Engine::Packed(engine) => Ok(engine.forward(&images)?),
            Engine::Tensors(engine) => Ok(engine.forward(&images)?),
        }
    }
}
