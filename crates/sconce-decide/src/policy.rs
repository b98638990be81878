//! The policy: what a business allows and pays, written in TOML before anything is measured.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize};

/// The rules by which a precision is chosen, and who answers for them.
///
/// ```
/// let policy: sconce_decide::Policy = r#"
///     owner = "search@example.com"
///     approver = "cto@example.com"
///     expires = 2027-06-30
///     metric = "spearman"
///     max_drop = { absolute = 0.005 }
///     slo_p99_ms = 50
///     price_per_hour = { cpu = 0.096, cuda = 2.5 }
/// "#.parse()?;
/// assert_eq!(policy.max_drop.confidence, 0.95);
/// assert_eq!(policy.max_drop.of(0.86), 0.005);
/// # Ok::<(), sconce_decide::PolicyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The person or team that runs the model and renews the decision.
    pub owner: String,
    /// The person whose signature makes a record valid: a principal in `allowed_signers`.
    pub approver: String,
    /// The last day on which a record counts, in UTC.
    #[serde(deserialize_with = "date")]
    pub expires: Date,
    /// The measure of accuracy.
    pub metric: Metric,
    /// How much of it may be lost.
    pub max_drop: MaxDrop,
    /// The 99th percentile of the time of a request that must be kept, in milliseconds.
    pub slo_p99_ms: f64,
    /// The price of an hour of each kind of device, by `cpu` or `cuda`, in any one currency. Devices without a price are not
    /// candidates.
    pub price_per_hour: BTreeMap<String, f64>,
    /// The precision that serves if no lower one is allowed.
    #[serde(default = "fallback")]
    pub fallback: String,
}

/// The bound on lost accuracy: a share of the metric's value, or a difference.
///
/// The drop counts as within the bound if the upper end of its confidence interval is: what the data cannot show is not
/// assumed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WrittenMaxDrop", into = "WrittenMaxDrop")]
pub struct MaxDrop {
    /// The bound's kind and value.
    pub bound: DropBound,
    /// The confidence of the drop's interval, between 0.5 and 1.
    pub confidence: f64,
}

/// A bound on a difference of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DropBound {
    /// A difference of the metric itself: 0.005 of a Spearman correlation or an accuracy between 0 and 1.
    Absolute(f64),
    /// A share of the reference's value: 0.01 is a hundredth of it.
    Relative(f64),
}

/// A measure of accuracy, between 0 (for correlations −1) and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// Spearman's rank correlation with human scores of pairs.
    Spearman,
    /// Share of right labels.
    Accuracy,
    /// Mean over the labels of the harmonic mean of precision and recall.
    MacroF1,
    /// Mean average precision of rankings.
    Map,
    /// Mean reciprocal rank of the first right answer.
    Mrr,
    /// Normalised discounted cumulative gain of the first ten answers.
    Ndcg,
    /// Cosine between an embedding and that of the reference: without labels.
    Cosine,
    /// Share of inputs to which the reference gives the same top label or answer: without labels.
    Agreement,
}

/// A policy that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// TOML that is none, or a field that is missing, unknown or of another type.
    #[error("the policy cannot be read: {0}")]
    Unreadable(String),
    /// A value out of its bounds.
    #[error("the policy's {field} is {value}: {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The problem, and the value to write instead.
        problem: &'static str,
    },
}

/// Most characters of a name. Longer ones are no names.
const MAX_NAME: usize = 256;

impl std::str::FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let toml = toml::Deserializer::parse(text).map_err(|error| PolicyError::Unreadable(error.to_string()))?;
        let policy: Self = serde_path_to_error::deserialize(toml).map_err(|error| {
            let (path, message) = (error.path().to_string(), error.inner().message().to_owned());
            PolicyError::Unreadable(if path == "." { message } else { format!("{path}: {message}") })
        })?;
        policy.check()?;
        Ok(policy)
    }
}

impl Policy {
    /// Checks the values.
    ///
    /// # Errors
    /// [`PolicyError::Invalid`] with the first field that is out of its bounds.
    pub fn check(&self) -> Result<(), PolicyError> {
        for (field, name) in [("owner", &self.owner), ("approver", &self.approver), ("fallback", &self.fallback)] {
            if name.trim().is_empty() || name.len() > MAX_NAME {
                let value = format!("'{}'", name.chars().take(40).collect::<String>());
                return Err(PolicyError::Invalid { field, value, problem: "write a name of 1 to 256 characters" });
            }
        }
        let MaxDrop { bound, confidence } = self.max_drop;
        let drop = match bound {
            DropBound::Absolute(drop) | DropBound::Relative(drop) => drop,
        };
        within("max_drop", drop, (0.0..=1.0).contains(&drop), "write a number from 0 to 1")?;
        let usual = (0.5..1.0).contains(&confidence);
        within("max_drop.confidence", confidence, usual, "write a number from 0.5 to below 1, such as 0.95")?;
        within("slo_p99_ms", self.slo_p99_ms, self.slo_p99_ms > 0.0, "write milliseconds above 0")?;
        if self.price_per_hour.is_empty() {
            let problem = "write the price of an hour of each kind of device, such as { cpu = 0.096 }";
            return Err(PolicyError::Invalid { field: "price_per_hour", value: "empty".to_owned(), problem });
        }
        for (kind, price) in &self.price_per_hour {
            if !["cpu", "cuda"].contains(&kind.as_str()) {
                let problem = "kinds of devices are cpu and cuda";
                return Err(PolicyError::Invalid { field: "price_per_hour", value: format!("of '{kind}'"), problem });
            }
            let usual = (0.0..=1e9).contains(price);
            within("price_per_hour", *price, usual, "write a price from 0 to 1e9")?;
        }
        Ok(())
    }

    /// The price of an hour of the device, from the kind in its name: `cuda` of `cuda:0`.
    #[must_use]
    pub fn price_of(&self, device: &str) -> Option<f64> {
        self.price_per_hour.get(kind_of(device)).copied()
    }
}

/// The kind of a device: `cuda` of `cuda:0`.
pub(crate) fn kind_of(device: &str) -> &str {
    device.split(':').next().unwrap_or(device)
}

fn within(field: &'static str, value: f64, holds: bool, problem: &'static str) -> Result<(), PolicyError> {
    if holds && value.is_finite() {
        return Ok(());
    }
    Err(PolicyError::Invalid { field, value: value.to_string(), problem })
}

impl MaxDrop {
    /// The largest difference allowed, where the reference's metric has this value.
    #[must_use]
    pub fn of(&self, reference: f64) -> f64 {
        match self.bound {
            DropBound::Absolute(drop) => drop,
            DropBound::Relative(share) => share * reference.abs(),
        }
    }
}

impl fmt::Display for MaxDrop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bound {
            DropBound::Absolute(drop) => write!(formatter, "{drop}")?,
            DropBound::Relative(share) => write!(formatter, "{} %", share * 100.0)?,
        }
        write!(formatter, " at {} % confidence", self.confidence * 100.0)
    }
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 8] = [
        Self::Spearman,
        Self::Accuracy,
        Self::MacroF1,
        Self::Map,
        Self::Mrr,
        Self::Ndcg,
        Self::Cosine,
        Self::Agreement,
    ];

    /// The name in policies and records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spearman => "spearman",
            Self::Accuracy => "accuracy",
            Self::MacroF1 => "macro_f1",
            Self::Map => "map",
            Self::Mrr => "mrr",
            Self::Ndcg => "ndcg",
            Self::Cosine => "cosine",
            Self::Agreement => "agreement",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A bound as it is written: one of the two kinds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMaxDrop {
    #[serde(skip_serializing_if = "Option::is_none")]
    absolute: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relative: Option<f64>,
    #[serde(default = "confidence")]
    confidence: f64,
}

impl TryFrom<WrittenMaxDrop> for MaxDrop {
    type Error = &'static str;

    fn try_from(written: WrittenMaxDrop) -> Result<Self, &'static str> {
        let bound = match (written.absolute, written.relative) {
            (Some(drop), None) => DropBound::Absolute(drop),
            (None, Some(share)) => DropBound::Relative(share),
            _ => return Err("write one of absolute and relative, such as { absolute = 0.005 }"),
        };
        Ok(Self { bound, confidence: written.confidence })
    }
}

impl From<MaxDrop> for WrittenMaxDrop {
    fn from(MaxDrop { bound, confidence }: MaxDrop) -> Self {
        let (absolute, relative) = match bound {
            DropBound::Absolute(drop) => (Some(drop), None),
            DropBound::Relative(share) => (None, Some(share)),
        };
        Self { absolute, relative, confidence }
    }
}

fn confidence() -> f64 {
    0.95
}

fn fallback() -> String {
    "f32".to_owned()
}

/// A date, quoted or as TOML has it.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Toml(toml::value::Datetime),
        Quoted(String),
    }
    let text = match Written::deserialize(deserializer) {
        Ok(Written::Toml(date)) => date.to_string(),
        Ok(Written::Quoted(text)) => text,
        Err(_) => return Err(serde::de::Error::custom("write a date such as 2027-06-30")),
    };
    text.parse().map_err(|_| serde::de::Error::custom(format_args!("'{text}' is no date such as 2027-06-30")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "owner = 'search'\napprover = 'cto@example.com'\nexpires = 2027-06-30\nmetric = 'macro_f1'\n\
        max_drop = { relative = 0.01, confidence = 0.9 }\nslo_p99_ms = 50\nprice_per_hour = { cpu = 0.1, cuda = 2.5 }\n";

    #[test]
    fn a_policy_reads_the_same_from_toml_and_from_a_record() {
        let policy: Policy = GOOD.parse().unwrap();
        assert_eq!((policy.metric, policy.fallback.as_str()), (Metric::MacroF1, "f32"));
        assert_eq!(policy.expires.to_string(), "2027-06-30");
        assert!((policy.max_drop.of(0.8) - 0.008).abs() < 1e-12);
        assert_eq!(policy.max_drop.to_string(), "1 % at 90 % confidence");
        assert_eq!(
            [policy.price_of("cpu"), policy.price_of("cuda:1"), policy.price_of("metal")],
            [Some(0.1), Some(2.5), None]
        );
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
        assert_eq!(GOOD.replace("2027-06-30", "'2027-06-30'").parse::<Policy>().unwrap(), policy);
    }

    #[test]
    fn a_wrong_policy_is_refused_with_the_field_and_the_remedy() {
        let table = [
            ("owner = 'search'", "owner = ' '", "the policy's owner is ' ': write a name of 1 to 256 characters"),
            ("owner = 'search'", "", "missing field `owner`"),
            ("owner = 'search'", "owner = 'search'\nmax_dropp = 1", "unknown field `max_dropp`"),
            ("2027-06-30", "2027-02-30", "invalid date, expected day between 01 and 28"),
            ("2027-06-30", "'soon'", "expires: 'soon' is no date such as 2027-06-30"),
            ("macro_f1", "f2", "metric: unknown variant `f2`, expected one of `spearman`"),
            ("relative = 0.01, ", "", "max_drop: write one of absolute and relative"),
            ("relative = 0.01", "relative = 0.01, absolute = 0.1", "max_drop: write one of absolute and relative"),
            ("0.01", "-0.01", "the policy's max_drop is -0.01: write a number from 0 to 1"),
            ("0.9 ", "95 ", "the policy's max_drop.confidence is 95: write a number from 0.5 to below 1"),
            ("= 50", "= 0", "the policy's slo_p99_ms is 0: write milliseconds above 0"),
            ("= 50", "= nan", "the policy's slo_p99_ms is NaN"),
            ("{ cpu = 0.1, cuda = 2.5 }", "{}", "the policy's price_per_hour is empty: write the price"),
            ("cuda = 2.5", "gpu = 2.5", "the policy's price_per_hour is of 'gpu': kinds of devices are cpu and cuda"),
            ("cuda = 2.5", "cuda = -1", "the policy's price_per_hour is -1: write a price from 0 to 1e9"),
        ];
        for (from, to, expected) in table {
            let error = GOOD.replace(from, to).parse::<Policy>().unwrap_err().to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn metrics_have_the_names_that_policies_write() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_string(&metric).unwrap(), format!("\"{metric}\""));
        }
    }
}
