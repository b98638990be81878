//! The launch of `pooling.cu`.

use super::Pooling;
use crate::KernelError;
use crate::cuda::{Gpu, LaunchShape, Matrix, View, dimension, int, mismatch};

/// Columns per block of `pooling_greatest`.
const BLOCK: usize = 128;

/// Length of a pooled vector: left as it is, or made 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    Kept,
    /// Scaled to 1; a vector of zeros stays zeros.
    One,
}

/// Matrices of a pooling: the vectors of the tokens, and a row for each sequence, which may have room for several
/// poolings side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolMatrices<'a> {
    pub(crate) tokens: Matrix<'a>,
    /// One number more than there are sequences, rising, the last at most the number of tokens. `None` if each token is a
    /// sequence of its own.
    pub(crate) starts: Option<View<'a, i32>>,
    pub(crate) out: Matrix<'a>,
    /// The number of poolings to the left of this one.
    pub(crate) place: usize,
}

/// Pools each sequence into its part of a row of `out`, which is f32; a sequence without tokens gives zeros. The caller
/// ensures that the starts lie within the tokens.
///
/// # Errors
/// If the shapes do not fit together.
pub(crate) fn pool(gpu: &Gpu, matrices: PoolMatrices<'_>, pooling: Pooling, length: Length) -> Result<(), KernelError> {
    let PoolMatrices { tokens, starts, out, place } = matrices;
    let (columns, stride, first) = (tokens.columns(), out.columns(), place * tokens.columns());
    let sequences = starts.map_or(Some(tokens.rows()), |starts| starts.len().checked_sub(1));
    if out.floats().is_none() || first + columns > stride || sequences != Some(out.rows()) {
        return Err(mismatch(format!("pooling of {sequences:?} sequences: {matrices:?}")));
    }
    let arguments = [
        tokens.pointer().into(),
        starts.map_or(0, |starts| starts.pointer()).into(),
        (out.pointer() + (first * size_of::<f32>()) as u64).into(),
        int(columns)?.into(),
        int(stride)?.into(),
        number_of(pooling).into(),
        i32::from(length == Length::One).into(),
    ];
    let shape = LaunchShape::row_by_row(out.rows(), columns)?;
    // SAFETY: the parameters of `pooling_*`; one start per row of `out` and the end, which the caller vouches are within
    // `tokens`; the columns lie within the rows of `out`; a row of f32 is in shared memory.
    unsafe { gpu.launch(gpu.functions.pooling.of(tokens.element()), shape, arguments) }
}

/// The number of a way of pooling in `pooling.cu`.
fn number_of(pooling: Pooling) -> i32 {
    match pooling {
        Pooling::Mean => 0,
        Pooling::Cls => 1,
        Pooling::Max => 2,
        Pooling::Last => 3,
        Pooling::WeightedMean => 4,
        Pooling::MeanSqrtLength => 5,
    }
}

/// The greatest number of each column among the rows of each sequence, 0 if none is above; NaN if one is NaN. `rows` are
/// those of the tokens from `from` on: the rows of a batch come in several calls, in order. The caller ensures that the
/// starts rise.
///
/// # Errors
/// If the shapes do not fit together.
pub(crate) fn keep_greatest(
    gpu: &Gpu,
    rows: Matrix<'_>,
    from: usize,
    starts: View<'_, i32>,
    out: Matrix<'_>,
) -> Result<(), KernelError> {
    let columns = rows.columns();
    let floats = rows.floats().is_some() && out.floats().is_some();
    if !floats || out.columns() != columns || starts.len() != out.rows() + 1 {
        return Err(mismatch(format!("the greatest of {rows:?} at {} places into {out:?}", starts.len())));
    }
    let arguments = [
        rows.pointer().into(),
        starts.pointer().into(),
        out.pointer().into(),
        int(columns)?.into(),
        int(from)?.into(),
        int(rows.rows())?.into(),
    ];
    let shape =
        LaunchShape { grid: [dimension(out.rows())?, dimension(columns.div_ceil(BLOCK))?], block: 128, shared: 0 };
    // SAFETY: the parameters of `pooling_greatest`; one start per row of `out` and the end; rows are read from `from` on,
    // as many as there are.
    unsafe { gpu.launch(gpu.functions.pooling_greatest, shape, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Element;
    use crate::cuda::tests::{assert_near, each_gpu, rounded};
    use crate::encoder::rows_of;
    use crate::pooling::cases::{Case, cases};
    use crate::pooling::reference;

    #[test]
    fn every_version_and_element_agrees_with_the_reference() {
        each_gpu(|gpu| {
            for (case, element) in cases().flat_map(|case| Element::ALL.map(|element| (case.clone(), element))) {
                let Case { columns, lengths, tokens, pooling } = case;
                let (count, tokens) = (tokens.len() / columns, rounded(element, &tokens));
                let starts = std::iter::once(0).chain(rows_of(&lengths).map(|rows| int(rows.end).unwrap()));
                let starts = gpu.upload(&starts.collect::<Vec<i32>>()).unwrap();
                let (on_tokens, out) =
                    (gpu.upload_as(element, &tokens).unwrap(), gpu.room(lengths.len(), columns, Element::F32));
                let matrix = out.matrix(0, lengths.len(), columns, Element::F32);
                let starts = starts.view(0, lengths.len() + 1);
                for length in [Length::Kept, Length::One] {
                    let tokens_of = on_tokens.matrix(0, count, columns, element);
                    let matrices = PoolMatrices { tokens: tokens_of, starts: Some(starts), out: matrix, place: 0 };
                    pool(gpu, matrices, pooling, length).unwrap();
                    let expected = rows_of(&lengths).flat_map(|rows| {
                        let pooled =
                            reference::pool(&tokens[rows.start * columns..rows.end * columns], columns, pooling);
                        let norm = pooled.iter().map(|x| x * x).sum::<f64>().sqrt();
                        pooled.into_iter().map(move |x| if length == Length::One { x / norm } else { x })
                    });
                    let expected: Vec<f64> = expected.collect();
                    // Sums and result are f32 for every element.
                    assert_near(&gpu.download(matrix, &out), &expected, Element::F32, &(gpu, pooling, length));
                }
            }
        });
    }

    #[test]
    fn a_sequence_without_tokens_gives_zeros_and_reads_nothing() {
        each_gpu(|gpu| {
            let (tokens, starts) = (gpu.upload(&[2.0_f32; 8]).unwrap(), gpu.upload(&[0, 0, 2, 2]).unwrap());
            let out = gpu.room(3, 4, Element::F32);
            let (tokens, to) = (tokens.matrix(0, 2, 4, Element::F32), out.matrix(0, 3, 4, Element::F32));
            for pooling in Pooling::ALL {
                let matrices = PoolMatrices { tokens, starts: Some(starts.view(0, 4)), out: to, place: 0 };
                pool(gpu, matrices, pooling, Length::Kept).unwrap();
                let got = gpu.download(to, &out);
                assert!(got[..4].iter().chain(&got[8..]).all(|x| x.to_bits() == 0), "{pooling:?}: {got:?}");
                assert!(got[4..8].iter().all(|x| *x >= 2.0), "{pooling:?}: {got:?}");
            }
        });
    }

    #[test]
    fn poolings_lie_side_by_side_and_each_token_may_be_a_sequence() {
        each_gpu(|gpu| {
            let (tokens, starts) = (gpu.upload(&[1.0_f32, 2.0, 3.0, 4.0]).unwrap(), gpu.upload(&[0, 2]).unwrap());
            let tokens = tokens.matrix(0, 2, 2, Element::F32);
            let out = gpu.room(1, 4, Element::F32);
            let to = out.matrix(0, 1, 4, Element::F32);
            for (place, pooling) in [Pooling::Max, Pooling::Cls].into_iter().enumerate() {
                let matrices = PoolMatrices { tokens, starts: Some(starts.view(0, 2)), out: to, place };
                pool(gpu, matrices, pooling, Length::Kept).unwrap();
            }
            assert_near(&gpu.download(to, &out), &[3.0, 4.0, 1.0, 2.0], Element::F32, &gpu);
            let matrices = PoolMatrices { tokens, starts: Some(starts.view(0, 2)), out: to, place: 2 };
            assert!(pool(gpu, matrices, Pooling::Cls, Length::Kept).is_err());

            let to = out.matrix(0, 2, 2, Element::F32);
            let matrices = PoolMatrices { tokens, starts: None, out: to, place: 0 };
            pool(gpu, matrices, Pooling::Cls, Length::Kept).unwrap();
            assert_near(&gpu.download(to, &out), &[1.0, 2.0, 3.0, 4.0], Element::F32, &gpu);
        });
    }

    #[test]
    fn a_token_without_numbers_is_not_hidden_by_those_around_it() {
        each_gpu(|gpu| {
            let starts = gpu.upload(&[0, 3]).unwrap();
            let out = gpu.room(1, 1, Element::F32);
            let to = out.matrix(0, 1, 1, Element::F32);
            let starts = starts.view(0, 2);
            for hidden in [f32::NAN, f32::INFINITY] {
                let tokens = gpu.upload(&[1.0, hidden, 4.0]).unwrap();
                let tokens = tokens.matrix(0, 3, 1, Element::F32);
                let poolings = [Pooling::Mean, Pooling::Max, Pooling::WeightedMean, Pooling::MeanSqrtLength];
                for pooling in poolings {
                    pool(gpu, PoolMatrices { tokens, starts: Some(starts), out: to, place: 0 }, pooling, Length::Kept)
                        .unwrap();
                    assert!(!gpu.download(to, &out)[0].is_finite(), "{pooling:?} of {hidden}");
                }
                keep_greatest(gpu, tokens, 0, starts, to).unwrap();
                assert!(!gpu.download(to, &out)[0].is_finite(), "the greatest of {hidden}");
            }
        });
    }

    #[test]
    fn the_greatest_of_rows_that_come_in_several_calls_are_kept_by_sequence() {
        each_gpu(|gpu| {
            let (columns, lengths) = (130, [3, 1, 4]);
            let rows: Vec<f32> = (0..8 * columns).map(|at| (at * 37 % 101) as f32 / 25.0 - 3.0).collect();
            let starts = gpu.upload(&[0, 3, 4, 8]).unwrap();
            let out = gpu.room(3, columns, Element::F32);
            let to = out.matrix(0, 3, columns, Element::F32);
            for count in [1, 3, 8] {
                for (call, some) in rows.chunks(count * columns).enumerate() {
                    let on_gpu = gpu.upload(some).unwrap();
                    let some = on_gpu.matrix(0, some.len() / columns, columns, Element::F32);
                    keep_greatest(gpu, some, call * count, starts.view(0, 4), to).unwrap();
                    gpu.wait().unwrap();
                }
                let expected = rows_of(&lengths).flat_map(|tokens| {
                    let rows = &rows;
                    let greatest = move |column| {
                        let of_row = |row: usize| f64::from(rows[row * columns + column]);
                        tokens.clone().map(of_row).fold(0.0, f64::max)
                    };
                    (0..columns).map(greatest)
                });
                let expected: Vec<f64> = expected.collect();
                assert_near(&gpu.download(to, &out), &expected, Element::F32, &(gpu, count));
            }
            assert!(keep_greatest(gpu, to, 0, starts.view(0, 3), to).is_err());
        });
    }

    #[test]
    fn zeros_stay_zeros_and_shapes_that_do_not_fit_are_refused() {
        each_gpu(|gpu| {
            let (tokens, starts) = (gpu.upload(&[0.0_f32; 40]).unwrap(), gpu.upload(&[0, 2]).unwrap());
            let out = gpu.room(1, 20, Element::F32);
            let (tokens, to) = (tokens.matrix(0, 2, 20, Element::F32), out.matrix(0, 1, 20, Element::F32));
            let run = |starts, out| {
                pool(gpu, PoolMatrices { tokens, starts: Some(starts), out, place: 0 }, Pooling::Mean, Length::One)
            };
            run(starts.view(0, 2), to).unwrap();
            assert!(gpu.download(to, &out).iter().all(|x| *x == 0.0));
            assert!(run(starts.view(0, 1), to).is_err());
            assert!(run(starts.view(0, 2), out.matrix(0, 1, 20, Element::F16)).is_err());
        });
    }
}
