//! Magika (Fratantonio et al., arXiv:2409.13768): the type of a file, from its first and last bytes.
//!
//! Embedding → gelu → four neighbours side by side → layer norm over the *positions* → convolution over positions →
//! gelu → maximum over positions → layer norm → linear.

mod demand;
mod packed;
mod tensors;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use packed::PackedMagika;
use serde::Deserialize;
use tensors::TensorMagika;

use crate::{
    Array, ArrayData, Blueprint, Classification, Compute, Demand, Family, Features, Finishing, ForwardError, Halves,
    Input, InputError, InputKind, InputSpec, LoadError, ModelDirectory, Network, Output, Precision, Prepared,
    Processor, Target, Task, Truncation, Weights, config, labels,
};

/// The name of a file's content in requests.
pub const CONTENT_INPUT: &str = "content";

/// Most bytes of one content. The model reads only the first and last few thousand, so a client with a larger file can
/// send only those.
pub const MAX_CONTENT_BYTES: usize = 64 << 20;

/// `"model_type": "magika"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "magika",
    summary: "the type of a file from its content",
    read: |directory| Ok(Box::new(Magika::read(directory)?)),
};

struct Magika {
    config: Config,
    labels: Arc<[String]>,
}

impl Magika {
    fn read(directory: &ModelDirectory) -> Result<Self, LoadError> {
        let config: Config = directory.config()?;
        let invalid = |message| directory.invalid("config.json", message);
        config.check().map_err(invalid)?;
        let labels = labels::in_order(Some(&serde_json::json!(config.id2label)), None).map_err(invalid)?;
        Ok(Self { config, labels })
    }
}

impl Blueprint for Magika {
    fn demand(&self, _: Precision) -> Option<Demand> {
        Some(demand::demand(&self.config))
    }

    fn load(&self, directory: &ModelDirectory, target: &Target) -> Result<Halves, LoadError> {
        let Self { config, labels } = self;
        let weights = directory.weights()?;
        let network = MagikaNetwork::load(config, &weights, labels.len(), target.device.compute()?)?;
        Ok(Halves {
            input: InputSpec { name: CONTENT_INPUT, kind: InputKind::Content },
            task: Task::Classification { labels: Arc::clone(labels) },
            processor: Arc::new(MagikaProcessor { window: config.window(), labels: Arc::clone(labels) }),
            network: Box::new(network),
        })
    }
}

#[derive(Debug, Deserialize)]
struct Config {
    vocab_size: usize,
    embed_dim: usize,
    /// Number of neighbouring symbols in one position.
    group: usize,
    seq_len: usize,
    conv_kernel: usize,
    conv_out: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    norm0_axis: String,
    id2label: BTreeMap<String, String>,
    beg_size: usize,
    end_size: usize,
    block_size: usize,
    padding_token: u16,
}

impl Config {
    fn window(&self) -> ContentWindow {
        let Self { beg_size: beginning, end_size: end, block_size: block, padding_token: padding, .. } = *self;
        ContentWindow { beginning, end, block, padding }
    }

    fn positions(&self) -> usize {
        self.seq_len / self.group
    }

    /// Number of elements in one position.
    fn channels(&self) -> usize {
        self.group * self.embed_dim
    }

    fn check(&self) -> Result<(), String> {
        config::sizes(&[
            ("embed_dim", self.embed_dim),
            ("group", self.group),
            ("seq_len", self.seq_len),
            ("conv_kernel", self.conv_kernel),
            ("conv_out", self.conv_out),
            ("block_size", self.block_size),
        ])?;
        config::rows(&[("vocab_size", self.vocab_size)])?;
        if self.beg_size.saturating_add(self.end_size) != self.seq_len {
            let (beginning, end) = (self.beg_size, self.end_size);
            return Err(format!(
                "field 'seq_len' is {}; it must be beg_size {beginning} + end_size {end}",
                self.seq_len
            ));
        }
        if !self.seq_len.is_multiple_of(self.group) || self.positions() < self.conv_kernel {
            let message = "it must divide seq_len into at least conv_kernel positions";
            return Err(format!("field 'group' is {}; {message}", self.group));
        }
        if usize::from(self.padding_token) < 256 || usize::from(self.padding_token) >= self.vocab_size {
            let message = "it must be beyond the bytes and within vocab_size";
            return Err(format!("field 'padding_token' is {}; {message}", self.padding_token));
        }
        config::eps("layer_norm_eps", self.layer_norm_eps)?;
        config::only("hidden_act", &self.hidden_act, "gelu_tanh")?;
        config::only("norm0_axis", &self.norm0_axis, "position")
    }
}

/// The part of a content that the model reads.
#[derive(Debug, Clone, Copy)]
struct ContentWindow {
    beginning: usize,
    end: usize,
    /// Bytes of the first and of the last block, within which white space is stripped before the window is cut.
    block: usize,
    padding: u16,
}

impl ContentWindow {
    /// The beginning, padded after its last byte, then the end, padded before its first. An error if both blocks are
    /// white space.
    fn symbols(&self, content: &[u8]) -> Result<Vec<u16>, InputError> {
        let first_block = &content[..content.len().min(self.block)];
        let last_block = &content[content.len().saturating_sub(self.block)..];
        let beginning = match first_block.iter().position(|byte| !is_white_space(*byte)) {
            Some(start) => &first_block[start..],
            None => &[],
        };
        let end = match last_block.iter().rposition(|byte| !is_white_space(*byte)) {
            Some(last) => &last_block[..=last],
            None => &[],
        };
        if beginning.is_empty() && end.is_empty() {
            let (name, blank) = (CONTENT_INPUT, content.iter().copied().all(is_white_space));
            return Err(if blank {
                InputError::Empty { name }
            } else {
                InputError::BlankEnds { name, bytes: self.block }
            });
        }
        let beginning = &beginning[..beginning.len().min(self.beginning)];
        let end = &end[end.len().saturating_sub(self.end)..];
        let mut symbols = vec![self.padding; self.beginning + self.end];
        let end_start = symbols.len() - end.len();
        let copy = |to: &mut [u16], from: &[u8]| to.iter_mut().zip(from).for_each(|(to, from)| *to = u16::from(*from));
        copy(&mut symbols, beginning);
        copy(&mut symbols[end_start..], end);
        Ok(symbols)
    }
}

/// True for Python's white space, with which the model was trained: it includes the vertical tab,
/// `u8::is_ascii_whitespace` does not.
fn is_white_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

struct MagikaProcessor {
    window: ContentWindow,
    labels: Arc<[String]>,
}

impl Processor for MagikaProcessor {
    fn prepare(&self, input: Input, _: Truncation) -> Result<Prepared, InputError> {
        let content = checked_content(input)?;
        let symbols = self.window.symbols(&content)?;
        // The model never reads the middle of a content, so leaving it out is not a truncation.
        Ok(Prepared { features: Features::Symbols(symbols), truncated: false })
    }

    fn finish(&self, row: Vec<f32>, _: Finishing<'_>) -> Output {
        Output::Classification(Classification::from_logits(Arc::clone(&self.labels), row))
    }
}

fn checked_content(input: Input) -> Result<Vec<u8>, InputError> {
    let name = CONTENT_INPUT;
    let content = match input {
        Input::Bytes(bytes) => bytes,
        Input::Text(text) => text.into_bytes(),
        Input::Array(Array { shape, data: ArrayData::U8(bytes) }) => match shape[..] {
            [length] if length == bytes.len() => bytes,
            [length] => return Err(InputError::WrongLength { name, got: bytes.len(), shape, expected: length }),
            _ => {
                let expected = "bytes, text or a UINT8 array of one dimension".to_owned();
                return Err(InputError::WrongKind { name, expected, got: format!("an array of shape {shape:?}") });
            }
        },
        Input::Array(Array { data, .. }) => {
            let got = data.dtype().to_owned();
            return Err(InputError::WrongDtype { name, expected: "UINT8".to_owned(), got });
        }
        Input::Pair(_) | Input::Prompted { .. } | Input::Tokens(_) => {
            let (expected, got) = ("bytes, text or a UINT8 array".to_owned(), input.kind().to_owned());
            return Err(InputError::WrongKind { name, expected, got });
        }
    };
    if content.len() > MAX_CONTENT_BYTES {
        return Err(InputError::TooManyBytes { name, bytes: content.len(), max: MAX_CONTENT_BYTES });
    }
    Ok(content)
}

struct MagikaNetwork {
    engine: Engine,
    seq_len: usize,
    vocab_size: usize,
}

enum Engine {
    /// The kernels of `sconce-kernels`, on the CPU.
    Packed(Box<PackedMagika>),
    /// Candle's operations, on other devices.
    Tensors(Box<TensorMagika>),
}

impl MagikaNetwork {
    fn load(config: &Config, weights: &Weights, labels: usize, compute: Compute) -> Result<Self, LoadError> {
        let engine = match compute {
            Compute::Kernels(team) => Engine::Packed(Box::new(PackedMagika::load(config, weights, labels, &team)?)),
            Compute::Tensors(device) => {
                Engine::Tensors(Box::new(TensorMagika::load(config, weights, labels, &device)?))
            }
        };
        Ok(Self { engine, seq_len: config.seq_len, vocab_size: config.vocab_size })
    }

    /// The symbols of an item, checked against the table, so that an error names the item.
    fn checked<'a>(&self, item: usize, features: &'a Features) -> Result<&'a [u16], ForwardError> {
        let Features::Symbols(symbols) = features else {
            return Err(ForwardError::WrongFeatures { expected: "symbols", got: features.kind() });
        };
        let refuse = |message| Err(ForwardError::InvalidFeatures { item, message });
        if symbols.len() != self.seq_len {
            return refuse(format!("{} symbols; the model takes {}", symbols.len(), self.seq_len));
        }
        if let Some(symbol) = symbols.iter().find(|symbol| usize::from(**symbol) >= self.vocab_size) {
            return refuse(format!("symbol {symbol}; the model knows {}", self.vocab_size));
        }
        Ok(symbols)
    }
}

impl Network for MagikaNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let items: Vec<&[u16]> =
            batch.iter().enumerate().map(|(item, features)| self.checked(item, features)).collect::<Result<_, _>>()?;
        match &mut self.engine {
            Engine::Packed(engine) => Ok(engine.forward(&items)?),
            Engine::Tensors(engine) => Ok(engine.forward(&items)?),
        }
    }
}
