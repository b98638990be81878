//! The settings of the shadow check.

use sconce_models::ShadowSettings;

use crate::LadderError;

/// The shadow check: a share of the answers in lower precisions is computed again in f32 while the machine is idle, and
/// compared. If too many differ, it raises an alarm, and the model answers in a higher precision until it is loaded again.
///
/// A model that is loaded in a lower precision is loaded in f32 as well, which takes that memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowConfig {
    /// The share of answers that are computed again, above 0 and at most 1. Too small: a model that has become bad is noticed
    /// late. Too large: more answers than there is idle time for, which are dropped and counted.
    pub share: f64,
    /// The differences that are allowed.
    pub allowance: ShadowAllowance,
}

/// The differences between a lower precision and f32 that are allowed, as a decision on the precision measured them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShadowAllowance {
    /// The similarity below which an answer counts as different, from -1 to 1: the cosine of two embeddings; for the other
    /// kinds of output as [`Output`](crate::Output)s are compared here: 1 for the same top label, else 0; 1 less the
    /// difference of two scores; the share of equal entities.
    pub min_similarity: f64,
    /// The share of answers that may be different, above 0 and below 1.
    pub max_share_below: f64,
}

impl Default for ShadowAllowance {
    /// One answer in fifty may be less similar than 0.95.
    fn default() -> Self {
        Self::new(0.95, 0.02)
    }
}

impl ShadowAllowance {
    /// Creates the allowance for a share of `max_share_below` answers below `min_similarity`.
    #[must_use]
    pub const fn new(min_similarity: f64, max_share_below: f64) -> Self {
        Self { min_similarity, max_share_below }
    }
}

impl ShadowConfig {
    /// Creates a check of this share of answers with the default allowance.
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self { share, allowance: ShadowAllowance::default() }
    }

    /// Sets the differences that are allowed.
    #[must_use]
    pub fn allowance(self, allowance: ShadowAllowance) -> Self {
        Self { allowance, ..self }
    }

    /// The check of the table `[shadow]` in a model's `sconce.toml`, if there is one.
    pub(crate) fn of_settings(settings: &ShadowSettings) -> Option<Self> {
        let ShadowSettings { share, min_similarity, max_share_below } = *settings;
        let default = ShadowAllowance::default();
        let allowance = ShadowAllowance::new(
            min_similarity.unwrap_or(default.min_similarity),
            max_share_below.unwrap_or(default.max_share_below),
        );
        // A table without a share is an error, not a check that is off.
        let is_set = share.is_some() || min_similarity.is_some() || max_share_below.is_some();
        is_set.then(|| Self { share: share.unwrap_or_default(), allowance })
    }

    pub(crate) fn validate(&self) -> Result<(), LadderError> {
        let Self { share, allowance: ShadowAllowance { min_similarity, max_share_below } } = *self;
        let wrong = |field, value: f64, allowed| Err(LadderError::Shadow { field, value: value.to_string(), allowed });
        if !(share > 0.0 && share <= 1.0) {
            return wrong("shadow.share", share, "above 0 and at most 1, such as 0.01");
        }
        if !(-1.0..=1.0).contains(&min_similarity) {
            return wrong("shadow.min_similarity", min_similarity, "from -1 to 1, such as 0.95");
        }
        if !(max_share_below > 0.0 && max_share_below < 1.0) {
            return wrong("shadow.max_share_below", max_share_below, "above 0 and below 1, such as 0.02");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_bounds_is_named_with_what_is_allowed() {
        let of = |share, min_similarity, max_share_below| {
            let allowance = ShadowAllowance::new(min_similarity, max_share_below);
            ShadowConfig { share, allowance }.validate().map_err(|error| error.to_string())
        };
        assert_eq!(of(1.0, -1.0, 0.5), Ok(()));
        let expected = "'shadow.share' is 0; it must be above 0 and at most 1, such as 0.01";
        assert_eq!(of(0.0, 0.9, 0.1), Err(expected.to_owned()));
        for (share, similarity, below) in [
            (1.1, 0.9, 0.1),
            (f64::NAN, 0.9, 0.1),
            (0.1, 1.1, 0.1),
            (0.1, f64::NAN, 0.1),
            (0.1, 0.9, 0.0),
            (0.1, 0.9, 1.0),
        ] {
            assert!(of(share, similarity, below).is_err(), "{share} {similarity} {below}");
        }
        assert_eq!(ShadowConfig::of_settings(&ShadowSettings::default()), None);
        let without_share = ShadowSettings { min_similarity: Some(0.9), ..ShadowSettings::default() };
        assert!(ShadowConfig::of_settings(&without_share).unwrap().validate().is_err());
    }
}
