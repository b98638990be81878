//! `mma.sync` and `ldmatrix`.
//!
//! The layouts are those of the manual's "Matrix Fragments for mma": a lane belongs to row (or column) `lane / 4` of a
//! tile and holds 32 bits' worth of neighbouring elements at position `lane % 4`.

use super::fault::FaultKind;
use super::lanes::Lanes;
use super::numeric::{narrow, widen};
use super::shared::{Meaning, SharedMemory};
use super::warp::Warp;
use crate::ptx::operation::{MatrixShape, Register};
use crate::ptx::types::{Rounding, Type};

/// A matrix of exact values, row by row.
struct Tile {
    columns: usize,
    values: Vec<f64>,
}

impl Tile {
    fn new(rows: usize, columns: usize) -> Self {
        Self { columns, values: vec![0.0; rows * columns] }
    }

    fn at(&mut self, row: usize, column: usize) -> &mut f64 {
        &mut self.values[row * self.columns + column]
    }
}

/// D = A · B + C for one warp; returns the registers of D.
pub fn multiply(shape: &MatrixShape, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> Vec<Lanes> {
    let MatrixShape { m, n, k, .. } = *shape;
    let a = gather(a, shape.a, m, k, false);
    let b = gather(b, shape.b, n, k, true);
    let mut sums = accumulator(c, shape, m, n);
    let is_integer = shape.accumulator == Type::S32;
    for row in 0..m {
        for column in 0..n {
            let (x, y) = (&a.values[row * k..][..k], &b.values[column * k..][..k]);
            let sum = sums.at(row, column);
            // Products are exact; hardware adds them with at least f32's precision, in an order that is not documented.
            let product: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
            *sum = if is_integer { integer_sum(*sum + product, shape.saturate) } else { *sum + product };
        }
    }
    scatter(&mut sums, shape, c.len())
}

fn integer_sum(sum: f64, saturates: bool) -> f64 {
    // The cast to i32 saturates; through i64 it wraps.
    f64::from(if saturates { sum as i32 } else { sum as i64 as i32 })
}

/// The matrix in the registers of A or, by columns, of B.
fn gather(registers: &[Lanes], ty: Type, rows: usize, depth: usize, is_b: bool) -> Tile {
    let per_register = 32 / element_bits(ty);
    let mut tile = Tile::new(rows, depth);
    for (index, register) in registers.iter().enumerate() {
        // A's registers alternate between the upper and lower eight rows; B has eight columns.
        let (row_block, depth_block) = if is_b || rows == 8 { (0, index) } else { (index % 2, index / 2) };
        for (lane, bits) in register.iter().enumerate() {
            for element in 0..per_register {
                let row = row_block * 8 + lane / 4;
                let position = depth_block * 4 * per_register + lane % 4 * per_register + element;
                *tile.at(row, position) = element_value(*bits, element, ty);
            }
        }
    }
    tile
}

fn element_bits(ty: Type) -> usize {
    if ty == Type::Tf32 { 32 } else { ty.bits() as usize }
}

fn element_value(bits: u64, element: usize, ty: Type) -> f64 {
    let bits = bits >> (element * element_bits(ty));
    match ty {
        // The hardware ignores the bits that tf32 does not have.
        Type::Tf32 => f64::from(f32::from_bits(bits as u32 & 0xffff_e000)),
        Type::S8 => f64::from(bits as i8),
        Type::U8 => f64::from(bits as u8),
        _ => widen(bits & 0xffff, ty),
    }
}

/// Row and column of the accumulator element that a lane holds: two neighbours of one row for each pair.
fn accumulator_place(lane: usize, element: usize) -> (usize, usize) {
    (element / 2 * 8 + lane / 4, lane % 4 * 2 + element % 2)
}

fn accumulator(c: &[Lanes], shape: &MatrixShape, rows: usize, columns: usize) -> Tile {
    let mut tile = Tile::new(rows, columns);
    for (index, register) in c.iter().enumerate() {
        for (lane, bits) in register.iter().enumerate() {
            if shape.accumulator == Type::F16 {
                for half in 0..2 {
                    let (row, column) = accumulator_place(lane, index * 2 + half);
                    *tile.at(row, column) = widen(bits >> (16 * half) & 0xffff, Type::F16);
                }
            } else {
                let (row, column) = accumulator_place(lane, index);
                *tile.at(row, column) =
                    if shape.accumulator == Type::S32 { f64::from(*bits as i32) } else { widen(*bits, Type::F32) };
            }
        }
    }
    tile
}

fn scatter(sums: &mut Tile, shape: &MatrixShape, registers: usize) -> Vec<Lanes> {
    let mut out = vec![[0; 32]; registers];
    for (index, register) in out.iter_mut().enumerate() {
        for (lane, bits) in register.iter_mut().enumerate() {
            if shape.accumulator == Type::F16 {
                for half in 0..2 {
                    let (row, column) = accumulator_place(lane, index * 2 + half);
                    *bits |= narrow(*sums.at(row, column), Type::F16, Rounding::Nearest) << (16 * half);
                }
            } else {
                let (row, column) = accumulator_place(lane, index);
                let sum = *sums.at(row, column);
                *bits = if shape.accumulator == Type::S32 {
                    u64::from((sum as i32).cast_unsigned())
                } else {
                    narrow(sum, Type::F32, Rounding::Nearest)
                };
            }
        }
    }
    out
}

/// `ldmatrix`: eight rows of 16 bytes for each register, at the addresses of eight lanes.
pub fn load(
    warp: &mut Warp,
    shared: &mut SharedMemory,
    transposed: bool,
    d: &[Register],
    addresses: &Lanes,
) -> Result<(), FaultKind> {
    for (matrix, register) in d.iter().enumerate() {
        let mut rows = [[0u8; 16]; 8];
        for (row, bytes) in rows.iter_mut().enumerate() {
            let lane = matrix * 8 + row;
            let address = addresses[lane] & 0xffff_ffff;
            bytes.copy_from_slice(shared.read(address, 16, warp.accessor(lane), Meaning::Plain)?);
        }
        let element =
            |row: usize, column: usize| u64::from(rows[row][column * 2]) | u64::from(rows[row][column * 2 + 1]) << 8;
        let mut out = [0; 32];
        for (lane, out) in out.iter_mut().enumerate() {
            let (row, column) = (lane / 4, lane % 4 * 2);
            *out = if transposed {
                element(column, row) | element(column + 1, row) << 16
            } else {
                element(row, column) | element(row, column + 1) << 16
            };
        }
        warp.set(*register, u32::MAX, &out);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix product with fragments filled by the formulas of the manual, against a plain loop.
    #[test]
    fn an_integer_product_of_the_largest_shape_equals_a_plain_loop() {
        let shape =
            MatrixShape { m: 16, n: 8, k: 32, a: Type::S8, b: Type::S8, accumulator: Type::S32, saturate: false };
        let a = |row: usize, k: usize| (row * 7 + k * 3) as i8;
        let b = |k: usize, column: usize| (k * 5).wrapping_sub(column * 11) as i8;
        let (mut a_registers, mut b_registers) = (vec![[0; 32]; 4], vec![[0; 32]; 2]);
        for lane in 0..32 {
            let (group, thread) = (lane / 4, lane % 4);
            // "row = groupID for a0-a3 and a8-a11, groupID + 8 otherwise;
            //  col = threadID · 4 + (i & 3) for i < 8, + 16 otherwise"
            for i in 0..16 {
                let row = if i < 4 || (8..12).contains(&i) { group } else { group + 8 };
                let column = thread * 4 + (i & 3) + if i < 8 { 0 } else { 16 };
                a_registers[i / 4][lane] |= u64::from(a(row, column).cast_unsigned()) << (8 * (i % 4));
            }
            // "row = threadID · 4 + (i & 3) for i < 4, + 16 otherwise; col = groupID"
            for i in 0..8 {
                let row = thread * 4 + (i & 3) + if i < 4 { 0 } else { 16 };
                b_registers[i / 4][lane] |= u64::from(b(row, group).cast_unsigned()) << (8 * (i % 4));
            }
        }
        let d = multiply(&shape, &a_registers, &b_registers, &vec![[5; 32]; 4]);
        for (lane, i) in (0..32).flat_map(|lane| (0..4).map(move |i| (lane, i))) {
            let (row, column) = (lane / 4 + if i < 2 { 0 } else { 8 }, lane % 4 * 2 + (i & 1));
            let expected: i32 = 5 + (0..32).map(|k| i32::from(a(row, k)) * i32::from(b(k, column))).sum::<i32>();
            assert_eq!(d[i][lane] as i32, expected, "row {row}, column {column}");
        }
    }

    #[test]
    fn a_half_product_equals_a_plain_loop() {
        let shape =
            MatrixShape { m: 16, n: 8, k: 16, a: Type::F16, b: Type::F16, accumulator: Type::F32, saturate: false };
        let half = |value: f32| u64::from(half::f16::from_f32(value).to_bits());
        let a = |row: usize, k: usize| row as f32 - k as f32 * 0.5;
        let b = |k: usize, column: usize| k as f32 * 0.25 + column as f32;
        let (mut a_registers, mut b_registers) = (vec![[0; 32]; 4], vec![[0; 32]; 2]);
        for lane in 0..32 {
            let (group, thread) = (lane / 4, lane % 4);
            // "row = groupID for i in 0..2 or 4..6, + 8 otherwise; col = threadID · 2 + (i & 1) for i < 4, + 8 otherwise"
            for i in 0..8 {
                let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
                let column = thread * 2 + (i & 1) + if i < 4 { 0 } else { 8 };
                a_registers[i / 2][lane] |= half(a(row, column)) << (16 * (i % 2));
            }
            for i in 0..4 {
                let row = thread * 2 + (i & 1) + if i < 2 { 0 } else { 8 };
                b_registers[i / 2][lane] |= half(b(row, group)) << (16 * (i % 2));
            }
        }
        let d = multiply(&shape, &a_registers, &b_registers, &vec![[0; 32]; 4]);
        for (lane, i) in (0..32).flat_map(|lane| (0..4).map(move |i| (lane, i))) {
            let (row, column) = (lane / 4 + if i < 2 { 0 } else { 8 }, lane % 4 * 2 + (i & 1));
            let expected: f32 = (0..16).map(|k| a(row, k) * b(k, column)).sum();
            assert_eq!(f32::from_bits(d[i][lane] as u32), expected);
        }
    }
}
