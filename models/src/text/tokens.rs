//! Tokens for callers that look at them or send them: numbers to text and back.

use tokenizers::TruncationDirection;

use super::{TEXT_INPUT, TextProcessor, checked_text, tokenizer_error};
use crate::{Features, Input, InputError, Prepared, Truncation};

/// A token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextToken {
    /// The token's number in the vocabulary.
    pub id: u32,
    /// The part of the text that the token stands for; the token's name if it is a special one.
    pub text: String,
    /// The place in the text, in bytes; `None` for a special token, which stands for no part of it.
    pub bytes: Option<std::ops::Range<usize>>,
}

impl TextProcessor {
    /// Checks tokens that the caller made. They are read as they are, all of segment 0; a list that is cut keeps the special
    /// tokens at its ends, as a text does.
    pub(super) fn prepare_tokens(&self, mut ids: Vec<u32>, truncation: Truncation) -> Result<Prepared, InputError> {
        let truncated = ids.len() > self.max_tokens;
        if truncated && truncation == Truncation::Refuse {
            return Err(InputError::TooLong { name: TEXT_INPUT, max: self.max_tokens });
        }
        if truncated {
            self.cut_tokens(&mut ids);
        }
        self.check_rows(&ids)?;
        self.check_padding(&ids)?;
        let token_type_ids = vec![0; ids.len()];
        Ok(Prepared { features: Features::Tokens { input_ids: ids, token_type_ids }, truncated })
    }

    /// Cuts a list to the most tokens that the model takes.
    fn cut_tokens(&self, ids: &mut Vec<u32>) {
        let special = self.tokenizer.get_added_vocabulary();
        let is_special =
            |id: &&u32| self.tokenizer.id_to_token(**id).is_some_and(|token| special.is_special_token(&token));
        let added = self.added_tokens;
        match self.direction {
            TruncationDirection::Right => {
                let end = ids.iter().rev().take(added).take_while(is_special).count();
                ids.drain(self.max_tokens - end..ids.len() - end);
            }
            TruncationDirection::Left => {
                let beginning = ids.iter().take(added).take_while(is_special).count();
                ids.drain(beginning..beginning + ids.len() - self.max_tokens);
            }
        }
    }

    /// The tokens of a whole text, however many they are; with `special`, also those that [`prepare`](Self::prepare) adds.
    ///
    /// # Errors
    /// [`InputError`] if the input is not text or is too large.
    pub fn tokenize(&self, input: Input, special: bool) -> Result<Vec<TextToken>, InputError> {
        let text = match input {
            Input::Prompted { prompt, text } => prompt + &checked_text(TEXT_INPUT, *text)?,
            input => checked_text(TEXT_INPUT, input)?,
        };
        let encoding =
            self.tokenizer.encode(text.as_str(), special).map_err(|error| tokenizer_error(TEXT_INPUT, &error))?;
        let is_special = encoding.get_special_tokens_mask();
        let token = |at: usize| {
            let (start, end) = encoding.get_offsets()[at];
            // A token of bytes can begin or end within a character.
            let (start, end) = (text.floor_char_boundary(start), text.ceil_char_boundary(end));
            let (part, bytes) = if is_special[at] == 1 {
                (encoding.get_tokens()[at].as_str(), None)
            } else {
                (&text[start..end], Some(start..end))
            };
            TextToken { id: encoding.get_ids()[at], text: part.to_owned(), bytes }
        };
        Ok((0..encoding.len()).map(token).collect())
    }

    /// The text that tokens stand for, with or without the names of special ones.
    ///
    /// # Errors
    /// [`InputError::UnknownToken`] if the model's vocabulary lacks a token; [`InputError::Tokenizer`] if they have no
    /// text.
    pub fn detokenize(&self, ids: &[u32], special: bool) -> Result<String, InputError> {
        self.check_rows(ids)?;
        self.tokenizer.decode(ids, !special).map_err(|error| tokenizer_error(TEXT_INPUT, &error))
    }
}

#[cfg(test)]
mod tests {
    use crate::{Features, Input, InputError, ModelDirectory, Settings, TextProcessor, TextRules, Truncation};

    fn processor() -> TextProcessor {
        let directory = ModelDirectory::new(concat!(env!("CARGO_MANIFEST_DIR"), "/zoo/tiny-bert-sentiment"));
        TextProcessor::load(&directory, &Settings::default(), &TextRules::default(), 8, 8192).unwrap()
    }

    #[test]
    fn tokens_of_a_text_sent_as_numbers_are_the_text() {
        let processor = processor();
        let tokens = processor.tokenize("the Füße!".into(), true).unwrap();
        assert_eq!((tokens[0].text.as_str(), &tokens[0].bytes), ("[CLS]", &None));
        let parts: Vec<_> = tokens.iter().filter(|token| token.bytes.is_some()).map(|token| &*token.text).collect();
        assert_eq!(parts.concat(), "theFüße!");
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let of_numbers = processor.prepare(Input::Tokens(ids.clone()), Truncation::Refuse).unwrap();
        assert_eq!(of_numbers, processor.prepare("the Füße!".into(), Truncation::Refuse).unwrap());
        assert_eq!(processor.detokenize(&ids, false).unwrap(), "the fuße!");
        assert!(processor.detokenize(&ids, true).unwrap().starts_with("[CLS] the"));
        let plain = processor.tokenize(Input::from("Füße!").with_prompt("the "), false).unwrap();
        assert_eq!(plain, tokens[1..tokens.len() - 1]);
    }

    #[test]
    fn tokens_that_the_model_lacks_or_that_are_too_many_are_refused_or_cut() {
        let processor = processor();
        let prepare = |ids: Vec<u32>, truncation| processor.prepare(Input::Tokens(ids), truncation);
        assert!(matches!(prepare(vec![8192], Truncation::Refuse), Err(InputError::UnknownToken { id: 8192, .. })));
        assert!(matches!(prepare(Vec::new(), Truncation::Refuse), Err(InputError::Empty { .. })));
        assert!(matches!(prepare(vec![5; 9], Truncation::Refuse), Err(InputError::TooLong { max: 8, .. })));
        let cut = prepare((5..14).collect(), Truncation::Truncate).unwrap();
        assert!(cut.truncated);
        assert!(matches!(cut.features, Features::Tokens { input_ids, .. } if input_ids == [5, 6, 7, 8, 9, 10, 11, 12]));
        let text = "a wonderful and a lovely day in the park";
        let ids: Vec<u32> = processor.tokenize(text.into(), true).unwrap().iter().map(|token| token.id).collect();
        assert_eq!(prepare(ids, Truncation::Truncate), processor.prepare(text.into(), Truncation::Truncate));
        let asked = Input::Tokens(vec![5]).with_prompt("query: ");
        assert!(matches!(processor.prepare(asked, Truncation::Refuse), Err(InputError::WrongKind { .. })));
    }
}
