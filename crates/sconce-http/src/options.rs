//! Options that every API takes beside its own, by the names that the gRPC server gives them.

use std::borrow::Cow;

use sconce_server::{Parameters, RequestError};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::HttpError;
use crate::open_inference::JsonParameters;

/// The fields of a request that its API does not have itself: [`Parameters`]. `OpenAI`'s clients send them as `extra_body`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Options(Map<String, Value>);

impl Options {
    /// Reads the options.
    pub(crate) fn parameters(self) -> Result<Parameters, HttpError> {
        let error = match Parameters::read(&JsonParameters(self.named()?.0)) {
            Ok(parameters) => return Ok(parameters),
            Err(error) => error,
        };
        let field = match &error {
            RequestError::UnknownParameter { name, .. } => Some(name.clone()),
            RequestError::WrongParameter { name, .. } => Some((*name).to_owned()),
            _ => None,
        };
        Err(HttpError { field: field.map(Cow::Owned), ..error.into() })
    }

    /// These options, and others where they are not set.
    pub(crate) fn or(self, others: Self) -> Result<Self, HttpError> {
        let mut all = others.named()?;
        all.0.extend(self.named()?.0);
        Ok(all)
    }

    /// The options that are set, by their own names. A field that is null counts as left out, and `prompt_name` means `prompt`.
    fn named(self) -> Result<Self, HttpError> {
        let Self(mut fields) = self;
        fields.retain(|_, value| !value.is_null());
        if let Some(name) = fields.remove("prompt_name")
            && fields.insert("prompt".to_owned(), name).is_some()
        {
            let message = "fields 'prompt' and 'prompt_name' mean the same; send one of them";
            return Err(HttpError::invalid("prompt", message));
        }
        Ok(Self(fields))
    }
}

/// The forms of [`Options`] in JSON.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described")]
pub(crate) struct OptionFields {
    /// False: a text of too many tokens is refused, rather than cut.
    truncate: Option<bool>,
    /// Name of the prompt before each text; `prompt` means the same.
    prompt_name: Option<String>,
    /// Scales vectors to length 1, or leaves them as they are.
    normalize: Option<bool>,
    /// Elements of vectors that are kept.
    dimensions: Option<usize>,
    /// Element type of vectors where they are lists of numbers: `float32`, `float16`, `int8`, `uint8`, `binary` or `ubinary`.
    output_dtype: Option<String>,
    /// The precision in which the model must compute: `f32`, `int8`, …; one that it is not loaded in is refused.
    precision: Option<String>,
    /// True: items that fail are left out and listed in `failed`, with the reasons; false: they fail the request. Not for
    /// routes whose answers have no index.
    partial: Option<bool>,
    /// False: the runtime's cache is not asked for the answers.
    cache: Option<bool>,
    /// 1 (high), 2 (normal) or 3 (low).
    priority: Option<usize>,
    /// Microseconds from arrival for which the answers are wanted.
    timeout: Option<u64>,
}
