//! Cached answers of one model: their keys and their encoding.
//!
//! The cache keeps the network's row, not the answer made of it. Every output is computed from the row, so a cached row
//! is right whichever outputs a request asks for.

mod files;
mod keys;

use std::sync::Arc;

use sconce_cache::{Cache, Dtype, Source, TensorView, Value};
use sconce_models::{DeviceName, Precision, Prepared};
use tokio::runtime::Handle;

pub(crate) use files::FileDigests;
pub(crate) use keys::{AnswerKeys, FeatureKeys, Keys};

use crate::{AnswerSource, InferError, RequestTerms, Timing};

/// The cache of the answers of a runtime's models, in one or more tiers. Made by [`Cache::builder`].
///
/// ```
/// use sconce::AnswerCache;
/// use sconce::cache::MemoryConfig;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
/// let cache = AnswerCache::builder().memory(MemoryConfig::default()).build()?;
/// let runtime = sconce::Runtime::builder().model(zoo.join("tiny-bert-sentiment")).cache(cache).build()?;
/// let model = runtime.model("tiny-bert-sentiment")?;
/// for source in ["computed", "memory"] {
///     assert_eq!(model.infer("What a wonderful day!").await?.source.name(), source);
/// }
/// # Ok(())
/// # }
/// ```
pub type AnswerCache = Cache<InferError, RequestTerms>;

impl From<Source> for AnswerSource {
    fn from(source: Source) -> Self {
        match source {
            Source::Computed => Self::Computed,
            Source::Tier(tier) => Self::Cached(tier),
            Source::Shared => Self::Shared,
            Source::Replica => Self::Replica,
        }
    }
}

/// The part of an input that the model read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// True if the end of the input was cut off.
    pub(crate) truncated: bool,
    /// Number of tokens; `None` if the model reads no tokens.
    pub(crate) tokens: Option<usize>,
}

impl Extent {
    pub(crate) fn of(prepared: &Prepared) -> Self {
        Self { truncated: prepared.truncated, tokens: prepared.features.tokens() }
    }
}

/// A network's result for one item.
#[derive(Debug, PartialEq)]
pub(crate) struct Computed {
    pub(crate) row: Vec<f32>,
    pub(crate) extent: Extent,
    /// The precision of the network.
    pub(crate) precision: Precision,
    /// The device that computed the row.
    pub(crate) device: DeviceName,
    pub(crate) timing: Timing,
}

impl Computed {
    pub(crate) fn encode(&self) -> Value {
        let row: Vec<u8> = self.row.iter().flat_map(|element| element.to_le_bytes()).collect();
        let device = self.device.to_string();
        let tokens = self.extent.tokens.map(|tokens| (tokens as u64).to_le_bytes());
        let tensors = [
            TensorView { name: "device", dtype: Dtype::U8, shape: &[device.len()], bytes: device.as_bytes() },
            TensorView { name: "row", dtype: Dtype::F32, shape: &[self.row.len()], bytes: &row },
            TensorView { name: "truncated", dtype: Dtype::Bool, shape: &[], bytes: &[u8::from(self.extent.truncated)] },
        ];
        let tokens = tokens.as_ref().map(|bytes| TensorView { name: "tokens", dtype: Dtype::U64, shape: &[], bytes });
        let tensors: Vec<_> = tensors.into_iter().chain(tokens).collect();
        Value::new(self.precision.name(), &tensors).expect("shapes are those of the bytes")
    }

    /// Decodes a value; `None` if it does not have the form that [`encode`](Self::encode) gives it. No value that this
    /// crate stored is of another form.
    pub(crate) fn decode(value: &Value) -> Option<Self> {
        let elements = value.tensor("row").filter(|row| row.dtype == Dtype::F32)?.bytes.as_chunks().0;
        let row = elements.iter().map(|element| f32::from_le_bytes(*element)).collect();
        let truncated = value.tensor("truncated")?.bytes == [1];
        // Values stored by earlier versions have no number of tokens.
        let tokens = value.tensor("tokens").and_then(|tokens| tokens.bytes.try_into().ok());
        let tokens = tokens.and_then(|bytes| usize::try_from(u64::from_le_bytes(bytes)).ok());
        let extent = Extent { truncated, tokens };
        let precision = value.precision().parse().ok()?;
        let device = std::str::from_utf8(value.tensor("device")?.bytes).ok()?.parse().ok()?;
        Some(Self { row, extent, precision, device, timing: Timing::default() })
    }
}

/// The runtime's cache, with the keys of one model.
pub(crate) struct ModelCache {
    pub(crate) answers: Arc<AnswerCache>,
    pub(crate) keys: AnswerKeys,
    /// The tokio runtime on which blocking callers ask the cache; `None` if the model was started outside of one.
    pub(crate) handle: Option<Handle>,
}

impl ModelCache {
    pub(crate) fn new(answers: Arc<AnswerCache>, keys: AnswerKeys) -> Self {
        Self { answers, keys, handle: Handle::try_current().ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_as_it_went() {
        let gpu = DeviceName::cuda(1);
        for (truncated, precision, device) in [(false, Precision::F32, DeviceName::CPU), (true, Precision::Int8, gpu)] {
            let row = vec![0.5, -0.0, f32::MIN_POSITIVE];
            let extent = Extent { truncated, tokens: truncated.then_some(300) };
            let computed = Computed { row, extent, precision, device, timing: Timing::default() };
            assert_eq!(Computed::decode(&computed.encode()), Some(computed));
        }
    }
}
