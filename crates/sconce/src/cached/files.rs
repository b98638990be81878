//! What a model was made of, as digests.

use std::io;

use sconce_cache::Digest;
use sconce_models::{ModelDigests, ModelFiles, ModelSettings};

/// Digests of what a model was made of: answers of other weights or another tokenizer are never found by them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileDigests {
    /// Digests the files of weights.
    pub(crate) weights: Digest,
    /// Digests all other files, and what `sconce.toml` says of preparing and finishing.
    pub(crate) processing: Digest,
}

impl FileDigests {
    /// How batches are formed and what is cached changes no answer, and the precision is a field of its own in a key: so `sconce.toml`
    /// counts by its settings, not by its bytes.
    pub(crate) fn of(files: &ModelFiles, settings: &ModelSettings) -> io::Result<Self> {
        // Where it runs changes bits; keys have the class of the device for that.
        let ModelSettings { precision: _, device: _, pooling, normalize, max_tokens, cuda_graphs } = settings;
        // A graph computes for the size of its bucket, for which a library may choose another kernel.
        let settings = format!("{pooling:?} {normalize:?} {max_tokens:?} {cuda_graphs:?}");
        let ModelDigests { weights, processing } = files.digests()?;
        let processing = Digest::of(&[&processing, settings.as_bytes()].concat());
        Ok(Self { weights: Digest(weights), processing })
    }
}
