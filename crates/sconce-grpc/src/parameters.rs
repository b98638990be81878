//! Parameters as protobuf carries them.

use std::collections::HashMap;

use sconce_server::{AnswerFact, ParameterMap, ParameterValue};

use crate::proto::InferParameter;
use crate::proto::infer_parameter::ParameterChoice;

/// The parameters of a message.
pub(crate) struct ProtoParameters<'a>(pub(crate) &'a HashMap<String, InferParameter>);

impl ParameterMap for ProtoParameters<'_> {
    fn get(&self, name: &str) -> Option<ParameterValue<'_>> {
        let parameter = self.0.get(name)?;
        Some(match &parameter.parameter_choice {
            None => ParameterValue::Unset,
            Some(ParameterChoice::BoolParam(value)) => ParameterValue::Bool(*value),
            Some(ParameterChoice::Int64Param(value)) => ParameterValue::Integer((*value).into()),
            Some(ParameterChoice::Uint64Param(value)) => ParameterValue::Integer((*value).into()),
            Some(ParameterChoice::DoubleParam(value)) => ParameterValue::Number(*value),
            Some(ParameterChoice::StringParam(value)) => ParameterValue::Text(value),
        })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// A parameter of a response.
pub(crate) fn of_fact(fact: AnswerFact) -> InferParameter {
    let parameter_choice = Some(match fact {
        AnswerFact::Bool(value) => ParameterChoice::BoolParam(value),
        AnswerFact::Text(text) => ParameterChoice::StringParam(text),
    });
    InferParameter { parameter_choice }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sconce::{OutputDtype, Precision, Priority, Truncation, VectorOptions};
    use sconce_server::{Parameters, RequestError};

    use super::*;
    use ParameterChoice::{BoolParam, DoubleParam, Int64Param, StringParam, Uint64Param};

    fn read(parameters: &[(&str, ParameterChoice)]) -> Result<Parameters, RequestError> {
        let parameter = |choice: &ParameterChoice| InferParameter { parameter_choice: Some(choice.clone()) };
        let named = parameters.iter().map(|(name, choice)| ((*name).to_owned(), parameter(choice)));
        Parameters::read(&ProtoParameters(&named.collect()))
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
            precision: None,
            partial: false,
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
        assert_eq!(read(&[("precision", StringParam("INT8".into()))]).unwrap().precision, Some(Precision::Int8));
        let refused = read(&[("precision", StringParam("fast".into()))]).unwrap_err().to_string();
        assert_eq!(
            refused,
            "parameter 'precision' is the text \"fast\", but must be f32, f16, bf16, int8, q8_0 or q4k"
        );
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
        let refused = read(&[("top_k", Int64Param(1)), ("quality", StringParam("high".into()))]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "parameter 'quality' is not known; known are: cache, dimensions, normalize, output_dtype, partial, precision, priority, prompt, timeout, truncate"
        );
        assert!(read(&[("Timeout", Int64Param(1))]).is_err(), "names are exact");
    }
}
