//! Features: inputs as a [`Processor`](crate::Processor) prepares them for the network.

/// One prepared input.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Features {
    /// Token ids and their segments (`token_type_ids`), of equal length, special tokens included.
    Tokens {
        /// Rows of the table of words.
        input_ids: Vec<u32>,
        /// The segment of each token.
        token_type_ids: Vec<u32>,
    },
    /// Small integers, such as byte values with 256 as padding.
    Symbols(Vec<u16>),
    /// Floats in the order that the network reads them, such as the pixels of an image.
    Values(Vec<f32>),
}

impl Features {
    /// The cost of this input in the unit that bounds a batch: tokens for text, 1 for inputs of fixed size.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Tokens { input_ids, .. } => input_ids.len(),
            Self::Symbols(_) | Self::Values(_) => 1,
        }
    }

    /// Tokens, if these features are tokens.
    #[must_use]
    pub fn tokens(&self) -> Option<usize> {
        match self {
            Self::Tokens { input_ids, .. } => Some(input_ids.len()),
            Self::Symbols(_) | Self::Values(_) => None,
        }
    }

    /// Bytes of memory, the enum itself included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let elements = match self {
            Self::Tokens { input_ids, token_type_ids } => {
                size_of_val(&input_ids[..]) + size_of_val(&token_type_ids[..])
            }
            Self::Symbols(symbols) => size_of_val(&symbols[..]),
            Self::Values(values) => size_of_val(&values[..]),
        };
        size_of::<Self>() + elements
    }

    /// The kind of these features, worded for error messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tokens { .. } => "tokens",
            Self::Symbols(_) => "symbols",
            Self::Values(_) => "values",
        }
    }
}

/// A prepared input.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The network's input.
    pub features: Features,
    /// True if the input was longer than the model can take, and part of it was left out.
    pub truncated: bool,
}
