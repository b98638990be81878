//! The note that `pull` writes beside a model, to recognise it later.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::{self, WeightDigests};
use super::{PullError, UnfinishedPull, WEIGHTS};

const FILE: &str = "sconce-origin.json";

/// The source of a model, and the digest that its weights must have.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    source: String,
    /// The digest of all files of weights together.
    weights_sha256: String,
    /// The files of weights, relative to the model's directory.
    #[serde(default = "one_file")]
    weights: Vec<String>,
}

fn one_file() -> Vec<String> {
    vec![WEIGHTS.to_owned()]
}

impl Origin {
    pub(super) fn new(source: String, digests: &WeightDigests) -> Self {
        Self { source, weights_sha256: digest::of_all(digests), weights: digests.keys().cloned().collect() }
    }

    pub(super) fn write(&self, directory: &Path, unfinished: &UnfinishedPull) -> Result<(), PullError> {
        let path = directory.join(FILE);
        let json = serde_json::to_vec_pretty(self).expect("strings have a JSON form");
        unfinished.create(&path)?.write_all(&json).map_err(PullError::file(&path))
    }
}

/// Checks that `directory` holds the undamaged model of `source`.
pub(super) fn check(directory: &Path, source: &str) -> Result<(), PullError> {
    let occupied = |why: String| Err(PullError::Occupied { path: directory.to_owned(), why });
    let note = match fs::read(directory.join(FILE)) {
        Ok(note) => note,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            return occupied("it did not come from `sconce pull`".to_owned());
        }
        Err(cause) => return Err(PullError::file(&directory.join(FILE))(cause)),
    };
    let origin: Origin = match serde_json::from_slice(&note) {
        Ok(origin) => origin,
        Err(cause) => return occupied(format!("its {FILE} cannot be read: {cause}")),
    };
    if origin.source != source {
        return occupied(format!("it came from {}, not from {source}", origin.source));
    }
    let mut digests = WeightDigests::new();
    for file in &origin.weights {
        match digest::of_file(&directory.join(file)) {
            Ok(digest) => digests.insert(file.clone(), digest),
            Err(cause) => return occupied(format!("its {file} cannot be read: {cause}")),
        };
    }
    let digest = digest::of_all(&digests);
    if digest == origin.weights_sha256 {
        return Ok(());
    }
    let (files, fetched) = (origin.weights.join(", "), &origin.weights_sha256);
    occupied(format!("its {files}: SHA-256 {digest}, but fetched with {fetched}"))
}
