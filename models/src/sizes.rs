//! The sizes that a `config.json` may give.

use std::ops::RangeInclusive;

/// More than any real one.
const ALLOWED: RangeInclusive<usize> = 1..=1 << 16;
/// The same for tables, which have a row for each word of many languages.
const ALLOWED_ROWS: RangeInclusive<usize> = 1..=1 << 24;

/// Refuses the first size that is out of range; each comes with the name of its field.
pub(crate) fn check(sizes: &[(&str, usize)]) -> Result<(), String> {
    check_within(&ALLOWED, sizes)
}

/// As [`check`], for numbers of rows of tables.
pub(crate) fn check_rows(sizes: &[(&str, usize)]) -> Result<(), String> {
    check_within(&ALLOWED_ROWS, sizes)
}

fn check_within(allowed: &RangeInclusive<usize>, sizes: &[(&str, usize)]) -> Result<(), String> {
    match sizes.iter().find(|(_, size)| !allowed.contains(size)) {
        None => Ok(()),
        Some((field, size)) => {
            Err(format!("field '{field}' is {size}; it must be between {} and {}", allowed.start(), allowed.end()))
        }
    }
}
