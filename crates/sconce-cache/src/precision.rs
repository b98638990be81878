//! Answers in another precision than the requested one.

/// Policy for answers in a higher precision than the requested one. A lower precision never answers for a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrossPrecision {
    /// Only the requested precision answers.
    #[default]
    Never,
    /// Every higher precision answers too: the answer is at least as accurate, and tells the precision that made it.
    Higher,
}

impl CrossPrecision {
    /// The precisions that may answer instead of `asked`, nearest first. `highest_first` lists the precisions of the
    /// model; if `asked` is not among them, nothing else answers for it.
    ///
    /// ```
    /// use sconce_cache::CrossPrecision;
    ///
    /// let precisions = ["f32", "int8", "q4k"];
    /// let allowed = |asked| CrossPrecision::Higher.instead_of(asked, &precisions).collect::<Vec<_>>();
    /// assert_eq!(allowed("q4k"), ["int8", "f32"]);
    /// assert!(allowed("f32").is_empty());
    /// assert_eq!(CrossPrecision::Never.instead_of("q4k", &precisions).count(), 0);
    /// ```
    pub fn instead_of<'a>(self, asked: &str, highest_first: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
        let higher = match self {
            Self::Never => 0,
            Self::Higher => highest_first.iter().position(|precision| *precision == asked).unwrap_or(0),
        };
        highest_first[..higher].iter().rev().copied()
    }
}
