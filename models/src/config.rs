//! Checks for the fields of a `config.json`. Each error names the field, its value and the allowed values.

use std::ops::RangeInclusive;

use sconce_kernels::bias_gelu::GeluForm;
use sconce_kernels::encoder::InnerFunction;

use crate::excerpt;

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
        other => {
            let other = excerpt(&other);
            Err(format!("field '{field}' is '{other}'; known are: gelu, gelu_new, gelu_pytorch_tanh, relu"))
        }
    }
}

/// The first architecture in the field `architectures`, or the first known one if the field is empty.
pub(crate) fn architecture<'a>(architectures: &'a [String], known: &[&'a str]) -> Result<&'a str, String> {
    let name = architectures.first().map_or(known[0], String::as_str);
    if known.contains(&name) {
        return Ok(name);
    }
    Err(format!("field 'architectures' names '{}'; known are: {}", excerpt(&name), known.join(", ")))
}

/// Refuses classifiers whose last step is not softmax, or, of one label, the score of a pair.
pub(crate) fn single_label(problem_type: Option<&str>, labels: usize) -> Result<(), String> {
    match problem_type {
        None | Some("single_label_classification") => Ok(()),
        // Hugging Face's name for a classifier of one label.
        Some("regression") if labels == 1 => Ok(()),
        Some(other) => {
            let other = excerpt(&other);
            Err(format!("field 'problem_type' is '{other}'; only 'single_label_classification' is known"))
        }
    }
}
