//! The formula of the module's documentation, one row at a time.

/// The bytes, the scale and the zero point of a row.
#[must_use]
pub fn quantize_row(x: &[f32], max_value: u8) -> (Vec<u8>, f32, i32) {
    let low = x.iter().fold(0.0_f32, |low, x| low.min(*x));
    let high = x.iter().fold(0.0_f32, |high, x| high.max(*x));
    let largest = f32::from(max_value);
    let scale = if high > low { (high - low) / largest } else { 1.0 };
    let zero = (-low * scale.recip()).round_ties_even();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded to 0 and 255 on the line")]
    let value = |x: &f32| x.mul_add(scale.recip(), zero).round_ties_even().clamp(0.0, largest) as u8;
    #[expect(clippy::cast_possible_truncation, reason = "a whole number within 0 and 255")]
    (x.iter().map(value).collect(), scale, zero as i32)
}
