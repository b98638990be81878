use super::cases::{Case, cases};
use super::{Quantized, reference};
use crate::Isa;
use crate::rows::Rows;

#[test]
fn every_instruction_set_agrees_with_the_reference_at_every_length() {
    for Case { columns, x } in cases() {
        let rows = x.len() / columns;
        for isa in Isa::available() {
            let mut quantized = Quantized::default();
            quantized.resize(rows, columns);
            quantized.quantize(*isa, Rows::new(&x, rows, columns, columns), 0..rows);
            let got = quantized.rows(0..rows, columns);
            for (row, x) in x.chunks_exact(columns).enumerate() {
                let (values, scale, zero) = reference::quantize_row(x, isa.max_u8());
                assert_eq!((got.scales[row].to_bits(), got.zeros[row]), (scale.to_bits(), zero), "{isa} {columns}");
                for (column, value) in values.iter().enumerate() {
                    // Rounding twice instead of once may give the neighbouring byte.
                    let slack = u8::from(isa.name() == "portable");
                    let byte = got.values.row(row)[column];
                    assert!(byte.abs_diff(*value) <= slack, "{isa} {columns} at {row}, {column}");
                    let back = scale * (f32::from(byte) - zero as f32);
                    assert!((back - x[column]).abs() <= 0.501 * scale + f32::from(slack) * scale, "{isa}: {back}");
                }
                let padding = &got.values.row(row)[columns..];
                assert!(padding.iter().all(|byte| *byte == 0), "{isa} {columns}: {padding:?}");
            }
        }
    }
}

#[test]
fn rows_of_zeros_of_one_sign_and_of_equal_values_come_back() {
    for isa in Isa::available() {
        for (value, count) in [(0.0, 5), (3.0, 9), (-3.0, 17), (1e-30, 4), (1e30, 20)] {
            let x = vec![value; count];
            let mut quantized = Quantized::default();
            quantized.resize(1, count);
            quantized.quantize(*isa, Rows::new(&x, 1, count, count), 0..1);
            let rows = quantized.rows(0..1, count);
            for byte in &rows.values.row(0)[..count] {
                let back = rows.scales[0] * (f32::from(*byte) - rows.zeros[0] as f32);
                assert!((back - value).abs() <= value.abs() * 1e-6, "{isa}: {back} for {value}");
            }
        }
    }
}
