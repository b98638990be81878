//! Numbers, with messages that say what is allowed.

use std::str::FromStr;

/// For a `NonZero`.
pub(super) fn positive<N: FromStr>(arg: &str) -> Result<N, String> {
    arg.parse().map_err(|_| "give a whole number, at least 1".to_owned())
}

/// For a number that may be zero, as far as the command line is concerned.
pub(super) fn whole<N: FromStr>(arg: &str) -> Result<N, String> {
    arg.parse().map_err(|_| "give a whole number".to_owned())
}
