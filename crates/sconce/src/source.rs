//! Where one model comes from and what is asked of it.

use std::path::PathBuf;

use sconce_cache::CrossPrecision;
use sconce_models::{DeviceName, Precision};

/// A model directory, with what is asked of the model beyond its `sconce.toml`. Made from anything that is a path.
///
/// ```
/// # fn main() -> Result<(), sconce::BuildError> {
/// # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
/// use sconce::{ModelSource, Precision, Runtime};
///
/// let embedder = ModelSource::new(zoo.join("encoder-mini")).name("embedder").precision(Precision::F32);
/// let runtime = Runtime::builder().model(embedder).model(zoo.join("digits-cnn")).build()?;
/// assert_eq!(runtime.models().map(sconce::Model::name).collect::<Vec<_>>(), ["digits-cnn", "embedder"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    /// Where `config.json` is.
    pub directory: PathBuf,
    /// What the model goes by; `None`: the directory's last component.
    pub name: Option<String>,
    /// What its network is computed in; `None`: what `sconce.toml` says, else f32. One that the model does not have is
    /// refused with [`LoadError::UnsupportedPrecision`](crate::LoadError::UnsupportedPrecision).
    pub precision: Option<Precision>,
    /// Where its network runs; `None`: where the runtime's models do, which is the CPU unless
    /// [`RuntimeBuilder::device`](crate::RuntimeBuilder::device) says otherwise.
    pub device: Option<DeviceName>,
    /// Whether the runtime's cache, if it has one, keeps this model's answers; `sconce.toml` can say no, too.
    pub cached: bool,
    /// Whether an answer that a higher precision made may be given from the cache; `None`: what `sconce.toml` says, else what the
    /// runtime does.
    pub cross_precision: Option<CrossPrecision>,
}

impl ModelSource {
    /// The model in `directory`, with nothing asked of it.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        Self { directory, name: None, precision: None, device: None, cached: true, cross_precision: None }
    }

    /// Names the model.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Keeps its answers out of the runtime's cache.
    #[must_use]
    pub fn uncached(self) -> Self {
        Self { cached: false, ..self }
    }

    /// Says where it runs.
    #[must_use]
    pub fn device(self, device: DeviceName) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Says whether an answer that a higher precision made may be given from the cache.
    #[must_use]
    pub fn cross_precision(self, policy: CrossPrecision) -> Self {
        Self { cross_precision: Some(policy), ..self }
    }

    /// Asks for a precision.
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
