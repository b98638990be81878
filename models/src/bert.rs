//! BERT (Devlin et al., arXiv:1810.04805): text embedding and sequence classification.

mod config;
mod encoder;

use std::sync::Arc;

use candle_core::{Device, Tensor};

use config::{Architecture, Config};
use encoder::{Encoder, PackedTokens, Run};

use crate::dense::Dense;
use crate::sentence_transformers::SentenceTransformer;
use crate::{
    Classification, Family, Features, ForwardError, Input, InputError, InputKind, InputSpec, LoadError, LoadedModel,
    ModelDirectory, Network, Output, Pooling, Prepared, Processor, Signature, TEXT_INPUT, Task, TextProcessor,
    Truncation, Weights, labels,
};

/// `"model_type": "bert"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "bert",
    summary: "text embedding and classification (BertModel, BertForSequenceClassification)",
    load,
};

fn load(directory: &ModelDirectory, device: &Device) -> Result<LoadedModel, LoadError> {
    let config = Config::read(directory)?;
    let weights = directory.weights(device)?;
    let architecture = config.architecture().map_err(|message| directory.invalid("config.json", message))?;
    match architecture {
        Architecture::Embedding => load_embedding(directory, &config, &weights, device),
        Architecture::Classification => load_classification(directory, &config, &weights, device),
    }
}

fn load_embedding(
    directory: &ModelDirectory,
    config: &Config,
    weights: &Weights,
    device: &Device,
) -> Result<LoadedModel, LoadError> {
    let settings = directory.settings(&["pooling", "normalize", "max_tokens"])?;
    let declared = SentenceTransformer::read(directory)?;
    let text = load_text(directory, config, &settings, declared.max_tokens)?;
    let head = match settings.model.pooling.or(declared.pooling).unwrap_or(Pooling::Mean) {
        Pooling::Mean => Head::Mean,
        Pooling::Cls => Head::Cls,
    };
    let normalize = settings.model.normalize.or(declared.normalize).unwrap_or(true);
    let task = Task::Embedding { dimensions: config.hidden_size };
    Ok(LoadedModel {
        signature: signature(&text, task, weights),
        network: Box::new(BertNetwork::load(directory, config, weights, device, head)?),
        processor: Arc::new(EmbeddingProcessor { text, normalize }),
        settings,
    })
}

fn load_classification(
    directory: &ModelDirectory,
    config: &Config,
    weights: &Weights,
    device: &Device,
) -> Result<LoadedModel, LoadError> {
    let settings = directory.settings(&["max_tokens"])?;
    let text = load_text(directory, config, &settings, None)?;
    let invalid = |message| directory.invalid("config.json", message);
    let missing = || invalid("field 'id2label' is missing; give one label per class".to_owned());
    let labels = labels::in_order(config.id2label.as_ref().ok_or_else(missing)?).map_err(invalid)?;
    let head = Head::Classifier {
        pooler: Dense::load(weights, "bert.pooler.dense", config.hidden_size, config.hidden_size)?,
        classifier: Dense::load(weights, "classifier", config.hidden_size, labels.len())?,
    };
    let task = Task::Classification { labels: Arc::clone(&labels) };
    Ok(LoadedModel {
        signature: signature(&text, task, weights),
        network: Box::new(BertNetwork::load(directory, config, weights, device, head)?),
        processor: Arc::new(ClassificationProcessor { text, labels }),
        settings,
    })
}

fn load_text(
    directory: &ModelDirectory,
    config: &Config,
    settings: &crate::Settings,
    declared: Option<usize>,
) -> Result<TextProcessor, LoadError> {
    TextProcessor::load(directory, settings, declared, config.max_position_embeddings, config.vocab_size)
}

fn signature(text: &TextProcessor, task: Task, weights: &Weights) -> Signature {
    let kind = InputKind::Text { max_tokens: text.max_tokens() };
    Signature {
        model_type: FAMILY.model_type.to_owned(),
        input: InputSpec { name: TEXT_INPUT, kind },
        task,
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

/// From token vectors to one row per text.
enum Head {
    Mean,
    Cls,
    Classifier { pooler: Dense, classifier: Dense },
}

impl Head {
    fn forward(&self, hidden: &Tensor, runs: &[Run]) -> candle_core::Result<Tensor> {
        match self {
            Self::Mean => {
                let means: Vec<Tensor> = runs.iter().map(|run| mean(hidden, *run)).collect::<Result<_, _>>()?;
                Tensor::cat(&means, 0)
            }
            Self::Cls => first_tokens(hidden, runs),
            Self::Classifier { pooler, classifier } => {
                classifier.forward(&pooler.forward(&first_tokens(hidden, runs)?)?.tanh()?)
            }
        }
    }
}

fn mean(hidden: &Tensor, run: Run) -> candle_core::Result<Tensor> {
    let texts = hidden.narrow(0, run.start, run.tokens())?.reshape((run.texts, run.length, ()))?;
    // A product, because candle's sum over a middle dimension is many times slower on the CPU.
    let weights = Tensor::full(1.0 / run.length as f32, (run.texts, 1, run.length), hidden.device())?;
    weights.matmul(&texts)?.squeeze(1)
}

fn first_tokens(hidden: &Tensor, runs: &[Run]) -> candle_core::Result<Tensor> {
    let rows = runs.iter().flat_map(|run| (0..run.texts).map(|text| run.start + text * run.length));
    let rows: Vec<u32> = rows.map(|row| u32::try_from(row).expect("a batch has fewer than 2^32 tokens")).collect();
    hidden.index_select(&Tensor::new(rows, hidden.device())?, 0)
}

struct BertNetwork {
    encoder: Encoder,
    head: Head,
    device: Device,
    max_tokens: usize,
    vocab_size: usize,
    type_vocab_size: usize,
}

impl BertNetwork {
    fn load(
        directory: &ModelDirectory,
        config: &Config,
        weights: &Weights,
        device: &Device,
        head: Head,
    ) -> Result<Self, LoadError> {
        let prefix = if weights.contains("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        Ok(Self {
            encoder: Encoder::load(directory, weights, prefix, config)?,
            head,
            device: device.clone(),
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
        let mut by_length: Vec<usize> = (0..items.len()).collect();
        by_length.sort_by_key(|item| items[*item].0.len());

        let tokens = pack(by_length.iter().map(|item| items[*item]));
        let hidden = self.encoder.forward(&tokens, &self.device)?;
        let sorted_rows = self.head.forward(&hidden, &tokens.runs)?.to_vec2::<f32>()?;

        let mut rows = vec![Vec::new(); items.len()];
        for (item, row) in by_length.into_iter().zip(sorted_rows) {
            rows[item] = row;
        }
        Ok(rows)
    }
}

/// Puts texts end to end; neighbours of equal length become one run.
fn pack<'a>(texts: impl Iterator<Item = (&'a [u32], &'a [u32])>) -> PackedTokens {
    let mut packed =
        PackedTokens { input_ids: Vec::new(), token_type_ids: Vec::new(), positions: Vec::new(), runs: Vec::new() };
    for (input_ids, token_type_ids) in texts {
        let (start, length) = (packed.input_ids.len(), input_ids.len());
        match packed.runs.last_mut() {
            Some(run) if run.length == length => run.texts += 1,
            _ => packed.runs.push(Run { start, texts: 1, length }),
        }
        packed.input_ids.extend_from_slice(input_ids);
        packed.token_type_ids.extend_from_slice(token_type_ids);
        packed.positions.extend((0..).take(length));
    }
    packed
}
