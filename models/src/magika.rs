//! Magika (Fratantonio et al., arXiv:2409.13768): what a file is, from its first and last bytes.
//!
//! Embedding → gelu → four neighbours side by side → layer norm over the *positions* → convolution over positions →
//! gelu → maximum over positions → layer norm → linear.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use sconce_kernels::bias_gelu::{GeluForm, bias_gelu_tensor};
use serde::Deserialize;

use crate::dense::Dense;
use crate::norm::Norm;
use crate::{
    Array, ArrayData, Classification, Family, Features, ForwardError, Input, InputError, InputKind, InputSpec,
    LoadError, LoadedModel, ModelDirectory, Network, Output, Precision, Prepared, Processor, Signature, Target, Task,
    Truncation, Weights, labels, sizes,
};

/// The name clients use for the content of a file.
pub const CONTENT_INPUT: &str = "content";

/// Bytes of one content. Only the first and last few thousand are looked at, so a client of a large file can send
/// those alone.
pub const MAX_CONTENT_BYTES: usize = 64 << 20;

/// `"model_type": "magika"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "magika",
    summary: "the type of a file from its content",
    precisions: |_| &[Precision::F32],
    load,
};

fn load(directory: &ModelDirectory, target: &Target) -> Result<LoadedModel, LoadError> {
    let config: Config = directory.config()?;
    let invalid = |message| directory.invalid("config.json", message);
    config.check().map_err(invalid)?;
    let labels = labels::in_order(&config.id2label).map_err(invalid)?;
    let settings = directory.settings(&[])?;
    let weights = directory.weights(&target.device)?;
    Ok(LoadedModel {
        signature: Signature {
            model_type: FAMILY.model_type.to_owned(),
            input: InputSpec { name: CONTENT_INPUT, kind: InputKind::Content },
            task: Task::Classification { labels: Arc::clone(&labels) },
            precision: target.precision,
            parameters: weights.parameters(),
        },
        network: Box::new(MagikaNetwork::load(&config, &weights, labels.len(), &target.device)?),
        processor: Arc::new(MagikaProcessor { window: config.window(), labels }),
        settings,
    })
}

#[derive(Debug, Deserialize)]
struct Config {
    vocab_size: usize,
    embed_dim: usize,
    /// Neighbouring symbols that make one position.
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
    fn window(&self) -> Window {
        let Self { beg_size: beginning, end_size: end, block_size: block, padding_token: padding, .. } = *self;
        Window { beginning, end, block, padding }
    }

    fn positions(&self) -> usize {
        self.seq_len / self.group
    }

    fn check(&self) -> Result<(), String> {
        sizes::check(&[
            ("embed_dim", self.embed_dim),
            ("group", self.group),
            ("seq_len", self.seq_len),
            ("conv_kernel", self.conv_kernel),
            ("conv_out", self.conv_out),
            ("block_size", self.block_size),
        ])?;
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
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps >= 0.0) {
            return Err(format!(
                "field 'layer_norm_eps' is {}; it must be finite and not negative",
                self.layer_norm_eps
            ));
        }
        if self.hidden_act != "gelu_tanh" {
            return Err(format!("field 'hidden_act' is '{}'; only 'gelu_tanh' is known", self.hidden_act));
        }
        if self.norm0_axis != "position" {
            return Err(format!("field 'norm0_axis' is '{}'; only 'position' is known", self.norm0_axis));
        }
        Ok(())
    }
}

/// Which bytes of a content are looked at.
#[derive(Debug, Clone, Copy)]
struct Window {
    beginning: usize,
    end: usize,
    /// White space is stripped within the first and the last block of this size, before the window is cut.
    block: usize,
    padding: u16,
}

impl Window {
    /// The beginning, padded after its last byte, then the end, padded before its first.
    /// Nothing is left if both blocks are white space.
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

/// The model was trained with Python's notion, which has the vertical tab that `u8::is_ascii_whitespace` lacks.
fn is_white_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

struct MagikaProcessor {
    window: Window,
    labels: Arc<[String]>,
}

impl Processor for MagikaProcessor {
    fn prepare(&self, input: Input, _: Truncation) -> Result<Prepared, InputError> {
        let content = checked_content(input)?;
        let symbols = self.window.symbols(&content)?;
        // Leaving out the middle is what the model is made for, not a truncation.
        Ok(Prepared { features: Features::Symbols(symbols), truncated: false })
    }

    fn finish(&self, row: Vec<f32>) -> Output {
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
    };
    if content.len() > MAX_CONTENT_BYTES {
        return Err(InputError::TooManyBytes { name, bytes: content.len(), max: MAX_CONTENT_BYTES });
    }
    Ok(content)
}

struct MagikaNetwork {
    /// gelu(embedding + bias) of every symbol: `[symbols, embed_dim]`.
    table: Tensor,
    position_norm: Norm,
    /// `[conv_out, conv_kernel · channels]`
    convolution: Tensor,
    convolution_bias: Tensor,
    channel_norm: Norm,
    head: Dense,
    seq_len: usize,
    positions: usize,
    kernel: usize,
    vocab_size: usize,
    device: Device,
}

impl MagikaNetwork {
    fn load(config: &Config, weights: &Weights, labels: usize, device: &Device) -> Result<Self, LoadError> {
        let (positions, channels) = (config.positions(), config.group * config.embed_dim);
        let embedding = weights.tensor("embed.weight", &[config.vocab_size, config.embed_dim])?;
        let embedding_bias = weights.tensor("embed.bias", &[config.embed_dim])?;
        let kernel = weights.tensor("conv.weight", &[config.conv_out, channels, config.conv_kernel])?;
        let failed = |source| weights.error(source);
        Ok(Self {
            table: bias_gelu_tensor(embedding, &embedding_bias, GeluForm::Tanh).map_err(failed)?,
            position_norm: Norm::load(weights, "norm0", positions, config.layer_norm_eps)?,
            convolution: flatten_kernel(&kernel).map_err(failed)?,
            convolution_bias: weights.tensor("conv.bias", &[config.conv_out])?,
            channel_norm: Norm::load(weights, "norm1", config.conv_out, config.layer_norm_eps)?,
            head: Dense::load(weights, "head", config.conv_out, labels)?,
            seq_len: config.seq_len,
            positions,
            kernel: config.conv_kernel,
            vocab_size: config.vocab_size,
            device: device.clone(),
        })
    }

    /// The convolution takes one item at a time: its product is large enough to fill any device, and on a CPU the
    /// windows of one item stay in the cache (a batch of 32 at once took twice as long per item).
    fn logits(&self, items: &[Vec<u32>]) -> candle_core::Result<Tensor> {
        let strongest: Vec<Tensor> = items
            .iter()
            .map(|symbols| self.strongest(&self.convolve(&self.embed(symbols)?)?))
            .collect::<candle_core::Result<_>>()?;
        self.head.forward(&self.channel_norm.forward(&Tensor::stack(&strongest, 0)?)?)
    }

    /// `[channels, positions]`, normalised over the positions.
    fn embed(&self, symbols: &[u32]) -> candle_core::Result<Tensor> {
        let embedded = self.table.index_select(&Tensor::new(symbols, &self.device)?, 0)?;
        let x = embedded.reshape((self.positions, ()))?.t()?.contiguous()?;
        // Long padding makes a row nearly constant. candle takes the variance as E[x²] - E[x]², which then cancels to
        // less than -eps: NaN. Of centred values it is right.
        self.position_norm.forward(&x.broadcast_sub(&x.mean_keepdim(1)?)?)
    }

    /// Convolution without padding as one product: `[channels, positions]` → `[conv_out, windows]`.
    fn convolve(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let windows = self.positions - self.kernel + 1;
        let shifted: Vec<Tensor> =
            (0..self.kernel).map(|tap| x.narrow(1, tap, windows)).collect::<candle_core::Result<_>>()?;
        self.convolution.matmul(&Tensor::cat(&shifted, 0)?)
    }

    /// The maximum of gelu(x + bias) over the last dimension. Gelu falls, then rises, so it is largest at the smallest
    /// or the largest of its arguments: two candidates in place of hundreds of evaluations.
    fn strongest(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let gelu = |extreme| bias_gelu_tensor(extreme, &self.convolution_bias, GeluForm::Tanh);
        gelu(x.max(1)?)?.maximum(&gelu(x.min(1)?)?)
    }

    /// The symbols of an item, checked against the table: a failed lookup would fail the whole batch.
    fn checked(&self, item: usize, features: &Features) -> Result<Vec<u32>, ForwardError> {
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
        Ok(symbols.iter().copied().map(u32::from).collect())
    }
}

/// `[conv_out, channels, taps]` → `[conv_out, taps · channels]`
fn flatten_kernel(kernel: &Tensor) -> candle_core::Result<Tensor> {
    kernel.transpose(1, 2)?.contiguous()?.flatten_from(1)
}

impl Network for MagikaNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let items: Vec<Vec<u32>> =
            batch.iter().enumerate().map(|(item, features)| self.checked(item, features)).collect::<Result<_, _>>()?;
        Ok(self.logits(&items)?.to_vec2()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { beginning: 4, end: 4, block: 8, padding: 256 };

    fn symbols(content: &[u8]) -> Vec<u16> {
        WINDOW.symbols(content).unwrap()
    }

    #[test]
    fn a_short_content_is_padded_behind_its_beginning_and_before_its_end() {
        assert_eq!(symbols(b"ab"), [97, 98, 256, 256, 256, 256, 97, 98]);
    }

    #[test]
    fn white_space_is_stripped_before_the_beginning_and_after_the_end_only() {
        // Within one block the beginning keeps the spaces behind it, and the end those before it.
        assert_eq!(symbols(b" \x0b\nab "), [97, 98, 32, 256, 11, 10, 97, 98]);
        // Neither a no-break space nor a zero byte is white space.
        assert_eq!(symbols(b"\xa0\0"), [0xa0, 0, 256, 256, 256, 256, 0xa0, 0]);
    }

    #[test]
    fn a_long_content_gives_its_first_and_last_bytes() {
        assert_eq!(symbols(b"abcdefghijkl"), [97, 98, 99, 100, 105, 106, 107, 108]);
    }

    #[test]
    fn white_space_is_stripped_within_the_first_and_last_block_alone() {
        // The first block of 8 is all white: nothing is left of it, though letters follow.
        assert_eq!(symbols(b"          abcdef"), [256, 256, 256, 256, 99, 100, 101, 102]);
        assert_eq!(symbols(b"abcdef          "), [97, 98, 99, 100, 256, 256, 256, 256]);
        assert_eq!(
            WINDOW.symbols(b"          abc          "),
            Err(InputError::BlankEnds { name: CONTENT_INPUT, bytes: WINDOW.block })
        );
        assert_eq!(WINDOW.symbols(b""), Err(InputError::Empty { name: CONTENT_INPUT }));
    }
}
