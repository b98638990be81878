//! The models to encode with.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Deserialize;

use crate::Result;
use sconce_benches::python::Python;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelName {
    /// all-MiniLM-L6-v2, 6 layers, 384 wide: from `sconce pull minilm`, at `SCONCE_MINILM`
    Minilm,
    /// 12 layers, 768 wide, random weights from a fixed seed
    BertBase,
    /// 3 layers, 384 wide: ships with Sconce
    EncoderMini,
}

impl ModelName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Minilm => "minilm",
            Self::BertBase => "bert-base",
            Self::EncoderMini => "encoder-mini",
        }
    }

    /// Directory of the model; a generated one is written below `home`.
    pub(crate) fn directory(self, home: &Path, python: Option<&Python>) -> Result<PathBuf> {
        let shipped = sconce_benches::zoo("encoder-mini");
        match self {
            Self::Minilm => {
                let directory = sconce_benches::minilm()
                    .ok_or("run `sconce pull minilm` and set SCONCE_MINILM to its directory")?;
                // Benches run in the directory of their package, not in the caller's: a relative path may not exist there.
                let read = directory.join("config.json").canonicalize();
                read.map_err(|error| {
                    format!(
                        "SCONCE_MINILM is {}: {error}; give an absolute path to a model directory",
                        directory.display()
                    )
                })?;
                Ok(directory)
            }
            Self::BertBase => {
                let python = python.ok_or("its weights are made by Python")?;
                let directory = home.join("model");
                python.run("encoders/python/bert_base.py", &[&directory, &shipped.join("tokenizer.json")])?;
                Ok(directory)
            }
            Self::EncoderMini => Ok(shipped),
        }
    }
}

/// Bounds of a model's inputs, from its `config.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Limits {
    pub(crate) max_position_embeddings: usize,
}

impl Limits {
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("config.json");
        let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?)
    }
}
