//! The settings of a precision ladder, and the rungs that they make.

use std::time::Duration;

use sconce_models::{LadderSettings, Precision, Settings};

use crate::{ModelSource, ShadowConfig};

/// A precision ladder: lower precisions that a model may answer in when the one that it was loaded in cannot keep up.
///
/// ```
/// # fn main() -> Result<(), sconce::BuildError> {
/// # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
/// use sconce::{LadderConfig, ModelSource, Precision, Runtime};
///
/// let sentiment = ModelSource::new(zoo.join("tiny-bert-sentiment")).ladder(LadderConfig::new([Precision::Int8]));
/// // Each lower precision needs a decision; this is an experiment.
/// let runtime = Runtime::builder().model(sentiment).allow_undecided(true).build()?;
/// let model = runtime.model("tiny-bert-sentiment").expect("it was loaded");
/// assert_eq!(model.precisions(), [Precision::F32, Precision::Int8]);
/// assert_eq!(model.precision(), Precision::F32, "there is no load");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LadderConfig {
    /// The lower precisions, the highest first. Each is loaded beside the model's own, by a decision of its own, and takes memory
    /// of its own.
    pub precisions: Vec<Precision>,
    /// The time within which 99 of 100 requests are to be answered, from 1 ms to [`MAX_TARGET`](Self::MAX_TARGET). The model
    /// steps down when a new request would wait for most of it. Requests with less time of their own count instead. Too
    /// short: it steps down at loads that it could answer. Too long: requests wait, and are refused, before it steps down.
    pub target_p99: Duration,
}

impl LadderConfig {
    /// The target unless another is set.
    pub const DEFAULT_TARGET: Duration = Duration::from_millis(500);
    /// The longest target.
    pub const MAX_TARGET: Duration = Duration::from_hours(1);

    /// Creates a ladder of these lower precisions, the highest first, with the default target.
    #[must_use]
    pub fn new(precisions: impl IntoIterator<Item = Precision>) -> Self {
        Self { precisions: precisions.into_iter().collect(), target_p99: Self::DEFAULT_TARGET }
    }

    /// Sets the time within which 99 of 100 requests are to be answered.
    #[must_use]
    pub fn target_p99(self, target_p99: Duration) -> Self {
        Self { target_p99, ..self }
    }

    /// The ladder of the table `[ladder]` in a model's `sconce.toml`, if there is one.
    fn of_settings(settings: &LadderSettings) -> Option<Self> {
        let LadderSettings { precisions, target_p99_ms } = settings;
        let is_set = precisions.is_some() || target_p99_ms.is_some();
        let target_p99 = target_p99_ms.map_or(Self::DEFAULT_TARGET, Duration::from_millis);
        is_set.then(|| Self { precisions: precisions.clone().unwrap_or_default(), target_p99 })
    }
}

/// Error of a ladder that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LadderError {
    /// No lower precision is named.
    #[error("'ladder.precisions' is empty; name the lower precisions, the highest first, or remove the ladder")]
    Empty,
    /// A precision is named twice, or is the one that the model is loaded in.
    #[error(
        "'ladder.precisions' names {precision}, which is a rung already; name each precision once, without the model's own"
    )]
    Repeated {
        /// The precision.
        precision: Precision,
    },
    /// A precision is not lower than the one before it.
    #[error(
        "'ladder.precisions' names {precision} below {above}, which is lower; name the lower precisions, the highest first, or \
         load the model in a higher precision"
    )]
    NotLower {
        /// The precision.
        precision: Precision,
        /// The rung above it.
        above: Precision,
    },
    /// The target is out of bounds.
    #[error("'ladder.target_p99_ms' is {}; it must be 1 to {}", target.as_millis(), LadderConfig::MAX_TARGET.as_millis())]
    Target {
        /// The target.
        target: Duration,
    },
    /// A value of the shadow check is out of bounds.
    #[error("'{field}' is {value}; it must be {allowed}")]
    Shadow {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The values that it may have.
        allowed: &'static str,
    },
}

/// The rungs that a model is loaded in, as its source and its settings have them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RungPlan {
    /// The precisions, the highest first.
    pub(crate) precisions: Vec<Precision>,
    /// The rung that answers when there is no load.
    pub(crate) home: usize,
    /// The ladder's target; `None` without a ladder.
    pub(crate) target: Option<Duration>,
    /// The shadow check, if there is one and some rung is lower than f32.
    pub(crate) shadow: Option<ShadowConfig>,
}

impl RungPlan {
    pub(crate) fn of(source: &ModelSource, settings: &Settings) -> Result<Self, LadderError> {
        let own = source.precision.or(settings.model.precision).unwrap_or_default();
        let ladder = source.ladder.clone().or_else(|| LadderConfig::of_settings(&settings.ladder));
        let mut precisions = vec![own];
        for precision in ladder.iter().flat_map(|ladder| ladder.precisions.iter().copied()) {
            let above = *precisions.last().expect("the model's own is there");
            if precisions.contains(&precision) {
                return Err(LadderError::Repeated { precision });
            }
            if rank(precision) < rank(above) {
                return Err(LadderError::NotLower { precision, above });
            }
            precisions.push(precision);
        }
        if ladder.is_some() && precisions.len() == 1 {
            return Err(LadderError::Empty);
        }
        let target = ladder.map(|ladder| ladder.target_p99);
        if let Some(target) = target.filter(|it| !(Duration::from_millis(1)..=LadderConfig::MAX_TARGET).contains(it)) {
            return Err(LadderError::Target { target });
        }
        let shadow = source.shadow.clone().or_else(|| ShadowConfig::of_settings(&settings.shadow));
        shadow.as_ref().map_or(Ok(()), ShadowConfig::validate)?;
        let shadow = shadow.filter(|_| precisions != [Precision::F32]);
        let mut home = 0;
        if shadow.is_some() && own != Precision::F32 {
            precisions.insert(0, Precision::F32);
            home = 1;
        }
        Ok(Self { precisions, home, target, shadow })
    }
}

/// The place of a precision, the highest first.
fn rank(precision: Precision) -> usize {
    Precision::HIGHEST_FIRST.iter().position(|other| *other == precision).unwrap_or(Precision::HIGHEST_FIRST.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Precision::{Bf16, F16, F32, Int8, Q4K, Q8_0};

    fn plan(own: Option<Precision>, lower: &[Precision]) -> Result<RungPlan, LadderError> {
        let ladder = LadderConfig::new(lower.iter().copied());
        RungPlan::of(
            &ModelSource { precision: own, ladder: Some(ladder), ..ModelSource::new("m") },
            &Settings::default(),
        )
    }

    #[test]
    fn the_rungs_go_from_the_models_own_precision_down() {
        let rungs = plan(None, &[F16, Int8]).unwrap();
        assert_eq!((&rungs.precisions[..], rungs.home), (&[F32, F16, Int8][..], 0));
        assert_eq!(rungs.target, Some(LadderConfig::DEFAULT_TARGET));
        let without = RungPlan::of(&ModelSource::new("m").precision(Int8), &Settings::default()).unwrap();
        assert_eq!((&without.precisions[..], without.target), (&[Int8][..], None));
    }

    #[test]
    fn a_ladder_that_goes_up_or_names_a_rung_twice_is_refused_with_a_remedy() {
        for (own, lower, error) in [
            (None, &[][..], LadderError::Empty),
            (None, &[Int8, Int8], LadderError::Repeated { precision: Int8 }),
            (Some(Int8), &[Int8], LadderError::Repeated { precision: Int8 }),
            (None, &[Q4K, Int8], LadderError::NotLower { precision: Int8, above: Q4K }),
            (Some(Int8), &[F16], LadderError::NotLower { precision: F16, above: Int8 }),
            (Some(Bf16), &[Q8_0, F32], LadderError::NotLower { precision: F32, above: Q8_0 }),
        ] {
            assert_eq!(plan(own, lower), Err(error.clone()), "{own:?} {lower:?}");
            assert!(error.to_string().contains("; name"), "{error}");
        }
        let target = Duration::from_hours(2);
        let source = ModelSource::new("m").ladder(LadderConfig::new([Int8]).target_p99(target));
        assert_eq!(RungPlan::of(&source, &Settings::default()), Err(LadderError::Target { target }));
    }

    #[test]
    fn a_model_is_checked_against_f32_which_is_loaded_for_that_if_need_be() {
        let plan = |source: ModelSource| {
            let source = source.shadow(ShadowConfig::new(0.01));
            RungPlan::of(&source, &Settings::default()).unwrap()
        };
        let lower = plan(ModelSource::new("m").precision(Int8));
        assert_eq!((&lower.precisions[..], lower.home, lower.target), (&[F32, Int8][..], 1, None));
        let ladder = plan(ModelSource::new("m").precision(Int8).ladder(LadderConfig::new([Q4K])));
        assert_eq!((&ladder.precisions[..], ladder.home), (&[F32, Int8, Q4K][..], 1));
        assert_eq!(plan(ModelSource::new("m")).shadow, None, "there is nothing to check");
    }
}
