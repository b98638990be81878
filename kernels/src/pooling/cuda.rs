//! The launch of `pooling.cu`.

use super::Pooling;
use crate::KernelError;
use crate::cuda::{Gpu, LaunchShape, Matrix, View, int, mismatch};

/// Length of a pooled vector: left as it is, or made 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    Kept,
    /// Scaled to 1; a vector of zeros stays zeros.
    One,
}

/// Pools each sequence into a row of `out`, which is f32; a sequence without tokens gives zeros. `starts` has one number
/// more than there are sequences; the caller ensures that they rise and end within `tokens`.
///
/// # Errors
/// If the shapes do not fit together.
pub(crate) fn pool(
    gpu: &Gpu,
    tokens: Matrix<'_>,
    starts: View<'_, i32>,
    pooling: Pooling,
    length: Length,
    out: Matrix<'_>,
) -> Result<(), KernelError> {
    let columns = tokens.columns();
    if out.floats().is_none() || out.columns() != columns || starts.len() != out.rows() + 1 {
        return Err(mismatch(format!("pooling of {tokens:?} at {} places into {out:?}", starts.len())));
    }
    let pooling = match pooling {
        Pooling::Mean => 0,
        Pooling::Cls => 1,
        other => return Err(mismatch(format!("{other:?} pooling on CUDA, which has Mean and Cls"))),
    };
    let arguments = [
        tokens.pointer().into(),
        starts.pointer().into(),
        out.pointer().into(),
        int(columns)?.into(),
        pooling.into(),
        i32::from(length == Length::One).into(),
    ];
    let shape = LaunchShape::row_by_row(out.rows(), columns)?;
    // SAFETY: the parameters of `pooling_*`; one start per row of `out` and the end, which the caller vouches are within
    // `tokens`; a row of f32 is in shared memory.
    unsafe { gpu.launch(gpu.functions.pooling.of(tokens.element()), shape, arguments) }
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
            let known = cases().filter(|case| [Pooling::Mean, Pooling::Cls].contains(&case.pooling));
            for (case, element) in known.flat_map(|case| Element::ALL.map(|element| (case.clone(), element))) {
                let Case { columns, lengths, tokens, pooling } = case;
                let (count, tokens) = (tokens.len() / columns, rounded(element, &tokens));
                let starts = std::iter::once(0).chain(rows_of(&lengths).map(|rows| int(rows.end).unwrap()));
                let starts = gpu.upload(&starts.collect::<Vec<i32>>()).unwrap();
                let (on_tokens, out) =
                    (gpu.upload_as(element, &tokens).unwrap(), gpu.room(lengths.len(), columns, Element::F32));
                let matrix = out.matrix(0, lengths.len(), columns, Element::F32);
                for length in [Length::Kept, Length::One] {
                    let on_tokens = on_tokens.matrix(0, count, columns, element);
                    pool(gpu, on_tokens, starts.view(0, lengths.len() + 1), pooling, length, matrix).unwrap();
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
            for pooling in [Pooling::Mean, Pooling::Cls] {
                pool(gpu, tokens, starts.view(0, 4), pooling, Length::Kept, to).unwrap();
                let expected = [0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0].map(f32::to_bits);
                assert_eq!(gpu.download(to, &out).iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected);
            }
        });
    }

    #[test]
    fn zeros_stay_zeros_and_shapes_that_do_not_fit_are_refused() {
        each_gpu(|gpu| {
            let (tokens, starts) = (gpu.upload(&[0.0_f32; 40]).unwrap(), gpu.upload(&[0, 2]).unwrap());
            let out = gpu.room(1, 20, Element::F32);
            let (tokens, to) = (tokens.matrix(0, 2, 20, Element::F32), out.matrix(0, 1, 20, Element::F32));
            pool(gpu, tokens, starts.view(0, 2), Pooling::Mean, Length::One, to).unwrap();
            assert!(gpu.download(to, &out).iter().all(|x| *x == 0.0));
            assert!(pool(gpu, tokens, starts.view(0, 1), Pooling::Mean, Length::One, to).is_err());
            let narrow = out.matrix(0, 1, 20, Element::F16);
            assert!(pool(gpu, tokens, starts.view(0, 2), Pooling::Mean, Length::One, narrow).is_err());
        });
    }
}
