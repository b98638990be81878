//! Amounts of memory, as people write them.

use std::num::NonZeroU64;
use std::str::FromStr;

/// An amount of memory: `256` (MiB), `512MiB`, `1GB`, `1.5g`. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemorySize(NonZeroU64);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MemorySizeError {
    #[error("'{0}' is not an amount of memory; give MiB, or a number with its unit: 256, 512MiB, 1GB, 1.5GiB")]
    Form(String),
    #[error("'{0}' leaves no memory at all; give at least 1 (MiB), or leave it out")]
    Zero(String),
    #[error("'{0}' is more than can be counted in 64 bits of bytes; give less")]
    TooLarge(String),
}

impl MemorySize {
    pub(crate) fn bytes(self) -> NonZeroU64 {
        self.0
    }
}

impl FromStr for MemorySize {
    type Err = MemorySizeError;

    fn from_str(size: &str) -> Result<Self, MemorySizeError> {
        let form = || MemorySizeError::Form(size.to_owned());
        let (number, unit) = size.trim().split_at(
            size.trim().find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(size.trim().len()),
        );
        let unit = bytes_in(unit.trim_start()).ok_or_else(form)?;
        let bytes = match number.parse::<u64>() {
            Ok(number) => number.checked_mul(unit),
            // Digits and nothing else: too many of them.
            Err(_) if !number.is_empty() && !number.contains('.') => None,
            Err(_) => rounded(number.parse::<f64>().map_err(|_| form())? * unit as f64),
        };
        let bytes = bytes.ok_or_else(|| MemorySizeError::TooLarge(size.to_owned()))?;
        NonZeroU64::new(bytes).map(Self).ok_or_else(|| MemorySizeError::Zero(size.to_owned()))
    }
}

/// Bytes in a unit, which is MiB if empty; `K`, `M`, `G` and `T` alone are powers of 1,024, as for Docker and the JVM.
fn bytes_in(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "kb" => 1_000,
        "k" | "kib" => 1 << 10,
        "mb" => 1_000_000,
        "" | "m" | "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "g" | "gib" => 1 << 30,
        "tb" => 1_000_000_000_000,
        "t" | "tib" => 1 << 40,
        _ => return None,
    })
}

/// Rounds to a whole number of bytes; `None` if that is 2^63 or more.
fn rounded(bytes: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between zero and 2^63")]
    (bytes < (1_u64 << 63) as f64).then_some(bytes.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let table = [
            ("1", 1 << 20),
            ("256", 256 << 20),
            ("256MiB", 256 << 20),
            ("256 MiB", 256 << 20),
            ("256m", 256 << 20),
            ("256MB", 256_000_000),
            ("1GB", 1_000_000_000),
            ("1gb", 1_000_000_000),
            ("1G", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("0.5", 1 << 19),
            ("1KB", 1_000),
            ("4096B", 4096),
            ("2TiB", 2 << 40),
        ];
        for (size, bytes) in table {
            assert_eq!(size.parse::<MemorySize>().map(|size| size.bytes().get()), Ok(bytes), "{size}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_value_and_what_is_allowed() {
        for size in ["", "x", "GB", "1XB", "-1", "1.2.3", "1e3", "ten", ".", "1 G B"] {
            assert_eq!(size.parse::<MemorySize>(), Err(MemorySizeError::Form(size.to_owned())), "{size}");
        }
        for size in ["0", "0GB", "0.0", "0.1B"] {
            assert_eq!(size.parse::<MemorySize>(), Err(MemorySizeError::Zero(size.to_owned())), "{size}");
        }
        for size in ["99999999999999999999", "99999999999999999", "99999999TiB", "99999999.5TiB"] {
            assert_eq!(size.parse::<MemorySize>(), Err(MemorySizeError::TooLarge(size.to_owned())), "{size}");
        }
    }
}
