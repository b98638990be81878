//! Places at which a text can be cut so that the tokens of its beginning are the beginning of its tokens.

use std::borrow::Cow;

use tokenizers::normalizers::BertNormalizer;
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};
use unicode_categories::UnicodeCategories as _;

/// Characters of a run that are kept in any case; no tokenizer known has an added token as long.
const MIN_KEPT: usize = 256;

/// The places at which texts can be cut for one tokenizer.
///
/// Only for BERT's own steps, of which it is known how they look at a text: a word at a time, where a word ends at white space,
/// at punctuation and (where they are handled) at Chinese characters.
#[derive(Debug)]
pub(super) struct Beginnings {
    /// By the code of an ASCII character.
    ascii: [Cut; 128],
    /// Added tokens that are looked for in the text as it is.
    added: Vec<String>,
    /// No added token has other punctuation than ASCII's.
    punctuation: bool,
    /// Words end at Chinese characters.
    chinese: bool,
    /// Letters of a longer word that are kept, where such words are one unknown token.
    max_word: Option<usize>,
}

/// Whether a text can be cut before a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Never,
    Always,
    /// Unless it stands within an added token.
    OutsideAddedTokens,
}

impl Beginnings {
    /// `None` if the tokenizer has other steps than BERT's, or an added token that has white space in it.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let Some(NormalizerWrapper::BertNormalizer(BertNormalizer { handle_chinese_chars, .. })) =
            tokenizer.get_normalizer()
        else {
            return None;
        };
        let Some(PreTokenizerWrapper::BertPreTokenizer(_)) = tokenizer.get_pre_tokenizer() else {
            return None;
        };
        let added: Vec<_> = tokenizer.get_added_tokens_decoder().into_values().collect();
        if added.iter().any(|token| token.content.contains(char::is_whitespace)) {
            return None;
        }
        let any = |is: &dyn Fn(char) -> bool| added.iter().any(|token| token.content.contains(is));
        let max_word = match tokenizer.get_model() {
            // An added token may stand within a word of letters if it has nothing but letters.
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

    /// The first place from `from` on at which `text` can be cut.
    pub(super) fn next_cut(&self, text: &str, from: usize) -> Option<usize> {
        let from = text.ceil_char_boundary(from.min(text.len()));
        let mut places = text[from..].char_indices().map(|(at, character)| (from + at, character));
        places.find(|(at, character)| self.is_cut(text, *at, *character)).map(|(at, _)| at)
    }

    /// Whether `text` can be cut before the character at `at`.
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

    /// `text` with less of each run of white space, and of each run of letters and digits that makes a word too long for the model's
    /// vocabulary however it goes on. Its tokens are the same.
    pub(super) fn without_long_runs<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut kept = String::new();
        let (mut copied, mut at) = (0, 0);
        while at < text.len() {
            let (length, max) = self.run(&text.as_bytes()[at..]);
            if let Some(max) = max.filter(|max| *max < length) {
                // From both ends, since its neighbours may be part of a word or of an added token.
                kept.push_str(&text[copied..at + max / 2]);
                copied = at + length - (max - max / 2);
            }
            at += length;
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        kept.push_str(&text[copied..]);
        Cow::Owned(kept)
    }

    /// The length of the run at the beginning of `bytes`, and how much of such runs is kept.
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

/// Whether a text can be cut before the ASCII character of that code.
fn ascii(code: usize, added: &[AddedToken]) -> Cut {
    let character = u8::try_from(code).map_or('\0', char::from);
    match character {
        // Other white space is removed as a control character.
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

/// Whether an added token cannot stand within a run of letters, and is shorter than what is kept of one.
fn is_apart(token: &str) -> bool {
    token.len() < MIN_KEPT / 2 && token.bytes().any(|byte| byte.is_ascii_punctuation())
}

/// The blocks around which BERT's normaliser puts spaces.
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
