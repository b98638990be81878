//! Reads the parameters of a request, whose names are Triton's.
//!
//! Unknown parameters are refused, so that a misspelled one does not go unnoticed. Those that clients send by
//! themselves are ignored: `perf_analyzer` sends `triton_enable_empty_final_response` with every request.

use std::fmt;
use std::time::Duration;

use sconce::models::excerpt;
use sconce::{Model, OutputDtype, Precision, Priority, Truncation, VectorOptions};

use crate::error::RequestError;

/// Names of the parameters that are read.
const KNOWN: [&str; 10] = [
    "cache",
    "dimensions",
    "normalize",
    "output_dtype",
    "partial",
    "precision",
    "priority",
    "prompt",
    "timeout",
    "truncate",
];
/// Names that clients set by themselves: Triton reserves the first and the last, clients of `MLServer` set the other.
const IGNORED: [&str; 3] = ["binary_data_output", "content_type", "headers"];
/// Prefix of further names that Triton reserves.
const RESERVED: &str = "triton_";

/// A parameter's value on any wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ParameterValue<'a> {
    /// No value, or one that no parameter takes, such as a list.
    Unset,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Number(f64),
    /// A text.
    Text(&'a str),
}

/// The parameters of a request on any wire, by name.
pub trait ParameterMap {
    /// The value of the parameter of this name.
    fn get(&self, name: &str) -> Option<ParameterValue<'_>>;

    /// The names of all parameters.
    fn names(&self) -> impl Iterator<Item = &str>;
}

/// The parameters of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// Time from the request's arrival for which the answer is wanted.
    pub timeout: Option<Duration>,
    /// How soon the request's items run among others.
    pub priority: Priority,
    /// Cuts or refuses a text with too many tokens.
    pub truncation: Truncation,
    /// True if a cache may answer.
    pub cache: bool,
    /// Name of the prompt of the texts.
    pub prompt: Option<String>,
    /// Elements and length of vectors.
    pub vectors: VectorOptions,
    /// The precision in which the network must compute, of those that the model is loaded in; `None` for the present one.
    pub precision: Option<Precision>,
    /// True: items that fail are left out of the answer, which names them; false: they fail the request.
    pub partial: bool,
}

impl Parameters {
    /// Checks that a model computes as the request asks.
    ///
    /// # Errors
    /// [`RequestError::OtherPrecision`] if it is not loaded in the precision that is asked for.
    pub fn check(&self, model: &Model) -> Result<(), RequestError> {
        let Some(asked) = self.precision else { return Ok(()) };
        let has = model.precisions();
        if has.contains(&asked) {
            return Ok(());
        }
        let computes = has.iter().map(|precision| precision.name()).collect::<Vec<_>>().join(" and ");
        Err(RequestError::OtherPrecision { model: model.name().to_owned(), asked, computes })
    }

    /// Reads all parameters.
    ///
    /// # Errors
    /// [`RequestError`] names the first parameter that is unknown or has a wrong value.
    pub fn read(parameters: &impl ParameterMap) -> Result<Self, RequestError> {
        if let Some(name) = parameters.names().find(|name| name.starts_with("sequence_")) {
            return Err(RequestError::Sequence { name: name.to_owned() });
        }
        // The first by name, so that the same request always gets the same error.
        if let Some(name) = parameters.names().filter(|name| !is_known(name)).min() {
            return Err(RequestError::UnknownParameter { name: name.to_owned(), known: KNOWN.join(", ") });
        }
        Ok(Self {
            timeout: timeout(parameters)?,
            priority: priority(parameters)?,
            truncation: truncation(parameters)?,
            cache: flag("cache", parameters)?.unwrap_or(true),
            prompt: text("prompt", parameters, "a text")?,
            vectors: VectorOptions {
                dimensions: whole("dimensions", parameters, "a whole number from 0 on", |dimensions| {
                    usize::try_from(dimensions).ok()
                })?,
                normalize: flag("normalize", parameters)?,
                output_dtype: output_dtype(parameters)?,
            },
            precision: precision(parameters)?,
            partial: flag("partial", parameters)?.unwrap_or(false),
        })
    }
}

fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || IGNORED.contains(&name) || name.starts_with(RESERVED)
}

/// Reads a whole number from 0 on.
///
/// # Errors
/// [`RequestError::WrongParameter`] names the parameter and its value.
pub fn count(name: &'static str, parameters: &impl ParameterMap) -> Result<Option<u64>, RequestError> {
    whole(name, parameters, "a whole number from 0 on", Some)
}

/// Reads true or false.
///
/// # Errors
/// [`RequestError::WrongParameter`] names the parameter and its value.
pub fn flag(name: &'static str, parameters: &impl ParameterMap) -> Result<Option<bool>, RequestError> {
    match parameters.get(name) {
        None => Ok(None),
        Some(ParameterValue::Bool(value)) => Ok(Some(value)),
        Some(other) => Err(RequestError::WrongParameter { name, got: other.to_string(), expected: "a bool" }),
    }
}

/// Reads a whole number from 0 on that `meaning` accepts.
fn whole<T>(
    name: &'static str,
    parameters: &impl ParameterMap,
    expected: &'static str,
    meaning: impl Fn(u64) -> Option<T>,
) -> Result<Option<T>, RequestError> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    let value = if let ParameterValue::Integer(value) = parameter { u64::try_from(value).ok() } else { None };
    let wrong = || RequestError::WrongParameter { name, got: parameter.to_string(), expected };
    value.and_then(meaning).map(Some).ok_or_else(wrong)
}

fn timeout(parameters: &impl ParameterMap) -> Result<Option<Duration>, RequestError> {
    Ok(count("timeout", parameters)?.filter(|timeout_us| *timeout_us > 0).map(Duration::from_micros))
}

/// Reads a priority by Triton's levels: 1 is the highest, and 0 the default.
fn priority(parameters: &impl ParameterMap) -> Result<Priority, RequestError> {
    let of_level = |level| match level {
        0 => Some(Priority::default()),
        level => Priority::ALL.get(usize::try_from(level - 1).ok()?).copied(),
    };
    let expected = "1 (high), 2 (normal), 3 (low) or 0 (the default)";
    Ok(whole("priority", parameters, expected, of_level)?.unwrap_or_default())
}

fn truncation(parameters: &impl ParameterMap) -> Result<Truncation, RequestError> {
    let truncates = flag("truncate", parameters)?.unwrap_or(true);
    Ok(if truncates { Truncation::Truncate } else { Truncation::Refuse })
}

fn output_dtype(parameters: &impl ParameterMap) -> Result<OutputDtype, RequestError> {
    const NAME: &str = "output_dtype";
    const EXPECTED: &str = "float32, float16, int8, uint8, binary or ubinary";
    let Some(name) = text(NAME, parameters, EXPECTED)? else { return Ok(OutputDtype::default()) };
    let wrong = |_| {
        let got = ParameterValue::Text(&name).to_string();
        RequestError::WrongParameter { name: NAME, got, expected: EXPECTED }
    };
    name.parse().map_err(wrong)
}

fn precision(parameters: &impl ParameterMap) -> Result<Option<Precision>, RequestError> {
    const NAME: &str = "precision";
    const EXPECTED: &str = "f32, f16, bf16, int8, q8_0 or q4k";
    let Some(name) = text(NAME, parameters, EXPECTED)? else { return Ok(None) };
    let wrong = |_| {
        let got = ParameterValue::Text(&name).to_string();
        RequestError::WrongParameter { name: NAME, got, expected: EXPECTED }
    };
    name.parse().map(Some).map_err(wrong)
}

fn text(
    name: &'static str,
    parameters: &impl ParameterMap,
    expected: &'static str,
) -> Result<Option<String>, RequestError> {
    match parameters.get(name) {
        None => Ok(None),
        Some(ParameterValue::Text(text)) => Ok(Some(text.to_owned())),
        Some(other) => Err(RequestError::WrongParameter { name, got: other.to_string(), expected }),
    }
}

impl fmt::Display for ParameterValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("unset"),
            Self::Bool(value) => write!(f, "the bool {value}"),
            Self::Integer(value) => write!(f, "the integer {value}"),
            Self::Number(value) => write!(f, "the number {value}"),
            Self::Text(value) => write!(f, "the text {}", excerpt(&format_args!("{value:?}"))),
        }
    }
}
