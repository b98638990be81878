//! Tokenizers made of a vocabulary's own files, as the classes of transformers make them: `vocab.txt` for BERT and
//! `MPNet`, `vocab.json` with `merges.txt` for RoBERTa.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer};

use super::tokenizer::{Special, TokenizerClass, TokenizerSettings};
use crate::{LoadError, ModelDirectory};

const WORDS: &str = "vocab.txt";
const PIECES: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const ADDED: &str = "added_tokens.json";
/// Vocabularies of `SentencePiece`, which are not read.
const SENTENCE_PIECE: [&str; 4] = ["sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "spm.model"];

/// Makes the tokenizer of a directory without `tokenizer.json`.
///
/// # Errors
/// [`LoadError`] if there is no such vocabulary, or a file of it is not valid.
pub(super) fn tokenizer(
    directory: &ModelDirectory,
    settings: &TokenizerSettings,
    kind: Option<TokenizerClass>,
) -> Result<Tokenizer, LoadError> {
    let words = directory.contains(WORDS);
    let (file, steps) = match kind {
        Some(TokenizerClass::Bert | TokenizerClass::MpNet) if words => (WORDS, word_pieces(directory, settings, kind)?),
        Some(TokenizerClass::Roberta) if directory.contains(PIECES) && directory.contains(MERGES) => {
            (PIECES, byte_pairs(directory, settings)?)
        }
        _ => return Err(no_vocabulary(directory)),
    };
    let invalid = |error: &dyn std::fmt::Display| directory.invalid(file, error.to_string());
    let mut tokenizer = Tokenizer::from_bytes(steps.to_string()).map_err(|error| invalid(&error))?;
    let specials = Specials::of(settings, kind);
    tokenizer.add_tokens(specials.added(directory, settings)?).map_err(|error| invalid(&error))?;
    let template = specials.template(&tokenizer, settings, kind).map_err(|message| directory.invalid(file, message))?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}

/// The error for a directory without a vocabulary that can be read. It says what can be done.
fn no_vocabulary(directory: &ModelDirectory) -> LoadError {
    let remedy = "transformers writes it: AutoTokenizer.from_pretrained(directory).save_pretrained(directory)";
    let message = match SENTENCE_PIECE.iter().find(|file| directory.contains(file)) {
        Some(file) => format!("it is missing, and {file} is not read; {remedy}"),
        None => format!("it is missing, and there is no vocabulary for the tokenizer's class; {remedy}"),
    };
    directory.invalid("tokenizer.json", message)
}

/// The steps of BERT's tokenizer, with the lines of `vocab.txt` as words.
fn word_pieces(
    directory: &ModelDirectory,
    settings: &TokenizerSettings,
    kind: Option<TokenizerClass>,
) -> Result<Value, LoadError> {
    let text = utf8(directory, WORDS)?;
    // A word that comes twice has the number of its last line.
    let vocab: BTreeMap<&str, usize> = text.lines().enumerate().map(|(line, word)| (word, line)).collect();
    let unknown = Specials::of(settings, kind).unknown.content().to_owned();
    Ok(json!({
        "version": "1.0", "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": settings.chinese_apart(),
            "strip_accents": settings.strip_accents(), "lowercase": settings.lowercase(),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "model": {
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    }))
}

/// The steps of RoBERTa's tokenizer, with the pieces of `vocab.json` and the merges of `merges.txt`.
fn byte_pairs(directory: &ModelDirectory, settings: &TokenizerSettings) -> Result<Value, LoadError> {
    let vocab: BTreeMap<String, u32> = directory.json(PIECES)?;
    let text = utf8(directory, MERGES)?;
    let lines = text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let merges: Vec<&str> = lines.collect();
    if let Some(line) = merges.iter().find(|line| line.split(' ').count() != 2) {
        let message = format!("line '{}' is not two pieces with a space between them", crate::excerpt(*line));
        return Err(directory.invalid(MERGES, message));
    }
    Ok(json!({
        "version": "1.0", "added_tokens": [],
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": settings.add_prefix_space(), "trim_offsets": true, "use_regex": true,
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges,
        },
    }))
}

fn utf8(directory: &ModelDirectory, file: &str) -> Result<String, LoadError> {
    String::from_utf8(directory.read(file)?).map_err(|error| directory.invalid(file, error.to_string()))
}

/// The special tokens of a tokenizer: those of its settings, else those of its class.
struct Specials {
    first: Special,
    last: Special,
    unknown: Special,
    others: Vec<Special>,
}

impl Specials {
    fn of(settings: &TokenizerSettings, kind: Option<TokenizerClass>) -> Self {
        let (first, last, unknown, padding, mask) = match kind {
            Some(TokenizerClass::Roberta) => ("<s>", "</s>", "<unk>", "<pad>", "<mask>"),
            Some(TokenizerClass::MpNet) => ("<s>", "</s>", "[UNK]", "<pad>", "<mask>"),
            Some(TokenizerClass::Bert) | None => ("[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]"),
        };
        let or = |set: &Option<Special>, class: &str| set.clone().unwrap_or_else(|| Special::Content(class.to_owned()));
        let takes_space = kind == Some(TokenizerClass::MpNet);
        let mask = settings.mask_token.clone().unwrap_or_else(|| Special::mask(mask, takes_space));
        let (bos, eos) = (or(&settings.bos_token, first), or(&settings.eos_token, last));
        let mut others = vec![or(&settings.pad_token, padding), mask];
        if kind != Some(TokenizerClass::Bert) || settings.bos_token.is_some() {
            others.push(bos);
        }
        if kind != Some(TokenizerClass::Bert) || settings.eos_token.is_some() {
            others.push(eos);
        }
        Self {
            first: or(&settings.cls_token, first),
            last: or(&settings.sep_token, last),
            unknown: or(&settings.unk_token, unknown),
            others,
        }
    }

    /// All tokens that are found in a text before it is split: those of the settings by their numbers, those of
    /// `added_tokens.json`, then the special ones that are not among them.
    fn added(&self, directory: &ModelDirectory, settings: &TokenizerSettings) -> Result<Vec<AddedToken>, LoadError> {
        let special: Vec<AddedToken> =
            [&self.first, &self.last, &self.unknown].into_iter().chain(&self.others).map(Special::token).collect();
        let mut added: Vec<AddedToken> =
            settings.added_tokens_decoder.iter().flat_map(BTreeMap::values).cloned().collect();
        if settings.added_tokens_decoder.is_none() && directory.contains(ADDED) {
            let numbers: BTreeMap<String, u32> = directory.json(ADDED)?;
            let mut numbers: Vec<_> = numbers.into_iter().collect();
            numbers.sort_by_key(|(_, number)| *number);
            let is_special = |content: &str| special.iter().any(|token| token.content == content);
            added.extend(numbers.into_iter().map(|(content, _)| AddedToken::from(&*content, is_special(&content))));
        }
        for token in special {
            if !added.iter().any(|known| known.content == token.content) {
                added.push(token);
            }
        }
        Ok(added)
    }

    /// The step that puts special tokens around a text and between two.
    fn template(
        &self,
        tokenizer: &Tokenizer,
        settings: &TokenizerSettings,
        kind: Option<TokenizerClass>,
    ) -> Result<PostProcessorWrapper, String> {
        let (first, last) = (self.first.content(), self.last.content());
        let number = |token: &str| tokenizer.token_to_id(token).ok_or_else(|| format!("token '{token}' is missing"));
        let (first_number, last_number) = (number(first)?, number(last)?);
        let template = if kind == Some(TokenizerClass::Bert) {
            let special = |token: &str, segment: u8| json!({ "SpecialToken": { "id": token, "type_id": segment } });
            let text = |name: &str, segment: u8| json!({ "Sequence": { "id": name, "type_id": segment } });
            let entry = |token: &str, number: u32| json!({ "id": token, "ids": [number], "tokens": [token] });
            json!({
                "type": "TemplateProcessing",
                "single": [special(first, 0), text("A", 0), special(last, 0)],
                "pair": [special(first, 0), text("A", 0), special(last, 0), text("B", 1), special(last, 1)],
                "special_tokens": { first: entry(first, first_number), last: entry(last, last_number) },
            })
        } else {
            json!({
                "type": "RobertaProcessing", "sep": [last, last_number], "cls": [first, first_number],
                "trim_offsets": true, "add_prefix_space": settings.add_prefix_space(),
            })
        };
        serde_json::from_value(template).map_err(|error| error.to_string())
    }
}
