//! The heads of a family: the steps from token vectors to answers, with the names of their tensors.

use sconce_kernels::encoder::{HeadFunction, HeadStep, NormKind, NormSpec};
use sconce_kernels::pooling::Pooling;

use crate::HeadTensors;

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
    /// The classifier of tokens: `{prefix}ForTokenClassification`.
    pub token_classifier: Option<TokenClassifierHead>,
    /// The head that guesses words, for sparse embeddings: `{prefix}ForMaskedLM`.
    pub masked_lm: Option<MaskedLmHead>,
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

/// A classifier of tokens: steps on each token's vector, the last of which gives a logit for each label.
#[derive(Debug, Clone)]
pub struct TokenClassifierHead {
    /// The steps before the last one.
    pub steps: Vec<NamedStep>,
    /// Name of the last product, without `.weight`. It has a bias.
    pub classifier: &'static str,
}

impl TokenClassifierHead {
    /// A classifier of one product.
    #[must_use]
    pub fn product(classifier: &'static str) -> Self {
        Self { steps: Vec::new(), classifier }
    }
}

/// A head that gives a logit for each word: steps on each token's vector, then the product with the table of words.
#[derive(Debug, Clone)]
pub struct MaskedLmHead {
    /// The steps before the last one.
    pub steps: Vec<NamedStep>,
    /// The whole name of the bias of the words; `None` if they have none.
    pub bias: Option<&'static str>,
}

impl MaskedLmHead {
    /// A head of one product with a function, a layer norm, and the words. `width` is that of the table of words.
    #[must_use]
    pub fn transform(
        (dense, norm): (&'static str, &'static str),
        width: usize,
        function: HeadFunction,
        eps: f32,
        bias: &'static str,
    ) -> Self {
        let norm_spec = NormSpec { kind: NormKind::Layer { bias: true }, eps };
        let steps = vec![
            NamedStep::product(dense, width, function),
            NamedStep { step: HeadStep::Norm(norm_spec), tensors: HeadTensors::Named(norm.into()) },
        ];
        Self { steps, bias: Some(bias) }
    }
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
