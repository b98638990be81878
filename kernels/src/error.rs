//! What a kernel refuses.

/// Arguments that do not fit together. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The values are not a whole number of rows as long as the bias.
    #[error("{values} values are not a whole number of rows of {bias}, the length of the bias")]
    RowLength {
        /// Elements of the values.
        values: usize,
        /// Elements of the bias.
        bias: usize,
    },
}
