//! Answers of one model in the runtime's cache: under which key, in which form.
//!
//! What is kept is the network's row, not the answer made of it: every output comes from that row, so the outputs that a request
//! asks for cannot lead to a wrong answer.

use std::path::Path;
use std::sync::Arc;

use sconce_cache::{Cache, Digest, Dtype, Input as KeyInput, Key, KeyFields, Parameter, Source, Tensor, Value};
use sconce_models::{Array, ArrayData, DeviceName, Input, Precision, Truncation};
use tokio::runtime::Handle;

use crate::{BuildError, InferError, Timing};

/// Tiers of cache for the answers of a runtime's models, made by [`Cache::builder`].
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
pub type AnswerCache = Cache<InferError>;

/// Where an [`Answer`](crate::Answer) came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerSource {
    /// The model computed it for this request.
    Computed,
    /// The cache's tier of this name had it.
    Cached(&'static str),
    /// An identical request was at it already, and this one waited for it.
    Shared,
    /// Another replica computed it while this one waited.
    Replica,
}

impl AnswerSource {
    /// `computed`, `shared`, `replica`, or the name of the tier.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Computed => "computed",
            Self::Cached(tier) => tier,
            Self::Shared => "shared",
            Self::Replica => "replica",
        }
    }
}

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

/// What a network gave for one item.
#[derive(Debug, PartialEq)]
pub(crate) struct Computed {
    pub(crate) row: Vec<f32>,
    pub(crate) truncated: bool,
    pub(crate) timing: Timing,
}

/// A runtime's cache as one of its models uses it.
#[derive(Clone)]
pub(crate) struct ModelCache {
    pub(crate) answers: Arc<AnswerCache>,
    /// For callers that block.
    pub(crate) handle: Option<Handle>,
    name: String,
    weights: Digest,
    processing: Digest,
    precision: String,
    /// Devices of one class give the same bits.
    device_class: String,
}

impl ModelCache {
    /// Reads the model's files to know what they hold: answers of other weights or another tokenizer are never found.
    pub(crate) fn new(
        answers: Arc<AnswerCache>,
        name: &str,
        directory: &Path,
        precision: Precision,
        device: DeviceName,
    ) -> Result<Self, BuildError> {
        let digest = |weights| {
            digest_of(directory, weights)
                .map_err(|source| BuildError::Digest { directory: directory.to_owned(), source })
        };
        Ok(Self {
            answers,
            handle: Handle::try_current().ok(),
            name: name.to_owned(),
            weights: digest(true)?,
            processing: digest(false)?,
            precision: precision.to_string(),
            device_class: format!("{} {}", device.class(), env!("CARGO_PKG_VERSION")),
        })
    }

    /// `None` for a kind of input that is newer than this function: nothing is better than a key that leaves something out.
    pub(crate) fn key(&self, input: &Input, truncation: Truncation) -> Option<Key> {
        let elements: Vec<u8>;
        let input = match input {
            Input::Text(text) => KeyInput { name: "text", dtype: Dtype::Bytes, shape: &[], bytes: text.as_bytes() },
            Input::Bytes(bytes) => KeyInput { name: "bytes", dtype: Dtype::Bytes, shape: &[], bytes },
            Input::Array(Array { shape, data: ArrayData::U8(bytes) }) => {
                KeyInput { name: "array", dtype: Dtype::U8, shape, bytes }
            }
            Input::Array(Array { shape, data: ArrayData::F32(data) }) => {
                elements = data.iter().flat_map(|element| element.to_le_bytes()).collect();
                KeyInput { name: "array", dtype: Dtype::F32, shape, bytes: &elements }
            }
            _ => return None,
        };
        let fields = KeyFields {
            model: &self.name,
            weights: self.weights,
            precision: &self.precision,
            device_class: &self.device_class,
            processing: self.processing,
            parameters: &[("truncate", Parameter::Bool(truncation == Truncation::Truncate))],
            outputs: &[],
            inputs: &[input],
        };
        Some(fields.key())
    }

    pub(crate) fn encode(&self, computed: &Computed) -> Value {
        let row: Vec<u8> = computed.row.iter().flat_map(|element| element.to_le_bytes()).collect();
        let tensors = [
            Tensor { name: "row", dtype: Dtype::F32, shape: &[computed.row.len()], bytes: &row },
            Tensor { name: "truncated", dtype: Dtype::Bool, shape: &[], bytes: &[u8::from(computed.truncated)] },
        ];
        Value::new(&self.precision, &tensors).expect("shapes are those of the bytes")
    }

    /// `None` for a value that is not of this form, which a key of this crate does not lead to.
    pub(crate) fn decode(value: &Value) -> Option<Computed> {
        let elements = value.tensor("row").filter(|row| row.dtype == Dtype::F32)?.bytes.as_chunks().0;
        let row = elements.iter().map(|element| f32::from_le_bytes(*element)).collect();
        let truncated = value.tensor("truncated")?.bytes == [1];
        Some(Computed { row, truncated, timing: Timing::default() })
    }
}

/// Of all files of weights, or of all others: their names and contents, in order of their names. None is left out, for a family may
/// read what it likes; a file that no family reads costs no more than a miss when it changes.
fn digest_of(directory: &Path, weights: bool) -> std::io::Result<Digest> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "safetensors") == weights {
            files.push(path);
        }
    }
    files.sort();
    let mut all = Vec::new();
    for path in files {
        all.extend(Digest::of(path.file_name().unwrap_or_default().as_encoded_bytes()).0);
        all.extend(Digest::of_reader(std::fs::File::open(&path)?)?.0);
    }
    Ok(Digest::of(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(directory: &Path, name: &str, precision: Precision) -> ModelCache {
        let answers = AnswerCache::builder().build().unwrap();
        ModelCache::new(Arc::new(answers), name, directory, precision, DeviceName::Cpu).unwrap()
    }

    fn array(shape: &[usize], data: ArrayData) -> Input {
        Input::Array(Array { shape: shape.to_vec(), data })
    }

    #[tokio::test]
    async fn whatever_changes_an_answer_changes_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        let text = Input::from("a sconce");
        std::fs::write(at("model.safetensors"), "weights").unwrap();
        std::fs::write(at("tokenizer.json"), "{}").unwrap();
        let key = |name, precision| cache(directory.path(), name, precision).key(&text, Truncation::Truncate).unwrap();
        let mut keys = vec![key("a", Precision::F32), key("b", Precision::F32), key("a", Precision::Int8)];
        assert_eq!(key("a", Precision::F32), keys[0], "the same model has the same keys");
        std::fs::write(at("tokenizer.json"), "{ }").unwrap();
        keys.push(key("a", Precision::F32));
        std::fs::write(at("model.safetensors"), "weighty").unwrap();
        keys.push(key("a", Precision::F32));
        std::fs::write(at("vocabulary.bin"), "read by a family of one's own").unwrap();
        keys.push(key("a", Precision::F32));
        let cache = cache(directory.path(), "a", Precision::F32);
        let elsewhere = ModelCache { device_class: DeviceName::Cuda { ordinal: 0 }.class(), ..cache.clone() };
        keys.push(elsewhere.key(&text, Truncation::Truncate).unwrap());
        keys.extend(
            [
                (text, Truncation::Refuse),
                (Input::from("a sconce "), Truncation::Truncate),
                (Input::Bytes(b"a sconce".to_vec()), Truncation::Truncate),
                (array(&[2, 4], ArrayData::U8(vec![0; 8])), Truncation::Truncate),
                (array(&[4, 2], ArrayData::U8(vec![0; 8])), Truncation::Truncate),
                (array(&[2, 1], ArrayData::F32(vec![0.0; 2])), Truncation::Truncate),
            ]
            .map(|(input, truncation)| cache.key(&input, truncation).unwrap()),
        );
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[tokio::test]
    async fn a_row_comes_back_as_it_went() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path(), "a", Precision::F32);
        for truncated in [false, true] {
            let computed = Computed { row: vec![0.5, -0.0, f32::MIN_POSITIVE], truncated, timing: Timing::default() };
            assert_eq!(ModelCache::decode(&cache.encode(&computed)), Some(computed));
        }
    }
}
