//! The sizes that a `config.json` may give.

use std::ops::RangeInclusive;

/// More than any real one, and far from where products of sizes overflow.
const ALLOWED: RangeInclusive<usize> = 1..=1 << 16;

/// Refuses the first size that is out of range; each comes with the name of its field.
pub(crate) fn check(sizes: &[(&str, usize)]) -> Result<(), String> {
    match sizes.iter().find(|(_, size)| !ALLOWED.contains(size)) {
        None => Ok(()),
        Some((field, size)) => {
            Err(format!("field '{field}' is {size}; it must be between {} and {}", ALLOWED.start(), ALLOWED.end()))
        }
    }
}
