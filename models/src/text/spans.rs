//! The places of tokens in a text, for answers about parts of it.

use tokenizers::{Encoding, ModelWrapper};

use super::{TEXT_INPUT, TextProcessor, checked_text, tokenizer_error};
use crate::output::TokenSpan;
use crate::{Input, InputError};

impl TextProcessor {
    /// The text of an input, and its tokens as [`prepare`](Self::prepare) makes them, without special ones. A token's place is
    /// that of whole characters.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub(crate) fn spans(&self, input: Input) -> Result<(String, Vec<TokenSpan>), InputError> {
        let text = checked_text(TEXT_INPUT, input)?;
        let room = self.max_tokens - self.added_tokens;
        let failed = |error| tokenizer_error(TEXT_INPUT, &error);
        let encode = |text: &str| self.tokenizer.encode(text, false).map_err(failed);
        let (mut encoding, shortened) = self.beginning(TEXT_INPUT, &text, room, encode)?;
        encoding.truncate(room, 0, self.direction);
        let encoding = self.tokenizer.post_process(encoding, None, true).map_err(failed)?;
        let special = encoding.get_special_tokens_mask();
        let span = |row: usize| {
            let (start, end) = encoding.get_offsets()[row];
            let (start, end) = shortened.place(start, end);
            let (start, end) = (text.floor_char_boundary(start), text.ceil_char_boundary(end));
            TokenSpan { row, start, end, is_subword: self.is_subword(&encoding, row, &text, start, end) }
        };
        let spans = (0..encoding.len()).filter(|row| special[*row] == 0).map(span).collect();
        Ok((text, spans))
    }

    /// True if a token goes on with a word, as the pipeline of transformers decides it: by the prefix of such tokens if the
    /// vocabulary has one, else by spaces.
    fn is_subword(&self, encoding: &Encoding, row: usize, text: &str, start: usize, end: usize) -> bool {
        if self.unknown == Some(encoding.get_ids()[row]) {
            return false;
        }
        let has_prefix = match self.tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => !model.continuing_subword_prefix.is_empty(),
            ModelWrapper::BPE(model) => {
                model.continuing_subword_prefix.as_ref().is_some_and(|prefix| !prefix.is_empty())
            }
            ModelWrapper::WordLevel(_) | ModelWrapper::Unigram(_) => false,
        };
        if has_prefix {
            return encoding.get_tokens()[row].chars().count() != text[start..end].chars().count();
        }
        start > 0 && !text[..start].ends_with(' ') && !text[start..].starts_with(' ')
    }
}

#[cfg(test)]
mod tests {
    use crate::{ModelDirectory, Settings, TextProcessor, TextRules};

    fn processor() -> TextProcessor {
        let directory = ModelDirectory::new(concat!(env!("CARGO_MANIFEST_DIR"), "/zoo/tiny-bert-sentiment"));
        TextProcessor::load(&directory, &Settings::default(), &TextRules::default(), 64, 8192).unwrap()
    }

    #[test]
    fn tokens_have_the_bytes_of_their_words_and_the_rows_of_the_network() {
        let (text, spans) = processor().spans("Füße, the 中 filmmm".into()).unwrap();
        let words: Vec<_> = spans.iter().map(|span| &text[span.start..span.end]).collect();
        assert_eq!(words.concat(), "Füße,the中filmmm");
        assert!(words.contains(&"the") && words.contains(&"中"), "{words:?}");
        assert_eq!(spans.iter().map(|span| span.row).collect::<Vec<_>>(), (1..=spans.len()).collect::<Vec<_>>());
        let the = spans.iter().find(|span| &text[span.start..span.end] == "the").unwrap();
        assert!(!the.is_subword && spans.last().unwrap().is_subword, "{spans:?}");
    }

    #[test]
    fn tokens_behind_long_runs_keep_their_places_in_the_whole_text() {
        let (spaces, letters) = (" ".repeat(5000), "a".repeat(9000));
        let whole = format!("one{spaces}two {letters} three {}", "four ".repeat(400));
        let (text, spans) = processor().spans(whole.as_str().into()).unwrap();
        assert_eq!(text, whole);
        for word in ["one", "two", letters.as_str(), "three"] {
            let start = whole.find(word).unwrap();
            assert!(spans.iter().any(|span| span.start == start), "{}: {:?}", &word[..3], &spans[..8]);
            assert!(spans.iter().any(|span| span.end == start + word.len()), "{}: {:?}", &word[..3], &spans[..8]);
        }
    }
}
