//! The launch of `embedding.cu`.

use super::{Bounds, Embeddings, Table, TableValues};
use crate::KernelError;
use crate::cuda::{Buffer, Element, Gpu, LaunchShape, Matrix, QuantizedMatrix, View, int, mismatch};
use crate::residual_norm::cuda::{DeviceNorm, norm_arguments, quantized_arguments};

/// An encoder's embedding tables in device memory.
#[derive(Debug)]
pub(crate) struct DeviceEmbeddings {
    words: DeviceTable,
    positions: Option<DeviceTable>,
    segments: Option<DeviceTable>,
    norm: Option<DeviceNorm>,
    columns: usize,
    bounds: Bounds,
    element: Element,
}

#[derive(Debug)]
struct DeviceTable {
    values: Buffer,
    rows: usize,
}

/// Table rows to look up, one of each table per token; all of them within the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookups<'a> {
    pub(crate) ids: View<'a, i32>,
    pub(crate) segments: View<'a, i32>,
    pub(crate) positions: View<'a, i32>,
}

impl DeviceEmbeddings {
    /// Copies tables, which must be kept in f32, to the device.
    ///
    /// # Errors
    /// If a table is kept in int8, or a value is too large for the element.
    pub(crate) fn new(gpu: &Gpu, embeddings: &Embeddings, element: Element) -> Result<Self, KernelError> {
        let table =
            |table: &Option<Table>| table.as_ref().map(|table| DeviceTable::new(gpu, table, element)).transpose();
        Ok(Self {
            words: DeviceTable::new(gpu, &embeddings.words, element)?,
            positions: table(&embeddings.positions)?,
            segments: table(&embeddings.segments)?,
            norm: embeddings.norm.as_ref().map(|norm| DeviceNorm::new(gpu, norm)).transpose()?,
            columns: embeddings.columns(),
            bounds: embeddings.bounds(),
            element,
        })
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(crate) fn bytes(&self) -> usize {
        let tables = [Some(&self.words), self.positions.as_ref(), self.segments.as_ref()];
        let tables = tables.into_iter().flatten().map(|table| table.values.bytes()).sum::<usize>();
        tables + self.norm.as_ref().map_or(0, DeviceNorm::bytes)
    }

    /// Computes the normalised sums, and the same rows quantised if asked.
    ///
    /// # Errors
    /// If the shapes do not fit together. That the numbers are within the tables is for the caller to check
    /// ([`Bounds::check`]).
    pub(crate) fn forward(
        &self,
        gpu: &Gpu,
        lookups: Lookups<'_>,
        y: Matrix<'_>,
        quantized: Option<QuantizedMatrix<'_>>,
    ) -> Result<(), KernelError> {
        let Lookups { ids, segments, positions } = lookups;
        let columns = self.columns;
        let lengths = [ids.len(), segments.len(), positions.len()];
        if lengths != [y.rows(); 3] || y.columns() != columns || y.element() != self.element {
            return Err(mismatch(format!("embeddings of {lengths:?} numbers in {columns} columns into {y:?}")));
        }
        let pointer = |table: &DeviceTable| table.values.matrix(0, table.rows, columns, self.element).pointer();
        let [values, scales, zeros, stride] = quantized_arguments(quantized, y)?;
        let [norm, weight, bias, eps] = norm_arguments(self.norm.as_ref());
        let arguments = [
            ids.pointer().into(),
            segments.pointer().into(),
            positions.pointer().into(),
            pointer(&self.words).into(),
            self.segments.as_ref().map_or(0, pointer).into(),
            self.positions.as_ref().map_or(0, pointer).into(),
            norm,
            weight,
            bias,
            eps,
            y.pointer().into(),
            values,
            scales,
            zeros,
            stride,
            int(columns)?.into(),
        ];
        let shape = LaunchShape::row_by_row(y.rows(), columns)?;
        // SAFETY: the parameters of `embedding_*`; as many numbers as rows of `y`, which the caller has checked against
        // the tables; a row of f32 is in shared memory.
        unsafe { gpu.launch(gpu.functions.embedding.of(self.element), shape, arguments) }
    }
}

impl DeviceTable {
    fn new(gpu: &Gpu, table: &Table, element: Element) -> Result<Self, KernelError> {
        let TableValues::F32(values) = &table.values else {
            return Err(mismatch("a GPU takes tables of vectors that are kept in f32".to_owned()));
        };
        Ok(Self { values: gpu.upload_as(element, values)?, rows: table.rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tests::{QuantizedRoom, assert_near, each_gpu, rounded};
    use crate::embedding::TableFormat;
    use crate::embedding::cases::{IDS, SEGMENTS, cases};

    #[test]
    fn every_version_and_element_adds_three_rows_and_normalises_them() {
        each_gpu(|gpu| {
            for (case, element) in cases().flat_map(|case| Element::ALL.map(|element| (case.clone(), element))) {
                let made = DeviceEmbeddings::new(gpu, &case.embeddings(), element);
                if case.format == TableFormat::Int8 {
                    assert!(made.is_err());
                    continue;
                }
                let (embeddings, columns, tokens) = (made.unwrap(), case.columns, IDS.len());
                let [ids, segments] =
                    [IDS, SEGMENTS].map(|numbers| gpu.upload(&numbers.map(u32::cast_signed)).unwrap());
                let positions = gpu.upload(&[0, 1, 2, 3]).unwrap();
                let lookups = Lookups {
                    ids: ids.view(0, tokens),
                    segments: segments.view(0, tokens),
                    positions: positions.view(0, tokens),
                };
                let (y, quantized) = (gpu.room(tokens, columns, element), QuantizedRoom::new(gpu, tokens, columns));
                let matrix = y.matrix(0, tokens, columns, element);
                embeddings.forward(gpu, lookups, matrix, Some(quantized.matrix())).unwrap();
                let got = gpu.download(matrix, &y);
                let expected = case.expected(&case.tables.each_ref().map(|table| rounded(element, table)));
                assert_near(&got, &expected, element, &(gpu, columns));
                if element == Element::F32 {
                    quantized.assert_holds(gpu, &got, true, &(gpu, columns));
                }
                let short = Lookups { ids: ids.view(0, tokens - 1), ..lookups };
                assert!(embeddings.forward(gpu, short, matrix, None).is_err());
            }
        });
    }

    #[test]
    fn tables_and_norms_that_are_absent_add_and_change_nothing() {
        each_gpu(|gpu| {
            let case = cases().find(|case| case.columns == 20).unwrap();
            let table = |at: usize| Some(Table::new(case.tables[at].clone(), 20, TableFormat::F32).unwrap());
            let [ids, segments] = [IDS, SEGMENTS].map(|numbers| gpu.upload(&numbers.map(u32::cast_signed)).unwrap());
            let positions = gpu.upload(&[0, 1, 2, 3]).unwrap();
            let lookups =
                Lookups { ids: ids.view(0, 4), segments: segments.view(0, 4), positions: positions.view(0, 4) };
            for [has_positions, has_segments] in [[false, false], [false, true], [true, false]] {
                let of = |has: bool, at: usize| if has { table(at) } else { None };
                let (positions, segments) = (of(has_positions, 1), of(has_segments, 2));
                let embeddings = Embeddings::new(table(0).unwrap(), positions, segments, None).unwrap();
                let embeddings = DeviceEmbeddings::new(gpu, &embeddings, Element::F32).unwrap();
                let y = gpu.room(4, 20, Element::F32);
                let matrix = y.matrix(0, 4, 20, Element::F32);
                embeddings.forward(gpu, lookups, matrix, None).unwrap();
                let expected = (0..4 * 20).map(|at| {
                    let (token, column) = (at / 20, at % 20);
                    let row = |table: usize, row: usize| f64::from(case.tables[table][row * 20 + column]);
                    let position = if has_positions { row(1, token) } else { 0.0 };
                    let segment = if has_segments { row(2, SEGMENTS[token] as usize) } else { 0.0 };
                    row(0, IDS[token] as usize) + position + segment
                });
                let what = (gpu, has_positions, has_segments);
                assert_near(&gpu.download(matrix, &y), &expected.collect::<Vec<_>>(), Element::F32, &what);
            }
        });
    }
}
