//! From text to tokens, for every family that reads text.

use tokenizers::{Encoding, NormalizerWrapper, PostProcessor as _, PreTokenizerWrapper, Tokenizer};
use tokenizers::{TruncationDirection, TruncationParams};

use crate::{Features, Input, InputError, LoadError, ModelDirectory, Prepared, Settings, Truncation};

/// The name clients use for a text.
pub const TEXT_INPUT: &str = "text";

/// Bytes of one text. A model reads a few thousand at most; more is a mistake or an attack, not a text.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// The prepared side of a text model: the tokenizer and its limits.
pub struct TextProcessor {
    tokenizer: Tokenizer,
    direction: TruncationDirection,
    max_tokens: usize,
    /// Tokens that the template adds, such as `[CLS]` and `[SEP]`.
    added_tokens: usize,
    /// Whether the tokens of a beginning that ends at a space are the beginning of the tokens.
    splits_at_spaces: bool,
}

impl TextProcessor {
    /// Reads `tokenizer.json`. The limit is `settings.model.max_tokens`, else `declared` (what the model's other files
    /// say), else the tokenizer's own; never more than `max_positions`. Padding is always off: batches are packed.
    ///
    /// # Errors
    /// [`LoadError`] if the file is not a tokenizer, has a token beyond `vocab_size`, or the limit does not fit.
    pub fn load(
        directory: &ModelDirectory,
        settings: &Settings,
        declared: Option<usize>,
        max_positions: usize,
        vocab_size: usize,
    ) -> Result<Self, LoadError> {
        let mut tokenizer = directory.tokenizer()?;
        let truncation = tokenizer.get_truncation().cloned();
        let cannot_switch_off = |error: tokenizers::Error| directory.invalid("tokenizer.json", error.to_string());
        tokenizer.with_padding(None).with_truncation(None).map_err(cannot_switch_off)?;

        let highest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        if highest >= vocab_size {
            let message = format!("token {highest} is beyond vocab_size {vocab_size} of config.json");
            return Err(directory.invalid("tokenizer.json", message));
        }
        let added_tokens = tokenizer.get_post_processor().map_or(0, |template| template.added_tokens(false));
        let max_tokens = match settings.model.max_tokens {
            Some(max) if max > max_positions => {
                let message = format!("field 'model.max_tokens' is {max}; the model has {max_positions} positions");
                return Err(directory.invalid("sconce.toml", message));
            }
            Some(max) => max,
            None => declared.or(truncation.as_ref().map(|t| t.max_length)).unwrap_or(max_positions).min(max_positions),
        };
        if max_tokens <= added_tokens {
            let file = if settings.model.max_tokens.is_some() { "sconce.toml" } else { "tokenizer.json" };
            let message = format!("{max_tokens} tokens leave no room beside the {added_tokens} special ones");
            return Err(directory.invalid(file, message));
        }
        let direction = truncation.map_or(TruncationDirection::Right, |TruncationParams { direction, .. }| direction);
        let splits_at_spaces = splits_at_spaces(&tokenizer);
        Ok(Self { tokenizer, direction, max_tokens, added_tokens, splits_at_spaces })
    }

    /// Tokens per text, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Checks and tokenises one input.
    ///
    /// # Errors
    /// [`InputError`] if it is no text, empty, too large, or (where truncation is refused) has too many tokens.
    pub fn prepare(&self, input: Input, truncation: Truncation) -> Result<Prepared, InputError> {
        let text = checked_text(input)?;
        let room = self.max_tokens - self.added_tokens;
        let mut encoding = match truncation {
            Truncation::Truncate => self.encode_beginning(&text, room)?,
            Truncation::Refuse => self.encode(&text)?,
        };
        let truncated = encoding.len() > room;
        if truncated && truncation == Truncation::Refuse {
            let tokens = encoding.len() + self.added_tokens;
            return Err(InputError::TooLong { name: TEXT_INPUT, tokens, max: self.max_tokens });
        }
        encoding.truncate(room, 0, self.direction);
        let encoding = self.tokenizer.post_process(encoding, None, true).map_err(tokenizer_error)?;
        let features = Features::Tokens {
            input_ids: encoding.get_ids().to_vec(),
            token_type_ids: encoding.get_type_ids().to_vec(),
        };
        Ok(Prepared { features, truncated })
    }

    /// The tokens of `text`, or of a beginning of it with more than `room` of them: the same once truncated, and a
    /// megabyte costs no more than what is kept of it.
    fn encode_beginning(&self, text: &str, room: usize) -> Result<Encoding, InputError> {
        /// Generous, so that one try is enough for ordinary text.
        const BYTES_PER_TOKEN: usize = 16;
        if !self.splits_at_spaces || self.direction != TruncationDirection::Right {
            return self.encode(text);
        }
        let mut from = room.saturating_mul(BYTES_PER_TOKEN);
        // A space byte is a space wherever it stands: UTF-8 has no ASCII inside other characters.
        while let Some(space) = text.as_bytes().iter().skip(from).position(|byte| *byte == b' ') {
            let encoding = self.encode(&text[..from + space])?;
            if encoding.len() > room {
                return Ok(encoding);
            }
            from = (from + space) * 2;
        }
        self.encode(text)
    }

    /// Without special tokens.
    fn encode(&self, text: &str) -> Result<Encoding, InputError> {
        self.tokenizer.encode_fast(text, false).map_err(tokenizer_error)
    }
}

fn checked_text(input: Input) -> Result<String, InputError> {
    let too_large = |bytes| InputError::TooManyBytes { name: TEXT_INPUT, bytes, max: MAX_TEXT_BYTES };
    let text = match input {
        Input::Text(text) => text,
        Input::Bytes(bytes) if bytes.len() > MAX_TEXT_BYTES => return Err(too_large(bytes.len())),
        Input::Bytes(bytes) => String::from_utf8(bytes)
            .map_err(|error| InputError::NotUtf8 { name: TEXT_INPUT, valid_up_to: error.utf8_error().valid_up_to() })?,
        Input::Array(_) => {
            let (expected, got) = ("text".to_owned(), input.kind().to_owned());
            return Err(InputError::WrongKind { name: TEXT_INPUT, expected, got });
        }
    };
    if text.len() > MAX_TEXT_BYTES {
        return Err(too_large(text.len()));
    }
    if text.trim().is_empty() {
        return Err(InputError::Empty { name: TEXT_INPUT });
    }
    Ok(text)
}

/// BERT's own steps look at one word at a time; of other steps nothing is known.
fn splits_at_spaces(tokenizer: &Tokenizer) -> bool {
    matches!(tokenizer.get_normalizer(), Some(NormalizerWrapper::BertNormalizer(_)))
        && matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
        && tokenizer.get_added_tokens_decoder().values().all(|token| !token.content.contains(char::is_whitespace))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn tokenizer_error(error: tokenizers::Error) -> InputError {
    InputError::Tokenizer { name: TEXT_INPUT, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor() -> TextProcessor {
        let directory = ModelDirectory::new(concat!(env!("CARGO_MANIFEST_DIR"), "/zoo/tiny-bert-sentiment"));
        TextProcessor::load(&directory, &Settings::default(), None, 64, 8192).unwrap()
    }

    /// Accents apart from their letters, ideographs, control characters, special tokens, odd white space, long words.
    fn awkward_text(seed: usize) -> String {
        let pieces = [
            "word",
            " ",
            "  ",
            "e\u{301}",
            " \u{301}",
            "中文",
            "\u{0}",
            "[SEP]",
            " [MASK] ",
            "\t",
            "\u{a0}",
            "Σ",
            "don't",
            "\u{200b}",
            "🙂",
            "\n",
            "[CLS",
            "x",
            " ",
            "ß",
            "\u{3000}",
            " ",
            "under_score",
            "##ing",
            " ",
        ];
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            pieces[(state >> 33) % pieces.len()]
        };
        (0..2000).map(|_| next()).collect()
    }

    #[test]
    fn the_tokens_of_a_beginning_are_the_beginning_of_the_tokens() {
        let processor = processor();
        assert!(processor.splits_at_spaces);
        for seed in 0..50 {
            let text = awkward_text(seed);
            let whole = processor.encode(&text).unwrap();
            for room in [1, 2, 7, 62, 200] {
                let beginning = processor.encode_beginning(&text, room).unwrap();
                assert!(beginning.len() > room && beginning.len() < whole.len(), "seed {seed} room {room}");
                assert_eq!(beginning.get_ids()[..room], whole.get_ids()[..room], "seed {seed} room {room}");
            }
        }
    }
}
