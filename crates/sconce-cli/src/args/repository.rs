//! Flags of a server's model repository: which versions it serves, and when it loads others.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use sconce::{ModelControl, RuntimeBuilder, VersionPolicy};

use super::numbers::positive;

/// Loading and unloading of models while the server runs.
#[derive(Debug, clap::Args)]
pub(crate) struct RepositoryArgs {
    /// Load and unload models while serving: `none`, never; `explicit`, when a client says so; `poll`, when their files change
    ///
    /// `explicit` lets every client of the server load and unload models by the calls of Triton's model repository
    /// extension. `poll` looks at the models path each --repository-poll-secs: models that are new or changed are loaded,
    /// and those that are gone are unloaded, once two looks have seen the same. Either way the new model is loaded and
    /// warmed up while the old one serves, and takes its place in one step; a model that does not load changes nothing.
    #[arg(long, value_name = "MODE", default_value = "none")]
    pub(crate) model_control_mode: ModelControlMode,

    /// Seconds between two looks at the models, with --model-control-mode poll
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = positive::<u64>)]
    pub(crate) repository_poll_secs: u64,

    /// Versions to serve of a model whose directory holds several, in folders whose names are numbers: `latest`, the
    /// highest; a number, that many of the highest; or `all`
    #[arg(long, value_name = "VERSIONS", default_value = "latest")]
    pub(crate) model_versions: ModelVersions,
}

/// The occasions on which models are loaded and unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelControlMode {
    /// The models found at the start are served.
    None,
    /// Clients load and unload models.
    Explicit,
    /// Changes of the files load and unload models.
    Poll,
}

/// A value of `--model-versions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModelVersions(VersionPolicy);

impl FromStr for ModelVersions {
    type Err = String;

    fn from_str(arg: &str) -> Result<Self, String> {
        let policy = match arg {
            "latest" => VersionPolicy::default(),
            "all" => VersionPolicy::All,
            count => VersionPolicy::Latest(
                count.parse::<NonZeroUsize>().map_err(|_| "give latest, all, or a number from 1".to_owned())?,
            ),
        };
        Ok(Self(policy))
    }
}

impl RepositoryArgs {
    pub(crate) fn apply(&self, builder: RuntimeBuilder) -> RuntimeBuilder {
        let control = match self.model_control_mode {
            ModelControlMode::Explicit => ModelControl::Explicit,
            ModelControlMode::None | ModelControlMode::Poll => ModelControl::None,
        };
        builder.model_control(control).versions(self.model_versions.0)
    }

    /// Time between two looks at the models, if the server is to look.
    pub(crate) fn poll_interval(&self) -> Option<Duration> {
        (self.model_control_mode == ModelControlMode::Poll).then(|| Duration::from_secs(self.repository_poll_secs))
    }
}
