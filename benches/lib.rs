//! What the benches share. Each bench checks its answers; `RESULTS.md` holds the figures with machine and command.

pub mod python;

use std::path::{Path, PathBuf};

/// A model that ships in `models/zoo`.
#[must_use]
pub fn zoo(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo").join(model)
}

/// MiniLM, if `SCONCE_MINILM` says where `sconce pull minilm` has put it.
#[must_use]
pub fn minilm() -> Option<PathBuf> {
    std::env::var_os("SCONCE_MINILM").map(PathBuf::from)
}
