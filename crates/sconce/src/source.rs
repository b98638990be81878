//! The source of one model: its directory, and settings that override its `sconce.toml`.

use std::num::NonZeroU64;
use std::path::PathBuf;

use sconce_batch::BatcherConfig;
use sconce_cache::CrossPrecision;
use sconce_models::{Placement, Precision};

use crate::{BuildError, LadderConfig, ShadowConfig};

/// A model directory with settings that override the model's `sconce.toml`. Anything that converts into a path converts
/// into one.
///
/// ```
/// # fn main() -> Result<(), sconce::BuildError> {
/// # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
/// use sconce::{ModelSource, Precision, Runtime};
///
/// let embedder = ModelSource::new(zoo.join("encoder-mini")).name("embedder").precision(Precision::F32);
/// let runtime = Runtime::builder().model(embedder).model(zoo.join("digits-cnn")).build()?;
/// assert_eq!(runtime.models().iter().map(sconce::Model::name).collect::<Vec<_>>(), ["digits-cnn", "embedder"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSource {
    /// The directory that holds the model's `config.json`.
    pub directory: PathBuf,
    /// The model's name; `None`: the directory's last component.
    pub name: Option<String>,
    /// The model's version; `None`: the numbers of the directory's version folders, as
    /// [`RuntimeBuilder::versions`](crate::RuntimeBuilder::versions) says, or 1 if the model is in the directory itself.
    pub version: Option<NonZeroU64>,
    /// The precision of the network; `None`: the one in `sconce.toml`, else f32. A precision that the model does not
    /// have is refused with [`LoadError::UnsupportedPrecision`](crate::LoadError::UnsupportedPrecision).
    pub precision: Option<Precision>,
    /// The placement of the network; `None`: the one in `sconce.toml`, else the runtime's
    /// ([`RuntimeBuilder::device`](crate::RuntimeBuilder::device)).
    pub device: Option<Placement>,
    /// True if the runtime's cache, when it has one, may keep this model's answers; `sconce.toml` can turn it off, too.
    pub cached: bool,
    /// The policy on cached answers of a higher precision; `None`: the one in `sconce.toml`, else the runtime's
    /// ([`RuntimeBuilder::cross_precision`](crate::RuntimeBuilder::cross_precision)).
    pub cross_precision: Option<CrossPrecision>,
    /// The lower precisions that the model steps down to under load; `None`: those in `sconce.toml`, else none.
    pub ladder: Option<LadderConfig>,
    /// The check of answers in a lower precision against f32; `None`: the one in `sconce.toml`, else none.
    pub shadow: Option<ShadowConfig>,
    /// The bounds of the model's queue and batches; `None`: those in `sconce.toml`, else the runtime's
    /// ([`RuntimeBuilder::batching`](crate::RuntimeBuilder::batching)).
    pub batching: Option<BatcherConfig>,
}

impl ModelSource {
    /// Creates the source of the model in `directory`, without further settings.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            name: None,
            version: None,
            precision: None,
            device: None,
            cached: true,
            cross_precision: None,
            ladder: None,
            shadow: None,
            batching: None,
        }
    }

    /// Sets the model's name.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// The name that was set, else the directory's last component.
    pub(crate) fn resolved_name(&self) -> Result<String, BuildError> {
        let last_component = || self.directory.file_name()?.to_str().map(str::to_owned);
        let name = self.name.clone().or_else(last_component);
        name.ok_or_else(|| BuildError::NoName { path: self.directory.clone() })
    }

    /// Sets the model's version: models of one name and several versions are served side by side, and the highest version
    /// answers requests that name none.
    #[must_use]
    pub fn version(self, version: NonZeroU64) -> Self {
        Self { version: Some(version), ..self }
    }

    /// Keeps the model's answers out of the runtime's cache.
    #[must_use]
    pub fn uncached(self) -> Self {
        Self { cached: false, ..self }
    }

    /// Sets whether the cache may answer with a higher precision's result.
    #[must_use]
    pub fn cross_precision(self, policy: CrossPrecision) -> Self {
        Self { cross_precision: Some(policy), ..self }
    }

    /// Sets where the model runs: a device's name, or [`Placement::Auto`].
    #[must_use]
    pub fn device(self, device: impl Into<Placement>) -> Self {
        Self { device: Some(device.into()), ..self }
    }

    /// Lets the model step down to lower precisions under load. Each is loaded as well, and takes memory of its own.
    #[must_use]
    pub fn ladder(self, ladder: LadderConfig) -> Self {
        Self { ladder: Some(ladder), ..self }
    }

    /// Has a share of the answers in lower precisions checked against f32, in which the model is loaded as well.
    #[must_use]
    pub fn shadow(self, shadow: ShadowConfig) -> Self {
        Self { shadow: Some(shadow), ..self }
    }

    /// Sets the bounds of the model's queue and batches.
    #[must_use]
    pub fn batching(self, batching: BatcherConfig) -> Self {
        Self { batching: Some(batching), ..self }
    }

    /// Sets the precision of the network.
    #[must_use]
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision: Some(precision), ..self }
    }
}

impl<P: Into<PathBuf>> From<P> for ModelSource {
    fn from(directory: P) -> Self {
        Self::new(directory)
    }
}
