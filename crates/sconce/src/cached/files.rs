//! Digests of the files and settings that a model was made of.

use std::io;

use sconce_cache::Digest;
use sconce_models::{ModelDigests, ModelFiles, ModelSettings};

/// Digests of a model's files and settings. As parts of the keys they keep answers of other weights or tokenizers from
/// being found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileDigests {
    /// Digest of the files of weights.
    pub(crate) weights: Digest,
    /// Digest of all other files, and of the settings in `sconce.toml` for preparing and finishing.
    pub(crate) processing: Digest,
}

impl FileDigests {
    /// Digests the files, and those settings of `sconce.toml` that change answers rather than its bytes: batching and
    /// caching change no answer, and the precision is a field of its own in a key.
    pub(crate) fn of(files: &ModelFiles, settings: &ModelSettings) -> io::Result<Self> {
        // The device changes the bits of an answer, too, but keys have its class as a field of their own.
        let ModelSettings {
            precision: _,
            device: _,
            pooling,
            normalize,
            max_tokens,
            cuda_graphs,
            task,
            aggregation: _,
        } = settings;
        // A row is that of the task's head. Labels of tokens are put together after that.
        // A CUDA graph computes a batch at the size of its bucket, for which a library may choose another kernel.
        let settings = format!("{pooling:?} {normalize:?} {max_tokens:?} {cuda_graphs:?} {task:?}");
        let ModelDigests { weights, processing } = files.digests()?;
        let processing = Digest::of(&[&processing, settings.as_bytes()].concat());
        Ok(Self { weights: Digest(weights), processing })
    }
}
