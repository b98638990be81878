//! BERT (Devlin et al., arXiv:1810.04805): text embedding and sequence classification.

mod batch;
mod config;
#[cfg(feature = "cuda")]
mod cuda;
mod encoder;
mod packed;
mod parts;
mod tensors;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::Device;

use config::{Architecture, Config};
use packed::PackedBert;
use parts::Parts;
use tensors::TensorBert;

use crate::sentence_transformers::SentenceTransformer;
use crate::{
    Classification, DeviceName, Family, Features, ForwardError, Input, InputError, InputKind, InputSpec, LoadError,
    LoadedModel, ModelDirectory, Network, Output, Pooling, Precision, Prepared, Processor, Settings, Signature,
    TEXT_INPUT, Target, Task, TextProcessor, Truncation, Weights, labels,
};

/// `"model_type": "bert"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "bert",
    summary: "text embedding and classification (BertModel, BertForSequenceClassification)",
    precisions,
    load,
};

/// By the engine that the device has: weight-only blocks are the CPU's, 16-bit floats are CUDA's, candle has f32 alone.
fn precisions(device: &Device) -> &'static [Precision] {
    match device {
        Device::Cpu => &[Precision::F32, Precision::Int8, Precision::Q8_0, Precision::Q4K],
        Device::Cuda(_) => &[Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8],
        Device::Metal(_) => &[Precision::F32],
    }
}

fn load(directory: &ModelDirectory, target: &Target) -> Result<LoadedModel, LoadError> {
    let config = Config::read(directory)?;
    // CUDA's engine takes them from the CPU.
    let weights = directory.weights(if target.device.is_cuda() { &Device::Cpu } else { &target.device })?;
    let architecture = config.architecture().map_err(|message| directory.invalid("config.json", message))?;
    match architecture {
        Architecture::Embedding => load_embedding(directory, &config, &weights, target),
        Architecture::Classification => load_classification(directory, &config, &weights, target),
    }
}

fn load_embedding(
    directory: &ModelDirectory,
    config: &Config,
    weights: &Weights,
    target: &Target,
) -> Result<LoadedModel, LoadError> {
    let settings = directory.settings(&["pooling", "normalize", "max_tokens", "cuda_graphs"])?;
    let declared = SentenceTransformer::read(directory)?;
    let text = load_text(directory, config, &settings, declared.max_tokens)?;
    let head = match settings.model.pooling.or(declared.pooling).unwrap_or(Pooling::Mean) {
        Pooling::Mean => HeadKind::Mean,
        Pooling::Cls => HeadKind::Cls,
    };
    let normalize = settings.model.normalize.or(declared.normalize).unwrap_or(true);
    let task = Task::Embedding { dimensions: config.hidden_size };
    Ok(LoadedModel {
        signature: signature(&text, task, weights, target),
        network: Box::new(BertNetwork::load(directory, config, weights, head, target, &settings)?),
        processor: Arc::new(EmbeddingProcessor { text, normalize }),
        settings,
    })
}

fn load_classification(
    directory: &ModelDirectory,
    config: &Config,
    weights: &Weights,
    target: &Target,
) -> Result<LoadedModel, LoadError> {
    let settings = directory.settings(&["max_tokens", "cuda_graphs"])?;
    let text = load_text(directory, config, &settings, None)?;
    let invalid = |message| directory.invalid("config.json", message);
    let missing = || invalid("field 'id2label' is missing; give one label per class".to_owned());
    let labels = labels::in_order(config.id2label.as_ref().ok_or_else(missing)?).map_err(invalid)?;
    let head = HeadKind::Classifier { labels: labels.len() };
    let task = Task::Classification { labels: Arc::clone(&labels) };
    Ok(LoadedModel {
        signature: signature(&text, task, weights, target),
        network: Box::new(BertNetwork::load(directory, config, weights, head, target, &settings)?),
        processor: Arc::new(ClassificationProcessor { text, labels }),
        settings,
    })
}

fn load_text(
    directory: &ModelDirectory,
    config: &Config,
    settings: &Settings,
    declared: Option<usize>,
) -> Result<TextProcessor, LoadError> {
    TextProcessor::load(directory, settings, declared, config.max_position_embeddings, config.vocab_size)
}

fn signature(text: &TextProcessor, task: Task, weights: &Weights, target: &Target) -> Signature {
    let kind = InputKind::Text { max_tokens: text.max_tokens() };
    Signature {
        model_type: FAMILY.model_type.to_owned(),
        input: InputSpec { name: TEXT_INPUT, kind },
        task,
        precision: target.precision,
        device: DeviceName::of(&target.device),
        parameters: weights.parameters(),
    }
}

struct EmbeddingProcessor {
    text: TextProcessor,
    normalize: bool,
}

impl Processor for EmbeddingProcessor {
    fn prepare(&self, input: Input, truncation: Truncation) -> Result<Prepared, InputError> {
        self.text.prepare(input, truncation)
    }

    fn finish(&self, mut row: Vec<f32>) -> Output {
        /// Keeps a row of zeros a row of zeros, as `torch.nn.functional.normalize` does.
        const MIN_NORM: f32 = 1e-12;
        if self.normalize {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(MIN_NORM);
            for x in &mut row {
                *x /= norm;
            }
        }
        Output::Embedding(row)
    }
}

struct ClassificationProcessor {
    text: TextProcessor,
    labels: Arc<[String]>,
}

impl Processor for ClassificationProcessor {
    fn prepare(&self, input: Input, truncation: Truncation) -> Result<Prepared, InputError> {
        self.text.prepare(input, truncation)
    }

    fn finish(&self, row: Vec<f32>) -> Output {
        Output::Classification(Classification::from_logits(Arc::clone(&self.labels), row))
    }
}

/// What stands on top of the encoder: from token vectors to one row per text.
#[derive(Debug, Clone, Copy)]
enum HeadKind {
    Mean,
    Cls,
    Classifier { labels: usize },
}

struct BertNetwork {
    engine: Engine,
    max_tokens: usize,
    vocab_size: usize,
    type_vocab_size: usize,
}

enum Engine {
    /// The CPU.
    Packed(Box<PackedBert>),
    /// CUDA.
    #[cfg(feature = "cuda")]
    Cuda(Box<cuda::CudaBert>),
    /// Any other device.
    Tensors(Box<TensorBert>),
}

impl BertNetwork {
    fn load(
        directory: &ModelDirectory,
        config: &Config,
        weights: &Weights,
        head: HeadKind,
        target: &Target,
        #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "it sets what CUDA's engine does"))]
        settings: &Settings,
    ) -> Result<Self, LoadError> {
        let prefix = if weights.contains("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        let parts = Parts { directory, config, weights, prefix };
        let engine = match &target.device {
            Device::Cpu => Engine::Packed(Box::new(PackedBert::load(parts, head, target)?)),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => {
                let mut engine = cuda::CudaBert::load(parts, head, target)?;
                if settings.model.cuda_graphs == Some(true) {
                    engine.use_graphs();
                }
                Engine::Cuda(Box::new(engine))
            }
            device => Engine::Tensors(Box::new(TensorBert::load(directory, config, weights, prefix, head, device)?)),
        };
        Ok(Self {
            engine,
            max_tokens: config.max_position_embeddings,
            vocab_size: config.vocab_size,
            type_vocab_size: config.type_vocab_size,
        })
    }

    /// The token ids and segments of an item, checked against the tables: the lookup itself must not fail, because that
    /// would fail the whole batch.
    fn checked<'a>(&self, item: usize, features: &'a Features) -> Result<(&'a [u32], &'a [u32]), ForwardError> {
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
        if let Some(id) = input_ids.iter().find(|id| **id as usize >= self.vocab_size) {
            return refuse(format!("token id {id}; the vocabulary has {}", self.vocab_size));
        }
        if let Some(id) = token_type_ids.iter().find(|id| **id as usize >= self.type_vocab_size) {
            return refuse(format!("segment {id}; the model has {}", self.type_vocab_size));
        }
        Ok((input_ids, token_type_ids))
    }
}

impl Network for BertNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let items: Vec<_> =
            batch.iter().enumerate().map(|(item, features)| self.checked(item, features)).collect::<Result<_, _>>()?;
        match &mut self.engine {
            Engine::Packed(engine) => Ok(engine.forward(&items)?),
            #[cfg(feature = "cuda")]
            Engine::Cuda(engine) => Ok(engine.forward(&items)?),
            Engine::Tensors(engine) => Ok(engine.forward(&items)?),
        }
    }
}
