//! The launch of `attention.cu`.

use crate::KernelError;
use crate::cuda::{Element, Gpu, LaunchShape, Matrix, View, int, mismatch};

/// Arithmetic by which scores and sums are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// Ordinary arithmetic in f32.
    Plain,
    /// Tensor cores, from f16 or bf16.
    Mma,
}

/// Elements of the largest head; `ByWidth::WIDTHS` ends with it.
pub(crate) const MAX_HEAD_SIZE: usize = 128;

impl Path {
    /// The fastest path that the device has for heads of `size` elements.
    ///
    /// # Errors
    /// If `size` is 0 or larger than any kernel takes.
    pub(crate) fn best(gpu: &Gpu, element: Element, size: usize) -> Result<Self, KernelError> {
        if size == 0 || size > MAX_HEAD_SIZE {
            return Err(mismatch(format!("heads of {size}; a GPU's attention takes 1 to {MAX_HEAD_SIZE}")));
        }
        let tensor_cores = element != Element::F32 && gpu.functions.attention_mma.is_some() && size.is_multiple_of(2);
        Ok(if tensor_cores { Self::Mma } else { Self::Plain })
    }

    /// Queries per block.
    pub(crate) fn queries(self) -> usize {
        match self {
            Self::Plain => 16,
            Self::Mma => 64,
        }
    }
}

/// Numbers per tile.
pub(crate) const TILE: usize = 3;

/// The tiles of a batch, one per block: first token of the sequence, its length, and the block's first query.
pub(crate) fn tiles(lengths: &[usize], queries: usize) -> impl Iterator<Item = [usize; TILE]> + '_ {
    let starts = lengths.iter().scan(0, |end, length| Some(std::mem::replace(end, *end + length)));
    starts
        .zip(lengths)
        .flat_map(move |(start, length)| (0..*length).step_by(queries).map(move |query| [start, *length, query]))
}

/// Attention within each sequence, from `[tokens, 3, heads, size]` to `[tokens, heads, size]`, with `bias` added to the
/// former if there is one. `tiles` are the numbers of [`tiles`] for the path, [`TILE`] per block.
///
/// # Errors
/// If the shapes do not fit together, or the device has no such path for the element.
pub(crate) fn attention(
    gpu: &Gpu,
    query_key_value: Matrix<'_>,
    bias: Option<View<'_, f32>>,
    tiles: View<'_, i32>,
    heads: usize,
    out: Matrix<'_>,
    path: Path,
) -> Result<(), KernelError> {
    let (tokens, hidden, element) = out.shape();
    let fits = query_key_value.shape() == (tokens, 3 * hidden, element) && tiles.len().is_multiple_of(TILE);
    let bias_fits = bias.is_none_or(|bias| bias.len() == 3 * hidden);
    if !fits || !bias_fits || heads == 0 || !hidden.is_multiple_of(heads) {
        let what = format!("attention of {heads} heads from {query_key_value:?} into {out:?}, bias {bias:?}");
        return Err(mismatch(what));
    }
    let size = hidden / heads;
    let functions = match path {
        Path::Plain => Some(gpu.functions.attention_plain),
        Path::Mma => gpu.functions.attention_mma.filter(|_| element != Element::F32 && size.is_multiple_of(2)),
    };
    let Some(functions) = functions.as_ref().and_then(|functions| functions.of(size)) else {
        return Err(mismatch(format!("no attention by {path:?} for {element:?} and heads of {size} on this device")));
    };
    let arguments = [
        query_key_value.pointer().into(),
        bias.map_or(0, |bias| bias.pointer()).into(),
        tiles.pointer().into(),
        out.pointer().into(),
        int(heads)?.into(),
        int(size)?.into(),
    ];
    let grid = [int(tiles.len() / TILE)?.unsigned_abs(), int(heads)?.unsigned_abs()];
    let shape = LaunchShape { grid, block: 128, shared: 0 };
    // SAFETY: the parameters of `attention_*`, for heads of at most the width in its name; the caller vouches that the
    // tiles lie within the matrices.
    unsafe { gpu.launch(functions.of(element), shape, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::cases::{Case, TOLERANCE, cases, huge_scores};
    use crate::cuda::tests::{assert_within, each_gpu, rounded, tolerance};

    fn run(gpu: &Gpu, case: &Case, packed: &[f32], bias: Option<&[f32]>, element: Element, path: Path) -> Vec<f32> {
        let (tokens, hidden) = (case.tokens(), case.hidden());
        let numbers: Vec<i32> =
            tiles(&case.lengths, path.queries()).flatten().map(|number| int(number).unwrap()).collect();
        let (on_packed, on_tiles) = (gpu.upload_as(element, packed).unwrap(), gpu.upload(&numbers).unwrap());
        let on_bias = bias.map(|bias| gpu.upload(bias).unwrap());
        let bias = on_bias.as_ref().map(|bias| bias.view(0, 3 * hidden));
        let out = gpu.room(tokens, hidden, element);
        let (from, to) = (on_packed.matrix(0, tokens, 3 * hidden, element), out.matrix(0, tokens, hidden, element));
        attention(gpu, from, bias, on_tiles.view(0, numbers.len()), case.heads, to, path).unwrap();
        gpu.download(to, &out)
    }

    /// The paths that the device has for this element and head size.
    fn paths(gpu: &Gpu, element: Element, size: usize) -> Vec<Path> {
        let best = Path::best(gpu, element, size).unwrap();
        if best == Path::Mma { vec![Path::Plain, Path::Mma] } else { vec![Path::Plain] }
    }

    #[test]
    fn every_version_element_and_path_agrees_with_the_reference_at_every_length_and_head_size() {
        each_gpu(|gpu| {
            for (case, element) in cases().flat_map(|case| Element::ALL.map(|element| (case.clone(), element))) {
                let packed = rounded(element, &case.packed);
                let expected = case.expected(&packed);
                for path in paths(gpu, element, case.size) {
                    let got = run(gpu, &case, &packed, None, element, path);
                    let what = (gpu, element, path, &case.lengths, case.heads, case.size);
                    assert_within(&got, &expected, TOLERANCE.max(tolerance(element)), &what);
                }
            }
        });
    }

    #[test]
    fn a_bias_is_added_to_query_key_and_value() {
        each_gpu(|gpu| {
            let case = cases().find(|case| case.lengths.len() > 1).unwrap();
            let columns = 3 * case.hidden();
            let bias: Vec<f32> = (0..columns).map(|column| (column % 7) as f32 / 8.0 - 0.375).collect();
            let sum: Vec<f32> = case.packed.iter().enumerate().map(|(at, x)| x + bias[at % columns]).collect();
            let expected = case.expected(&sum);
            let got = run(gpu, &case, &case.packed, Some(&bias), Element::F32, Path::Plain);
            assert_within(&got, &expected, TOLERANCE, &gpu);
            for (element, path) in [Element::F16, Element::Bf16]
                .into_iter()
                .flat_map(|element| paths(gpu, element, case.size).into_iter().map(move |path| (element, path)))
            {
                let packed = rounded(element, &case.packed);
                let sum: Vec<f32> = packed.iter().enumerate().map(|(at, x)| x + bias[at % columns]).collect();
                // Tensor cores multiply the sum rounded once more.
                let sum = if path == Path::Mma { rounded(element, &sum) } else { sum };
                let got = run(gpu, &case, &packed, Some(&bias), element, path);
                assert_within(&got, &case.expected(&sum), tolerance(element), &(gpu, element, path));
            }
        });
    }

    #[test]
    fn huge_scores_neither_overflow_nor_vanish() {
        each_gpu(|gpu| {
            let case = huge_scores();
            for element in Element::ALL {
                for path in paths(gpu, element, case.size) {
                    let got = run(gpu, &case, &case.packed, None, element, path);
                    let fine = |row: &[f32]| (row[0] - 290.0).abs() < 1e-3 && row[1..].iter().all(|x| *x == 0.0);
                    assert!(got.chunks_exact(8).all(fine), "{gpu:?} {element:?} {path:?}: {:?}", &got[..8]);
                }
            }
        });
    }

    #[test]
    fn a_sequence_gives_the_same_bits_alone_and_beside_others() {
        each_gpu(|gpu| {
            let case = cases().find(|case| case.lengths.len() > 1).unwrap();
            for element in Element::ALL {
                for path in paths(gpu, element, case.size) {
                    let together = run(gpu, &case, &case.packed, None, element, path);
                    let mut first = 0;
                    for length in &case.lengths {
                        let (from, columns) = (first * case.hidden(), *length * case.hidden());
                        let alone = Case { lengths: vec![*length], ..case.clone() };
                        let packed = &case.packed[3 * from..3 * (from + columns)];
                        let got = run(gpu, &alone, packed, None, element, path);
                        let same = got.iter().zip(&together[from..]).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(got.len() == columns && same, "{gpu:?} {element:?} {path:?} {length}");
                        first += length;
                    }
                }
            }
        });
    }

    #[test]
    fn tiles_cover_each_sequence_and_nothing_else() {
        let got: Vec<_> = tiles(&[1, 33, 16], 16).collect();
        assert_eq!(got, [[0, 1, 0], [1, 33, 0], [1, 33, 16], [1, 33, 32], [34, 16, 0]]);
        assert_eq!(tiles(&[], 16).count(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        each_gpu(|gpu| {
            let (packed, numbers) = (gpu.room(2, 24, Element::F32), gpu.upload(&[0, 2, 0]).unwrap());
            let matrix = |columns| packed.matrix(0, 2, columns, Element::F32);
            let run = |from, to, heads, path| attention(gpu, from, None, numbers.view(0, 3), heads, to, path);
            assert!(run(matrix(24), matrix(8), 0, Path::Plain).is_err());
            assert!(run(matrix(24), matrix(8), 3, Path::Plain).is_err());
            assert!(run(matrix(23), matrix(8), 2, Path::Plain).is_err());
            assert!(run(matrix(24), matrix(8), 2, Path::Mma).is_err(), "f32 has no such path");
            assert!(Path::best(gpu, Element::F32, 129).is_err() && Path::best(gpu, Element::F16, 0).is_err());
        });
    }
}
