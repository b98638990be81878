//! Reads the parameters of a request, whose names are Triton's.
//!
//! Unknown parameters are refused, so that a misspelled one does not go unnoticed. Those that clients send by
//! themselves are ignored: `perf_analyzer` sends `triton_enable_empty_final_response` with every request.

use std::collections::HashMap;
use std::time::Duration;

use sconce::models::excerpt;
use sconce::{OutputDtype, Priority, Truncation, VectorOptions};

use crate::error::RequestError;
use crate::proto::InferParameter;
use crate::proto::infer_parameter::ParameterChoice;

/// Names of the parameters that are read.
const KNOWN: [&str; 8] =
    ["cache", "dimensions", "normalize", "output_dtype", "priority", "prompt", "timeout", "truncate"];
/// Names that clients set by themselves: Triton reserves the first and the last, clients of `MLServer` set the other.
const IGNORED: [&str; 3] = ["binary_data_output", "content_type", "headers"];
/// Prefix of further names that Triton reserves.
const RESERVED: &str = "triton_";

/// The parameters of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// Time from the request's arrival for which the answer is wanted.
    pub(crate) timeout: Option<Duration>,
    pub(crate) priority: Priority,
    pub(crate) truncation: Truncation,
    /// True if a cache may answer.
    pub(crate) cache: bool,
    /// Name of the prompt of the texts.
    pub(crate) prompt: Option<String>,
    /// Elements and length of vectors.
    pub(crate) vectors: VectorOptions,
}

impl Parameters {
    pub(crate) fn read(parameters: &HashMap<String, InferParameter>) -> Result<Self, RequestError> {
        if let Some(name) = parameters.keys().find(|name| name.starts_with("sequence_")) {
            return Err(RequestError::Sequence { name: name.clone() });
        }
        // The first by name, so that the same request always gets the same error.
        if let Some(name) = parameters.keys().filter(|name| !is_known(name)).min() {
            return Err(RequestError::UnknownParameter { name: name.clone(), known: KNOWN.join(", ") });
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
        })
    }
}

fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || IGNORED.contains(&name) || name.starts_with(RESERVED)
}

/// Refuses a tensor whose parameters say that its contents are in shared memory.
pub(crate) fn refuse_shared_memory(
    tensor: &str,
    parameters: &HashMap<String, InferParameter>,
) -> Result<(), RequestError> {
    match parameters.keys().find(|name| name.starts_with("shared_memory_")) {
        Some(name) => Err(RequestError::SharedMemory { tensor: tensor.to_owned(), name: name.clone() }),
        None => Ok(()),
    }
}

/// Reads a whole number from 0 on, in either of the integer types.
pub(crate) fn count(
    name: &'static str,
    parameters: &HashMap<String, InferParameter>,
) -> Result<Option<u64>, RequestError> {
    whole(name, parameters, "a whole number from 0 on", Some)
}

/// Reads a whole number from 0 on that `meaning` accepts.
fn whole<T>(
    name: &'static str,
    parameters: &HashMap<String, InferParameter>,
    expected: &'static str,
    meaning: impl Fn(u64) -> Option<T>,
) -> Result<Option<T>, RequestError> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    let value = match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(value)) => u64::try_from(value).ok(),
        Some(ParameterChoice::Uint64Param(value)) => Some(value),
        _ => None,
    };
    let wrong = || RequestError::WrongParameter { name, got: shown(parameter), expected };
    value.and_then(meaning).map(Some).ok_or_else(wrong)
}

fn timeout(parameters: &HashMap<String, InferParameter>) -> Result<Option<Duration>, RequestError> {
    Ok(count("timeout", parameters)?.filter(|timeout_us| *timeout_us > 0).map(Duration::from_micros))
}

/// Reads a priority by Triton's levels: 1 is the highest, and 0 the default.
fn priority(parameters: &HashMap<String, InferParameter>) -> Result<Priority, RequestError> {
    let of_level = |level| match level {
        0 => Some(Priority::default()),
        level => Priority::ALL.get(usize::try_from(level - 1).ok()?).copied(),
    };
    let expected = "1 (high), 2 (normal), 3 (low) or 0 (the default)";
    Ok(whole("priority", parameters, expected, of_level)?.unwrap_or_default())
}

fn truncation(parameters: &HashMap<String, InferParameter>) -> Result<Truncation, RequestError> {
    let truncates = flag("truncate", parameters)?.unwrap_or(true);
    Ok(if truncates { Truncation::Truncate } else { Truncation::Refuse })
}

fn output_dtype(parameters: &HashMap<String, InferParameter>) -> Result<OutputDtype, RequestError> {
    const NAME: &str = "output_dtype";
    const EXPECTED: &str = "float32, float16, int8, uint8, binary or ubinary";
    let Some(name) = text(NAME, parameters, EXPECTED)? else { return Ok(OutputDtype::default()) };
    let wrong = |_| RequestError::WrongParameter { name: NAME, got: shown_text(&name), expected: EXPECTED };
    name.parse().map_err(wrong)
}

fn flag(name: &'static str, parameters: &HashMap<String, InferParameter>) -> Result<Option<bool>, RequestError> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    match parameter.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Ok(Some(value)),
        _ => Err(RequestError::WrongParameter { name, got: shown(parameter), expected: "a bool" }),
    }
}

fn text(
    name: &'static str,
    parameters: &HashMap<String, InferParameter>,
    expected: &'static str,
) -> Result<Option<String>, RequestError> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    match &parameter.parameter_choice {
        Some(ParameterChoice::StringParam(text)) => Ok(Some(text.clone())),
        _ => Err(RequestError::WrongParameter { name, got: shown(parameter), expected }),
    }
}

fn shown(parameter: &InferParameter) -> String {
    match &parameter.parameter_choice {
        None => "unset".to_owned(),
        Some(ParameterChoice::BoolParam(value)) => format!("the bool {value}"),
        Some(ParameterChoice::Int64Param(value)) => format!("the integer {value}"),
        Some(ParameterChoice::Uint64Param(value)) => format!("the integer {value}"),
        Some(ParameterChoice::DoubleParam(value)) => format!("the number {value}"),
        Some(ParameterChoice::StringParam(value)) => shown_text(value),
    }
}

fn shown_text(value: &str) -> String {
    format!("the text {}", excerpt(&format_args!("{value:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ParameterChoice::{BoolParam, DoubleParam, Int64Param, StringParam, Uint64Param};

    fn read(parameters: &[(&str, ParameterChoice)]) -> Result<Parameters, RequestError> {
        let parameter = |choice: &ParameterChoice| InferParameter { parameter_choice: Some(choice.clone()) };
        let named = parameters.iter().map(|(name, choice)| ((*name).to_owned(), parameter(choice)));
        Parameters::read(&named.collect())
    }

    #[test]
    fn a_timeout_is_read_in_microseconds_and_zero_means_none() {
        let timeout = |choice| read(&[("timeout", choice)]).unwrap().timeout;
        assert_eq!(timeout(Int64Param(1500)), Some(Duration::from_micros(1500)));
        assert_eq!(timeout(Uint64Param(u64::MAX)), Some(Duration::from_micros(u64::MAX)));
        assert_eq!(timeout(Int64Param(0)), None);
    }

    #[test]
    fn truncation_is_on_unless_refused() {
        let unsaid = Parameters {
            timeout: None,
            priority: Priority::Normal,
            truncation: Truncation::Truncate,
            cache: true,
            prompt: None,
            vectors: VectorOptions::default(),
        };
        assert_eq!(read(&[]).unwrap(), unsaid);
        assert_eq!(read(&[("truncate", BoolParam(true))]).unwrap().truncation, Truncation::Truncate);
        assert_eq!(read(&[("truncate", BoolParam(false))]).unwrap().truncation, Truncation::Refuse);
    }

    #[test]
    fn a_cache_may_answer_unless_it_is_refused() {
        assert!(read(&[("cache", BoolParam(true))]).unwrap().cache);
        assert!(!read(&[("cache", BoolParam(false))]).unwrap().cache);
    }

    #[test]
    fn prompts_and_options_of_vectors_are_read_by_their_names() {
        let asked = [
            ("prompt", StringParam("query".into())),
            ("dimensions", Int64Param(64)),
            ("normalize", BoolParam(false)),
            ("output_dtype", StringParam("int8".into())),
        ];
        let Parameters { prompt, vectors, .. } = read(&asked).unwrap();
        assert_eq!(prompt.as_deref(), Some("query"));
        assert_eq!(
            vectors,
            VectorOptions { dimensions: Some(64), normalize: Some(false), output_dtype: OutputDtype::Int8 }
        );
        let refused = read(&[("prompt", BoolParam(true))]).unwrap_err().to_string();
        assert_eq!(refused, "parameter 'prompt' is the bool true, but must be a text");
        let expected = "but must be float32, float16, int8, uint8, binary or ubinary";
        let refused = read(&[("output_dtype", StringParam("int4".into()))]).unwrap_err().to_string();
        assert_eq!(refused, format!("parameter 'output_dtype' is the text \"int4\", {expected}"));
        let refused = read(&[("output_dtype", Int64Param(8))]).unwrap_err().to_string();
        assert_eq!(refused, format!("parameter 'output_dtype' is the integer 8, {expected}"));
        assert!(read(&[("dimensions", Int64Param(-1))]).unwrap_err().to_string().contains("'dimensions'"));
    }

    #[test]
    fn priorities_are_numbered_as_in_triton() {
        let levels = [Priority::Normal, Priority::High, Priority::Normal, Priority::Low];
        for (level, priority) in (0..).zip(levels) {
            assert_eq!(read(&[("priority", Uint64Param(level))]).unwrap().priority, priority);
            assert_eq!(read(&[("priority", Int64Param(level.cast_signed()))]).unwrap().priority, priority);
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_name_and_what_is_allowed() {
        let table = [
            (
                ("timeout", Int64Param(-1)),
                "parameter 'timeout' is the integer -1, but must be a whole number from 0 on",
            ),
            (
                ("timeout", DoubleParam(0.5)),
                "parameter 'timeout' is the number 0.5, but must be a whole number from 0 on",
            ),
            (
                ("priority", Uint64Param(4)),
                "parameter 'priority' is the integer 4, but must be 1 (high), 2 (normal), 3 (low) or 0 (the default)",
            ),
            (("truncate", StringParam("no".into())), "parameter 'truncate' is the text \"no\", but must be a bool"),
        ];
        for (parameter, message) in table {
            assert_eq!(read(&[parameter]).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn sequences_and_unknown_parameters_are_refused_and_those_that_clients_send_by_themselves_are_ignored() {
        let refused = read(&[("sequence_id", Int64Param(7))]);
        assert!(matches!(refused, Err(RequestError::Sequence { name }) if name == "sequence_id"));
        for name in ["triton_enable_empty_final_response", "binary_data_output", "headers", "content_type"] {
            assert_eq!(read(&[(name, BoolParam(true))]).unwrap(), read(&[]).unwrap(), "{name}");
        }
        let refused = read(&[("top_k", Int64Param(1)), ("precision", StringParam("int8".into()))]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "parameter 'precision' is not known; known are: cache, dimensions, normalize, output_dtype, priority, prompt, timeout, truncate"
        );
        assert!(read(&[("Timeout", Int64Param(1))]).is_err(), "names are exact");
    }
}
