//! Places to cut a text so that the tokens of its beginning are the first tokens of the whole text.

use std::borrow::Cow;

use tokenizers::normalizers::BertNormalizer;
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};
use unicode_categories::UnicodeCategories as _;

/// Characters of a run that are always kept; no known tokenizer has an added token as long.
const MIN_KEPT: usize = 256;

/// The rules for cutting texts for one tokenizer.
///
/// Only for the steps of BERT's tokenizer, which take a text word by word: a word ends at white space, at punctuation
/// and (with `handle_chinese_chars`) at Chinese characters.
#[derive(Debug)]
pub(super) struct Beginnings {
    /// The rule for each ASCII character, by its code.
    ascii: [Cut; 128],
    /// The contents of all added tokens.
    added: Vec<String>,
    /// True if no added token has punctuation beyond ASCII's, so that texts can be cut there.
    punctuation: bool,
    /// True if words end at Chinese characters and no added token has one.
    chinese: bool,
    /// Letters that are kept of each end of a longer run; `None` if long words are not one unknown token.
    max_word: Option<usize>,
}

/// A rule for cutting a text before a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Never,
    Always,
    /// The text can be cut unless the character is within an added token.
    OutsideAddedTokens,
}

/// A text without the middles of its long runs.
#[derive(Debug)]
pub(super) struct Shortened<'a> {
    pub(super) text: Cow<'a, str>,
    /// Places in `text` at which bytes were left out, and how many.
    left_out: Vec<(usize, usize)>,
}

impl<'a> Shortened<'a> {
    /// The whole text.
    pub(super) fn none_of(text: &'a str) -> Self {
        Self { text: Cow::Borrowed(text), left_out: Vec::new() }
    }

    /// The place in the whole text of a part of the shortened one.
    pub(super) fn place(&self, start: usize, end: usize) -> (usize, usize) {
        let before = |is_before: &dyn Fn(usize) -> bool| -> usize {
            self.left_out.iter().take_while(|(place, _)| is_before(*place)).map(|(_, bytes)| bytes).sum()
        };
        (start + before(&|place| place <= start), end + before(&|place| place < end))
    }
}

impl Beginnings {
    /// The rules for a tokenizer; `None` if it has steps other than BERT's, or an added token with white space.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let BertNormalizer { handle_chinese_chars, .. } = bert_normalizer(tokenizer.get_normalizer()?)?;
        let Some(PreTokenizerWrapper::BertPreTokenizer(_)) = tokenizer.get_pre_tokenizer() else {
            return None;
        };
        let added: Vec<_> = tokenizer.get_added_tokens_decoder().into_values().collect();
        if added.iter().any(|token| token.content.contains(char::is_whitespace)) {
            return None;
        }
        let any = |is: &dyn Fn(char) -> bool| added.iter().any(|token| token.content.contains(is));
        let max_word = match tokenizer.get_model() {
            // An added token of letters alone could stand within a run of letters.
            ModelWrapper::WordPiece(model) if added.iter().all(|token| is_apart(&token.content)) => {
                Some(model.max_input_chars_per_word.saturating_add(1).max(MIN_KEPT))
            }
            _ => None,
        };
        Some(Self {
            ascii: std::array::from_fn(|code| ascii(code, &added)),
            punctuation: !any(&|character| !character.is_ascii() && character.is_punctuation()),
            chinese: *handle_chinese_chars && !any(&is_chinese),
            added: added.iter().map(|token| token.content.clone()).collect(),
            max_word,
        })
    }

    /// The first place at or after byte `from` at which `text` can be cut.
    pub(super) fn next_cut(&self, text: &str, from: usize) -> Option<usize> {
        let from = text.ceil_char_boundary(from.min(text.len()));
        let mut places = text[from..].char_indices().map(|(at, character)| (from + at, character));
        places.find(|(at, character)| self.is_cut(text, *at, *character)).map(|(at, _)| at)
    }

    /// True if `text` can be cut before the character at byte `at`.
    fn is_cut(&self, text: &str, at: usize, character: char) -> bool {
        if !character.is_ascii() {
            return self.chinese && is_chinese(character) || self.punctuation && character.is_punctuation();
        }
        match self.ascii[character as usize] {
            Cut::Never => false,
            Cut::Always => true,
            Cut::OutsideAddedTokens => {
                let stands_at = |token: &[u8], from: usize| text.as_bytes()[from..].starts_with(token);
                let spans = |token: &String| {
                    (1..token.len().min(at + 1)).any(|before| stands_at(token.as_bytes(), at - before))
                };
                !self.added.iter().any(spans)
            }
        }
    }

    /// `text` with long runs shortened: runs of white space, and runs of letters and digits too long to be a word of the
    /// model's vocabulary. Its tokens are the same.
    pub(super) fn without_long_runs<'a>(&self, text: &'a str) -> Shortened<'a> {
        let (mut kept, mut left_out) = (String::new(), Vec::new());
        let (mut copied, mut at) = (0, 0);
        while at < text.len() {
            let (length, max) = self.run(&text.as_bytes()[at..]);
            if let Some(max) = max.filter(|max| *max < length) {
                // Keep both ends, since they may belong to a word or an added token with their neighbours.
                kept.push_str(&text[copied..at + max / 2]);
                copied = at + length - (max - max / 2);
                left_out.push((kept.len(), length - max));
            }
            at += length;
        }
        if copied == 0 {
            return Shortened { text: Cow::Borrowed(text), left_out };
        }
        kept.push_str(&text[copied..]);
        Shortened { text: Cow::Owned(kept), left_out }
    }

    /// The length of the run at the beginning of `bytes`, and the most bytes to keep of it (`None`: all).
    fn run(&self, bytes: &[u8]) -> (usize, Option<usize>) {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let length = |is: &dyn Fn(&u8) -> bool| bytes.iter().position(|byte| !is(byte)).unwrap_or(bytes.len());
        match bytes.first() {
            Some(byte) if is_space(byte) => (length(&is_space), Some(MIN_KEPT)),
            Some(byte) if byte.is_ascii_alphanumeric() => {
                (length(&u8::is_ascii_alphanumeric), self.max_word.map(|max| 2 * max))
            }
            _ => (length(&|byte| !is_space(byte) && !byte.is_ascii_alphanumeric()), None),
        }
    }
}

/// BERT's step, alone or after the one that makes lower case, which changes no place to cut.
fn bert_normalizer(normalizer: &NormalizerWrapper) -> Option<&BertNormalizer> {
    match normalizer {
        NormalizerWrapper::BertNormalizer(step) => Some(step),
        NormalizerWrapper::Sequence(steps) => match AsRef::<[NormalizerWrapper]>::as_ref(steps) {
            [NormalizerWrapper::Lowercase(_), NormalizerWrapper::BertNormalizer(step)] => Some(step),
            _ => None,
        },
        _ => None,
    }
}

/// The rule for the ASCII character of this code.
fn ascii(code: usize, added: &[AddedToken]) -> Cut {
    let character = u8::try_from(code).map_or('\0', char::from);
    match character {
        // BERT removes other white space of ASCII as control characters.
        ' ' | '\t' | '\n' | '\r' => Cut::Always,
        character if !character.is_ascii_punctuation() => Cut::Never,
        character => {
            let with_it: Vec<_> = added.iter().filter(|token| token.content.contains(character)).collect();
            if with_it.is_empty() {
                Cut::Always
            } else if with_it.iter().all(|token| !token.normalized) {
                Cut::OutsideAddedTokens
            } else {
                Cut::Never
            }
        }
    }
}

/// True if an added token cannot stand within a run of letters and digits, and is shorter than the kept end of a run.
fn is_apart(token: &str) -> bool {
    token.len() < MIN_KEPT / 2 && token.bytes().any(|byte| byte.is_ascii_punctuation())
}

/// True for characters of the blocks that BERT's normaliser puts spaces around.
fn is_chinese(character: char) -> bool {
    matches!(
        u32::from(character),
        0x4E00..=0x9FFF
            | 0x3400..=0x4DBF
            | 0x20000..=0x2A6DF
            | 0x2A700..=0x2B73F
            | 0x2B740..=0x2B81F
            | 0x2B920..=0x2CEAF
            | 0xF900..=0xFAFF
            | 0x2F800..=0x2FA1F
    )
}
