//! Shared by the benches. Each bench checks its answers; `RESULTS.md` holds the figures with machine and command.

pub mod python;
pub mod spread;
pub mod wire;

use std::path::{Path, PathBuf};

/// Any error: a bench ends with its message.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Directory of a model that ships in `models/zoo`.
#[must_use]
pub fn zoo(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo").join(model)
}

/// Directory of MiniLM from `sconce pull minilm`, if `SCONCE_MINILM` is set.
#[must_use]
pub fn minilm() -> Option<PathBuf> {
    std::env::var_os("SCONCE_MINILM").map(PathBuf::from)
}

/// A text of words from a list of ten, one for each digit of `number`.
#[must_use]
pub fn review(number: usize) -> String {
    const WORDS: [&str; 10] =
        ["candle", "harbour", "winter", "engine", "letter", "garden", "mirror", "thunder", "copper", "silence"];
    let words: Vec<_> = number.to_string().bytes().map(|digit| WORDS[usize::from(digit - b'0')]).collect();
    format!("The review of {} says that it was worth every minute.", words.join(" and the "))
}
