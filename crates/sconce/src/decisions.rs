//! Lower precisions serve by decision: a signed record beside the model says that they may.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sconce_decide::{AllowedSigners, Decided, Intention, MAX_RECORD_BYTES, RecordFile, Refusal, hex};
use sconce_models::{DeviceName, ModelFiles, ModelSettings, Precision};

use crate::BuildError;
use crate::cached::FileDigests;

/// The record's file in a model directory. Its signature has the same name with `.sig`.
pub const DECISION_FILE: &str = "decision.json";

/// The rules on precisions below f32.
#[derive(Debug, Clone, Default)]
pub(crate) struct DecisionRules {
    pub(crate) signers: AllowedSigners,
    pub(crate) allow_undecided: bool,
}

/// By what right a model serves in its precision.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Permission {
    /// The precision is f32, with which all others are compared.
    Reference,
    /// A signed record allows it.
    Decided(Arc<Decided>),
    /// Nothing allows it but [`allow_undecided`](crate::RuntimeBuilder::allow_undecided): an experiment.
    Undecided,
}

impl Permission {
    /// The digits of the record's id, or `undecided`; `None` for the reference.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Reference => None,
            Self::Decided(decided) => Some(&decided.id),
            Self::Undecided => Some("undecided"),
        }
    }

    /// The decision, if there is one.
    #[must_use]
    pub fn decided(&self) -> Option<&Decided> {
        match self {
            Self::Decided(decided) => Some(decided),
            Self::Reference | Self::Undecided => None,
        }
    }
}

/// A model that is about to serve.
pub(crate) struct AboutToServe<'a> {
    pub(crate) name: &'a str,
    pub(crate) directory: &'a Path,
    pub(crate) files: &'a ModelFiles,
    pub(crate) settings: &'a ModelSettings,
    pub(crate) precision: Precision,
}

impl DecisionRules {
    /// Says by what right the model may serve on these devices, the preferred one first.
    ///
    /// # Errors
    /// [`BuildError::Undecided`] if the record beside the model does not allow one of the devices, or there is none.
    pub(crate) fn permit(
        &self,
        model: &AboutToServe<'_>,
        devices: impl IntoIterator<Item = DeviceName>,
    ) -> Result<Permission, BuildError> {
        let AboutToServe { name, directory, precision, .. } = *model;
        if precision == Precision::F32 {
            return Ok(Permission::Reference);
        }
        let digests = FileDigests::of(model.files, model.settings)
            .map_err(|source| BuildError::Digest { directory: directory.to_owned(), source })?;
        let mut first = None;
        for device in devices {
            match self.allowed(model, digests, device) {
                Ok(decided) => _ = first.get_or_insert(decided),
                Err(reason) if self.allow_undecided => {
                    tracing::warn!(model = name, %precision, %device, %reason, "serves without a decision");
                    return Ok(Permission::Undecided);
                }
                Err(source) => {
                    let (name, path) = (name.to_owned(), directory.join(DECISION_FILE));
                    return Err(BuildError::Undecided { name, precision, device, path, source: Box::new(source) });
                }
            }
        }
        let decided = first.expect("a model is placed on a device at least");
        tracing::info!(model = name, %precision, decision = decided.id, "serves by decision");
        Ok(Permission::Decided(Arc::new(decided)))
    }

    fn allowed(&self, model: &AboutToServe<'_>, digests: FileDigests, device: DeviceName) -> Result<Decided, Refusal> {
        let AboutToServe { directory, precision, .. } = model;
        let file = record_in(directory)?;
        let [weights, processing] = [digests.weights, digests.processing].map(|digest| hex(digest.0));
        let (precision, device) = (precision.name(), device.to_string());
        let intention = Intention { weights: &weights, processing: &processing, precision, device: &device };
        file.allows(intention, &self.signers, jiff::Timestamp::now())
    }
}

/// Reads the record in a model directory, and its signature.
fn record_in(directory: &Path) -> Result<RecordFile, Refusal> {
    let path = directory.join(DECISION_FILE);
    let record = read(&path)?.ok_or(Refusal::NoRecord)?;
    let signature = read(&path.with_added_extension("sig"))?;
    let signature = signature.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(RecordFile { record, signature })
}

/// The bytes of a file, at most one more than a record has; `None` if there is none.
fn read(path: &PathBuf) -> Result<Option<Vec<u8>>, Refusal> {
    let unreadable = |source| Refusal::Read { path: path.clone(), source };
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        Ok(metadata) if !metadata.is_file() => return Err(unreadable(io::Error::other("it is no file"))),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    let most = MAX_RECORD_BYTES as u64 + 1;
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(unreadable)?;
    Ok(Some(bytes))
}
