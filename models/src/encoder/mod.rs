//! Encoders of text made from a spec: their weights, their engines, and the network that checks tokens before an engine
//! sees them.

mod batch;
#[cfg(feature = "cuda")]
mod cuda;
mod demand;
mod head;
mod names;
mod packed;
#[cfg(test)]
mod reference;
mod tensors;
#[cfg(test)]
mod tests;
mod weights;

#[cfg(feature = "cuda")]
pub(crate) use cuda::CudaTextEncoder;
pub(crate) use demand::demand;
pub use names::{BlockPart, EncoderPart, HeadTensors, TensorNames};
pub(crate) use packed::PackedEncoder;
pub(crate) use tensors::TensorEncoder;
pub use weights::EncoderWeights;

use sconce_kernels::encoder::EncoderSpec;

use crate::{Features, ForwardError, Network};

/// The tokens of one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens<'a> {
    /// Rows of the table of words.
    pub ids: &'a [u32],
    /// Rows of the table of segments, one per token.
    pub segments: &'a [u32],
}

/// An encoder with its head in the memory of a device, made by [`Device::encoder`](crate::Device::encoder).
pub trait EncoderEngine: Send {
    /// Computes one row per text, in the same order. Each text has at least one token and at most the spec's
    /// `max_tokens`, and all ids are within the tables. A row does not depend on the other texts (to 1e-5).
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    fn forward(&mut self, texts: &[Tokens<'_>]) -> Result<Vec<Vec<f32>>, ForwardError>;
}

/// An engine behind a check of its tokens: an id beyond a table is refused by the item's number before the batch runs.
pub(crate) struct EncoderNetwork {
    engine: Box<dyn EncoderEngine>,
    bounds: TokenBounds,
}

struct TokenBounds {
    max_tokens: usize,
    words: usize,
    segments: usize,
    /// Zeros, taken as the segments of every text if the encoder has no table of segments; else empty.
    no_segments: Vec<u32>,
}

impl EncoderNetwork {
    /// Puts the check before an engine. `max_tokens` bounds a text if the spec does not.
    pub(crate) fn new(engine: Box<dyn EncoderEngine>, spec: &EncoderSpec, max_tokens: usize) -> Self {
        let EncoderSpec { embeddings, .. } = spec;
        let max_tokens = spec.max_tokens().unwrap_or(max_tokens);
        let no_segments = if embeddings.segments == 0 { vec![0; max_tokens] } else { Vec::new() };
        let bounds = TokenBounds { max_tokens, words: embeddings.words, segments: embeddings.segments, no_segments };
        Self { engine, bounds }
    }
}

impl TokenBounds {
    fn checked<'a>(&'a self, item: usize, features: &'a Features) -> Result<Tokens<'a>, ForwardError> {
        let Features::Tokens { input_ids, token_type_ids } = features else {
            return Err(ForwardError::WrongFeatures { expected: "tokens", got: features.kind() });
        };
        let refuse = |message| Err(ForwardError::InvalidFeatures { item, message });
        let (tokens, segments) = (input_ids.len(), token_type_ids.len());
        if tokens != segments {
            return refuse(format!("{tokens} token ids, but {segments} segments"));
        }
        if tokens == 0 || tokens > self.max_tokens {
            return refuse(format!("{tokens} tokens; the model takes 1 to {}", self.max_tokens));
        }
        if let Some(id) = input_ids.iter().find(|id| **id as usize >= self.words) {
            return refuse(format!("token id {id}; the vocabulary has {}", self.words));
        }
        if self.segments == 0 {
            return Ok(Tokens { ids: input_ids, segments: &self.no_segments[..tokens] });
        }
        if let Some(id) = token_type_ids.iter().find(|id| **id as usize >= self.segments) {
            return refuse(format!("segment {id}; the model has {}", self.segments));
        }
        Ok(Tokens { ids: input_ids, segments: token_type_ids })
    }
}

impl Network for EncoderNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let Self { engine, bounds } = self;
        let texts = batch.iter().enumerate().map(|(item, features)| bounds.checked(item, features));
        let rows = engine.forward(&texts.collect::<Result<Vec<_>, _>>()?)?;
        // Weights or activations beyond the precision's range: no answer is better than a wrong one.
        match rows.iter().position(|row| row.iter().any(|x| !x.is_finite())) {
            Some(item) => Err(ForwardError::NotFinite { item }),
            None => Ok(rows),
        }
    }
}
