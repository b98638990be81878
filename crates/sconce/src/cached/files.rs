//! What a model's files hold, as digests.

use std::fs::File;
use std::io;
use std::path::Path;

use sconce_cache::Digest;
use sconce_models::ModelSettings;

use crate::BuildError;

/// Digests of a model directory: answers of other weights or another tokenizer are never found by them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileDigests {
    /// Of all files of weights.
    pub(crate) weights: Digest,
    /// Of all others, and of what `sconce.toml` says of preparing and finishing.
    pub(crate) processing: Digest,
}

impl FileDigests {
    /// Reads all files. How batches are formed and what is cached changes no answer, and the precision is a field of its own in a
    /// key: so `sconce.toml` counts by its settings, not by its bytes.
    pub(crate) fn read(directory: &Path, settings: &ModelSettings) -> Result<Self, BuildError> {
        let failed = |source| BuildError::Digest { directory: directory.to_owned(), source };
        let ModelSettings { precision: _, pooling, normalize, max_tokens, cuda_graphs } = settings;
        // A graph computes for the size of its bucket, for which a library may choose another kernel.
        let settings = format!("{pooling:?} {normalize:?} {max_tokens:?} {cuda_graphs:?}");
        let files = digest_of(directory, false).map_err(failed)?;
        let processing = Digest::of(&[&files.0, settings.as_bytes()].concat());
        Ok(Self { weights: digest_of(directory, true).map_err(failed)?, processing })
    }
}

/// Of all files of weights, or of all others: their names and contents, in order of their names. None is left out, for a family may
/// read what it likes; a file that no family reads costs no more than a miss when it changes.
fn digest_of(directory: &Path, weights: bool) -> io::Result<Digest> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let counts = path.file_name().is_none_or(|name| name != "sconce.toml");
        if counts && path.is_file() && path.extension().is_some_and(|extension| extension == "safetensors") == weights {
            files.push(path);
        }
    }
    files.sort();
    let mut all = Vec::new();
    for path in files {
        all.extend(Digest::of(path.file_name().unwrap_or_default().as_encoded_bytes()).0);
        all.extend(Digest::of_reader(File::open(&path)?)?.0);
    }
    Ok(Digest::of(&all))
}
