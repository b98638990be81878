//! Literals of PTX.

use super::types::Type;

/// The value of an integer literal without sign: decimal, `0x`, `0b` or octal, with or without a `U`.
pub fn integer(text: &str) -> Option<u64> {
    let text = text.trim_end_matches('U');
    let (digits, radix) = if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        (hex, 16)
    } else if let Some(binary) = text.strip_prefix("0b").or_else(|| text.strip_prefix("0B")) {
        (binary, 2)
    } else if text.len() > 1 && text.starts_with('0') {
        (&text[1..], 8)
    } else {
        (text, 10)
    };
    u64::from_str_radix(digits, radix).ok()
}

/// The bits that a literal puts into a register of type `ty`.
pub fn literal(text: &str, negative: bool, ty: Type) -> Option<u64> {
    let as_float = |value: f64| {
        let value = if negative { -value } else { value };
        if ty == Type::F64 { value.to_bits() } else { u64::from((value as f32).to_bits()) }
    };
    if let Some(hex) = text.strip_prefix("0f").or_else(|| text.strip_prefix("0F")) {
        let bits = u32::from_str_radix(hex, 16).ok()?;
        return Some(if ty == Type::F64 { f64::from(f32::from_bits(bits)).to_bits() } else { u64::from(bits) });
    }
    if let Some(hex) = text.strip_prefix("0d").or_else(|| text.strip_prefix("0D")) {
        let bits = u64::from_str_radix(hex, 16).ok()?;
        return Some(if ty == Type::F32 { u64::from((f64::from_bits(bits) as f32).to_bits()) } else { bits });
    }
    if text.contains('.') {
        return text.parse().ok().map(as_float);
    }
    let value = integer(text)?;
    Some(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_of_every_form_are_read() {
        assert_eq!(literal("0f3F800000", false, Type::F32), Some(0x3f80_0000));
        assert_eq!(literal("0d3FF0000000000000", false, Type::F64), Some(0x3ff0_0000_0000_0000));
        assert_eq!(literal("0x1F", false, Type::U32), Some(31));
        assert_eq!(literal("7", true, Type::S32), Some(7u64.wrapping_neg()));
        assert_eq!(literal("1.5", true, Type::F32), Some(u64::from((-1.5f32).to_bits())));
        assert_eq!(integer("017"), Some(15));
    }
}
