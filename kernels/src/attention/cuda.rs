//! The launch of `attention.cu`.

use super::AttentionHeads;
use crate::KernelError;
use crate::cuda::{Element, Gpu, LaunchShape, Matrix, View, dimension, int, mismatch};
use crate::encoder::Mask;
use crate::residual_norm::cuda::{DeviceNorm, norm_arguments};

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

/// The heads of a block, with the norms of queries and keys in a device's memory.
#[derive(Debug)]
pub(crate) struct DeviceHeads {
    /// Without the norms.
    heads: AttentionHeads,
    norms: Option<[DeviceNorm; 2]>,
}

impl DeviceHeads {
    /// Copies the norms to the device.
    ///
    /// # Errors
    /// If the device has no room.
    pub(crate) fn new(gpu: &Gpu, mut heads: AttentionHeads) -> Result<Self, KernelError> {
        let norms = match heads.norms.take() {
            Some([query, key]) => Some([DeviceNorm::new(gpu, &query)?, DeviceNorm::new(gpu, &key)?]),
            None => None,
        };
        Ok(Self { heads, norms })
    }

    pub(crate) fn heads(&self) -> &AttentionHeads {
        &self.heads
    }

    /// True if [`prepare`] must change queries and keys before [`attention`].
    pub(crate) fn prepares(&self) -> bool {
        self.heads.rotation.is_some() || self.norms.is_some()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.norms.iter().flatten().map(DeviceNorm::bytes).sum()
    }
}

/// Biases of scores by distance: `[heads, row]`, the distance 0 in the middle of a row, keys behind the query after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BiasTable<'a> {
    pub(crate) values: View<'a, f32>,
    /// Numbers of a row.
    pub(crate) row: usize,
}

/// Inputs and output of [`attention`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionMatrices<'a> {
    /// `[tokens, queries + 2·keys, size]`: the heads of the query, then those of the key, then those of the value.
    pub(crate) packed: Matrix<'a>,
    /// Added to each row of `packed`.
    pub(crate) bias: Option<View<'a, f32>>,
    /// The numbers of [`tiles`] for the path, [`TILE`] per block.
    pub(crate) tiles: View<'a, i32>,
    /// Reaches to the longest sequence.
    pub(crate) biases: Option<BiasTable<'a>>,
    /// `[tokens, queries, size]`
    pub(crate) out: Matrix<'a>,
}

/// A number of tokens that no sequence has, small enough that a position plus it is a 32-bit number.
const EVERY: i32 = 1 << 30;

/// Number of keys before and behind itself that a query sees.
fn seen(mask: Mask) -> (i32, i32) {
    match mask {
        Mask::Full => (EVERY, EVERY),
        Mask::Causal => (EVERY, 0),
        Mask::Window(most) => {
            let most = i32::try_from(most).map_or(EVERY, |most| most.min(EVERY));
            (most, most)
        }
    }
}

/// Attention within each sequence.
///
/// # Errors
/// If the shapes do not fit together, or the device has no such path for the element.
pub(crate) fn attention(
    gpu: &Gpu,
    heads: &AttentionHeads,
    matrices: AttentionMatrices<'_>,
    path: Path,
) -> Result<(), KernelError> {
    let AttentionMatrices { packed, bias, tiles, biases, out } = matrices;
    let AttentionHeads { queries, keys, size, mask, .. } = *heads;
    let (tokens, _, element) = out.shape();
    let columns = heads.packed_columns();
    let fits = packed.shape() == (tokens, columns, element) && out.columns() == heads.columns();
    let biases_fit = biases.is_none_or(|biases| biases.values.len() == queries * biases.row);
    let shared = keys > 0 && size > 0 && queries.is_multiple_of(keys) && queries > 0;
    let bias_fits = bias.is_none_or(|bias| bias.len() == columns);
    if !(fits && shared && biases_fit && bias_fits && tiles.len().is_multiple_of(TILE)) {
        return Err(mismatch(format!("attention of {heads:?}: {matrices:?}")));
    }
    let functions = match (path, mask != Mask::Full || biases.is_some()) {
        (Path::Plain, false) => Some(gpu.functions.attention_plain),
        (Path::Plain, true) => Some(gpu.functions.attention_plain_by_distance),
        (Path::Mma, false) => gpu.functions.attention_mma,
        (Path::Mma, true) => gpu.functions.attention_mma_by_distance,
    };
    let has_path = path == Path::Plain || (element != Element::F32 && size.is_multiple_of(2));
    let Some(functions) = functions.as_ref().filter(|_| has_path).and_then(|functions| functions.of(size)) else {
        return Err(mismatch(format!("no attention by {path:?} for {element:?} and heads of {size} on this device")));
    };
    let (before, after) = seen(mask);
    let arguments = [
        packed.pointer().into(),
        bias.map_or(0, |bias| bias.pointer()).into(),
        tiles.pointer().into(),
        out.pointer().into(),
        int(queries)?.into(),
        int(keys)?.into(),
        int(size)?.into(),
        before.into(),
        after.into(),
        biases.map_or(0, |biases| biases.values.pointer()).into(),
        int(biases.map_or(0, |biases| biases.row))?.into(),
    ];
    let shape = LaunchShape { grid: [dimension(tiles.len() / TILE)?, dimension(queries)?], block: 128, shared: 0 };
    // SAFETY: the parameters of `attention_*`, for heads of at most the width in its name; the caller vouches that the
    // tiles lie within the matrices and the biases reach to the longest sequence.
    unsafe { gpu.launch(functions.of(element), shape, arguments) }
}

/// Heads per block of `attention_prepare_*`.
const PREPARED_HEADS: usize = 4;

/// Adds `bias` to query, key and value in place; then each head of query and key goes through its norm and is rotated by
/// its position. `positions` are those of the tokens in their sequences; `rotation` has a row of `size` for each
/// position: the cosines of half the elements, then the sines.
///
/// # Errors
/// If the shapes do not fit together.
pub(crate) fn prepare(
    gpu: &Gpu,
    heads: &DeviceHeads,
    packed: Matrix<'_>,
    bias: Option<View<'_, f32>>,
    positions: View<'_, i32>,
    rotation: Option<View<'_, f32>>,
) -> Result<(), KernelError> {
    let AttentionHeads { queries, keys, size, .. } = heads.heads;
    let columns = heads.heads.packed_columns();
    let fits = packed.columns() == columns && positions.len() == packed.rows();
    let rotates = rotation.is_none_or(|rotation| size.is_multiple_of(2) && rotation.len().is_multiple_of(size));
    let norms = heads.norms.as_ref();
    let norms_fit = norms.is_none_or(|norms| norms.iter().all(|norm| norm.columns() == size));
    if !(fits && rotates && norms_fit && (1..=MAX_HEAD_SIZE).contains(&size))
        || bias.is_some_and(|bias| bias.len() != columns)
    {
        return Err(mismatch(format!("preparation of {heads:?} in {packed:?}, bias {bias:?}, rotation {rotation:?}")));
    }
    let [kind, query_weight, query_bias, query_eps] = norm_arguments(norms.map(|[query, _]| query));
    let [_, key_weight, key_bias, key_eps] = norm_arguments(norms.map(|[_, key]| key));
    let arguments = [
        packed.pointer().into(),
        bias.map_or(0, |bias| bias.pointer()).into(),
        positions.pointer().into(),
        rotation.map_or(0, |rotation| rotation.pointer()).into(),
        kind,
        query_weight,
        query_bias,
        query_eps,
        key_weight,
        key_bias,
        key_eps,
        int(queries)?.into(),
        int(keys)?.into(),
        int(size)?.into(),
    ];
    // Values change by the bias alone.
    let changed = queries + if bias.is_some() { 2 * keys } else { keys };
    let grid = [dimension(packed.rows())?, dimension(changed.div_ceil(PREPARED_HEADS))?];
    let shape = LaunchShape { grid, block: 128, shared: 0 };
    // SAFETY: the parameters of `attention_prepare_*`; the matrix has a column for each element of each head; the caller
    // vouches that the rotation has a row for each position.
    unsafe { gpu.launch(gpu.functions.attention_prepare.of(packed.element()), shape, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::cases::{Case, TOLERANCE, cases, huge_scores, numbers};
    use crate::attention::reference::biased_attention;
    use crate::cuda::Buffer;
    use crate::cuda::tests::{assert_near, assert_within, each_gpu, rounded, tolerance};
    use crate::encoder::rows_of;
    use crate::residual_norm::{LayerNorm, RmsNorm, RowNorm, reference};

    fn on_tiles(gpu: &Gpu, lengths: &[usize], path: Path) -> (Buffer, usize) {
        let numbers: Vec<i32> = tiles(lengths, path.queries()).flatten().map(|number| int(number).unwrap()).collect();
        (gpu.upload(&numbers).unwrap(), numbers.len())
    }

    fn run(gpu: &Gpu, case: &Case, packed: &[f32], bias: Option<&[f32]>, element: Element, path: Path) -> Vec<f32> {
        let (tokens, hidden) = (case.tokens(), case.hidden());
        let (on_packed, (tiles, count)) = (gpu.upload_as(element, packed).unwrap(), on_tiles(gpu, &case.lengths, path));
        let on_bias = bias.map(|bias| gpu.upload(bias).unwrap());
        let out = gpu.room(tokens, hidden, element);
        let to = out.matrix(0, tokens, hidden, element);
        let matrices = AttentionMatrices {
            packed: on_packed.matrix(0, tokens, 3 * hidden, element),
            bias: on_bias.as_ref().map(|bias| bias.view(0, 3 * hidden)),
            tiles: tiles.view(0, count),
            biases: None,
            out: to,
        };
        attention(gpu, &AttentionHeads::full(case.heads, case.size), matrices, path).unwrap();
        gpu.download(to, &out)
    }

    #[test]
    fn masks_biases_by_distance_and_shared_keys_agree_with_the_reference() {
        let (lengths, queries, longest) = ([5, 1, 150, 40], 4, 150);
        let tokens: usize = lengths.iter().sum();
        let table = numbers(3, queries * (2 * longest - 1), 2.0);
        let masks =
            [Mask::Full, Mask::Causal, Mask::Window(0), Mask::Window(7), Mask::Window(70), Mask::Window(usize::MAX)];
        each_gpu(|gpu| {
            let on_table = gpu.upload(&table).unwrap();
            let biases = BiasTable { values: on_table.view(0, table.len()), row: 2 * longest - 1 };
            for ((index, mask), element) in
                masks.iter().enumerate().flat_map(|mask| Element::ALL.map(|element| (mask, element)))
            {
                let (keys, size) = [(4, 8_usize), (2, 33), (1, 20)][index % 3];
                let size = if element == Element::F32 { size } else { size.next_multiple_of(2) };
                let has_bias = index % 2 == 0;
                let heads = AttentionHeads { keys, mask: *mask, ..AttentionHeads::full(queries, size) };
                let columns = heads.packed_columns();
                let packed = rounded(element, &numbers(7, tokens * columns, 1.5));
                let mut expected = vec![0.0; tokens * heads.columns()];
                for (rows, head) in
                    rows_of(&lengths).flat_map(|rows| (0..queries).map(move |head| (rows.clone(), head)))
                {
                    let shared = head / (queries / keys);
                    let column = |head: usize| -> Vec<f32> {
                        let packed = packed[rows.start * columns..rows.end * columns].chunks_exact(columns);
                        packed.flat_map(|row| row[head * size..][..size].to_vec()).collect()
                    };
                    let bias = |query: usize, key: usize| {
                        let distance = key.cast_signed() - query.cast_signed();
                        let sees = match mask {
                            Mask::Full => true,
                            Mask::Causal => distance <= 0,
                            Mask::Window(most) => distance.unsigned_abs() <= *most,
                        };
                        let at = head * (2 * longest - 1) + longest - 1;
                        let bias = if has_bias { table[at.checked_add_signed(distance).unwrap()] } else { 0.0 };
                        sees.then_some(f64::from(bias))
                    };
                    let (query, key) = (column(head), column(queries + shared));
                    let mixed = biased_attention(&query, &key, &column(queries + keys + shared), size, &bias);
                    for (row, mixed) in rows.clone().zip(mixed.chunks_exact(size)) {
                        expected[row * heads.columns() + head * size..][..size].copy_from_slice(mixed);
                    }
                }
                let on_packed = gpu.upload_as(element, &packed).unwrap();
                let out = gpu.room(tokens, heads.columns(), element);
                let to = out.matrix(0, tokens, heads.columns(), element);
                for path in paths(gpu, element, size) {
                    let (tiles, count) = on_tiles(gpu, &lengths, path);
                    let matrices = AttentionMatrices {
                        packed: on_packed.matrix(0, tokens, columns, element),
                        bias: None,
                        tiles: tiles.view(0, count),
                        biases: has_bias.then_some(biases),
                        out: to,
                    };
                    attention(gpu, &heads, matrices, path).unwrap();
                    let what = (gpu, element, path, mask, keys, size);
                    assert_within(&gpu.download(to, &out), &expected, TOLERANCE.max(tolerance(element)), &what);
                }
            }
        });
    }

    #[test]
    fn queries_and_keys_are_normalised_and_rotated_by_head_and_the_bias_reaches_the_values() {
        let (queries, keys, positions) = (3, 1, [0, 1, 2, 0, 1]);
        each_gpu(|gpu| {
            let on_positions = gpu.upload(&positions).unwrap();
            for (size, element) in
                [1, 2, 7, 32, 34, 66, 128].into_iter().flat_map(|size| Element::ALL.map(|element| (size, element)))
            {
                let weights = [1, 2].map(|seed| numbers(seed, size, 1.0));
                let layer = weights
                    .clone()
                    .map(|weight| RowNorm::from(LayerNorm::new(weight, numbers(9, size, 1.0), 1e-3).unwrap()));
                let rms = weights.clone().map(|weight| RowNorm::Rms(RmsNorm::new(weight, 1e-3).unwrap()));
                let all_norms = [None, Some(layer), Some(rms)];
                let angles = size.is_multiple_of(2).then(|| numbers(5, 3 * size, 1.0));
                for (norms, rotation) in
                    all_norms.into_iter().flat_map(|norms| [(norms.clone(), None), (norms, angles.as_ref())])
                {
                    let heads = AttentionHeads { keys, norms, ..AttentionHeads::full(queries, size) };
                    let columns = heads.packed_columns();
                    let x = rounded(element, &numbers(6, positions.len() * columns, 2.0));
                    for bias in [None, Some(numbers(8, columns, 1.0))] {
                        let mut expected = Vec::new();
                        for (row, position) in x.chunks_exact(columns).zip(positions) {
                            for (head, row) in row.chunks_exact(size).enumerate() {
                                let added = |(at, x): (usize, &f32)| {
                                    x + bias.as_ref().map_or(0.0, |bias| bias[head * size + at])
                                };
                                let row: Vec<f32> = row.iter().enumerate().map(added).collect();
                                let is_value = head >= queries + keys;
                                let weight = &weights[usize::from(head >= queries)];
                                let normed = match heads.norms.as_ref().filter(|_| !is_value) {
                                    None => row.iter().map(|x| f64::from(*x)).collect(),
                                    Some([RowNorm::Rms(_), _]) => reference::rms_norm(&row, weight, 1e-3),
                                    Some([RowNorm::Layer(_), _]) => {
                                        let zeros = vec![0.0; size];
                                        reference::residual_norm(&row, &zeros, weight, &numbers(9, size, 1.0), 1e-3)
                                    }
                                };
                                let half = size / 2;
                                let turned = |at: usize| match rotation.filter(|_| !is_value) {
                                    None => normed[at],
                                    Some(angles) => {
                                        let row = &angles[usize::try_from(position).unwrap() * size..][..size];
                                        let (cosine, sine) =
                                            (f64::from(row[at % half]), f64::from(row[half + at % half]));
                                        let (a, b) = (normed[at % half], normed[half + at % half]);
                                        if at < half { a * cosine - b * sine } else { b * cosine + a * sine }
                                    }
                                };
                                expected.extend((0..size).map(turned));
                            }
                        }
                        let device_heads = DeviceHeads::new(gpu, heads.clone()).unwrap();
                        let on_x = gpu.upload_as(element, &x).unwrap();
                        let matrix = on_x.matrix(0, positions.len(), columns, element);
                        let on_bias = bias.as_ref().map(|bias| gpu.upload(bias).unwrap());
                        let bias = on_bias.as_ref().map(|bias| bias.view(0, columns));
                        let on_rotation = rotation.map(|rotation| gpu.upload(rotation).unwrap());
                        let turns = on_rotation.as_ref().map(|rotation| rotation.view(0, 3 * size));
                        prepare(gpu, &device_heads, matrix, bias, on_positions.view(0, 5), turns).unwrap();
                        let what = (gpu, size, &device_heads, rotation.is_some(), bias.is_some());
                        assert_near(&gpu.download(matrix, &on_x), &expected, element, &what);
                        assert!(prepare(gpu, &device_heads, matrix, bias, on_positions.view(0, 4), turns).is_err());
                    }
                }
            }
        });
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
            let with = |from, to, heads: &AttentionHeads, path| {
                let matrices =
                    AttentionMatrices { packed: from, bias: None, tiles: numbers.view(0, 3), biases: None, out: to };
                attention(gpu, heads, matrices, path)
            };
            let run = |from, to, heads, size, path| with(from, to, &AttentionHeads::full(heads, size), path);
            assert!(run(matrix(24), matrix(8), 0, 8, Path::Plain).is_err());
            assert!(run(matrix(24), matrix(8), 3, 2, Path::Plain).is_err());
            assert!(run(matrix(23), matrix(8), 2, 4, Path::Plain).is_err());
            assert!(run(matrix(24), matrix(8), 2, 4, Path::Mma).is_err(), "f32 has no such path");
            let shared = AttentionHeads { keys: 2, ..AttentionHeads::full(3, 2) };
            assert!(with(matrix(14), matrix(6), &shared, Path::Plain).is_err());
            assert!(Path::best(gpu, Element::F32, 129).is_err() && Path::best(gpu, Element::F16, 0).is_err());
        });
    }
}
