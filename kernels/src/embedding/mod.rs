//! Tables of vectors, and the sum of rows that begins an encoder:
//! `norm(words[id] + segments[segment] + positions[position])` (Devlin et al., arXiv:1810.04805), of which all but the
//! words may be absent.

#[cfg(test)]
pub(crate) mod cases;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod simd;
#[cfg(test)]
mod tests;

use crate::KernelError;
use crate::aligned::Aligned;
use crate::linear::int8::{quantized, scale_of};
use crate::residual_norm::RowNorm;
use crate::rows::RowsMut;
use crate::simd::Isa;

/// Storage format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    /// 4 bytes per element.
    F32,
    /// 1 byte per element and a scale per row.
    Int8,
}

/// A table of vectors, looked up by row.
pub struct Table {
    columns: usize,
    rows: usize,
    values: TableValues,
}

pub(crate) enum TableValues {
    F32(Vec<f32>),
    Int8 { values: Aligned<i8>, scales: Vec<f32> },
}

impl Table {
    /// Makes a table of `values`, which is `[rows, columns]`.
    ///
    /// # Errors
    /// If it is not whole rows or, in int8, an element is not finite.
    pub fn new(values: Vec<f32>, columns: usize, format: TableFormat) -> Result<Self, KernelError> {
        if columns == 0 || !values.len().is_multiple_of(columns) {
            let what = format!("a table of {} elements has no whole rows of {columns}", values.len());
            return Err(KernelError::Mismatch { what });
        }
        let rows = values.len() / columns;
        let values = match format {
            TableFormat::F32 => TableValues::F32(values),
            TableFormat::Int8 => {
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    return Err(KernelError::NotFinite { at, value: values[at].to_string() });
                }
                let scales: Vec<f32> = values.chunks_exact(columns).map(scale_of).collect();
                let mut bytes = Aligned::zeros(values.len());
                for ((row, scale), to) in values.chunks_exact(columns).zip(&scales).zip(bytes.chunks_exact_mut(columns))
                {
                    to.iter_mut().zip(row).for_each(|(to, value)| *to = quantized(*value, *scale));
                }
                TableValues::Int8 { values: bytes, scales }
            }
        };
        Ok(Self { columns, rows, values })
    }

    /// Rows of the table.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements per row.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of memory that the table holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.values {
            TableValues::F32(values) => size_of_val(values.as_slice()),
            TableValues::Int8 { values, scales } => values.bytes() + size_of_val(scales.as_slice()),
        }
    }
}

/// An encoder's embedding tables, all of one width.
pub struct Embeddings {
    words: Table,
    positions: Option<Table>,
    segments: Option<Table>,
    norm: Option<RowNorm>,
}

/// Number of rows of each table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    words: usize,
    /// 1 without a table: every token is in segment 0.
    segments: usize,
    /// `None` without a table: sequences may be of any length.
    positions: Option<usize>,
}

impl Bounds {
    /// Returns an error that names the first id, segment or position that its table does not have.
    pub(crate) fn check(self, ids: &[u32], segments: &[u32], lengths: &[usize]) -> Result<(), KernelError> {
        for (name, numbers, rows) in [("token id", ids, self.words), ("segment", segments, self.segments)] {
            if let Some(number) = numbers.iter().find(|number| **number as usize >= rows) {
                return Err(KernelError::Mismatch { what: format!("{name} {number}; the table has {rows}") });
            }
        }
        let most = self.positions.unwrap_or(usize::MAX);
        match lengths.iter().find(|length| !(1..=most).contains(length)) {
            Some(0) => {
                Err(KernelError::Mismatch { what: "a sequence of 0 tokens; the model takes 1 or more".to_owned() })
            }
            Some(length) => Err(KernelError::Mismatch {
                what: format!("a sequence of {length} tokens; the model takes 1 to {most}"),
            }),
            None => Ok(()),
        }
    }
}

impl Embeddings {
    /// Puts tables of one width together. The first row of `positions` is a sequence's first token's.
    ///
    /// # Errors
    /// If their widths differ.
    pub fn new(
        words: Table,
        positions: Option<Table>,
        segments: Option<Table>,
        norm: Option<RowNorm>,
    ) -> Result<Self, KernelError> {
        let table = |table: &Option<Table>| table.as_ref().map_or(words.columns, |table| table.columns);
        let norm_columns = norm.as_ref().map_or(words.columns, RowNorm::columns);
        let widths = [words.columns, table(&positions), table(&segments), norm_columns];
        if widths.iter().any(|width| *width != words.columns) {
            let what = format!("embeddings of words, positions, segments and norm of widths {widths:?}");
            return Err(KernelError::Mismatch { what });
        }
        Ok(Self { words, positions, segments, norm })
    }

    /// Elements per token.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.words.columns
    }

    /// Bytes of memory that the tables hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let table = |table: &Option<Table>| table.as_ref().map_or(0, Table::bytes);
        self.words.bytes() + table(&self.positions) + table(&self.segments)
    }

    /// Number of rows that each table has.
    pub(crate) fn bounds(&self) -> Bounds {
        let rows = |table: &Option<Table>| table.as_ref().map(|table| table.rows);
        Bounds { words: self.words.rows, segments: rows(&self.segments).unwrap_or(1), positions: rows(&self.positions) }
    }

    /// Computes the normalised sums for the tokens of one sequence from position 0, all of them within the tables.
    pub(crate) fn embed(&self, isa: Isa, ids: &[u32], segments: &[u32], out: RowsMut<'_, f32>) {
        isa.run(simd::Embed { embeddings: self, ids, segments, out });
    }
}

impl std::fmt::Debug for Embeddings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Embeddings({} words of {})", self.words.rows, self.columns())
    }
}
