//! Excerpts: the part of an input that an error message repeats.

use std::fmt::{self, Display, Formatter, Write};

/// Most bytes that a message repeats of a name, a shape or any other value from outside.
///
/// gRPC sends errors in headers, where a byte may take three; clients accept 8 KiB of headers.
pub const MAX_EXCERPT_BYTES: usize = 160;

/// The first [`MAX_EXCERPT_BYTES`] of `value` as it is displayed, and `…` if more follows.
///
/// The rest is never formatted, so an error about a large input costs no more than one about a small input.
///
/// ```
/// use sconce_models::excerpt;
///
/// assert_eq!(excerpt("bert").to_string(), "bert");
/// assert_eq!(excerpt(&format_args!("{:?}", [1, 2])).to_string(), "[1, 2]");
/// assert!(excerpt(&"a".repeat(1 << 20)).to_string().ends_with("aaa…"));
/// ```
pub fn excerpt<T: Display + ?Sized>(value: &T) -> Excerpt<'_, T> {
    Excerpt { value, max: MAX_EXCERPT_BYTES }
}

/// A value that is displayed only up to a number of bytes; made by [`excerpt`].
#[derive(Debug, Clone, Copy)]
pub struct Excerpt<'a, T: ?Sized> {
    value: &'a T,
    max: usize,
}

impl<T: ?Sized> Excerpt<'_, T> {
    /// Displays at most `max` bytes instead.
    #[must_use]
    pub fn of_at_most(self, max: usize) -> Self {
        Self { max, ..self }
    }
}

impl<T: Display + ?Sized> Display for Excerpt<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut beginning = Beginning { out: f, left: self.max, is_cut: false };
        match write!(beginning, "{}", self.value) {
            // This error stopped the formatting of the value.
            Err(_) if beginning.is_cut => f.write_str("…"),
            written => written,
        }
    }
}

/// A writer that passes on text up to a number of bytes, and fails at the first byte beyond it.
struct Beginning<'a, 'b> {
    out: &'a mut Formatter<'b>,
    left: usize,
    is_cut: bool,
}

impl Write for Beginning<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(self.left);
        self.out.write_str(&text[..fits])?;
        self.left -= fits;
        self.is_cut = fits < text.len();
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_displayed_whole() {
        for text in ["", "a", &"a".repeat(MAX_EXCERPT_BYTES), &"é".repeat(MAX_EXCERPT_BYTES / 2)] {
            assert_eq!(excerpt(text).to_string(), *text);
        }
    }

    #[test]
    fn what_does_not_fit_ends_at_a_character_and_says_so() {
        let long = "é".repeat(MAX_EXCERPT_BYTES);
        assert_eq!(excerpt(&long).to_string(), format!("{}…", "é".repeat(MAX_EXCERPT_BYTES / 2)));
        assert_eq!(excerpt(&long).of_at_most(3).to_string(), "é…");
        let shape = vec![7; 1000];
        let shown = excerpt(&format_args!("{shape:?}")).to_string();
        assert!(shown.starts_with("[7, 7, ") && shown.ends_with('…') && shown.len() < MAX_EXCERPT_BYTES + 4, "{shown}");
    }
}
