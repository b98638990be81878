//! What a device takes: inputs made ready by a [`Processor`](crate::Processor).

/// One prepared input.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Features {
    /// Token ids with their segment (`token_type_ids`), both of one length, special tokens included.
    Tokens {
        /// Row numbers of the embedding table.
        input_ids: Vec<u32>,
        /// Segment of each token.
        token_type_ids: Vec<u32>,
    },
    /// Small integers, for instance byte values with 256 as padding.
    Symbols(Vec<u16>),
    /// Real values in the order the network reads them, for instance the pixels of an image.
    Values(Vec<f32>),
}

impl Features {
    /// The cost of this input in the unit that bounds a batch: tokens for text, 1 for inputs of a fixed size.
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

    /// Bytes of memory that they take, their own place included.
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

    /// What these features are, in the words of an error message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tokens { .. } => "tokens",
            Self::Symbols(_) => "symbols",
            Self::Values(_) => "values",
        }
    }
}

/// Features with what preparing did to the input.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// What the network takes.
    pub features: Features,
    /// Whether the input was longer than the model can take and its end was left out.
    pub truncated: bool,
}
