//! One (batched) matrix product: C = α · op(A) · op(B) + β · C, matrices by columns.

use crate::device::memory::Memory;
use crate::interpreter::FaultKind;
use crate::interpreter::numeric::{bf16_to_f32, f16_to_f32, narrow};
use crate::ptx::types::{Rounding, Type};

/// The type of a matrix's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F16,
    Bf16,
    F32,
    F64,
    S8,
    S32,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Self::S8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::S32 => 4,
            Self::F64 => 8,
        }
    }
}

/// One of the three matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operand {
    pub address: u64,
    pub element: Element,
    pub transposed: bool,
    /// Elements from one column to the next.
    pub leading: usize,
    /// Elements from one matrix of a batch to the next.
    pub stride: i64,
}

/// α and β.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    Float(f64),
    Integer(i32),
}

/// A product that has been checked and waits on a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub batch: usize,
    pub alpha: Scalar,
    pub beta: Scalar,
    pub a: Operand,
    pub b: Operand,
    pub c: Operand,
}

impl Gemm {
    /// Computes the product.
    pub fn run(&self, memory: &mut Memory) -> Result<(), FaultKind> {
        if self.m == 0 || self.n == 0 {
            return Ok(());
        }
        for index in 0..self.batch {
            match (self.a.element, self.c.element) {
                (Element::S8, Element::S32) => self.run_integer(memory, index)?,
                (Element::F64, _) => self.run_double(memory, index)?,
                _ => self.run_float(memory, index)?,
            }
        }
        Ok(())
    }

    fn run_float(&self, memory: &mut Memory, index: usize) -> Result<(), FaultKind> {
        let (Scalar::Float(alpha), Scalar::Float(beta)) = (self.alpha, self.beta) else {
            unreachable!("floats are scaled by floats")
        };
        let a = fetch(memory, &self.a, index, (self.m, self.k), false, to_f32)?;
        let b = fetch(memory, &self.b, index, (self.n, self.k), true, to_f32)?;
        let old = self.old(memory, index, beta != 0.0, to_f32)?;
        let (alpha, beta) = (alpha as f32, beta as f32);
        let element = self.c.element;
        self.store(memory, index, |row, column| {
            let sum = alpha * dot(&a[row * self.k..][..self.k], &b[column * self.k..][..self.k]);
            let sum = if beta == 0.0 { sum } else { sum + beta * old[column * self.m + row] };
            match element {
                Element::F16 => u64::from(half::f16::from_f32(sum).to_bits()),
                Element::Bf16 => narrow(f64::from(sum), Type::Bf16, Rounding::Nearest),
                _ => u64::from(sum.to_bits()),
            }
        })
    }

    fn run_double(&self, memory: &mut Memory, index: usize) -> Result<(), FaultKind> {
        let (Scalar::Float(alpha), Scalar::Float(beta)) = (self.alpha, self.beta) else {
            unreachable!("floats are scaled by floats")
        };
        let to_f64 = |bits: u64, _| f64::from_bits(bits);
        let a = fetch(memory, &self.a, index, (self.m, self.k), false, to_f64)?;
        let b = fetch(memory, &self.b, index, (self.n, self.k), true, to_f64)?;
        let old = self.old(memory, index, beta != 0.0, to_f64)?;
        self.store(memory, index, |row, column| {
            let (x, y) = (&a[row * self.k..][..self.k], &b[column * self.k..][..self.k]);
            let sum = alpha * x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            (if beta == 0.0 { sum } else { sum + beta * old[column * self.m + row] }).to_bits()
        })
    }

    fn run_integer(&self, memory: &mut Memory, index: usize) -> Result<(), FaultKind> {
        let (Scalar::Integer(alpha), Scalar::Integer(beta)) = (self.alpha, self.beta) else {
            unreachable!("integers are scaled by integers")
        };
        let to_int = |bits: u64, element| {
            if element == Element::S8 { i32::from(bits as i8) } else { bits as i32 }
        };
        let a = fetch(memory, &self.a, index, (self.m, self.k), false, to_int)?;
        let b = fetch(memory, &self.b, index, (self.n, self.k), true, to_int)?;
        let old = self.old(memory, index, beta != 0, to_int)?;
        self.store(memory, index, |row, column| {
            let (x, y) = (&a[row * self.k..][..self.k], &b[column * self.k..][..self.k]);
            let sum = x.iter().zip(y).fold(0i32, |sum, (x, y)| sum.wrapping_add(x * y)).wrapping_mul(alpha);
            let old = if beta == 0 { 0 } else { beta.wrapping_mul(old[column * self.m + row]) };
            u64::from(sum.wrapping_add(old).cast_unsigned())
        })
    }

    /// C before the product, by columns, where β is not zero; otherwise it may be uninitialised.
    fn old<T: Copy>(
        &self,
        memory: &mut Memory,
        index: usize,
        counts: bool,
        value: impl Fn(u64, Element) -> T,
    ) -> Result<Vec<T>, FaultKind> {
        if !counts {
            return Ok(Vec::new());
        }
        let by_rows = fetch(memory, &Operand { transposed: true, ..self.c }, index, (self.n, self.m), false, value)?;
        Ok(by_rows)
    }

    fn store(&self, memory: &mut Memory, index: usize, value: impl Fn(usize, usize) -> u64) -> Result<(), FaultKind> {
        let bytes = self.c.element.bytes();
        let start = matrix_address(&self.c, index);
        for column in 0..self.n {
            memory.write_with(start + (column * self.c.leading * bytes) as u64, self.m * bytes, |data| {
                for (row, place) in data.chunks_exact_mut(bytes).enumerate() {
                    place.copy_from_slice(&value(row, column).to_le_bytes()[..bytes]);
                }
            })?;
        }
        Ok(())
    }
}

fn matrix_address(operand: &Operand, index: usize) -> u64 {
    operand.address.wrapping_add_signed(operand.stride * index as i64 * operand.element.bytes() as i64)
}

fn to_f32(bits: u64, element: Element) -> f32 {
    match element {
        Element::F16 => f16_to_f32(bits as u16),
        Element::Bf16 => bf16_to_f32(bits as u16),
        _ => f32::from_bits(bits as u32),
    }
}

/// The matrix as `outer` runs of `depth` values: the rows of op(A), or the columns of op(B).
fn fetch<T: Copy>(
    memory: &mut Memory,
    operand: &Operand,
    index: usize,
    (outer, depth): (usize, usize),
    is_b: bool,
    value: impl Fn(u64, Element) -> T,
) -> Result<Vec<T>, FaultKind> {
    let bytes = operand.element.bytes();
    let start = matrix_address(operand, index);
    // In memory a run of `outer` or of `depth` is contiguous.
    let depth_contiguous = operand.transposed != is_b;
    let (columns, rows) = if depth_contiguous { (outer, depth) } else { (depth, outer) };
    let mut stored = Vec::with_capacity(columns * rows);
    for column in 0..columns {
        let data = memory.read(start + (column * operand.leading * bytes) as u64, rows * bytes)?;
        stored.extend(data.chunks_exact(bytes).map(|chunk| {
            let mut word = [0; 8];
            word[..bytes].copy_from_slice(chunk);
            value(u64::from_le_bytes(word), operand.element)
        }));
    }
    if depth_contiguous {
        return Ok(stored);
    }
    let mut turned = Vec::with_capacity(stored.len());
    for row in 0..rows {
        turned.extend((0..columns).map(|column| stored[column * rows + row]));
    }
    Ok(turned)
}

/// A dot product in eight parts, which the compiler turns into vector instructions.
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let (mut x_parts, mut y_parts) = (x.chunks_exact(8), y.chunks_exact(8));
    for (x, y) in (&mut x_parts).zip(&mut y_parts) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = x_parts.remainder().iter().zip(y_parts.remainder()).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}
