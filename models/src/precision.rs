//! The precisions that a network can be computed in, and their names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The storage of a network's weights and the arithmetic of its products. A model's precisions on a device are those of
/// its [`Blueprint`](crate::Blueprint).
///
/// Written as `f32`, `f16`, `bf16`, `int8`, `q8_0` and `q4k`. Unambiguous names from elsewhere are read as well, in any
/// case: `fp16`, `half`, `float32`, `bfloat16`, `i8`, `q4_k`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floats throughout: the reference for the others.
    #[default]
    F32,
    /// 16-bit floats, sums in f32. On CUDA devices, where tensor cores make it faster than f32; half its size. Numbers
    /// beyond 65,504 do not fit.
    F16,
    /// 16-bit floats with the range of f32 and 8 bits of precision, sums in f32. On CUDA devices.
    Bf16,
    /// 8-bit weights with a scale per output channel, activations rounded to 8 bits with a scale per token (7 bits on
    /// processors without VNNI), exact 32-bit integer sums. Faster than f32 on the CPU and about a quarter of its size.
    Int8,
    /// Only weights, in llama.cpp's `Q8_0`: blocks of 32 with an f16 scale, 8.5 bits a weight. Saves memory, not time.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// Only weights, in llama.cpp's `Q4_K`: blocks of 256 with a scale and a minimum per 32, 4.5 bits a weight. Layers
    /// whose rows are not whole blocks are kept in `Q8_0`. Saves memory, not time.
    Q4K,
}

impl Precision {
    /// All precisions, f32 first.
    pub const ALL: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::Int8, Self::Q8_0, Self::Q4K];

    /// All precisions, the most accurate first. `int8` comes after `q8_0` because it rounds activations as well.
    pub const HIGHEST_FIRST: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Int8, Self::Q4K];

    /// The name: `f32`, `f16`, `bf16`, `int8`, `q8_0` or `q4k`.
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

    /// Other names of the same precision, in PyTorch, ONNX or llama.cpp.
    fn spellings(self) -> &'static [&'static str] {
        match self {
            Self::F32 => &["fp32", "float32", "float"],
            Self::F16 => &["fp16", "float16", "half"],
            Self::Bf16 => &["bfloat16"],
            Self::Int8 => &["i8"],
            Self::Q8_0 => &[],
            Self::Q4K => &["q4_k"],
        }
    }

    /// The precisions that may be meant by an unknown name.
    fn meant_by(name: &str) -> &'static [Self] {
        match plain(name).as_str() {
            "f64" | "fp64" | "float64" | "double" | "tf32" => &[Self::F32],
            "16" | "16bit" => &[Self::F16, Self::Bf16],
            "8" | "8bit" | "q8" => &[Self::Int8, Self::Q8_0],
            "u8" | "uint8" | "w8a8" => &[Self::Int8],
            "q8_1" | "q8_k" => &[Self::Q8_0],
            "4" | "4bit" | "int4" | "i4" | "u4" | "q4" | "q4_0" | "q4_1" | "q4_k_s" | "q4_k_m" | "nf4" => &[Self::Q4K],
            _ => &[],
        }
    }
}

/// A name in the form for comparing: lower case, with `_` for `-`.
fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        let given = plain(name);
        let is_meant = |it: &Self| it.name() == given || it.spellings().contains(&given.as_str());
        let known = Self::ALL.into_iter().find(is_meant);
        known.ok_or_else(|| UnknownPrecision { name: name.to_owned() })
    }
}

impl TryFrom<String> for Precision {
    type Error = UnknownPrecision;

    fn try_from(name: String) -> Result<Self, UnknownPrecision> {
        name.parse()
    }
}

/// The error for a name that no precision has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("precision '{name}' is not known; known are: {}{}", names(&Precision::ALL), question(Precision::meant_by(name)))]
pub struct UnknownPrecision {
    /// The name that was given.
    pub name: String,
}

/// The end of the message: `; did you mean int8 or q8_0?`, or nothing.
fn question(meant: &[Precision]) -> String {
    if meant.is_empty() { String::new() } else { format!("; did you mean {}?", names(meant).replace(", ", " or ")) }
}

/// The names of precisions for messages: `f32, int8`.
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
    fn a_name_from_elsewhere_that_can_mean_one_precision_alone_is_that_precision() {
        let table = [
            (Precision::F32, ["F32", "fp32", "float32", "FP32"]),
            (Precision::F16, ["FP16", "float16", "half", "Half"]),
            (Precision::Bf16, ["BF16", "bfloat16", "BFLOAT16", "Bf16"]),
            (Precision::Int8, ["INT8", "i8", "I8", "Int8"]),
            (Precision::Q8_0, ["q8-0", "Q8_0", "Q8-0", "q8_0"]),
            (Precision::Q4K, ["Q4K", "q4_k", "Q4_K", "q4-k"]),
        ];
        for (precision, names) in table {
            for name in names {
                assert_eq!(name.parse(), Ok(precision), "{name}");
                assert_eq!(serde_json::from_value::<Precision>(name.into()).unwrap(), precision, "{name}");
            }
        }
    }

    #[test]
    fn an_unknown_name_is_told_with_the_known_ones_and_those_it_may_mean() {
        let table = [
            ("", ""),
            ("fp8", ""),
            ("int4", "; did you mean q4k?"),
            ("Q4_K_M", "; did you mean q4k?"),
            ("q8", "; did you mean int8 or q8_0?"),
            ("16bit", "; did you mean f16 or bf16?"),
            ("double", "; did you mean f32?"),
        ];
        for (name, question) in table {
            let known = "known are: f32, f16, bf16, int8, q8_0, q4k";
            let error = name.parse::<Precision>().unwrap_err();
            assert_eq!(error.to_string(), format!("precision '{name}' is not known; {known}{question}"));
        }
    }
}
