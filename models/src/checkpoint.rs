//! The files of a directory that hold its weights, in the order in which transformers looks for them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{LoadError, ModelDirectory, excerpt};

/// A file of weights, or an index of several.
const CANDIDATES: [(&str, bool); 4] = [
    ("model.safetensors", false),
    ("model.safetensors.index.json", true),
    ("pytorch_model.bin", false),
    ("pytorch_model.bin.index.json", true),
];

/// Weights in forms that are not read, each with the program that it is for.
const OTHERS: [(&str, &str); 6] = [
    ("tf_model.h5", "TensorFlow"),
    ("flax_model.msgpack", "Flax"),
    ("model.ckpt.index", "TensorFlow"),
    ("onnx/model.onnx", "ONNX"),
    ("model.onnx", "ONNX"),
    ("adapter_model.safetensors", "PEFT, which adapts another model"),
];

/// The files that hold the weights of a directory.
#[derive(Debug, PartialEq)]
pub(crate) struct Checkpoint {
    /// Names of the files, of which an error names the first if no other is at fault.
    pub(crate) files: Vec<String>,
    /// The index, if there is one: for each tensor the file that it should be in.
    pub(crate) index: Option<(&'static str, BTreeMap<String, String>)>,
}

impl Checkpoint {
    /// Finds the files; `None` if there are none.
    ///
    /// # Errors
    /// [`LoadError`] if an index is not valid.
    pub(crate) fn find(directory: &ModelDirectory) -> Result<Option<Self>, LoadError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Some((file, is_index)) = CANDIDATES.into_iter().find(|(file, _)| directory.contains(file)) else {
            return Ok(None);
        };
        if !is_index {
            return Ok(Some(Self { files: vec![file.to_owned()], index: None }));
        }
        let Index { weight_map } = directory.json(file)?;
        let mut files: Vec<String> = weight_map.values().cloned().collect();
        files.sort();
        files.dedup();
        if let Some(shard) = files.iter().find(|shard| shard.contains(['/', '\\'])) {
            let message = format!("field 'weight_map' names '{}'; it must be a file beside the index", excerpt(shard));
            return Err(directory.invalid(file, message));
        }
        if files.is_empty() {
            return Err(directory.invalid(file, "field 'weight_map' is empty"));
        }
        Ok(Some(Self { files, index: Some((file, weight_map)) }))
    }

    /// The error for a directory without weights that can be read. It says how to convert what there is.
    pub(crate) fn missing(directory: &ModelDirectory) -> LoadError {
        let found = OTHERS.iter().find(|(file, _)| directory.contains(file));
        match found {
            None => directory.read(CANDIDATES[0].0).err().unwrap_or_else(|| directory.invalid(CANDIDATES[0].0, "")),
            Some((file, program)) => {
                directory.invalid(CANDIDATES[0].0, format!("it is missing, and {file} is for {program}; {CONVERT}"))
            }
        }
    }
}

/// The way to turn other weights into ones that are read.
pub(crate) const CONVERT: &str =
    "transformers writes model.safetensors: AutoModel.from_pretrained(directory).save_pretrained(directory)";
