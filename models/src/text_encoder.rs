//! Encoders of text as models: an encoder's spec with a tokenizer and a task.

use sconce_kernels::encoder::{EncoderSpec, HeadFunction, HeadRows, HeadSpec, HeadStep};
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;

use crate::encoder::{EncoderNetwork, demand};
use crate::sentence_transformers::{DenseModule, SentenceTransformer};
use crate::text_tasks::TextTask;
use crate::{
    Blueprint, Demand, Device, EncoderOrder, EncoderWeights, Halves, HeadTensors, InputSpec, LoadError, ModelDirectory,
    Precision, Settings, Target, TensorNames, TextProcessor, TextRules, excerpt,
};

/// The heads of a family. Architectures are named as Hugging Face names them: `{prefix}Model`,
/// `{prefix}ForSequenceClassification` and so on.
#[derive(Debug, Clone)]
pub struct Heads {
    /// The beginning of the names of the family's architectures, such as `Bert`.
    pub prefix: &'static str,
    /// The pooling of embeddings where no file of the model sets one.
    pub pooling: Pooling,
    /// The classifier of texts and of pairs of texts: `{prefix}ForSequenceClassification`.
    pub classifier: Option<ClassifierHead>,
}

/// A classifier: steps on the pooled vector, the last of which gives a logit for each label.
#[derive(Debug, Clone)]
pub struct ClassifierHead {
    /// The vector that the first step reads.
    pub pooling: Pooling,
    /// The steps before the last one.
    pub steps: Vec<NamedStep>,
    /// Name of the last product, without `.weight`.
    pub classifier: &'static str,
    /// True if the last product has a bias.
    pub bias: bool,
}

/// A step of a head and its tensors.
#[derive(Debug, Clone)]
pub struct NamedStep {
    /// The step.
    pub step: HeadStep,
    /// Its tensors.
    pub tensors: HeadTensors,
}

impl NamedStep {
    /// A product with a bias, from any number of elements to `outputs`.
    #[must_use]
    pub fn product(name: &'static str, outputs: usize, function: HeadFunction) -> Self {
        Self { step: HeadStep::Product { outputs, bias: true, function }, tensors: HeadTensors::Named(name.into()) }
    }
}

/// The blueprint of every encoder of text: a family gives it a spec, the names of the tensors, and heads.
pub struct TextEncoder {
    spec: EncoderSpec,
    names: &'static TensorNames,
    /// The tensors of the head's steps that are in the encoder's file.
    head: Vec<HeadTensors>,
    /// The folders of the files with the last steps' tensors.
    dense: Vec<String>,
    task: TextTask,
    settings: Settings,
    /// Limit, casing and prompts of sentence-transformers' files.
    rules: TextRules,
    /// Most tokens per text where no table of positions bounds them.
    max_tokens: usize,
    /// Name of a product that only a classifier has; its presence is an error if `config.json` declares no architecture.
    undeclared: Option<&'static str>,
}

/// The fields of `config.json` that choose the head.
#[derive(Deserialize)]
struct HeadConfig {
    architectures: Option<Vec<String>>,
}

/// Architectures that are read as encoders, without their heads: how they were trained does not change what they embed.
const ENCODERS: [&str; 4] = ["Model", "ForMaskedLM", "ForPreTraining", "ForCausalLM"];
const CLASSIFIER: &str = "ForSequenceClassification";

impl TextEncoder {
    /// A model of one of a family's architectures, the one that `config.json` names; it gives embeddings if none is named. The
    /// head of `spec` is replaced by that architecture's.
    ///
    /// # Errors
    /// [`LoadError`] if the architecture is not known, or as [`embedding`](Self::embedding) and
    /// [`classification`](Self::classification).
    pub fn read(
        directory: &ModelDirectory,
        spec: EncoderSpec,
        names: &'static TensorNames,
        heads: Heads,
    ) -> Result<Self, LoadError> {
        let HeadConfig { architectures } = directory.config()?;
        let Some(architecture) = architectures.iter().flatten().next() else {
            let undeclared = heads.classifier.as_ref().map(|head| head.classifier);
            return Ok(Self { undeclared, ..Self::embedding(directory, spec, names, heads.pooling)? });
        };
        match (architecture.strip_prefix(heads.prefix), heads.classifier) {
            (Some(kind), _) if ENCODERS.contains(&kind) => Self::embedding(directory, spec, names, heads.pooling),
            (Some(CLASSIFIER), Some(head)) => Self::classification(directory, spec, names, head),
            (_, classifier) => {
                let classifier = classifier.map(|_| CLASSIFIER);
                let known = ENCODERS.into_iter().chain(classifier).map(|kind| format!("{}{kind}", heads.prefix));
                let known = known.collect::<Vec<_>>().join(", ");
                let message = format!("field 'architectures' names '{}'; known are: {known}", excerpt(architecture));
                Err(directory.invalid("config.json", message))
            }
        }
    }

    /// Bounds the tokens of a text, for an encoder without a table of positions.
    #[must_use]
    pub fn with_max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens, ..self }
    }

    /// Refuses texts with the padding's token, for an encoder whose positions skip it.
    #[must_use]
    pub fn with_padding(mut self, padding: u32) -> Self {
        self.rules.padding = Some(padding);
        self
    }

    /// A model that gives embeddings. Pooling and normalisation are those of `sconce.toml`, else of the files of
    /// sentence-transformers, else `pooling`, normalised. The head of `spec` is replaced by that pooling.
    ///
    /// # Errors
    /// [`LoadError`] if one of these files is invalid.
    pub fn embedding(
        directory: &ModelDirectory,
        spec: EncoderSpec,
        names: &'static TensorNames,
        pooling: Pooling,
    ) -> Result<Self, LoadError> {
        let settings = directory.settings(&EMBEDDING_FIELDS)?;
        let declared = SentenceTransformer::read(directory)?;
        declared.check_served().map_err(|message| directory.top().invalid("modules.json", message))?;
        let poolings = match (settings.model.pooling, &declared.poolings[..]) {
            (Some(pooling), _) => vec![pooling],
            (None, []) => vec![pooling],
            (None, declared) => declared.to_vec(),
        };
        let mut width = poolings.len() * spec.hidden;
        for DenseModule { folder, inputs, outputs, .. } in &declared.dense {
            if *inputs != width {
                let message = format!("field 'in_features' is {inputs}, but the vector before it has {width} elements");
                return Err(directory.top().within(folder).invalid("config.json", message));
            }
            width = *outputs;
        }
        let steps = declared.dense.iter().map(DenseModule::step).collect();
        let spec = EncoderSpec { head: HeadSpec { rows: HeadRows::Pooled(poolings), steps }, ..spec };
        let normalize = settings.model.normalize.or(declared.normalize).unwrap_or(true);
        let dimensions = declared.truncate_dim.map_or(spec.outputs(), |most| most.min(spec.outputs()));
        Ok(Self {
            rules: declared.rules(),
            dense: declared.dense.into_iter().map(|module| module.folder).collect(),
            ..Self::new(spec, names, TextTask::Embedding { normalize, dimensions }, settings)
        })
    }

    /// A model that gives a score for each label of `config.json`; if there is only one label, it also takes a pair of
    /// texts and gives one score. The head of `spec` is replaced by `head`.
    ///
    /// # Errors
    /// [`LoadError`] if `sconce.toml` is invalid, or the labels are not numbered from 0 without a gap.
    pub fn classification(
        directory: &ModelDirectory,
        spec: EncoderSpec,
        names: &'static TensorNames,
        head: ClassifierHead,
    ) -> Result<Self, LoadError> {
        let settings = directory.settings(&CLASSIFICATION_FIELDS)?;
        let task = TextTask::classification(directory)?;
        let ClassifierHead { pooling, steps, classifier, bias } = head;
        let outputs = task.labels().len();
        let last = HeadStep::Product { outputs, bias, function: HeadFunction::Identity };
        let last = NamedStep { step: last, tensors: HeadTensors::Named(classifier.into()) };
        let (steps, head) = steps.into_iter().chain([last]).map(|NamedStep { step, tensors }| (step, tensors)).unzip();
        let spec = EncoderSpec { head: HeadSpec { rows: HeadRows::Pooled(vec![pooling]), steps }, ..spec };
        Ok(Self { head, ..Self::new(spec, names, task, settings) })
    }

    fn new(spec: EncoderSpec, names: &'static TensorNames, task: TextTask, settings: Settings) -> Self {
        let (head, dense, rules) = (Vec::new(), Vec::new(), TextRules::default());
        Self { spec, names, head, dense, task, settings, rules, max_tokens: UNBOUNDED_TOKENS, undeclared: None }
    }
}

#[cfg(test)]
impl TextEncoder {
    pub(crate) fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    pub(crate) fn names(&self) -> (&'static TensorNames, &[HeadTensors]) {
        (self.names, &self.head)
    }
}

const EMBEDDING_FIELDS: [&str; 4] = ["pooling", "normalize", "max_tokens", "cuda_graphs"];
const CLASSIFICATION_FIELDS: [&str; 2] = ["max_tokens", "cuda_graphs"];
/// Most tokens per text where neither a table of positions nor the family bounds them.
const UNBOUNDED_TOKENS: usize = 8192;

impl Blueprint for TextEncoder {
    fn settings(&self) -> &'static [&'static str] {
        match self.task {
            TextTask::Embedding { .. } => &EMBEDDING_FIELDS,
            TextTask::Labels { .. } | TextTask::Score { .. } => &CLASSIFICATION_FIELDS,
        }
    }

    fn precisions(&self, device: &dyn Device) -> Vec<Precision> {
        device.encoder_precisions(&self.spec)
    }

    fn demand(&self, precision: Precision) -> Option<Demand> {
        Some(demand(&self.spec, precision))
    }

    fn load(&self, directory: &ModelDirectory, target: &Target) -> Result<Halves, LoadError> {
        let Self { spec, names, head, dense, task, settings, rules, max_tokens, undeclared } = self;
        let weights = directory.weights()?;
        if let Some(classifier) = undeclared
            && weights.contains(&format!("{classifier}.weight"))
        {
            let message = format!(
                "field 'architectures' names none, and the weights have '{classifier}.weight' of a classifier; name it"
            );
            return Err(directory.invalid("config.json", message));
        }
        let mut head = head.clone();
        for folder in dense {
            head.push(HeadTensors::File(Box::new((directory.top().within(folder).weights()?, "linear"))));
        }
        let weights = EncoderWeights::new(spec, &weights, names, &head);
        let max_positions = spec.max_tokens().unwrap_or(*max_tokens);
        let text = TextProcessor::load(directory, settings, rules, max_positions, spec.embeddings.words)?;
        let order = EncoderOrder { weights, precision: target.precision, settings: &settings.model };
        let engine = target.device.encoder(&order)?;
        if matches!(task, TextTask::Score { .. }) {
            text.check_pairs(directory, settings, spec.embeddings.segments)?;
        }
        let kind = task.input(text.max_tokens());
        let input = InputSpec { name: kind.name(), kind };
        let network = Box::new(EncoderNetwork::new(engine, spec, max_positions));
        Ok(Halves { input, task: task.output(), processor: task.processor(text), network })
    }
}
