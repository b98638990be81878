//! Parsers of numbers whose errors say what is allowed.

use std::str::FromStr;

/// Parses a `NonZero`.
pub(super) fn positive<N: FromStr>(arg: &str) -> Result<N, String> {
    arg.parse().map_err(|_| "give a whole number, at least 1".to_owned())
}

/// Parses a number that may be zero on the command line; the configuration may still refuse zero.
pub(super) fn whole<N: FromStr>(arg: &str) -> Result<N, String> {
    arg.parse().map_err(|_| "give a whole number".to_owned())
}
