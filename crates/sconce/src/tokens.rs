//! Tokens of a model, for callers that count, show or send them.

use sconce_models::{Input, TextProcessor, TextToken};

use crate::{InferError, Model};

const TEXT: &str = "tokens, which needs a model that reads text";

impl Model {
    /// The tokens of a whole text, however many the model reads. `special` adds those that the model puts around it, and
    /// `prompt` the prompt of that name before it.
    ///
    /// Blocks: a text of a megabyte takes a fraction of a second.
    ///
    /// # Errors
    /// [`InferError::Input`] if the text is too large or the prompt is not known; [`InferError::Unsuited`] for a model that
    /// does not read text.
    pub fn tokenize(&self, text: &str, special: bool, prompt: Option<&str>) -> Result<Vec<TextToken>, InferError> {
        let input = self.with_prompt(Input::from(text), prompt)?;
        Ok(self.text()?.tokenize(input, special)?)
    }

    /// The text that tokens stand for; `special` keeps the names of special ones.
    ///
    /// # Errors
    /// [`InferError::Input`] if the model's vocabulary lacks a token; [`InferError::Unsuited`] for a model that does not read
    /// text.
    pub fn detokenize(&self, ids: &[u32], special: bool) -> Result<String, InferError> {
        Ok(self.text()?.detokenize(ids, special)?)
    }

    fn text(&self) -> Result<&TextProcessor, InferError> {
        let unsuited =
            || InferError::Unsuited { model: self.name().to_owned(), task: self.signature().task.name(), wanted: TEXT };
        self.inner.processor.text().ok_or_else(unsuited)
    }
}
