//! Encoders of text as models: an encoder's spec with a tokenizer and a purpose: embeddings, labels or scores.

use std::sync::Arc;

use sconce_kernels::encoder::{EncoderSpec, HeadFunction, HeadSpec};
use sconce_kernels::pooling;
use serde::Deserialize;

use crate::encoder::{EncoderNetwork, demand};
use crate::sentence_transformers::SentenceTransformer;
use crate::{
    Blueprint, Classification, Demand, Device, EncoderOrder, EncoderWeights, Halves, Input, InputError, InputKind,
    InputSpec, LoadError, ModelDirectory, Output, Pooling, Precision, Prepared, Processor, Score, Settings, Target,
    Task, TensorNames, TextProcessor, TextRules, Truncation, config, excerpt, labels,
};

/// The architectures of a family, by Hugging Face's names.
#[derive(Debug, Clone, Copy)]
pub struct Architectures {
    /// Gives a vector for each token, which are pooled: `BertModel`.
    pub embedding: &'static str,
    /// Gives a logit for each label: `BertForSequenceClassification`.
    pub classification: &'static str,
    /// The function between the two products of the classifier.
    pub function: HeadFunction,
}

/// The fields of `config.json` that choose the head.
#[derive(Deserialize)]
struct HeadConfig {
    #[serde(default)]
    architectures: Vec<String>,
    problem_type: Option<String>,
    id2label: Option<serde_json::Value>,
    num_labels: Option<usize>,
}

/// The blueprint of every encoder of text: a family gives it a spec and the names of the tensors.
pub struct TextEncoder {
    spec: EncoderSpec,
    names: &'static TensorNames,
    purpose: Purpose,
    /// False if `config.json` names no architecture.
    is_declared: bool,
    settings: Settings,
    /// Limit, casing and prompts of sentence-transformers' files.
    rules: TextRules,
}

enum Purpose {
    Embedding {
        normalize: bool,
    },
    Labels(Arc<[String]>),
    /// One score for a pair of texts, as of a reranker.
    Score(ScoreFunction),
}

impl TextEncoder {
    /// A model of one of a family's architectures, the one that `config.json` names; the one for embeddings if it names none. The
    /// head of `spec` is replaced by that architecture's.
    ///
    /// # Errors
    /// [`LoadError`] if the architecture is not known, its last step is not, or as [`embedding`](Self::embedding) and
    /// [`classification`](Self::classification).
    pub fn read(
        directory: &ModelDirectory,
        spec: EncoderSpec,
        names: &'static TensorNames,
        known: &Architectures,
    ) -> Result<Self, LoadError> {
        let HeadConfig { architectures, problem_type, id2label, num_labels } = directory.config()?;
        let invalid = |message| directory.invalid("config.json", message);
        let architecture = config::architecture(&architectures, &[known.embedding, known.classification]);
        if architecture.map_err(invalid)? == known.embedding {
            let declared = !architectures.is_empty();
            return Ok(Self { is_declared: declared, ..Self::embedding(directory, spec, names)? });
        }
        let labels = labels::in_order(id2label.as_ref(), num_labels).map_err(invalid)?;
        config::single_label(problem_type.as_deref(), labels.len()).map_err(invalid)?;
        Self::classification(directory, spec, names, known.function, labels)
    }

    /// A model that gives embeddings. Pooling (mean or first token) and normalisation are those of `sconce.toml`, else
    /// of the files of sentence-transformers, else the mean, normalised. The head of `spec` is replaced by that pooling.
    ///
    /// # Errors
    /// [`LoadError`] if one of these files is invalid.
    pub fn embedding(
        directory: &ModelDirectory,
        spec: EncoderSpec,
        names: &'static TensorNames,
    ) -> Result<Self, LoadError> {
        let settings = directory.settings(&EMBEDDING_FIELDS)?;
        let declared = SentenceTransformer::read(directory)?;
        let pooling = match settings.model.pooling {
            Some(Pooling::Mean) => pooling::Pooling::Mean,
            Some(Pooling::Cls) => pooling::Pooling::Cls,
            None => declared.only_pooling().map_err(|message| directory.invalid("modules.json", message))?,
        };
        declared.check_served().map_err(|message| directory.top().invalid("modules.json", message))?;
        let normalize = settings.model.normalize.or(declared.normalize).unwrap_or(true);
        Ok(Self {
            spec: EncoderSpec { head: HeadSpec::Pool(pooling), ..spec },
            names,
            purpose: Purpose::Embedding { normalize },
            is_declared: true,
            settings,
            rules: declared.rules(),
        })
    }

    /// A model that gives a score for each of `labels`; if there is only one label, it takes a pair of texts
    /// and gives one score. The head of `spec` is replaced by a classifier with `function` between its two products.
    ///
    /// # Errors
    /// [`LoadError`] if `sconce.toml` is invalid.
    pub fn classification(
        directory: &ModelDirectory,
        spec: EncoderSpec,
        names: &'static TensorNames,
        function: HeadFunction,
        labels: Arc<[String]>,
    ) -> Result<Self, LoadError> {
        let settings = directory.settings(&CLASSIFICATION_FIELDS)?;
        let spec = EncoderSpec { head: HeadSpec::Classifier { outputs: labels.len(), function }, ..spec };
        let purpose =
            if labels.len() == 1 { Purpose::Score(ScoreFunction::read(directory)?) } else { Purpose::Labels(labels) };
        Ok(Self { spec, names, purpose, is_declared: true, settings, rules: TextRules::default() })
    }
}

#[cfg(test)]
impl TextEncoder {
    pub(crate) fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    pub(crate) fn names(&self) -> &'static TensorNames {
        self.names
    }
}

const EMBEDDING_FIELDS: [&str; 4] = ["pooling", "normalize", "max_tokens", "cuda_graphs"];
const CLASSIFICATION_FIELDS: [&str; 2] = ["max_tokens", "cuda_graphs"];
/// Most tokens per text where no table of positions bounds them.
const UNBOUNDED_TOKENS: usize = 8192;

impl Blueprint for TextEncoder {
    fn settings(&self) -> &'static [&'static str] {
        match self.purpose {
            Purpose::Embedding { .. } => &EMBEDDING_FIELDS,
            Purpose::Labels(_) | Purpose::Score(_) => &CLASSIFICATION_FIELDS,
        }
    }

    fn precisions(&self, device: &dyn Device) -> Vec<Precision> {
        device.encoder_precisions(&self.spec)
    }

    fn demand(&self, precision: Precision) -> Option<Demand> {
        Some(demand(&self.spec, precision))
    }

    fn load(&self, directory: &ModelDirectory, target: &Target) -> Result<Halves, LoadError> {
        let Self { spec, names, purpose, is_declared, settings, rules } = self;
        let weights = directory.weights()?;
        let classifier = format!("{}.weight", names.classifier);
        if !is_declared && weights.contains(&classifier) {
            let message = format!(
                "field 'architectures' names none, and the weights have '{classifier}' of a classifier; name it"
            );
            return Err(directory.invalid("config.json", message));
        }
        let weights = EncoderWeights::new(spec, &weights, names);
        let max_positions = spec.max_tokens().unwrap_or(UNBOUNDED_TOKENS);
        let text = TextProcessor::load(directory, settings, rules, max_positions, spec.embeddings.words)?;
        let order = EncoderOrder { weights, precision: target.precision, settings: &settings.model };
        let engine = target.device.encoder(&order)?;
        let max_tokens = text.max_tokens();
        let kind = match purpose {
            Purpose::Score(_) => {
                text.check_pairs(directory, settings, spec.embeddings.segments)?;
                InputKind::Pair { max_tokens }
            }
            Purpose::Embedding { .. } | Purpose::Labels(_) => InputKind::Text { max_tokens },
        };
        let input = InputSpec { name: kind.name(), kind };
        let network = Box::new(EncoderNetwork::new(engine, spec, max_positions));
        let (task, processor): (_, Arc<dyn Processor>) = match purpose {
            Purpose::Embedding { normalize } => {
                let task = Task::Embedding { dimensions: spec.outputs() };
                (task, Arc::new(EmbeddingProcessor { text, normalize: *normalize }))
            }
            Purpose::Labels(labels) => {
                let task = Task::Classification { labels: Arc::clone(labels) };
                (task, Arc::new(ClassificationProcessor { text, labels: Arc::clone(labels) }))
            }
            Purpose::Score(function) => (Task::Score, Arc::new(ScoreProcessor { text, function: *function })),
        };
        Ok(Halves { input, task, processor, network })
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
        /// The smallest divisor, as in `torch.nn.functional.normalize`: a row of zeros stays a row of zeros.
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

struct ScoreProcessor {
    text: TextProcessor,
    function: ScoreFunction,
}

/// The last step from the logit to the score of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScoreFunction {
    Sigmoid,
    Identity,
}

impl ScoreFunction {
    /// Reads the function that sentence-transformers declares in `config.json`; sigmoid if it declares none, as there.
    fn read(directory: &ModelDirectory) -> Result<Self, LoadError> {
        #[derive(Deserialize)]
        struct Declared {
            sbert_ce_default_activation_function: Option<String>,
            sentence_transformers: Option<Nested>,
        }
        #[derive(Deserialize)]
        struct Nested {
            activation_fn: Option<String>,
        }
        let Declared { sbert_ce_default_activation_function: old, sentence_transformers: new } = directory.config()?;
        let declared = new.and_then(|nested| nested.activation_fn).or(old);
        match declared.as_deref().map(|name| name.rsplit('.').next().unwrap_or_default()) {
            None | Some("Sigmoid") => Ok(Self::Sigmoid),
            Some("Identity") => Ok(Self::Identity),
            Some(other) => {
                let other = excerpt(&other);
                let message = format!("field 'activation_fn' is '{other}'; known are: Sigmoid, Identity");
                Err(directory.invalid("config.json", message))
            }
        }
    }
}

impl Processor for ScoreProcessor {
    fn prepare(&self, input: Input, truncation: Truncation) -> Result<Prepared, InputError> {
        self.text.prepare_pair(input, truncation)
    }

    fn finish(&self, row: Vec<f32>) -> Output {
        Output::Score(match self.function {
            ScoreFunction::Sigmoid => Score::from_logit(row[0]),
            ScoreFunction::Identity => Score { score: row[0], logit: row[0] },
        })
    }
}
