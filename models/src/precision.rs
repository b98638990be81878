//! The precisions that a network can be computed in, and their names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a network's weights are stored and its products computed. Which of them a model has on a device is for its
/// [`Family`](crate::Family) to say.
///
/// Written and read everywhere as `f32`, `f16`, `bf16`, `int8`, `q8_0` and `q4k`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floats throughout: the reference that the others are measured against.
    #[default]
    F32,
    /// 16-bit floats, sums in f32. On CUDA devices, where tensor cores make it several times faster than f32; half its
    /// size. Numbers beyond 65,504 do not fit.
    F16,
    /// 16-bit floats with the range of f32 and 8 bits of precision, sums in f32. On CUDA devices.
    Bf16,
    /// 8-bit weights with a scale per output channel, activations rounded to 8 bits per token as they come (7 where the
    /// processor has no VNNI), exact 32-bit integer sums. Faster than f32 on the CPU and about a quarter of its size.
    Int8,
    /// Weights alone in llama.cpp's `Q8_0`: blocks of 32 with an f16 scale, 8.5 bits a weight. Saves memory, not time.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// Weights alone in llama.cpp's `Q4_K`: blocks of 256 with a scale and a minimum per 32, 4.5 bits a weight. Layers
    /// with rows of another length than whole blocks are kept in `Q8_0`. Saves memory, not time.
    Q4K,
}

impl Precision {
    /// Every precision there is, f32 first.
    pub const ALL: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::Int8, Self::Q8_0, Self::Q4K];

    /// Every precision there is, the most accurate first: those that round activations, and then those of fewer bits, come later.
    pub const HIGHEST_FIRST: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Int8, Self::Q4K];

    /// `f32`, `f16`, `bf16`, `int8`, `q8_0` or `q4k`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4k",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        let known = Self::ALL.into_iter().find(|precision| precision.name() == name);
        known.ok_or_else(|| UnknownPrecision { name: name.to_owned() })
    }
}

/// A name that no precision has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("precision '{name}' is not known; known are: {}", names(&Precision::ALL))]
pub struct UnknownPrecision {
    /// The name that was given.
    pub name: String,
}

/// `f32, int8`, for messages.
pub(crate) fn names(precisions: &[Precision]) -> String {
    precisions.iter().map(|precision| precision.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_precision_has_one_name_in_text_and_in_json() {
        assert_eq!(Precision::ALL.map(Precision::name), ["f32", "f16", "bf16", "int8", "q8_0", "q4k"]);
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
            assert_eq!(serde_json::to_value(precision).unwrap(), precision.name());
            assert_eq!(serde_json::from_value::<Precision>(precision.name().into()).unwrap(), precision);
        }
    }

    #[test]
    fn each_precision_has_its_place_by_accuracy() {
        assert!(Precision::ALL.iter().all(|precision| Precision::HIGHEST_FIRST.contains(precision)));
    }

    #[test]
    fn an_unknown_name_is_told_with_the_known_ones() {
        for name in ["int4", "F32", "q8-0", ""] {
            let error = name.parse::<Precision>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("precision '{name}' is not known; known are: f32, f16, bf16, int8, q8_0, q4k")
            );
        }
    }
}
