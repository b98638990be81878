//! Pairs of texts as a question that a language model answers with yes or no.

use super::{TEXT_INPUT, TOKENIZER, TextProcessor, checked_text};
use crate::{Features, Input, InputError, LoadError, ModelDirectory, Prepared, TEXT_PAIR_INPUT, Truncation};

/// The text around an instruction, a query and a document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct YesNoTemplate {
    /// The text before the question.
    pub(crate) before: &'static str,
    /// The text before the instruction, before the query and before the document.
    pub(crate) parts: [&'static str; 3],
    /// The text after the question, which is never truncated.
    pub(crate) after: &'static str,
    /// The instruction where none is given.
    pub(crate) instruction: &'static str,
}

/// A template in tokens, with the model's own instruction.
pub(crate) struct YesNoQuestion {
    before: Vec<u32>,
    parts: [&'static str; 3],
    after: Vec<u32>,
    instruction: String,
}

impl TextProcessor {
    /// The tokens of a template. The model's default prompt, if it has one, is the instruction.
    ///
    /// # Errors
    /// [`LoadError`] if the limit of tokens leaves no room for a question.
    pub(crate) fn question(
        &self,
        directory: &ModelDirectory,
        template: &YesNoTemplate,
    ) -> Result<YesNoQuestion, LoadError> {
        let tokens = |text| {
            let encoding = self.encode(TEXT_INPUT, text);
            encoding.map(|encoding| encoding.get_ids().to_vec())
        };
        let invalid = |error: InputError| directory.invalid(TOKENIZER, error.to_string());
        let (before, after) = (tokens(template.before).map_err(invalid)?, tokens(template.after).map_err(invalid)?);
        let fixed = before.len() + after.len() + self.added_tokens;
        if fixed >= self.max_tokens {
            let message =
                format!("{} tokens leave no room beside the {fixed} of the model's question", self.max_tokens);
            return Err(directory.invalid("sconce.toml", message));
        }
        let instruction = [self.default_prompt.as_str(), template.instruction];
        let instruction = instruction.into_iter().find(|text| !text.is_empty()).unwrap_or_default().to_owned();
        Ok(YesNoQuestion { before, parts: template.parts, after, instruction })
    }

    /// The number of a token of the vocabulary.
    pub(crate) fn token(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Checks and tokenises a query and a document as a question. A prompt takes the place of the instruction. If they are
    /// too long, the end of the document is left out.
    ///
    /// # Errors
    /// [`InputError`] if the input is not a pair, one of its texts is too large, they have tokens that the model lacks, or
    /// they have too many tokens and truncation is refused, or the query alone has.
    pub(crate) fn prepare_question(
        &self,
        input: Input,
        truncation: Truncation,
        question: &YesNoQuestion,
    ) -> Result<Prepared, InputError> {
        let (pair, instruction) = match input {
            Input::Pair(pair) => (pair, None),
            Input::Prompted { prompt, text } => match *text {
                Input::Pair(pair) => (pair, Some(prompt).filter(|prompt| !prompt.is_empty())),
                text => return Err(no_pair(&text)),
            },
            input => return Err(no_pair(&input)),
        };
        let [query, document] = *pair;
        let (query, document) = (checked_text(TEXT_INPUT, query)?, checked_text(TEXT_PAIR_INPUT, document)?);
        let [before_instruction, before_query, before_document] = question.parts;
        let instruction = instruction.as_ref().unwrap_or(&question.instruction);
        let text = [before_instruction, instruction, before_query, &query, before_document, &document].concat();
        let room = self.max_tokens - self.added_tokens - question.before.len() - question.after.len();
        let (encoding, truncated) = self.encode_within(&text, room, truncation)?;
        if truncated {
            // Without a part of the document there is nothing to judge.
            let head = text.len() - document.len();
            if self.encode_beginning(TEXT_INPUT, &text[..head], room)?.len() >= room {
                return Err(InputError::NoRoom { name: TEXT_INPUT, max: self.max_tokens });
            }
        }
        let Features::Tokens { input_ids: asked, .. } = self.features(&encoding)? else {
            unreachable!("the features of a text are tokens")
        };
        let input_ids = [&question.before[..], &asked, &question.after].concat();
        let token_type_ids = vec![0; input_ids.len()];
        Ok(Prepared { features: Features::Tokens { input_ids, token_type_ids }, truncated })
    }
}

fn no_pair(input: &Input) -> InputError {
    let (expected, got) = ("a pair of texts".to_owned(), input.kind().to_owned());
    InputError::WrongKind { name: TEXT_INPUT, expected, got }
}
