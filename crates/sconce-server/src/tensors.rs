//! Checks the input tensors of a request, and cuts their elements into one input per item.

use sconce::{Datatype, Elements, Input, InputSpec, InputTensor};

use crate::error::RequestError;
use crate::numbers::NumberType;

/// Names that the helpers of clients make up for an input: kserve's, mlserver's codecs', Triton's of models from `PyTorch`.
const MADE_UP: [&str; 8] = ["input-0", "input_0", "input__0", "INPUT__0", "INPUT0", "predict", "inputs", "input"];

/// The description of a tensor of a request.
#[derive(Debug, Clone, Copy)]
pub struct TensorHead<'a> {
    /// Its name.
    pub name: &'a str,
    /// The name of its element type.
    pub datatype: &'a str,
    /// Its dimensions, the items first.
    pub shape: &'a [i64],
}

/// The element type of a tensor as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentDatatype {
    /// `BYTES`.
    Bytes,
    /// Any number.
    Number(NumberType),
}

impl SentDatatype {
    /// The protocol's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "BYTES",
            Self::Number(number) => number.name(),
        }
    }
}

/// The meaning of a tensor's datatype and shape.
#[derive(Debug, Clone, Copy)]
pub struct TensorLayout {
    /// The name that the model has for the tensor.
    pub name: &'static str,
    /// The element type as it was sent.
    pub sent: SentDatatype,
    /// The element type that the model reads.
    pub datatype: Datatype,
    /// The items.
    pub items: usize,
    /// The elements of the whole tensor.
    pub elements: usize,
}

/// For each tensor that a model knows, the index of the one in the request; `None` for an optional one that is not there.
/// A model with one input also takes the names that clients make up.
///
/// # Errors
/// [`RequestError`] names an input that is unknown, missing or there twice.
pub fn match_inputs<'a>(
    given: &(impl Iterator<Item = &'a str> + Clone),
    known: &[InputTensor],
) -> Result<Vec<Option<usize>>, RequestError> {
    let mut required = known.iter().filter(|known| !known.optional);
    if let (Some(_), None, Some(only), None) =
        (required.next(), required.next(), given.clone().next(), given.clone().nth(1))
        && MADE_UP.contains(&only)
    {
        return Ok(known.iter().map(|known| (!known.optional).then_some(0)).collect());
    }
    if let Some(name) = given.clone().find(|name| known.iter().all(|known| known.name != *name)) {
        let known = known.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
        return Err(RequestError::UnknownInput { name: name.to_owned(), known });
    }
    let find = |InputTensor { name, optional, .. }: &InputTensor| {
        let mut found = given.clone().enumerate().filter(|(_, given)| given == name).map(|(at, _)| at);
        match (found.next(), found.next()) {
            (None, _) if *optional => Ok(None),
            (None, _) => Err(RequestError::MissingInput { name }),
            (at, None) => Ok(at),
            (_, Some(_)) => Err(RequestError::DuplicateInput { name }),
        }
    };
    known.iter().map(find).collect()
}

/// Takes the items out of the tensors of a request to a model that reads `spec`, `matched` by [`match_inputs`] to those
/// that it knows. `head` gives the description of a tensor of the request, and `read` its elements.
///
/// # Errors
/// [`RequestError`] if a tensor does not fit the model, or has more than `max_items`.
pub fn take_items<'a>(
    spec: &InputSpec,
    known: &[InputTensor],
    matched: &[Option<usize>],
    max_items: usize,
    head: impl Fn(usize) -> TensorHead<'a>,
    mut read: impl FnMut(usize, TensorLayout) -> Result<Elements, RequestError>,
) -> Result<Vec<Input>, RequestError> {
    let (mut items, mut all) = (None, Vec::with_capacity(known.len()));
    for (described, at) in known.iter().zip(matched) {
        let Some(at) = *at else { continue };
        let layout = TensorLayout::read(head(at), described, max_items)?;
        let first = *items.get_or_insert(layout.items);
        if first != layout.items {
            return Err(RequestError::UnlikeItems { name: described.name, items: layout.items, first });
        }
        all.push(read(at, layout)?);
    }
    Ok(spec.kind.inputs(all, items.unwrap_or(0)))
}

impl TensorLayout {
    fn read(tensor: TensorHead<'_>, described: &InputTensor, max_items: usize) -> Result<Self, RequestError> {
        let (sent, datatype) = datatypes(tensor, described)?;
        let wrong_shape = || RequestError::WrongShape {
            name: described.name,
            got: tensor.shape.to_vec(),
            expected: expected_shape(datatype, described),
            datatype: datatype.name(),
        };
        // Each dimension is at least 1: no items, or an item without elements, have no answer.
        let size = |dimension: &i64| usize::try_from(*dimension).ok().filter(|size| *size > 0);
        let shape: Vec<usize> = tensor.shape.iter().map(size).collect::<Option<_>>().ok_or_else(wrong_shape)?;
        let (&items, item_shape) = shape.split_first().ok_or_else(wrong_shape)?;
        let fits = match (&described.shape, datatype) {
            (Some(shape), _) => item_shape == shape,
            (None, Datatype::Bytes) => matches!(item_shape, [] | [1]),
            (None, _) => item_shape.len() == 1,
        };
        if !fits {
            return Err(wrong_shape());
        }
        if items > max_items {
            return Err(RequestError::TooManyItems { items, max: max_items });
        }
        let elements = items.checked_mul(item_shape.iter().product()).ok_or_else(wrong_shape)?;
        Ok(Self { name: described.name, sent, datatype, items, elements })
    }

    /// Checks the number of elements that came.
    ///
    /// # Errors
    /// [`RequestError::WrongElementCount`] if the shape needs another number.
    pub fn check_count(&self, got: usize) -> Result<(), RequestError> {
        if got == self.elements {
            return Ok(());
        }
        Err(RequestError::WrongElementCount { name: self.name, got, expected: self.elements })
    }
}

/// The element type that was sent, and the one of those that the model reads into which it converts: itself, or for
/// numbers `FP32`, else for whole numbers `UINT8`.
fn datatypes(tensor: TensorHead<'_>, described: &InputTensor) -> Result<(SentDatatype, Datatype), RequestError> {
    let reads = |datatype: Datatype| described.datatypes.contains(&datatype);
    let found = described.datatypes.iter().copied().find(|datatype| datatype.name() == tensor.datatype);
    let sent = match tensor.datatype {
        "BYTES" => Some(SentDatatype::Bytes),
        name => NumberType::named(name).map(SentDatatype::Number),
    };
    let converted = match sent {
        Some(SentDatatype::Number(_)) if reads(Datatype::Fp32) => Some(Datatype::Fp32),
        Some(SentDatatype::Number(number)) if number.is_whole() && reads(Datatype::Uint8) => Some(Datatype::Uint8),
        _ => None,
    };
    sent.zip(found.or(converted)).ok_or_else(|| RequestError::WrongDatatype {
        name: described.name,
        got: tensor.datatype.to_owned(),
        expected: described.datatypes.iter().map(|datatype| datatype.name()).collect::<Vec<_>>().join(" or "),
    })
}

fn expected_shape(datatype: Datatype, described: &InputTensor) -> String {
    match (&described.shape, datatype) {
        (Some(shape), _) => {
            let sizes: Vec<_> = shape.iter().map(ToString::to_string).collect();
            format!("[items, {}]", sizes.join(", "))
        }
        (None, Datatype::Bytes) => "[items] or [items, 1]".to_owned(),
        (None, _) => "[items, length]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sconce::InputKind;

    const TEXT: InputKind = InputKind::Text { max_tokens: 64 };
    const PAIR: InputKind = InputKind::Pair { max_tokens: 64 };

    fn matched(kind: &InputKind, given: &[&str]) -> Result<Vec<Option<usize>>, String> {
        match_inputs(&given.iter().copied(), &kind.tensors("text")).map_err(|error| error.to_string())
    }

    #[test]
    fn inputs_are_found_by_name_and_the_only_one_also_by_a_name_that_clients_make_up() {
        assert_eq!(matched(&TEXT, &["text"]), Ok(vec![Some(0)]));
        assert_eq!(matched(&PAIR, &["text_pair", "text"]), Ok(vec![Some(1), Some(0)]));
        assert_eq!(matched(&PAIR, &["text"]), Ok(vec![Some(0), None]));
        for name in MADE_UP {
            assert_eq!(matched(&TEXT, &[name]), Ok(vec![Some(0)]));
            assert_eq!(matched(&PAIR, &[name]), Ok(vec![Some(0), None]));
        }
        let two = matched(&PAIR, &["input-0", "text_pair"]).unwrap_err();
        assert_eq!(two, "input 'input-0' is not known; the model takes: text, text_pair");
    }

    fn layout(datatype: &str, shape: &[i64], kind: &InputKind) -> Result<(SentDatatype, Datatype, usize), String> {
        let tensors = kind.tensors("x");
        let read = TensorLayout::read(TensorHead { name: "x", datatype, shape }, &tensors[0], 16);
        read.map(|layout| (layout.sent, layout.datatype, layout.elements)).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_of_other_types_are_read_as_a_type_of_the_models() {
        let image = InputKind::Image { shape: [1, 2, 2] };
        let number = SentDatatype::Number;
        let shape = [3, 1, 2, 2];
        assert_eq!(layout("FP64", &shape, &image), Ok((number(NumberType::Fp64), Datatype::Fp32, 12)));
        assert_eq!(layout("INT64", &shape, &image), Ok((number(NumberType::Int64), Datatype::Fp32, 12)));
        assert_eq!(layout("UINT8", &shape, &image), Ok((number(NumberType::Uint8), Datatype::Uint8, 12)));
        let content = InputKind::Content;
        assert_eq!(layout("INT32", &[1, 9], &content), Ok((number(NumberType::Int32), Datatype::Uint8, 9)));
        let refused = layout("FP32", &[1, 9], &content).unwrap_err();
        assert_eq!(refused, "input 'x' has datatype 'FP32', but the model takes BYTES or UINT8");
        assert!(layout("INT32", &[1], &TEXT).is_err());
    }
}
