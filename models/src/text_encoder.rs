//! Encoders of text as models: an encoder's spec with a tokenizer and a task.

use sconce_kernels::encoder::{EncoderSpec, HeadFunction, HeadRows, HeadSpec, HeadStep};
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;

use crate::encoder::{EncoderNetwork, demand};
use crate::heads::TokenClassifierHead;
use crate::logit_score::{DeclaredReranker, LogitScore};
use crate::sentence_transformers::{DenseModule, SentenceTransformer};
use crate::settings::MODEL_FIELDS;
use crate::text::YesNoTemplate;
use crate::text_tasks::TextTask;
use crate::{
    Blueprint, ClassifierHead, Demand, Device, EncoderOrder, EncoderWeights, Halves, HeadTensors, Heads, InputSpec,
    LoadError, MaskedLmHead, ModelDirectory, NamedStep, Precision, Settings, Target, TensorNames, TextProcessor,
    TextRules, VectorTask, excerpt,
};

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
    /// The question that a language model answers, where the model is one.
    yes_or_no: Option<YesOrNo>,
    /// Name of a product that only a classifier has; its presence is an error if `config.json` declares no architecture.
    undeclared: Option<&'static str>,
}

/// A language model as a reranker: its question, and the tokens of its answers, `yes` and `no` unless they are named.
struct YesOrNo {
    template: &'static YesNoTemplate,
    /// The table of logits; `None`: the table of words.
    table: Option<&'static str>,
    tokens: Option<LogitScore>,
}

/// The fields of `config.json` that choose the head.
#[derive(Deserialize)]
struct HeadConfig {
    architectures: Option<Vec<String>>,
    tie_word_embeddings: Option<bool>,
}

/// Architectures that are read as encoders, without their heads: how they were trained does not change what they embed.
const ENCODERS: [&str; 4] = ["Model", "ForMaskedLM", "ForPreTraining", "ForCausalLM"];
const CLASSIFIER: &str = "ForSequenceClassification";
const TOKEN_CLASSIFIER: &str = "ForTokenClassification";

impl TextEncoder {
    /// A model of one of a family's architectures, the one that `config.json` names; it gives embeddings if none is named. The
    /// head of `spec` is replaced by that architecture's, for the task that the files of sentence-transformers or
    /// `sconce.toml` name.
    ///
    /// # Errors
    /// [`LoadError`] if the architecture is not known or lacks the task, or as [`embedding`](Self::embedding) and
    /// [`classification`](Self::classification).
    pub fn read(
        directory: &ModelDirectory,
        spec: EncoderSpec,
        names: &'static TensorNames,
        heads: Heads,
    ) -> Result<Self, LoadError> {
        let HeadConfig { architectures, .. } = directory.config()?;
        let Some(architecture) = architectures.iter().flatten().next() else {
            let undeclared = heads.classifier.as_ref().map(|head| head.classifier);
            return Ok(Self { undeclared, ..Self::vectors(directory, spec, names, heads)? });
        };
        let Heads { prefix, classifier, token_classifier, .. } = &heads;
        match (architecture.strip_prefix(prefix), classifier, token_classifier) {
            (Some(kind), ..) if ENCODERS.contains(&kind) => Self::vectors(directory, spec, names, heads),
            (Some(CLASSIFIER), Some(head), _) => Self::classification(directory, spec, names, head.clone()),
            (Some(TOKEN_CLASSIFIER), _, Some(head)) => Self::token_classification(directory, spec, names, head.clone()),
            (_, classifier, token_classifier) => {
                let classifiers =
                    [classifier.as_ref().map(|_| CLASSIFIER), token_classifier.as_ref().map(|_| TOKEN_CLASSIFIER)];
                let known = ENCODERS.into_iter().chain(classifiers.into_iter().flatten());
                let known = known.map(|kind| format!("{prefix}{kind}")).collect::<Vec<_>>().join(", ");
                let message = format!("field 'architectures' names '{}'; known are: {known}", excerpt(architecture));
                Err(directory.invalid("config.json", message))
            }
        }
    }

    /// A model that gives vectors: of texts, of tokens, or over the words of its vocabulary.
    fn vectors(
        directory: &ModelDirectory,
        spec: EncoderSpec,
        names: &'static TensorNames,
        heads: Heads,
    ) -> Result<Self, LoadError> {
        let declared = SentenceTransformer::read(directory)?;
        let asked = directory.settings(&MODEL_FIELDS)?.model.task;
        match asked.unwrap_or(declared.task) {
            VectorTask::Embedding => Self::embedding(directory, spec, names, heads.pooling),
            VectorTask::TokenEmbeddings => Self::token_embeddings(directory, spec, names, declared, asked),
            VectorTask::Score => {
                let message = "field 'model.task' is 'score', which only a language model has (Qwen3ForCausalLM)";
                Err(directory.invalid("sconce.toml", message))
            }
            VectorTask::SparseEmbedding => {
                let Some(head) = heads.masked_lm else {
                    let message = format!("{}ForMaskedLM, which sparse embeddings need, is not known", heads.prefix);
                    return Err(directory.invalid("config.json", message));
                };
                Self::sparse_embedding(directory, spec, names, head, &declared)
            }
        }
    }

    /// A language model as a reranker, if the files say that it is one: the score of a pair is the logit of `yes` less that of
    /// `no` after the question. `lm_head` is the table of logits where `config.json` does not tie it to the words.
    ///
    /// # Errors
    /// [`LoadError`] if a file that says so is not valid.
    pub(crate) fn read_yes_or_no(
        directory: &ModelDirectory,
        spec: &EncoderSpec,
        names: &'static TensorNames,
        template: &'static YesNoTemplate,
        lm_head: &'static str,
    ) -> Result<Option<Self>, LoadError> {
        let asked = directory.settings(&MODEL_FIELDS)?.model.task;
        let tokens = match DeclaredReranker::read(directory, asked, template)? {
            None => return Ok(None),
            Some(DeclaredReranker::Named) => None,
            Some(DeclaredReranker::Module(tokens)) => Some(tokens),
        };
        let settings = directory.settings(&SPARSE_FIELDS)?;
        let HeadConfig { tie_word_embeddings, .. } = directory.config()?;
        let table = (tie_word_embeddings != Some(true)).then_some(lm_head);
        let step = HeadStep::Product { outputs: 1, bias: false, function: HeadFunction::Identity };
        let head = HeadSpec { rows: HeadRows::Pooled(vec![Pooling::Last]), steps: vec![step] };
        let spec = EncoderSpec { head, ..spec.clone() };
        let declared = SentenceTransformer::read_without_modules(directory)?;
        let yes_or_no = Some(YesOrNo { template, table, tokens });
        let task = TextTask::yes_or_no(directory)?;
        Ok(Some(Self { rules: declared.rules(), yes_or_no, ..Self::new(spec, names, task, settings) }))
    }

    /// A model that gives the vector of each token, after the products that sentence-transformers declares.
    fn token_embeddings(
        directory: &ModelDirectory,
        spec: EncoderSpec,
        names: &'static TensorNames,
        declared: SentenceTransformer,
        asked: Option<VectorTask>,
    ) -> Result<Self, LoadError> {
        let settings = directory.settings(&TOKEN_FIELDS)?;
        let refused = |message| directory.top().invalid("config_sentence_transformers.json", message);
        declared.check_tokens_served(asked.is_some()).map_err(refused)?;
        let steps = dense_steps(directory, &declared, spec.hidden)?;
        let spec = EncoderSpec { head: HeadSpec { rows: HeadRows::Tokens, steps }, ..spec };
        let normalize = settings.model.normalize.or(declared.normalize).unwrap_or(false);
        let task = TextTask::TokenEmbeddings { normalize, dimensions: spec.outputs() };
        let rules = declared.rules();
        let dense = declared.dense.into_iter().map(|module| module.folder).collect();
        Ok(Self { dense, rules, ..Self::new(spec, names, task, settings) })
    }

    /// A model that gives, for each word, `ln(1 + x)` of its greatest logit over all tokens.
    fn sparse_embedding(
        directory: &ModelDirectory,
        spec: EncoderSpec,
        names: &'static TensorNames,
        head: MaskedLmHead,
        declared: &SentenceTransformer,
    ) -> Result<Self, LoadError> {
        let settings = directory.settings(&SPARSE_FIELDS)?;
        declared.check_sparse_served().map_err(|message| directory.top().invalid("modules.json", message))?;
        let HeadConfig { tie_word_embeddings, .. } = directory.config()?;
        if tie_word_embeddings == Some(false) {
            let message = "field 'tie_word_embeddings' is false; sparse embeddings are known for tied words alone";
            return Err(directory.invalid("config.json", message));
        }
        let words = spec.embeddings.words;
        let last = HeadStep::Product { outputs: words, bias: head.bias.is_some(), function: HeadFunction::Identity };
        let last = NamedStep { step: last, tensors: HeadTensors::Words { bias: head.bias.unwrap_or_default() } };
        let task = TextTask::SparseEmbedding { words, max_active: declared.max_active_dims };
        let text = Self::with_head(spec, names, HeadRows::Sparse, head.steps, last, task, settings);
        Ok(Self { rules: declared.rules(), ..text })
    }

    /// A model that gives a label for each token, and the entities that these make up.
    fn token_classification(
        directory: &ModelDirectory,
        spec: EncoderSpec,
        names: &'static TensorNames,
        head: TokenClassifierHead,
    ) -> Result<Self, LoadError> {
        let settings = directory.settings(&ENTITY_FIELDS)?;
        let labels = TextTask::labels_of(directory)?;
        let last = NamedStep::product(head.classifier, labels.len(), HeadFunction::Identity);
        let task = TextTask::Entities { labels, aggregation: settings.model.aggregation.unwrap_or_default() };
        Ok(Self::with_head(spec, names, HeadRows::Tokens, head.steps, last, task, settings))
    }

    /// A model whose head is `steps` and then `last`.
    fn with_head(
        spec: EncoderSpec,
        names: &'static TensorNames,
        rows: HeadRows,
        steps: Vec<NamedStep>,
        last: NamedStep,
        task: TextTask,
        settings: Settings,
    ) -> Self {
        let (steps, head) = steps.into_iter().chain([last]).map(|NamedStep { step, tensors }| (step, tensors)).unzip();
        let spec = EncoderSpec { head: HeadSpec { rows, steps }, ..spec };
        Self { head, ..Self::new(spec, names, task, settings) }
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
        let steps = dense_steps(directory, &declared, poolings.len() * spec.hidden)?;
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
        let rows = HeadRows::Pooled(vec![pooling]);
        Ok(Self::with_head(spec, names, rows, steps, last, task, settings))
    }

    fn new(spec: EncoderSpec, names: &'static TensorNames, task: TextTask, settings: Settings) -> Self {
        let (head, dense, rules) = (Vec::new(), Vec::new(), TextRules::default());
        Self {
            spec,
            names,
            head,
            dense,
            task,
            settings,
            rules,
            max_tokens: UNBOUNDED_TOKENS,
            yes_or_no: None,
            undeclared: None,
        }
    }
}

impl YesOrNo {
    /// The rows of the table of logits that the head is made of.
    fn tensors(
        &self,
        directory: &ModelDirectory,
        text: &TextProcessor,
        words: usize,
    ) -> Result<HeadTensors, LoadError> {
        let of = |token: &str| {
            let message = || format!("the vocabulary lacks the token '{token}', which a reranker answers with");
            text.token(token).ok_or_else(|| directory.invalid("tokenizer.json", message()))
        };
        let (row, less) = match self.tokens {
            Some(LogitScore { true_token_id, false_token_id }) => (true_token_id, false_token_id),
            None => (of("yes")?, Some(of("no")?)),
        };
        if let Some(id) = [Some(row), less].into_iter().flatten().find(|id| *id as usize >= words) {
            let message = format!("field 'vocab_size' is {words}, but the answer's token is {id}");
            return Err(directory.invalid("config.json", message));
        }
        Ok(HeadTensors::Row { table: self.table, row, less })
    }
}

/// The steps of the products that sentence-transformers declares, the first of which reads rows of `width`.
fn dense_steps(
    directory: &ModelDirectory,
    declared: &SentenceTransformer,
    mut width: usize,
) -> Result<Vec<HeadStep>, LoadError> {
    for DenseModule { folder, inputs, outputs, .. } in &declared.dense {
        if *inputs != width {
            let message = format!("field 'in_features' is {inputs}, but the vector before it has {width} elements");
            return Err(directory.top().within(folder).invalid("config.json", message));
        }
        width = *outputs;
    }
    Ok(declared.dense.iter().map(DenseModule::step).collect())
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

const EMBEDDING_FIELDS: [&str; 5] = ["task", "pooling", "normalize", "max_tokens", "cuda_graphs"];
const TOKEN_FIELDS: [&str; 4] = ["task", "normalize", "max_tokens", "cuda_graphs"];
const SPARSE_FIELDS: [&str; 3] = ["task", "max_tokens", "cuda_graphs"];
const ENTITY_FIELDS: [&str; 3] = ["aggregation", "max_tokens", "cuda_graphs"];
const CLASSIFICATION_FIELDS: [&str; 2] = ["max_tokens", "cuda_graphs"];
/// Most tokens per text where neither a table of positions nor the family bounds them.
const UNBOUNDED_TOKENS: usize = 8192;

impl Blueprint for TextEncoder {
    fn settings(&self) -> &'static [&'static str] {
        match self.task {
            TextTask::Embedding { .. } => &EMBEDDING_FIELDS,
            TextTask::TokenEmbeddings { .. } => &TOKEN_FIELDS,
            TextTask::SparseEmbedding { .. } => &SPARSE_FIELDS,
            TextTask::Entities { .. } => &ENTITY_FIELDS,
            TextTask::Score { .. } if self.yes_or_no.is_some() => &SPARSE_FIELDS,
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
        let Self { spec, names, head, dense, task, settings, rules, max_tokens, yes_or_no, undeclared } = self;
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
        let max_positions = spec.max_tokens().unwrap_or(*max_tokens);
        let text = TextProcessor::load(directory, settings, rules, max_positions, spec.embeddings.words)?;
        let question = match yes_or_no {
            Some(yes_or_no) => {
                head.push(yes_or_no.tensors(directory, &text, spec.embeddings.words)?);
                Some(text.question(directory, yes_or_no.template)?)
            }
            None => None,
        };
        let weights = EncoderWeights::new(spec, &weights, names, &head);
        let order = EncoderOrder { weights, precision: target.precision, settings: &settings.model };
        let engine = target.device.encoder(&order)?;
        let takes_pairs = match task {
            TextTask::Score { .. } if question.is_some() => true,
            TextTask::Score { .. } => text.check_pairs(directory, settings, spec.embeddings.segments).map(|()| true)?,
            // One that has no room for a pair still classifies single texts.
            TextTask::Labels { .. } => text.check_pairs(directory, settings, spec.embeddings.segments).is_ok(),
            TextTask::Embedding { .. }
            | TextTask::Entities { .. }
            | TextTask::SparseEmbedding { .. }
            | TextTask::TokenEmbeddings { .. } => false,
        };
        let kind = task.input(text.max_tokens(), takes_pairs);
        let input = InputSpec { name: kind.name(), kind };
        let network = Box::new(EncoderNetwork::new(engine, spec, max_positions));
        Ok(Halves { input, task: task.output(), processor: task.processor(text, takes_pairs, question), network })
    }
}
