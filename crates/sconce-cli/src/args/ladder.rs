//! Flags of `sconce serve` on precisions that change while it serves: ladders and the shadow check.

use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use sconce::{LadderConfig, ModelSource, Precision, ShadowConfig, UnknownPrecision};

use super::numbers::positive;
use crate::error::Error;
use crate::models_path::FoundModel;

/// Lower precisions under load, and their check against f32.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Precision ladder")]
pub(crate) struct LadderArgs {
    /// Let the model NAME step down to these lower precisions under load, the highest first, such as `minilm=int8`; repeatable
    ///
    /// Before requests would have to wait for longer than --ladder-target-p99 allows, answers come in the next lower precision;
    /// once the load has been low enough for a minute, in the higher one again. Each precision is loaded and takes memory.
    /// Answers say which precision made them, and a request can demand one with its parameter `precision`. Overrides
    /// `[ladder]` in the model's sconce.toml.
    #[arg(long, value_name = "NAME=PRECISION[,PRECISION]")]
    ladder: Vec<LadderArg>,

    /// Milliseconds within which 99 of 100 requests to a model of --ladder are to be answered
    #[arg(long, value_name = "MILLISECONDS", default_value_t = default_target(), value_parser = positive::<NonZeroU64>)]
    ladder_target_p99: NonZeroU64,

    /// The share of answers in lower precisions that is computed again in f32 and compared, such as 0.01, while the machine
    /// is idle [default: by the model's sconce.toml, else none]
    ///
    /// If too many differ by too much, the log and the metrics raise an alarm, and the model answers in the next higher
    /// precision until it is loaded again. A model that is loaded in a lower precision is loaded in f32 as well, and takes
    /// that memory.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    shadow_share: Option<f64>,
}

/// A value of `--ladder`: `minilm=int8` or `minilm=q8_0,int8`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LadderArg {
    model: String,
    precisions: Vec<Precision>,
}

/// An unreadable value of `--ladder`.
#[derive(Debug, thiserror::Error)]
enum LadderArgError {
    #[error("give the model's name and lower precisions, such as minilm=int8")]
    NoName,
    #[error(transparent)]
    Precision(#[from] UnknownPrecision),
}

impl FromStr for LadderArg {
    type Err = LadderArgError;

    fn from_str(arg: &str) -> Result<Self, LadderArgError> {
        // Split at the last `=`, as `--precision` does.
        let (model, precisions) = arg.rsplit_once('=').ok_or(LadderArgError::NoName)?;
        let precisions = precisions.split(',').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { model: model.to_owned(), precisions })
    }
}

impl LadderArgs {
    /// Checks that each ladder is of one of `models`, and of another one.
    pub(crate) fn check(&self, models: &[FoundModel]) -> Result<(), Error> {
        for (at, LadderArg { model, .. }) in self.ladder.iter().enumerate() {
            if !models.iter().any(|found| found.name == *model) {
                let known = models.iter().map(|found| found.name.clone()).collect();
                return Err(Error::LadderOfUnknownModel { name: model.clone(), known });
            }
            if self.ladder[..at].iter().any(|before| before.model == *model) {
                return Err(Error::LadderTwice { name: model.clone() });
            }
        }
        Ok(())
    }

    /// The source of the model of that name, with its ladder and its check.
    pub(crate) fn apply(&self, name: &str, source: ModelSource) -> ModelSource {
        let target = Duration::from_millis(self.ladder_target_p99.get());
        let ladder = self.ladder.iter().find(|ladder| ladder.model == name);
        let ladder = ladder.map(|ladder| LadderConfig::new(ladder.precisions.iter().copied()).target_p99(target));
        let source = ladder.into_iter().fold(source, ModelSource::ladder);
        self.shadow_share.map(ShadowConfig::new).into_iter().fold(source, ModelSource::shadow)
    }
}

fn default_target() -> NonZeroU64 {
    let milliseconds = u64::try_from(LadderConfig::DEFAULT_TARGET.as_millis()).ok();
    milliseconds.and_then(NonZeroU64::new).expect("the default is neither 0 nor an age")
}

fn share(arg: &str) -> Result<f64, String> {
    let share = arg.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "give a number above 0 and at most 1, such as 0.01".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_is_a_name_and_precisions() {
        let parsed: LadderArg = "a=b=q8_0,int8".parse().unwrap();
        assert_eq!((&*parsed.model, &parsed.precisions[..]), ("a=b", &[Precision::Q8_0, Precision::Int8][..]));
        for (arg, said) in [("int8", "give the model's name"), ("a=int4", "precision 'int4' is not known")] {
            let error = arg.parse::<LadderArg>().unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
