//! Computes from the bytes of a message the memory that it takes when it is decoded.
//!
//! An empty `InferInputTensor` has two bytes on the wire and some 300 in memory, so a message within its limit could take a
//! hundred times as much when it is decoded.

use prost::encoding::{WireType, decode_key, decode_varint};

use crate::proto::InferParameter;
use crate::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};

/// Factor of room in a vector that grows by doubling.
const GROWTH: usize = 2;
/// Bytes of an entry of a parameter map, with the map's spare room and its byte beside each entry.
const ENTRY: usize = GROWTH * (size_of::<(String, InferParameter)>() + 1);

/// A message within a `ModelInferRequest` whose fields are counted.
#[derive(Clone, Copy)]
enum Message {
    Request,
    Input,
    Output,
    Contents,
}

/// The form of a decoded field in memory.
enum Form {
    /// Bytes with an allocation of their own, and `beside` further bytes for each field.
    Bytes { beside: usize },
    /// Packed integers of `width` bytes each.
    Integers { width: usize },
    /// Packed numbers of the same length as on the wire.
    Numbers,
    /// A message, with `beside` bytes besides those of its own fields.
    Messages { of: Message, beside: usize },
}

/// An upper bound of the bytes that a `ModelInferRequest` takes when it is decoded and cut into items. The count stops
/// above `max`.
pub(crate) fn decoded_bytes(request: &[u8], max: usize) -> usize {
    let mut bytes = 0;
    // A malformed message is counted up to its fault, where decoding it fails, too.
    let _ = count(Message::Request, request, max, &mut bytes);
    bytes
}

fn count(message: Message, mut rest: &[u8], max: usize, bytes: &mut usize) -> Option<()> {
    while !rest.is_empty() && *bytes <= max {
        let (field, wire) = decode_key(&mut rest).ok()?;
        let form = form(message, field);
        match wire {
            WireType::Varint => {
                decode_varint(&mut rest).ok()?;
                *bytes += GROWTH * size_of::<u64>();
            }
            WireType::ThirtyTwoBit | WireType::SixtyFourBit => {
                let length = if wire == WireType::ThirtyTwoBit { 4 } else { 8 };
                rest = rest.get(length..)?;
                *bytes += GROWTH * length;
            }
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let (value, after) = rest.split_at_checked(length)?;
                rest = after;
                match form {
                    Some(Form::Bytes { beside }) => *bytes += beside + length,
                    Some(Form::Integers { width }) => {
                        let integers = value.iter().filter(|byte| **byte < 0x80).count();
                        *bytes += GROWTH * width * integers;
                    }
                    Some(Form::Numbers) => *bytes += GROWTH * length,
                    Some(Form::Messages { of, beside }) => {
                        *bytes += beside;
                        count(of, value, max, bytes)?;
                    }
                    // Decoding drops unknown fields.
                    None => {}
                }
            }
            // Decoding drops groups, too; no client sends them.
            WireType::StartGroup | WireType::EndGroup => return None,
        }
    }
    Some(())
}

/// The form of a length-delimited field.
fn form(message: Message, field: u32) -> Option<Form> {
    let text = Form::Bytes { beside: 0 };
    let parameter = Form::Bytes { beside: ENTRY };
    Some(match (message, field) {
        (Message::Request, 1..=3) | (Message::Input, 1 | 2) | (Message::Output, 1) => text,
        (Message::Request | Message::Input, 4) | (Message::Output, 2) => parameter,
        (Message::Request, 5) => Form::Messages { of: Message::Input, beside: GROWTH * size_of::<InferInputTensor>() },
        (Message::Request, 6) => {
            Form::Messages { of: Message::Output, beside: GROWTH * size_of::<InferRequestedOutputTensor>() }
        }
        // Raw contents stay in the message until they are copied into items.
        (Message::Request, 7) | (Message::Contents, 8) => Form::Bytes { beside: GROWTH * size_of::<Vec<u8>>() },
        (Message::Input, 3) | (Message::Contents, 3 | 5) => Form::Integers { width: 8 },
        (Message::Input, 5) => Form::Messages { of: Message::Contents, beside: 0 },
        (Message::Contents, 1) => Form::Integers { width: 1 },
        (Message::Contents, 2 | 4) => Form::Integers { width: 4 },
        (Message::Contents, 6 | 7) => Form::Numbers,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::infer_parameter::ParameterChoice;
    use crate::proto::{InferTensorContents, ModelInferRequest};

    fn measured(request: &ModelInferRequest) -> usize {
        decoded_bytes(&request.encode_to_vec(), usize::MAX)
    }

    fn typed(contents: InferTensorContents) -> ModelInferRequest {
        let input = InferInputTensor { contents: Some(contents), ..Default::default() };
        ModelInferRequest { inputs: vec![input], ..Default::default() }
    }

    #[test]
    fn what_is_small_on_the_wire_counts_by_its_size_in_memory() {
        let many = 1000;
        let parameter = |value| InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(value)) };
        let parameters = (0..1000).map(|value| (value.to_string(), parameter(value))).collect();
        let input = InferInputTensor { parameters, ..Default::default() };
        let table = [
            (ModelInferRequest { inputs: vec![InferInputTensor::default(); many], ..Default::default() }, 300),
            (
                ModelInferRequest { outputs: vec![InferRequestedOutputTensor::default(); many], ..Default::default() },
                70,
            ),
            (ModelInferRequest { inputs: vec![input], ..Default::default() }, 48),
            (typed(InferTensorContents { bytes_contents: vec![Vec::new(); many], ..Default::default() }), 24),
            (typed(InferTensorContents { int64_contents: vec![1; many], ..Default::default() }), 8),
            (typed(InferTensorContents { uint_contents: vec![1 << 30; many], ..Default::default() }), 4),
            (typed(InferTensorContents { fp32_contents: vec![1.0; many], ..Default::default() }), 4),
            (typed(InferTensorContents { fp64_contents: vec![1.0; many], ..Default::default() }), 8),
            (ModelInferRequest { raw_input_contents: vec![vec![0; many].into()], ..Default::default() }, 1),
        ];
        for (request, each) in table {
            let (bytes, least) = (measured(&request), many * each);
            assert!((least..4 * least + 2000).contains(&bytes), "{bytes} bytes, at least {least}: {request:.100?}");
        }
    }

    #[test]
    fn counting_ends_above_the_bound_and_where_a_message_is_malformed() {
        let request = ModelInferRequest { inputs: vec![InferInputTensor::default(); 1 << 16], ..Default::default() };
        let encoded = request.encode_to_vec();
        assert!((1000..2000).contains(&decoded_bytes(&encoded, 1000)));
        assert_eq!(decoded_bytes(b"\x2a\x05ab", 1000), 0, "cut short");
        assert_eq!(decoded_bytes(b"\xff\xff\xff\xff\xff\xff", 1000), 0, "no field");
        assert_eq!(decoded_bytes(b"", 1000), 0);
    }
}
