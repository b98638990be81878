//! Text to tokens, for every family that reads text.

mod beginning;
mod question;
mod spans;
mod tokenizer;
mod tokens;
mod vocabulary;

use std::collections::BTreeMap;

use tokenizers::normalizers::{Lowercase, Sequence};
use tokenizers::utils::truncation::truncate_encodings;
use tokenizers::{
    Encoding, NormalizerWrapper, PostProcessor as _, Tokenizer, TruncationDirection, TruncationParams,
    TruncationStrategy,
};

pub(crate) use question::{YesNoQuestion, YesNoTemplate};
pub(crate) use tokenizer::{TokenizerFiles, read as read_tokenizer};
pub use tokens::TextToken;

use beginning::{Beginnings, Shortened};

use crate::{Features, Input, InputError, LoadError, ModelDirectory, Prepared, Settings, TEXT_PAIR_INPUT, Truncation};

/// The name of a text in requests.
pub const TEXT_INPUT: &str = "text";

/// The file that errors of a tokenizer name.
const TOKENIZER: &str = "tokenizer.json";

/// Most bytes of one text. Models read a few thousand; a longer input is a mistake or an attack.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// Rules for texts in a model's other files, such as those of sentence-transformers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextRules {
    /// Most tokens per text, special tokens included.
    pub max_tokens: Option<usize>,
    /// True if texts are put into lower case before they are tokenised.
    pub lowercase: bool,
    /// Texts that are put before a text, by name.
    pub prompts: BTreeMap<String, String>,
    /// The name of the prompt that is put before a text unless another is asked for.
    pub default_prompt: Option<String>,
    /// The padding's token, if positions skip it, as in RoBERTa: a text that spells it out is refused.
    pub padding: Option<u32>,
}

/// A tokenizer with its limits: the part of a [`Processor`](crate::Processor) that prepares text.
pub struct TextProcessor {
    tokenizer: Tokenizer,
    direction: TruncationDirection,
    max_tokens: usize,
    /// Tokens that the template adds, such as `[CLS]` and `[SEP]`.
    added_tokens: usize,
    /// Finds places to cut a text before it is tokenised; `None` if the tokenizer's steps do not allow it.
    beginnings: Option<Beginnings>,
    prompts: BTreeMap<String, String>,
    default_prompt: String,
    /// Rows of the model's table of words.
    rows: usize,
    /// True if the tokenizer has tokens beyond the rows.
    has_more_than_rows: bool,
    /// The token for words that the vocabulary lacks, if there is one.
    unknown: Option<u32>,
    padding: Option<u32>,
}

impl TextProcessor {
    /// Reads the directory's tokenizer. The limit of tokens is `settings.model.max_tokens`, else that of `rules`, else
    /// `model_max_length` of `tokenizer_config.json`; never more than `max_positions`. Padding is always off, because
    /// batches are packed, and the truncation of `tokenizer.json` sets no limit, as in transformers.
    ///
    /// # Errors
    /// [`LoadError`] if a file of the tokenizer is not valid, a special token is beyond `vocab_size`, or the limit is
    /// above `max_positions` or leaves no room beside the special tokens.
    pub fn load(
        directory: &ModelDirectory,
        settings: &Settings,
        rules: &TextRules,
        max_positions: usize,
        vocab_size: usize,
    ) -> Result<Self, LoadError> {
        let TokenizerFiles { mut tokenizer, max_tokens: declared, direction, unknown } = read_tokenizer(directory)?;
        let invalid = |error: &tokenizers::Error| directory.invalid(TOKENIZER, error.to_string());
        if rules.lowercase {
            put_into_lower_case(&mut tokenizer).map_err(|error| invalid(&error))?;
        }
        let added_tokens = tokenizer.get_post_processor().map_or(0, |template| template.added_tokens(false));
        let max_tokens = match settings.model.max_tokens {
            Some(max) if max > max_positions => {
                let message = format!("field 'model.max_tokens' is {max}; the model has {max_positions} positions");
                return Err(directory.invalid("sconce.toml", message));
            }
            Some(max) => max,
            None => rules.max_tokens.or(declared).unwrap_or(max_positions).min(max_positions),
        };
        if max_tokens <= added_tokens {
            let file = if settings.model.max_tokens.is_some() { "sconce.toml" } else { TOKENIZER };
            let message = format!("{max_tokens} tokens leave no room beside the {added_tokens} special ones");
            return Err(directory.invalid(file, message));
        }
        let beginnings = Beginnings::of(&tokenizer).filter(|_| matches!(direction, TruncationDirection::Right));
        let highest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        let TextRules { prompts, default_prompt, padding, .. } = rules.clone();
        let default_prompt = default_prompt.and_then(|name| prompts.get(&name).cloned()).unwrap_or_default();
        let text = Self {
            tokenizer,
            direction,
            max_tokens,
            added_tokens,
            beginnings,
            prompts,
            default_prompt,
            rows: vocab_size,
            has_more_than_rows: highest >= vocab_size,
            unknown,
            padding,
        };
        // Its tokens are the special ones, which every text has.
        match text.prepare_with_prompt("".into(), Truncation::Truncate, "") {
            Err(error @ InputError::UnknownToken { .. }) => Err(directory.invalid(TOKENIZER, error.to_string())),
            _ => Ok(text),
        }
    }

    /// The prompts of the model's files by name: texts that can be put before another.
    #[must_use]
    pub fn prompts(&self) -> &BTreeMap<String, String> {
        &self.prompts
    }

    /// Most tokens per text, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Checks and tokenises one input, with its own prompt before it, else the model's default prompt if there is one.
    ///
    /// # Errors
    /// [`InputError`] if the input is not text, is too large, has no tokens or tokens that the model lacks, or has too
    /// many tokens and truncation is refused.
    pub fn prepare(&self, input: Input, truncation: Truncation) -> Result<Prepared, InputError> {
        match input {
            Input::Prompted { prompt, text } => self.prepare_with_prompt(*text, truncation, &prompt),
            Input::Tokens(ids) => self.prepare_tokens(ids, truncation),
            input => self.prepare_with_prompt(input, truncation, &self.default_prompt),
        }
    }

    /// As [`prepare`](Self::prepare), with another text before the input; empty for none.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn prepare_with_prompt(
        &self,
        input: Input,
        truncation: Truncation,
        prompt: &str,
    ) -> Result<Prepared, InputError> {
        let mut text = checked_text(TEXT_INPUT, input)?;
        if !prompt.is_empty() {
            text.insert_str(0, prompt);
        }
        let room = self.max_tokens - self.added_tokens;
        let (encoding, truncated) = self.encode_within(&text, room, truncation)?;
        Ok(Prepared { features: self.features(&encoding)?, truncated })
    }

    /// The tokens of a text with the special ones, of which at most `room` are its own; true if it had more.
    fn encode_within(&self, text: &str, room: usize, truncation: Truncation) -> Result<(Encoding, bool), InputError> {
        let mut encoding = self.encode_beginning(TEXT_INPUT, text, room)?;
        let truncated = encoding.len() > room;
        if truncated && truncation == Truncation::Refuse {
            return Err(InputError::TooLong { name: TEXT_INPUT, max: self.max_tokens });
        }
        encoding.truncate(room, 0, self.direction);
        let encoding =
            self.tokenizer.post_process(encoding, None, true).map_err(|error| tokenizer_error(TEXT_INPUT, &error))?;
        Ok((encoding, truncated))
    }

    /// The features of tokens, special tokens included.
    fn features(&self, encoding: &Encoding) -> Result<Features, InputError> {
        let ids = encoding.get_ids();
        if self.has_more_than_rows {
            self.check_rows(ids)?;
        }
        self.check_padding(ids)?;
        Ok(Features::Tokens { input_ids: ids.to_vec(), token_type_ids: encoding.get_type_ids().to_vec() })
    }

    /// Refuses tokens that the model's table of words lacks.
    fn check_rows(&self, ids: &[u32]) -> Result<(), InputError> {
        let Some(id) = ids.iter().copied().find(|id| *id as usize >= self.rows) else { return Ok(()) };
        let token = self.tokenizer.id_to_token(id).unwrap_or_default();
        Err(InputError::UnknownToken { name: TEXT_INPUT, token, id, rows: self.rows })
    }

    /// Refuses no tokens at all, and the padding's token where positions skip it.
    fn check_padding(&self, ids: &[u32]) -> Result<(), InputError> {
        if ids.is_empty() {
            return Err(InputError::Empty { name: TEXT_INPUT });
        }
        if let Some(id) = self.padding.filter(|padding| ids.contains(padding)) {
            let token = self.tokenizer.id_to_token(id).unwrap_or_default();
            return Err(InputError::PaddingToken { name: TEXT_INPUT, token, id });
        }
        Ok(())
    }

    /// Checks and tokenises two texts that are read together. If they are too long together, tokens of the longer one
    /// are left out one by one, as with `longest_first` of Hugging Face.
    ///
    /// # Errors
    /// [`InputError`] if the input is not a pair, one of its texts is too large, they have no tokens or tokens that the
    /// model lacks, or they have too many tokens and truncation is refused.
    pub fn prepare_pair(&self, input: Input, truncation: Truncation) -> Result<Prepared, InputError> {
        let Input::Pair(pair) = input else {
            let (expected, got) = ("a pair of texts".to_owned(), input.kind().to_owned());
            return Err(InputError::WrongKind { name: TEXT_INPUT, expected, got });
        };
        let [first, second] = *pair;
        let room = self.room_for_pairs();
        let first = self.encode_beginning(TEXT_INPUT, &checked_text(TEXT_INPUT, first)?, room)?;
        let mut second = self.encode_beginning(TEXT_PAIR_INPUT, &checked_text(TEXT_PAIR_INPUT, second)?, room)?;
        // Kept where no template says otherwise.
        second.set_type_ids(vec![1; second.len()]);
        let truncated = first.len() + second.len() > room;
        if truncated && truncation == Truncation::Refuse {
            return Err(InputError::TooLong { name: TEXT_INPUT, max: self.max_tokens });
        }
        let (first, second) = self.fitted(first, second, room)?;
        let encoding = self
            .tokenizer
            .post_process(first, Some(second), true)
            .map_err(|error| tokenizer_error(TEXT_INPUT, &error))?;
        Ok(Prepared { features: self.features(&encoding)?, truncated })
    }

    /// Refuses a limit that leaves no token for each text of a pair, and a pair whose segments are not among `segments`; 0 stands
    /// for an encoder that reads none.
    pub(crate) fn check_pairs(
        &self,
        directory: &ModelDirectory,
        settings: &Settings,
        segments: usize,
    ) -> Result<(), LoadError> {
        if self.room_for_pairs() < 2 {
            let file = if settings.model.max_tokens.is_some() { "sconce.toml" } else { "tokenizer.json" };
            let message = format!("{} tokens leave no room for two texts beside the special tokens", self.max_tokens);
            return Err(directory.invalid(file, message));
        }
        let prepared = self.prepare_pair(("a", "a").into(), Truncation::Truncate);
        if let Ok(Prepared { features: Features::Tokens { token_type_ids, .. }, .. }) = prepared
            && let Some(segment) = token_type_ids.into_iter().find(|id| segments > 0 && *id as usize >= segments)
        {
            let message = format!("a pair has segment {segment}, but type_vocab_size of config.json is {segments}");
            return Err(directory.invalid("tokenizer.json", message));
        }
        Ok(())
    }

    /// Tokens of both texts of a pair together.
    fn room_for_pairs(&self) -> usize {
        let added = self.tokenizer.get_post_processor().map_or(0, |template| template.added_tokens(true));
        self.max_tokens.saturating_sub(added)
    }

    /// Truncates two texts to at most `room` tokens together.
    fn fitted(&self, first: Encoding, second: Encoding, room: usize) -> Result<(Encoding, Encoding), InputError> {
        let params = TruncationParams {
            direction: self.direction,
            max_length: room,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        let (first, second) =
            truncate_encodings(first, Some(second), &params).map_err(|error| tokenizer_error(TEXT_INPUT, &error))?;
        Ok((first, second.expect("two went in")))
    }

    /// The tokens of `text`, or of a beginning of it that has more than `room` tokens. Both give the same tokens once
    /// truncated, but the cost of a megabyte is only that of its beginning.
    fn encode_beginning(&self, name: &'static str, text: &str, room: usize) -> Result<Encoding, InputError> {
        self.beginning(name, text, room, |text| self.encode(name, text)).map(|(encoding, _)| encoding)
    }

    /// As [`encode_beginning`](Self::encode_beginning), tokenised by `encode`, with the text that was tokenised.
    fn beginning<'t>(
        &self,
        name: &'static str,
        text: &'t str,
        room: usize,
        encode: impl Fn(&str) -> Result<Encoding, InputError>,
    ) -> Result<(Encoding, Shortened<'t>), InputError> {
        /// More than ordinary text has, so that one try is enough for it.
        const BYTES_PER_TOKEN: usize = 16;
        /// Beginnings longer than this many times the first try are not tokenised: that could take seconds, and no
        /// ordinary text has so few tokens.
        const MAX_TIMES_LONGER: usize = 16;
        const MIN_LOOKED_AT: usize = 64 * 1024;
        let mut from = room.saturating_mul(BYTES_PER_TOKEN);
        let Some(beginnings) = self.beginnings.as_ref().filter(|_| text.len() > from) else {
            return Ok((encode(text)?, Shortened::none_of(text)));
        };
        let shortened = beginnings.without_long_runs(text);
        let text = &*shortened.text;
        let max = from.saturating_mul(MAX_TIMES_LONGER).max(MIN_LOOKED_AT);
        while let Some(cut) = beginnings.next_cut(text, from).filter(|cut| *cut <= max) {
            let encoding = encode(&text[..cut])?;
            if encoding.len() > room {
                return Ok((encoding, shortened));
            }
            from = cut.saturating_mul(2);
        }
        if text.len() > max {
            return Err(InputError::TooSparse { name, bytes: max });
        }
        Ok((encode(text)?, shortened))
    }

    /// Tokenises without special tokens.
    fn encode(&self, name: &'static str, text: &str) -> Result<Encoding, InputError> {
        self.tokenizer.encode_fast(text, false).map_err(|error| tokenizer_error(name, &error))
    }
}

fn checked_text(name: &'static str, input: Input) -> Result<String, InputError> {
    let too_large = |bytes| InputError::TooManyBytes { name, bytes, max: MAX_TEXT_BYTES };
    let text = match input {
        Input::Text(text) => text,
        Input::Bytes(bytes) if bytes.len() > MAX_TEXT_BYTES => return Err(too_large(bytes.len())),
        Input::Bytes(bytes) => String::from_utf8(bytes)
            .map_err(|error| InputError::NotUtf8 { name, valid_up_to: error.utf8_error().valid_up_to() })?,
        Input::Array(_) | Input::Pair(_) | Input::Prompted { .. } | Input::Tokens(_) => {
            let (expected, got) = ("text".to_owned(), input.kind().to_owned());
            return Err(InputError::WrongKind { name, expected, got });
        }
    };
    if text.len() > MAX_TEXT_BYTES {
        return Err(too_large(text.len()));
    }
    Ok(text)
}

/// Puts the step that makes lower case before the others, as sentence-transformers does, unless it is there.
fn put_into_lower_case(tokenizer: &mut Tokenizer) -> Result<(), tokenizers::Error> {
    let mut steps: Vec<NormalizerWrapper> = match tokenizer.get_normalizer() {
        None => Vec::new(),
        Some(NormalizerWrapper::Sequence(steps)) => AsRef::<[NormalizerWrapper]>::as_ref(steps).to_vec(),
        Some(step) => vec![step.clone()],
    };
    if !steps.iter().any(|step| matches!(step, NormalizerWrapper::Lowercase(_))) {
        steps.insert(0, NormalizerWrapper::Lowercase(Lowercase));
        tokenizer.with_normalizer(Some(Sequence::new(steps)))?;
    }
    Ok(())
}

fn tokenizer_error(name: &'static str, error: &tokenizers::Error) -> InputError {
    InputError::Tokenizer { name, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor() -> TextProcessor {
        let directory = ModelDirectory::new(concat!(env!("CARGO_MANIFEST_DIR"), "/zoo/tiny-bert-sentiment"));
        TextProcessor::load(&directory, &Settings::default(), &TextRules::default(), 64, 8192).unwrap()
    }

    /// Pieces that are hard for tokenizers and cuts: accents apart from their letters, ideographs, control characters,
    /// special tokens whole and in pieces, punctuation of all kinds, odd white space.
    const PIECES: &[&str] = &[
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
        "ß",
        "\u{3000}",
        "under_score",
        "##ing",
        ".",
        "...",
        "]",
        "[",
        "[[",
        "[UNK",
        "。",
        "、",
        "—",
        "«",
        "\u{301}",
        "한국어",
        "\u{b}",
        "\u{fffd}",
        "1",
        "<s>",
        "中\u{301}",
        ".\u{301}",
        "\u{37e}",
        "\u{1fef}",
    ];

    /// Pieces in a random order by `seed`; about one in twenty is repeated many times.
    fn awkward_text(seed: u64) -> String {
        let mut state = seed;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % bound
        };
        let mut text = String::new();
        while text.len() < 12_000 {
            // Two texts of three use only three kinds of pieces, so that places to cut are rare.
            let kinds = if seed.is_multiple_of(3) { PIECES.len() } else { 3 };
            let piece = PIECES[(below(kinds) * 7 + usize::try_from(seed).unwrap()) % PIECES.len()];
            let times = if below(20) == 0 { below(1500) } else { 1 };
            text.push_str(&piece.repeat(times));
        }
        text
    }

    #[test]
    fn the_tokens_of_a_beginning_are_the_beginning_of_the_tokens() {
        let processor = processor();
        assert!(processor.beginnings.is_some());
        for seed in 0..300 {
            let text = awkward_text(seed);
            let whole = processor.encode(TEXT_INPUT, &text).unwrap();
            for room in [1, 2, 7, 62, 200] {
                let beginning = processor.encode_beginning(TEXT_INPUT, &text, room).unwrap();
                let length = room.min(whole.len());
                assert_eq!(beginning.len() > room, whole.len() > room, "seed {seed} room {room}");
                assert_eq!(beginning.get_ids()[..length], whole.get_ids()[..length], "seed {seed} room {room}");
            }
        }
    }

    #[test]
    fn each_piece_repeated_is_tokenised_as_its_beginning() {
        let processor = processor();
        for piece in PIECES {
            for text in [piece.repeat(4000), format!("{}word", piece.repeat(4000)), format!("a{}", piece.repeat(4000))]
            {
                let (whole, beginning) = (
                    processor.encode(TEXT_INPUT, &text).unwrap(),
                    processor.encode_beginning(TEXT_INPUT, &text, 7).unwrap(),
                );
                let length = whole.len().min(7);
                assert_eq!(beginning.len() > 7, whole.len() > 7, "{piece:?}");
                assert_eq!(beginning.get_ids()[..length], whole.get_ids()[..length], "{piece:?}");
            }
        }
    }

    #[test]
    fn the_largest_text_is_not_tokenised_whole() {
        let processor = processor();
        for piece in [".", "[", "[MASK]", "。", "中", "a", "a ", "—", "] [", "a.", "0f"] {
            let text = piece.repeat(MAX_TEXT_BYTES / piece.len());
            let looked_at = processor.encode_beginning(TEXT_INPUT, &text, 62).unwrap();
            assert!(looked_at.len() <= 2000, "{} tokens of {piece:?}", looked_at.len());
            for truncation in [Truncation::Truncate, Truncation::Refuse] {
                assert!(
                    processor.prepare(text.clone().into(), truncation).is_ok()
                        != (looked_at.len() > 62 && truncation == Truncation::Refuse)
                );
            }
        }
    }

    #[test]
    fn a_large_text_without_tokens_to_be_found_is_refused() {
        let processor = processor();
        for piece in ["e\u{301}", "\u{301} ", "\u{a0}", "한국어", "ß", "🙂", "\u{1fef}"] {
            let text = piece.repeat(MAX_TEXT_BYTES / piece.len());
            let refused = processor.encode_beginning(TEXT_INPUT, &text, 62);
            assert_eq!(refused.err(), Some(InputError::TooSparse { name: TEXT_INPUT, bytes: 64 * 1024 }), "{piece:?}");
        }
    }
}
