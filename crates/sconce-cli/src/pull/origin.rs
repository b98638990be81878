//! The note that `pull` writes beside a model, to recognise it later.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{PullError, WEIGHTS, digest};

const FILE: &str = "sconce-origin.json";

/// The source of a model, and the digest that its weights must have.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) source: String,
    pub(super) weights_sha256: String,
}

impl Origin {
    pub(super) fn write(&self, directory: &Path) -> Result<(), PullError> {
        let path = directory.join(FILE);
        let json = serde_json::to_vec_pretty(self).expect("strings have a JSON form");
        fs::write(&path, json).map_err(PullError::file(&path))
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
    match digest::of_file(&directory.join(WEIGHTS)) {
        Ok(digest) if digest == origin.weights_sha256 => Ok(()),
        Ok(digest) => {
            occupied(format!("its {WEIGHTS} has SHA-256 {digest}, but was fetched with {}", origin.weights_sha256))
        }
        Err(cause) => occupied(format!("its {WEIGHTS} cannot be read: {cause}")),
    }
}
