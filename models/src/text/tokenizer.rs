//! The tokenizer of a directory, as transformers makes it of `tokenizer.json` or of the vocabulary's own files, and of
//! `tokenizer_config.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokenizers::{NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer, TruncationDirection};

use super::vocabulary;
use crate::{LoadError, ModelDirectory, excerpt};

const TOKENIZER: &str = "tokenizer.json";
const SETTINGS: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// A tokenizer with the settings that lie beside it.
pub(crate) struct TokenizerFiles {
    pub(crate) tokenizer: Tokenizer,
    /// `model_max_length`; `None` if it is missing, or so large that it stands for no limit.
    pub(crate) max_tokens: Option<usize>,
    /// The end that a truncated text loses.
    pub(crate) direction: TruncationDirection,
    /// The token for words that the vocabulary lacks.
    pub(crate) unknown: Option<u32>,
}

/// Reads the tokenizer of a directory.
///
/// # Errors
/// [`LoadError`] if a file is not valid, or no file holds a vocabulary that can be read.
pub(crate) fn read(directory: &ModelDirectory) -> Result<TokenizerFiles, LoadError> {
    let settings = TokenizerSettings::read(directory)?;
    let kind = settings.kind(directory)?;
    let invalid = |error: tokenizers::Error| directory.invalid(TOKENIZER, error.to_string());
    let mut tokenizer = if directory.contains(TOKENIZER) {
        let mut tokenizer = Tokenizer::from_bytes(directory.read(TOKENIZER)?).map_err(invalid)?;
        settings.override_steps(&mut tokenizer, kind).map_err(invalid)?;
        tokenizer
    } else {
        vocabulary::tokenizer(directory, &settings, kind)?
    };
    let truncation = tokenizer.get_truncation().map(|truncation| truncation.direction);
    tokenizer.with_padding(None).with_truncation(None).map_err(invalid)?;
    let direction = match settings.truncation_side.as_deref() {
        Some("left") => TruncationDirection::Left,
        Some("right") => TruncationDirection::Right,
        None => truncation.unwrap_or(TruncationDirection::Right),
        Some(other) => {
            let message = format!("field 'truncation_side' is '{}'; known are: left, right", excerpt(other));
            return Err(directory.invalid(SETTINGS, message));
        }
    };
    let unknown = settings.unk_token.as_ref().map_or_else(|| TokenizerClass::unknown(kind), Special::content);
    let unknown = tokenizer.token_to_id(unknown);
    Ok(TokenizerFiles { tokenizer, max_tokens: settings.max_tokens(directory)?, direction, unknown })
}

/// The classes of transformers that make a tokenizer of their own settings rather than of `tokenizer.json` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    Bert,
    MpNet,
    Roberta,
}

impl TokenizerClass {
    fn of_class(class: &str) -> Option<Self> {
        match class.strip_suffix("Fast").unwrap_or(class) {
            "BertTokenizer"
            | "ConvBertTokenizer"
            | "DistilBertTokenizer"
            | "ElectraTokenizer"
            | "MobileBertTokenizer"
            | "SqueezeBertTokenizer" => Some(Self::Bert),
            "MPNetTokenizer" => Some(Self::MpNet),
            "RobertaTokenizer" => Some(Self::Roberta),
            _ => None,
        }
    }

    /// The token of a class for words that its vocabulary lacks.
    fn unknown(kind: Option<Self>) -> &'static str {
        match kind {
            Some(Self::Bert | Self::MpNet) => "[UNK]",
            Some(Self::Roberta) | None => "<unk>",
        }
    }

    /// The class for models that name none.
    fn of_model_type(model_type: &str) -> Option<Self> {
        match model_type {
            "bert" | "convbert" | "distilbert" | "electra" | "mobilebert" | "squeezebert" => Some(Self::Bert),
            "mpnet" => Some(Self::MpNet),
            "roberta" => Some(Self::Roberta),
            _ => None,
        }
    }
}

/// `tokenizer_config.json`, with the special tokens of `special_tokens_map.json`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerSettings {
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    add_prefix_space: Option<bool>,
    truncation_side: Option<String>,
    model_max_length: Option<serde_json::Number>,
    pub(super) cls_token: Option<Special>,
    pub(super) sep_token: Option<Special>,
    pub(super) pad_token: Option<Special>,
    pub(super) unk_token: Option<Special>,
    pub(super) mask_token: Option<Special>,
    pub(super) bos_token: Option<Special>,
    pub(super) eos_token: Option<Special>,
    pub(super) added_tokens_decoder: Option<BTreeMap<u32, tokenizers::AddedToken>>,
}

/// A special token: its content alone, or with the rules for finding it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Special {
    Content(String),
    Rules {
        content: String,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
        #[serde(default)]
        normalized: bool,
        #[serde(default)]
        single_word: bool,
    },
}

impl Special {
    /// A mask, which may take the space before it.
    pub(super) fn mask(content: &str, takes_space: bool) -> Self {
        let content = content.to_owned();
        Self::Rules { content, lstrip: takes_space, rstrip: false, normalized: false, single_word: false }
    }

    pub(super) fn content(&self) -> &str {
        match self {
            Self::Content(content) | Self::Rules { content, .. } => content,
        }
    }

    pub(super) fn token(&self) -> tokenizers::AddedToken {
        let plain = tokenizers::AddedToken::from(self.content(), true);
        match *self {
            Self::Content(_) => plain,
            Self::Rules { lstrip, rstrip, normalized, single_word, .. } => {
                plain.lstrip(lstrip).rstrip(rstrip).normalized(normalized).single_word(single_word)
            }
        }
    }
}

impl TokenizerSettings {
    fn read(directory: &ModelDirectory) -> Result<Self, LoadError> {
        let mut settings: Self = if directory.contains(SETTINGS) { directory.json(SETTINGS)? } else { Self::default() };
        if settings.added_tokens_decoder.is_none() && directory.contains(SPECIAL_TOKENS) {
            let map: Self = directory.json(SPECIAL_TOKENS)?;
            let Self { cls_token, sep_token, pad_token, unk_token, mask_token, bos_token, eos_token, .. } = map;
            for (token, replacing) in [
                (&mut settings.cls_token, cls_token),
                (&mut settings.sep_token, sep_token),
                (&mut settings.pad_token, pad_token),
                (&mut settings.unk_token, unk_token),
                (&mut settings.mask_token, mask_token),
                (&mut settings.bos_token, bos_token),
                (&mut settings.eos_token, eos_token),
            ] {
                *token = replacing.or(token.take());
            }
        }
        Ok(settings)
    }

    /// The class that transformers would take: that of `tokenizer_config.json`, of `config.json`, of the family.
    fn kind(&self, directory: &ModelDirectory) -> Result<Option<TokenizerClass>, LoadError> {
        #[derive(Deserialize)]
        struct Config {
            tokenizer_class: Option<String>,
            model_type: Option<String>,
        }
        if let Some(class) = &self.tokenizer_class {
            return Ok(TokenizerClass::of_class(class));
        }
        let Config { tokenizer_class, model_type } = directory.config()?;
        Ok(match (tokenizer_class, model_type) {
            (Some(class), _) => TokenizerClass::of_class(&class),
            (None, model_type) => TokenizerClass::of_model_type(model_type.as_deref().unwrap_or("bert")),
        })
    }

    fn max_tokens(&self, directory: &ModelDirectory) -> Result<Option<usize>, LoadError> {
        /// Larger numbers stand for no limit; transformers writes 10³⁰.
        const MAX: f64 = 1e9;
        let Some(number) = &self.model_max_length else { return Ok(None) };
        if number.as_f64().is_some_and(|number| number > MAX) {
            return Ok(None);
        }
        let limit = number.as_u64().and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        limit.map(Some).ok_or_else(|| {
            directory
                .invalid(SETTINGS, format!("field 'model_max_length' is {number}; it must be a whole number from 1 up"))
        })
    }

    /// Gives the steps of a `tokenizer.json` the settings of its class, which count where the two differ.
    fn override_steps(&self, tokenizer: &mut Tokenizer, kind: Option<TokenizerClass>) -> Result<(), tokenizers::Error> {
        match kind {
            Some(TokenizerClass::Bert | TokenizerClass::MpNet) => {
                let Some(NormalizerWrapper::BertNormalizer(normalizer)) = tokenizer.get_normalizer() else {
                    return Ok(());
                };
                let mut normalizer = *normalizer;
                (normalizer.lowercase, normalizer.strip_accents) = (self.lowercase(), self.strip_accents);
                if kind == Some(TokenizerClass::Bert) {
                    normalizer.handle_chinese_chars = self.chinese_apart();
                }
                tokenizer.with_normalizer(Some(normalizer))?;
            }
            Some(TokenizerClass::Roberta) => {
                let add = self.add_prefix_space();
                if let Some(PreTokenizerWrapper::ByteLevel(step)) = tokenizer.get_pre_tokenizer() {
                    let step = step.add_prefix_space(add);
                    tokenizer.with_pre_tokenizer(Some(step));
                }
                if let Some(PostProcessorWrapper::Roberta(step)) = tokenizer.get_post_processor() {
                    let step = step.clone().add_prefix_space(add);
                    tokenizer.with_post_processor(Some(step));
                }
            }
            None => {}
        }
        let missing = self.added_tokens_decoder.iter().flat_map(BTreeMap::values);
        let missing: Vec<_> =
            missing.filter(|token| tokenizer.token_to_id(&token.content).is_none()).cloned().collect();
        tokenizer.add_tokens(missing)?;
        Ok(())
    }

    pub(super) fn lowercase(&self) -> bool {
        self.do_lower_case.unwrap_or(true)
    }

    pub(super) fn strip_accents(&self) -> Option<bool> {
        self.strip_accents
    }

    pub(super) fn chinese_apart(&self) -> bool {
        self.tokenize_chinese_chars.unwrap_or(true)
    }

    pub(super) fn add_prefix_space(&self) -> bool {
        self.add_prefix_space.unwrap_or(false)
    }
}
