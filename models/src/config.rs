//! Checks for the fields of a `config.json`. Each error names the field, its value and the allowed values.

use std::ops::RangeInclusive;

use sconce_kernels::bias_gelu::GeluForm;
use sconce_kernels::encoder::{HeadFunction, InnerFunction};
use serde::Deserialize;

use crate::{LabelFunction, excerpt};

/// The allowed sizes, up to more than any real one.
const SIZES: RangeInclusive<usize> = 1..=1 << 16;
/// The allowed numbers of rows of tables, which may have a row for each word of many languages.
const ROWS: RangeInclusive<usize> = 1..=1 << 24;

/// Refuses the first size that is out of range. Each size comes with the name of its field.
pub(crate) fn sizes(sizes: &[(&str, usize)]) -> Result<(), String> {
    within(&SIZES, sizes)
}

/// As [`sizes`], for numbers of rows of tables.
pub(crate) fn rows(sizes: &[(&str, usize)]) -> Result<(), String> {
    within(&ROWS, sizes)
}

/// The most tokens of a text where no table of positions bounds them, if it is one that [`rows`] allows.
pub(crate) fn max_tokens(field: &str, tokens: usize) -> Result<usize, String> {
    rows(&[(field, tokens)]).map(|()| tokens)
}

fn within(allowed: &RangeInclusive<usize>, sizes: &[(&str, usize)]) -> Result<(), String> {
    match sizes.iter().find(|(_, size)| !allowed.contains(size)) {
        None => Ok(()),
        Some((field, size)) => {
            Err(format!("field '{field}' is {size}; it must be between {} and {}", allowed.start(), allowed.end()))
        }
    }
}

/// The number of elements of a head. The number of heads and the size that they divide come with the names of their
/// fields.
pub(crate) fn head_size((field, heads): (&str, usize), (whole, hidden): (&str, usize)) -> Result<usize, String> {
    if !hidden.is_multiple_of(heads) {
        return Err(format!("field '{field}' is {heads}, which does not divide {whole} {hidden}"));
    }
    Ok(hidden / heads)
}

/// Refuses an epsilon that is negative or not finite.
pub(crate) fn eps(field: &str, eps: f32) -> Result<(), String> {
    if eps.is_finite() && eps >= 0.0 {
        return Ok(());
    }
    Err(format!("field '{field}' is {eps}; it must be finite and not negative"))
}

/// Refuses any value but the one that is known.
pub(crate) fn only(field: &str, got: &str, known: &str) -> Result<(), String> {
    if got == known { Ok(()) } else { Err(format!("field '{field}' is '{}'; only '{known}' is known", excerpt(&got))) }
}

/// The function of a feed-forward network, by its name in Hugging Face's files.
pub(crate) fn function(field: &str, name: &str) -> Result<InnerFunction, String> {
    match name {
        "gelu" => Ok(InnerFunction::Gelu(GeluForm::Erf)),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(InnerFunction::Gelu(GeluForm::Tanh)),
        "relu" => Ok(InnerFunction::Relu),
        "silu" | "swish" => Ok(InnerFunction::Silu),
        other => {
            let other = excerpt(&other);
            Err(format!("field '{field}' is '{other}'; known are: gelu, gelu_new, gelu_pytorch_tanh, relu, silu"))
        }
    }
}

/// The same function in a step of a head.
pub(crate) fn head_function(function: InnerFunction) -> HeadFunction {
    match function {
        InnerFunction::Gelu(form) => HeadFunction::Gelu(form),
        InnerFunction::Relu => HeadFunction::Relu,
        InnerFunction::Silu => HeadFunction::Silu,
    }
}

/// The last step of a classifier, as Hugging Face's pipelines choose it by `problem_type`.
pub(crate) fn label_function(problem_type: Option<&str>, labels: usize) -> Result<LabelFunction, String> {
    match problem_type {
        Some("multi_label_classification") => Ok(LabelFunction::Sigmoid),
        Some("regression") => Ok(LabelFunction::Identity),
        None | Some("single_label_classification") if labels == 1 => Ok(LabelFunction::Sigmoid),
        None | Some("single_label_classification") => Ok(LabelFunction::Softmax),
        Some(other) => {
            let known = "single_label_classification, multi_label_classification, regression";
            Err(format!("field 'problem_type' is '{}'; known are: {known}", excerpt(&other)))
        }
    }
}

/// Rotary positions as `rope_parameters` or `rope_scaling` states them.
#[derive(Debug, Deserialize)]
pub(crate) struct Rope {
    #[serde(rename = "rope_theta")]
    theta: Option<f32>,
    #[serde(rename = "rope_type")]
    kind: Option<String>,
    /// The old name of `rope_type`.
    r#type: Option<String>,
}

impl Rope {
    /// The base, if it is stated. Any type but `default` is refused.
    pub(crate) fn base(&self, field: &str) -> Result<Option<f32>, String> {
        let kind = self.kind.as_ref().or(self.r#type.as_ref()).map_or("default", String::as_str);
        only(&format!("{field}.rope_type"), kind, "default")?;
        Ok(self.theta)
    }
}

/// Refuses a base of rotary positions that is not above 0.
pub(crate) fn rope_base(field: &str, base: f32) -> Result<(), String> {
    if base.is_finite() && base > 0.0 { Ok(()) } else { Err(format!("field '{field}' is {base}; it must be above 0")) }
}

/// Refuses a head of an odd number of elements, of which no pairs can be rotated.
pub(crate) fn rotated(field: &str, head_size: usize) -> Result<(), String> {
    if head_size.is_multiple_of(2) {
        return Ok(());
    }
    Err(format!("field '{field}' is {head_size}; rotary positions need an even number"))
}

/// Refuses a number of heads that do not share the heads of keys evenly.
pub(crate) fn shared_heads(heads: usize, key_value_heads: usize) -> Result<(), String> {
    if heads.is_multiple_of(key_value_heads) {
        return Ok(());
    }
    Err(format!("field 'num_key_value_heads' is {key_value_heads}, which does not divide num_attention_heads {heads}"))
}

/// Refuses a number of rows of a relative bias that does not leave rows for short and for long distances on both sides.
pub(crate) fn buckets(field: &str, buckets: usize, max_distance: usize) -> Result<(), String> {
    let most = 4 * max_distance - 4;
    if (4..=most).contains(&buckets) && buckets.is_multiple_of(2) {
        return Ok(());
    }
    Err(format!("field '{field}' is {buckets}; it must be even and between 4 and {most}"))
}

/// Refuses the first switch that is on.
pub(crate) fn off(switches: &[(&str, Option<bool>)]) -> Result<(), String> {
    match switches.iter().find(|(_, on)| *on == Some(true)) {
        None => Ok(()),
        Some((field, _)) => Err(format!("field '{field}' is true; only false is known")),
    }
}
