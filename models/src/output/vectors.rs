//! Answers that are vectors: sparse ones, and one of each token.

use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use super::OutputDtype;

/// The elements of vectors, their length and their type, as one request asks for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VectorOptions {
    /// Elements that are kept, from the first on (Kusupati et al., arXiv:2205.13147); a vector that is scaled to length
    /// 1 is scaled after that. `None`: as many as the model gives.
    pub dimensions: Option<usize>,
    /// True to scale vectors to length 1; `None`: as the model does.
    pub normalize: Option<bool>,
    /// The type of the elements, to which [`Output::converted`](crate::Output::converted) converts them at last.
    pub output_dtype: OutputDtype,
}

/// A vector with an element for each word of a vocabulary, most of which are 0. As JSON it is a list of
/// `{"index": …, "value": …}`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparseVector {
    /// The numbers of the words whose elements are not 0, ascending.
    pub indices: Vec<u32>,
    /// Their elements.
    pub values: Vec<f32>,
}

impl SparseVector {
    /// Reads the row of a head of [`HeadRows::Sparse`](crate::HeadRows::Sparse): the number and the element of each word,
    /// by turns.
    pub(crate) fn of_row(row: &[f32]) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the head made them of numbers")]
        let index = |pair: &[f32; 2]| pair[0] as u32;
        let (pairs, _) = row.as_chunks();
        Self { indices: pairs.iter().map(index).collect(), values: pairs.iter().map(|pair| pair[1]).collect() }
    }
}

impl SparseVector {
    /// The `max` greatest elements.
    pub(crate) fn with_greatest(self, max: usize) -> Self {
        let Self { indices, values } = self;
        if indices.len() <= max {
            return Self { indices, values };
        }
        let mut kept: Vec<usize> = (0..indices.len()).collect();
        kept.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        kept.truncate(max);
        kept.sort_unstable();
        let of = |at: &usize| (indices[*at], values[*at]);
        let (indices, values) = kept.iter().map(of).unzip();
        Self { indices, values }
    }
}

impl Serialize for SparseVector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Element {
            index: u32,
            value: f32,
        }
        let mut object = serializer.serialize_map(Some(1))?;
        let pairs = self.indices.iter().zip(&self.values);
        let elements: Vec<_> = pairs.map(|(&index, &value)| Element { index, value }).collect();
        object.serialize_entry("sparse", &elements)?;
        object.end()
    }
}

/// A vector for each token of a text, special tokens included.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenVectors {
    /// Elements of a vector.
    pub dimensions: usize,
    /// The elements of all vectors, end to end.
    pub values: Vec<f32>,
}

impl TokenVectors {
    /// The number of tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.values.len() / self.dimensions.max(1)
    }

    /// The vector of each token.
    pub fn vectors(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimensions.max(1))
    }
}

impl Serialize for TokenVectors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Rows<'a>(&'a TokenVectors);
        impl Serialize for Rows<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut rows = serializer.serialize_seq(Some(self.0.tokens()))?;
                self.0.vectors().try_for_each(|vector| rows.serialize_element(vector))?;
                rows.end()
            }
        }
        let mut object = serializer.serialize_map(Some(1))?;
        object.serialize_entry("token_embeddings", &Rows(self))?;
        object.end()
    }
}

/// Scales a vector to length 1.
pub(crate) fn scale_to_length_one(vector: &mut [f32]) {
    /// The smallest divisor, as in `torch.nn.functional.normalize`: zeros stay zeros.
    const MIN_LENGTH: f32 = 1e-12;
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(MIN_LENGTH);
    for x in vector {
        *x /= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_elements_stay_in_the_order_of_their_words() {
        let of = |max| SparseVector::of_row(&[1.0, 0.5, 4.0, 0.25, 9.0, 2.0]).with_greatest(max);
        assert_eq!(of(2), SparseVector { indices: vec![1, 9], values: vec![0.5, 2.0] });
        assert_eq!(of(3).indices, [1, 4, 9]);
        assert_eq!(of(0), SparseVector::default());
    }
}
